//! The command line of all studies: arguments that they share, and those that one of them has.

use crate::scenario::Scenario;
use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser,
    error::ErrorKind, value_parser,
};
use std::{path::PathBuf, time::Duration};

const EXIT_STATUS: &str = "\
Exit status:
  0  every accepted order ended as its scenario expects, and all sums add up; no figure fails a run
  1  a result is broken: something was lost, compensated needlessly, or does not add up
  2  wrong usage, the system could not be started, the time limit was reached, or it was interrupted";

const BROKERS: &str = "SAGA_KAFKA_BROKERS";
const POSTGRES: &str = "SAGA_POSTGRES_URL";
const OUT: &str = "target/bench";

/// Measures the real services, each as a process of its own, on a real Kafka and a real Postgres.
#[derive(Clone, Debug, Parser)]
#[command(name = "saga-bench", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    One(Study),

    /// Performs all studies, one after the other: run, scale, history, backlog, soak. About three hours.
    ///
    /// Each study has its own default settings, and its own directory below --out. Options that are given apply to each
    /// of them, the time limit, too. The tables of all of them are in bench.md. Given servers (--postgres-url,
    /// --kafka-brokers) cannot hold two systems at a time, so history is left out with them.
    #[command(after_help = EXIT_STATUS)]
    All,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Study {
    Run(RunOptions),
    Scale(ScaleOptions),
    #[command(alias = "flat")]
    History(HistoryOptions),
    #[command(alias = "crowd")]
    Backlog(BacklogOptions),
    Soak(SoakOptions),
}

/// The arguments that all studies have.
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// Checks in minutes instead of hours only that the results are right, not how fast they come. CI runs this
    #[arg(long, global = true)]
    pub smoke: bool,

    /// How long each stage is measured; if not given: 10, 8 for scale, 20 for the closed loop of soak. One stage of each
    /// system of scale takes four times as long
    #[arg(long, global = true, value_name = "SECONDS", value_parser = at_least(1, DAY_SECONDS))]
    pub seconds: Option<u64>,

    /// How long each stage runs before it is measured; if not given: 3, 4 for scale, 10 for soak
    #[arg(long, global = true, value_name = "SECONDS", value_parser = at_least(0, DAY_SECONDS))]
    pub warm_up: Option<u64>,

    /// How long the idle system is measured by run and backlog: at five orders a second, percentiles need time
    #[arg(long, global = true, default_value_t = 40, value_name = "SECONDS", value_parser = at_least(1, DAY_SECONDS))]
    pub idle_seconds: u64,

    /// Orders in flight in closed loops; run takes a list, and looks for saturation. If not given:
    /// 500,1000,2000,4000,8000 for run, 1000 for backlog, otherwise 2000
    #[arg(long, global = true, value_delimiter = ',', value_name = "LIST", value_parser = at_least(1, 100_000))]
    pub in_flight: Vec<u64>,

    /// Partitions of each topic; scale has its own counts
    #[arg(long, global = true, default_value_t = 2, value_name = "COUNT", value_parser = value_parser!(i32).range(1..=1_000))]
    pub partitions: i32,

    /// Seed of the random arrivals and orders
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,

    /// Use these brokers (host:port, separated by commas) instead of a private Kafka. The topics are created, and
    /// removed at the end. The start fails if one of them already has records
    #[arg(long, global = true, env = BROKERS, value_name = "LIST")]
    pub kafka_brokers: Option<String>,

    /// Use this Postgres instead of a private one: a superuser's URL. The databases are created, and removed at the
    /// end. The start fails, without touching it, if one of them already exists
    #[arg(long, global = true, env = POSTGRES, value_name = "URL", hide_env_values = true)]
    pub postgres_url: Option<String>,

    /// Setting of the private Postgres, over the bench's own. May be given several times
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = setting)]
    pub postgres_set: Vec<(String, String)>,

    /// Broker property of the private Kafka, over its own. May be given several times
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = setting)]
    pub kafka_set: Vec<(String, String)>,

    /// Directory for the data of the private servers while they run; a new one below the temporary directory if not
    /// given. It should be on the disk that is to be measured
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory for results and logs
    #[arg(long, global = true, value_name = "DIR", default_value = OUT)]
    pub out: PathBuf,

    /// The time after which everything is stopped and the study has failed. If not given: an hour, two for history and
    /// backlog, an hour more than its minutes for soak, twenty minutes with --smoke
    #[arg(long, global = true, value_name = "MINUTES", value_parser = at_least(1, 20_160))]
    pub time_limit: Option<u64>,
}

