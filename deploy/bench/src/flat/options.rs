//! The command line of `saga-bench flat`.

use crate::options::{EXIT_STATUS, ROUND_MAX, SMOKE_IN_FLIGHT, SMOKE_SECONDS, ServerOptions};
use clap::Args;
use std::time::Duration;

/// Shows that speed does not depend on how many sagas have ended.
///
/// Two systems, each on a Postgres and a Kafka of its own; one of them has a history. Rounds of both are interleaved, and
/// medians of throughput and latency are compared.
///
/// History is made from real orders, whose rows are copied in all tables that keep something of them. Five million sagas
/// take about 40 GB of disk while it runs.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct FlatOptions {
    /// Ended sagas that one of the systems begins with
    #[arg(long, default_value_t = 5_000_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub history: u64,

    /// The days in which they ended; within the retention of thirty
    #[arg(long, default_value_t = 21, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(1..=28))]
    pub days: i64,

    /// How often each system is measured
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,

    /// How long each stage is measured
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,

    /// How long each stage runs before it is measured
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub warm_up: u64,

    /// Orders in flight at saturation
    #[arg(long, default_value_t = 2_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub in_flight: u64,

    #[command(flatten)]
    pub servers: ServerOptions,

    /// A short history and one round of seconds: whether results are right, not how fast they come. What CI runs
    #[arg(long)]
    pub smoke: bool,
}

/// How much of everything there is in a comparison, after what `--smoke` makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatPace {
    pub history: u64,
    pub days: i64,
    pub rounds: u32,
    pub warm_up: Duration,
    pub measured: Duration,
    pub in_flight: u64,
    pub round_max: Duration,
    pub smoke: bool,
}

const SMOKE_HISTORY: u64 = 5_000;

impl FlatOptions {
    pub fn pace(&self) -> FlatPace {
        let seconds = Duration::from_secs;
        if self.smoke {
            return FlatPace {
                history: SMOKE_HISTORY,
                days: self.days,
                rounds: 1,
                warm_up: seconds(1),
                measured: seconds(SMOKE_SECONDS),
                in_flight: SMOKE_IN_FLIGHT,
                round_max: Duration::ZERO,
                smoke: true,
            };
        }
        FlatPace {
            history: self.history,
            days: self.days,
            rounds: self.rounds,
            warm_up: seconds(self.warm_up),
            measured: seconds(self.seconds),
            in_flight: self.in_flight,
            round_max: ROUND_MAX,
            smoke: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Measurement;

    #[test]
    fn a_smoke_test_of_a_comparison_has_a_short_history() {
        let words = ["flat", "--smoke", "--history", "20000000"];
        let measurement = Measurement::named(&words).expect("options");
        let Measurement::Flat(options) = measurement else {
            panic!("not flat: {measurement:?}");
        };
        assert_eq!(options.pace().history, SMOKE_HISTORY);
        assert_eq!(options.pace().rounds, 1);
    }
}
