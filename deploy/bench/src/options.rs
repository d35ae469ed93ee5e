//! The command line.

use crate::{
    all::AllOptions, crowd::CrowdOptions, flat::FlatOptions, scale::ScaleOptions,
    scenario::Scenario, soak::SoakOptions,
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::{path::PathBuf, time::Duration};

pub const EXIT_STATUS: &str = "\
Exit status:
  0  every accepted order ended as its scenario expects, and all sums add up; no figure fails a run
  1  a result is broken: something was lost, compensated needlessly, or does not add up
  2  wrong usage, the system could not be started, the time limit was reached, or it was interrupted";

/// Measures the real services, each as a process of its own, on a real Kafka and a real Postgres.
#[derive(Clone, Debug, Parser)]
#[command(name = "saga-bench", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    One(Measurement),
    All(AllOptions),
}

#[derive(Clone, Debug, Subcommand)]
pub enum Measurement {
    Run(RunOptions),
    Soak(SoakOptions),
    Scale(ScaleOptions),
    Flat(FlatOptions),
    Crowd(CrowdOptions),
}

/// Minutes that anything takes at most on a machine that is slow.
const LIMIT: u64 = 60;
const LIMIT_SMOKE: u64 = 20;
/// Millions of sagas are loaded, or come together and drain.
const LIMIT_MILLIONS: u64 = 120;

impl Measurement {
    /// One that is asked for by these words alone.
    pub fn named(words: &[&str]) -> Result<Self, clap::Error> {
        match Options::try_parse_from(["saga-bench"].iter().chain(words))?.command {
            Command::One(measurement) => Ok(measurement),
            Command::All(_) => Err(Options::command().error(
                clap::error::ErrorKind::InvalidSubcommand,
                "all of them are not one",
            )),
        }
    }

    /// With its own time limit, if none was given.
    #[must_use]
    pub fn limited(mut self) -> Self {
        let minutes = match &self {
            Self::Run(RunOptions { smoke: true, .. })
            | Self::Soak(SoakOptions { smoke: true, .. })
            | Self::Scale(ScaleOptions { smoke: true, .. })
            | Self::Flat(FlatOptions { smoke: true, .. })
            | Self::Crowd(CrowdOptions { smoke: true, .. }) => LIMIT_SMOKE,
            Self::Run(_) | Self::Scale(_) => LIMIT,
            Self::Soak(options) => options.minutes + LIMIT,
            Self::Flat(_) | Self::Crowd(_) => LIMIT_MILLIONS,
        };
        self.servers_mut().time_limit.get_or_insert(minutes);
        self
    }

    pub fn servers(&self) -> &ServerOptions {
        match self {
            Self::Run(options) => &options.servers,
            Self::Soak(options) => &options.servers,
            Self::Scale(options) => &options.servers,
            Self::Flat(options) => &options.servers,
            Self::Crowd(options) => &options.servers,
        }
    }

    pub fn servers_mut(&mut self) -> &mut ServerOptions {
        match self {
            Self::Run(options) => &mut options.servers,
            Self::Soak(options) => &mut options.servers,
            Self::Scale(options) => &mut options.servers,
            Self::Flat(options) => &mut options.servers,
            Self::Crowd(options) => &mut options.servers,
        }
    }
}

/// Starts everything, measures the scenarios, checks that nothing was lost, and writes what came of it.
///
/// For each scenario: saturation (closed loop with more and more orders in flight, until throughput gains nothing), then
/// latency in an open loop at fixed rates. Nothing else should run on the machine; how much of it others took is measured
/// and reported.
///
/// Services read their own environment variables here, too: ORDER_SVC__INTAKE__WINDOW_MS=1 measures that.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct RunOptions {
    /// Only these scenarios; all of them if not given
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    pub scenario: Vec<Scenario>,

    /// How long each stage is measured
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,

    /// How long each stage runs before it is measured
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub warm_up: u64,

    /// How long the idle stage is measured: at five orders a second, percentiles need time
    #[arg(long, default_value_t = 40, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_seconds: u64,

    /// Orders in flight of the steps that look for saturation
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "LIST",
        default_value = "500,1000,2000,4000,8000"
    )]
    pub in_flight: Vec<u64>,

    /// Open-loop rates, in orders a second, beside 30 % and 70 % of saturation and idle
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "LIST",
        default_value = "2000"
    )]
    pub rates: Vec<u64>,

    #[command(flatten)]
    pub servers: ServerOptions,

    /// Measure no floor
    #[arg(long)]
    pub without_floor: bool,

    /// Seconds instead of minutes: whether results are right, not how fast they come. What CI runs
    #[arg(long)]
    pub smoke: bool,
}