/// Starts everything, measures the scenarios, checks that nothing was lost, and writes the results.
///
/// For each scenario: saturation (closed loop with more and more orders in flight, until throughput no longer rises),
/// then latency in an open loop at fixed rates. Nothing else should run on the machine; the CPU time that other
/// processes took is measured and reported.
///
/// Services read their own environment variables here, too: ORDER_SVC__INTAKE__WINDOW_MS=1 measures with that setting.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct RunOptions {
    /// Only these scenarios; all of them if not given
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    scenario: Vec<Scenario>,

    /// Open-loop rates, in orders a second, beside 30 % and 70 % of saturation and idle
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "2000", value_parser = at_least(1, u64::MAX))]
    pub rates: Vec<u64>,

    /// Do not measure the baseline
    #[arg(long, alias = "without-floor")]
    pub without_baseline: bool,
}

/// Measures how several processes of each service carry the same load, and what a saga costs by partitions and by
/// sagas.
///
/// Each count of partitions gets its own system. Copies are added while the others run. A count of copies above the
/// count of partitions is left out, since some copies would have nothing to do.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct ScaleOptions {
    /// Processes of each service
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "1,2,4", value_parser = value_parser!(i32).range(1..=1_000))]
    copies: Vec<i32>,

    /// Partitions of each topic, instead of --partitions
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "2,4,8,16", value_parser = value_parser!(i32).range(1..=1_000))]
    pub partition_counts: Vec<i32>,
}

/// Shows that speed does not depend on how many sagas have ended.
///
/// Two systems are compared, each on its own Postgres and Kafka; one of them has a history. Rounds of both are
/// interleaved, and medians of throughput and latency are compared.
///
/// History is made from real orders: their rows are copied in all tables that keep something of them. Five million
/// sagas take about 40 GB of disk while it runs.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct HistoryOptions {
    /// Ended sagas in the history of one of the systems
    #[arg(long, default_value_t = 5_000_000, value_name = "COUNT", value_parser = at_least(1, 1_000_000_000))]
    pub history: u64,

    /// Days over which they ended; within the retention of thirty
    #[arg(long, default_value_t = 21, value_name = "DAYS", value_parser = value_parser!(i64).range(1..=28))]
    pub days: i64,

    /// How often each system is measured
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = at_least(1, 1_000))]
    pub rounds: u64,
}

/// Measures what a backlog of sagas that wait for a dead participant costs other sagas, and how it drains.
///
/// payment-svc is killed, and orders are sent until this many sagas wait for it. Measured without and with the backlog:
/// sagas that do not need it (out of stock), an idle system, a restart of the orchestrator, and a takeover. Then
/// payment-svc is started again.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct BacklogOptions {
    /// Sagas that wait
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT", value_parser = at_least(1, u64::MAX))]
    pub sagas: u64,

    /// Customers who send the backlog's orders, each the next one as soon as one is answered
    #[arg(long, default_value_t = 256, value_name = "COUNT", value_parser = at_least(1, 1_000))]
    pub customers: u64,

    /// Other sagas a second while the backlog drains
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = at_least(1, u64::MAX))]
    pub trickle: u64,
}

/// Measures whether any figure drifts in a long run, and how dropping old partitions affects the load.
///
/// One closed loop finds saturation. Then orders arrive at a share of it for the minutes, and each minute is measured
/// by itself. Afterwards partitions are aged, so that retention drops them under the same load.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct SoakOptions {
    /// Duration of the soak
    #[arg(long, default_value_t = 30, value_name = "MINUTES", value_parser = at_least(1, 10_080))]
    pub minutes: u64,

    /// The share of saturation that is offered
    #[arg(long, default_value_t = 0.7, value_name = "SHARE", value_parser = share)]
    pub share: f64,

    /// Orders a second, instead of a share of saturation
    #[arg(long, value_name = "RATE", value_parser = at_least(1, 1_000_000))]
    pub rate: Option<u64>,

    /// Age no partitions, so that none are dropped
    #[arg(long)]
    pub without_retention: bool,

    /// Partitions of each table that are to be dropped under load, one a minute
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=100))]
    pub aged_partitions: u32,

    /// Rows in each of these partitions
    #[arg(long, default_value_t = 100_000, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=10_000_000))]
    pub aged_rows: u32,
}

const DAY_SECONDS: u64 = 86_400;
/// The default time limit of a study, in minutes: more than it takes on a slow machine.
const LIMIT: u64 = 60;
const LIMIT_SMOKE: u64 = 20;
/// The limit of studies that load millions of sagas, or gather and drain as many.
const LIMIT_MILLIONS: u64 = 120;
/// The longest round of a closed loop that is assumed, since a slow system must not be waited for forever.
const ROUND_MAX: Duration = Duration::from_secs(20);
const SMOKE_HISTORY: u64 = 5_000;
const SMOKE_SAGAS: u64 = 3_000;
const SMOKE_ROWS: u32 = 2_000;

/// The arguments whose defaults depend on the study: seconds of a stage, of its warm-up and of the idle system, and the
/// orders in flight.
type Defaults = (u64, u64, u64, &'static [u64]);

impl Study {
    /// Parses a study from its name alone, so that it has its default settings.
    pub fn named(name: &str) -> Result<Self, clap::Error> {
        match Options::try_parse_from(["saga-bench", name])?.command {
            Command::One(study) => Ok(study),
            Command::All => {
                let error = format!("`{name}` is not a single study");
                Err(Options::command().error(ErrorKind::InvalidSubcommand, error))
            }
        }
    }

    /// Returns the study and the shared arguments, with the study's defaults and `--smoke` applied. A smoke test takes
    /// seconds, whatever else is asked for.
    pub fn resolved(mut self, shared: &Shared) -> Result<(Self, Shared), clap::Error> {
        let mut all = shared.clone();
        let (seconds, warm_up, idle, in_flight) = if shared.smoke {
            (all.seconds, all.warm_up) = (None, None);
            all.in_flight.clear();
            self.make_short()
        } else {
            self.defaults(shared.idle_seconds)
        };
        all.seconds.get_or_insert(seconds);
        all.warm_up.get_or_insert(warm_up);
        all.idle_seconds = idle;
        all.time_limit.get_or_insert(match &self {
            _ if shared.smoke => LIMIT_SMOKE,
            Self::Run(_) | Self::Scale(_) => LIMIT,
            Self::History(_) | Self::Backlog(_) => LIMIT_MILLIONS,
            Self::Soak(own) => own.minutes + LIMIT,
        });
        if all.in_flight.is_empty() {
            all.in_flight = in_flight.to_vec();
        }
        if all.in_flight.len() > 1 && !matches!(self, Self::Run(_)) {
            let error = "only run takes several numbers of orders in flight";
            return Err(Options::command().error(ErrorKind::TooManyValues, error));
        }
        Ok((self, all))
    }

    fn defaults(&self, idle_seconds: u64) -> Defaults {
        match self {
            Self::Run(_) => (10, 3, idle_seconds, &[500, 1_000, 2_000, 4_000, 8_000]),
            Self::Scale(_) => (8, 4, idle_seconds, &[2_000]),
            Self::History(_) => (10, 3, idle_seconds, &[2_000]),
            Self::Backlog(_) => (10, 3, idle_seconds, &[1_000]),
            Self::Soak(_) => (20, 10, idle_seconds, &[2_000]),
        }
    }

    fn make_short(&mut self) -> Defaults {
        match self {
            Self::Run(own) => {
                own.rates.clear();
                (2, 1, 2, &[500])
            }
            Self::Scale(own) => {
                (own.copies, own.partition_counts) = (vec![1, 2], vec![2]);
                (2, 1, 2, &[200])
            }
            Self::History(own) => {
                (own.history, own.rounds) = (SMOKE_HISTORY, 1);
                (2, 1, 2, &[500])
            }
            Self::Backlog(own) => {
                own.sagas = own.sagas.min(SMOKE_SAGAS);
                // Idle for longer than five seconds, after which a command would have timed out and is known to be
                // queued.
                (2, 1, 6, &[200])
            }
            Self::Soak(own) => {
                own.aged_rows = own.aged_rows.min(SMOKE_ROWS);
                (3, 2, 2, &[200])
            }
        }
    }
}

impl Shared {
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or_default())
    }

    pub fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up.unwrap_or_default())
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.time_limit.unwrap_or(LIMIT) * 60)
    }

    /// The orders in flight of a study that has one closed loop.
    pub fn orders_in_flight(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(1)
    }

    /// The longest round of a closed loop that is waited for.
    pub fn round_max(&self) -> Duration {
        if self.smoke {
            Duration::ZERO
        } else {
            ROUND_MAX
        }
    }

    pub fn has_given_servers(&self) -> bool {
        self.postgres_url.is_some() || self.kafka_brokers.is_some()
    }
}

impl RunOptions {
    pub fn scenarios(&self) -> Vec<Scenario> {
        let wanted =
            |scenario: &Scenario| self.scenario.is_empty() || self.scenario.contains(scenario);
        let all = Scenario::value_variants().iter().copied();
        all.filter(wanted).collect()
    }
}

impl ScaleOptions {
    /// Returns the counts of copies that fit, in ascending order: copies are only added, never removed, and a copy
    /// without a partition would have nothing to do.
    pub fn copies_for(&self, partitions: i32) -> Vec<usize> {
        let fits = self.copies.iter().filter(|copies| **copies <= partitions);
        let mut all: Vec<usize> = fits.map(|copies| *copies as usize).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn at_least(least: u64, most: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(least..=most)
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("'{text}' is not NAME=VALUE")),
    }
}