/// What is measured on, and for how long at most.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// Partitions of each topic
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub partitions: i32,

    /// Arrivals and orders follow from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Use these brokers (host:port, separated by commas) instead of a private Kafka. The topics are made, and removed at
    /// the end; a topic that is there already is not touched, and stops the start
    #[arg(long, env = "SAGA_KAFKA_BROKERS", value_name = "LIST")]
    pub kafka_brokers: Option<String>,

    /// Use this Postgres instead of a private one: a superuser's URL. Databases are made, and removed at the end; one that
    /// is there already is not touched, and stops the start
    #[arg(
        long,
        env = "SAGA_POSTGRES_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub postgres_url: Option<String>,

    /// Setting of the private Postgres, over the bench's own. May be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub postgres_set: Vec<(String, String)>,

    /// Broker property of the private Kafka, over its own. May be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub kafka_set: Vec<(String, String)>,

    /// Where the private servers keep their data while they run; a new directory below the temporary one if not given. It
    /// should be on the disk that matters
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Results and logs are put here
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub out: PathBuf,

    /// After this, everything is stopped, and the measurement has failed. If not given: an hour, two for flat and crowd, an
    /// hour more than its minutes for soak, twenty minutes with --smoke
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=20_160))]
    pub time_limit: Option<u64>,
}

impl ServerOptions {
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.time_limit.unwrap_or(LIMIT) * 60)
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("'{text}' is not NAME=VALUE")),
    }
}

/// How long each part of a stage takes, after what `--smoke` makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    pub warm_up: Duration,
    pub measured: Duration,
    pub idle_measured: Duration,
    pub in_flight: Vec<u64>,
    pub rates: Vec<u64>,
    pub floor: Duration,
    /// Of a closed loop, at most: a system that is slow must not be waited for for ever.
    pub round_max: Duration,
}

pub const ROUND_MAX: Duration = Duration::from_secs(20);
/// Of a smoke test.
pub const SMOKE_SECONDS: u64 = 2;
pub const SMOKE_IN_FLIGHT: u64 = 500;

impl RunOptions {
    pub fn scenarios(&self) -> Vec<Scenario> {
        let wanted =
            |scenario: &Scenario| self.scenario.is_empty() || self.scenario.contains(scenario);
        Scenario::ALL.into_iter().filter(wanted).collect()
    }

    pub fn pace(&self) -> Pace {
        let seconds = Duration::from_secs;
        if self.smoke {
            return Pace {
                warm_up: seconds(1),
                measured: seconds(SMOKE_SECONDS),
                idle_measured: seconds(SMOKE_SECONDS),
                in_flight: vec![SMOKE_IN_FLIGHT],
                rates: Vec::new(),
                floor: seconds(SMOKE_SECONDS),
                round_max: Duration::ZERO,
            };
        }
        Pace {
            warm_up: seconds(self.warm_up),
            measured: seconds(self.seconds),
            idle_measured: seconds(self.idle_seconds),
            in_flight: self.in_flight.clone(),
            rates: self.rates.clone(),
            floor: seconds(self.seconds),
            round_max: ROUND_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> RunOptions {
        let words: Vec<&str> = ["run"].iter().chain(arguments).copied().collect();
        let measurement = Measurement::named(&words).expect("options");
        let Measurement::Run(options) = measurement else {
            panic!("not a run: {measurement:?}");
        };
        options
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn nothing_is_offered_at_no_rate() {
        for words in [["run", "--rates", "0"], ["run", "--in-flight", "500,0"]] {
            assert!(Measurement::named(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_takes_longer_has_more_time() {
        let check = |words: &[&str], minutes: u64| {
            let measurement = Measurement::named(words).expect("options").limited();
            let limit = measurement.servers().limit();
            assert_eq!(limit, Duration::from_secs(minutes * 60), "{words:?}");
        };
        check(&["run"], 60);
        check(&["soak", "--minutes", "600"], 660);
        check(&["crowd"], 120);
        check(&["crowd", "--smoke"], 20);
        check(&["crowd", "--time-limit", "5"], 5);
    }

    #[test]
    fn without_names_every_scenario_runs_and_with_them_only_these() {
        assert_eq!(parse(&[]).scenarios(), Scenario::ALL);
        assert_eq!(
            parse(&["--scenario", "hot-product,decline"]).scenarios(),
            [Scenario::Decline, Scenario::HotProduct]
        );
    }

    #[test]
    fn a_smoke_test_takes_seconds_whatever_else_is_asked_for() {
        let pace = parse(&["--smoke", "--seconds", "600"]).pace();
        assert_eq!(pace.measured, Duration::from_secs(SMOKE_SECONDS));
        assert_eq!(pace.in_flight.len(), 1);
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
}