/// Parses a share above 0 and up to 2. Twice of saturation is overload enough.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 2.0 => Ok(share),
        Ok(_) | Err(_) => Err(format!("'{text}' is not a share, such as 0.7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<(Study, Shared), clap::Error> {
        let options = Options::try_parse_from(["saga-bench"].iter().chain(words))?;
        let Command::One(study) = options.command else {
            panic!("not one study: {options:?}");
        };
        study.resolved(&options.shared)
    }

    fn scenarios(words: &[&str]) -> Vec<Scenario> {
        match parse(words).expect("options") {
            (Study::Run(own), _) => own.scenarios(),
            other => panic!("not a run: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn shared_arguments_are_accepted_before_and_after_the_study() {
        for words in [["--seed", "7", "run"], ["run", "--seed", "7"]] {
            assert_eq!(parse(&words).expect("options").1.seed, 7, "{words:?}");
        }
    }

    #[test]
    fn the_former_names_of_studies_and_options_are_accepted() {
        assert!(matches!(parse(&["flat"]), Ok((Study::History(_), _))));
        assert!(matches!(parse(&["crowd"]), Ok((Study::Backlog(_), _))));
        assert!(parse(&["run", "--without-floor"]).is_ok());
    }

    #[test]
    fn nothing_is_offered_at_no_rate() {
        for words in [
            ["run", "--rates", "0"],
            ["run", "--in-flight", "500,0"],
            ["backlog", "--sagas", "0"],
        ] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn only_a_run_has_several_closed_loops() {
        assert!(parse(&["run", "--in-flight", "500,1000"]).is_ok());
        assert!(parse(&["scale", "--in-flight", "500,1000"]).is_err());
        let (_, shared) = parse(&["backlog", "--in-flight", "7"]).expect("options");
        assert_eq!(shared.orders_in_flight(), 7);
    }

    #[test]
    fn studies_that_take_longer_have_more_time() {
        let check = |words: &[&str], minutes: u64| {
            let limit = parse(words).expect("options").1.limit();
            assert_eq!(limit, Duration::from_secs(minutes * 60), "{words:?}");
        };
        check(&["run"], 60);
        check(&["soak", "--minutes", "600"], 660);
        check(&["backlog"], 120);
        check(&["backlog", "--smoke"], 20);
        check(&["backlog", "--time-limit", "5"], 5);
    }

    #[test]
    fn without_names_every_scenario_runs_and_with_them_only_these() {
        assert_eq!(scenarios(&["run"]), Scenario::value_variants());
        assert_eq!(
            scenarios(&["run", "--scenario", "hot-product,decline"]),
            [Scenario::Decline, Scenario::HotProduct]
        );
    }

    #[test]
    fn a_smoke_test_takes_seconds_despite_other_options() {
        for name in ["run", "scale", "history", "backlog", "soak"] {
            let words = [name, "--smoke", "--seconds", "600", "--in-flight", "9000"];
            let (_, shared) = parse(&words).expect("options");
            assert!(shared.measured() <= Duration::from_secs(3), "{name}");
            assert!(shared.in_flight.iter().sum::<u64>() <= 500, "{name}");
        }
    }

    #[test]
    fn a_smoke_test_has_few_sagas() {
        let check = |words: &[&str], expected: u64| {
            let found = match parse(words).expect("options").0 {
                Study::History(own) => own.history,
                Study::Backlog(own) => own.sagas,
                other @ (Study::Run(_) | Study::Scale(_) | Study::Soak(_)) => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{words:?}");
        };
        check(
            &["history", "--smoke", "--history", "20000000"],
            SMOKE_HISTORY,
        );
        check(&["backlog", "--smoke", "--sagas", "500000"], SMOKE_SAGAS);
        check(&["backlog", "--sagas", "5"], 5);
        check(&["backlog"], 1_000_000);
    }

    #[test]
    fn no_copy_is_without_a_partition() {
        let own = ScaleOptions {
            copies: vec![4, 1, 2, 1],
            partition_counts: Vec::new(),
        };
        let check = |partitions: i32, expected: &[usize]| {
            assert_eq!(own.copies_for(partitions), expected, "{partitions}");
        };
        check(1, &[1]);
        check(2, &[1, 2]);
        check(3, &[1, 2]);
        check(16, &[1, 2, 4]);
    }

    #[test]
    fn a_setting_has_a_name_and_a_value() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(setting(text).ok(), expected, "{text}");
        };
        check("fsync=off", Some(("fsync", "off")));
        check("a=b=c", Some(("a", "b=c")));
        check("a=", Some(("a", "")));
        check("=a", None);
        check("a", None);
    }

    #[test]
    fn a_share_is_above_zero() {
        let check = |text: &str, expected: Option<f64>| assert_eq!(share(text).ok(), expected);
        check("0.7", Some(0.7));
        check("2", Some(2.0));
        check("0", None);
        check("70", None);
        check("NaN", None);
        check("most", None);
    }
}
