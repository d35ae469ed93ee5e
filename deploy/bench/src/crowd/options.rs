//! The command line of `saga-bench crowd`.

use crate::options::{EXIT_STATUS, ServerOptions};
use clap::Args;
use std::time::Duration;

/// A crowd of live sagas waits for a participant that is dead: what that costs everybody else, and how it drains.
///
/// payment-svc is killed, and orders are sent until so many wait for it. Measured before and with the crowd: sagas that do
/// not need it (out of stock), an idle system, a restart of the orchestrator, and a takeover. Then payment-svc comes back.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct CrowdOptions {
    /// Sagas that wait
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub sagas: u64,

    /// How long each stage of other sagas is measured
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,

    /// How long each stage runs before it is measured
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub warm_up: u64,

    /// How long the system is looked at while nothing is going on
    #[arg(long, default_value_t = 40, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_seconds: u64,

    /// Orders in flight of the closed loop of other sagas
    #[arg(long, default_value_t = 1_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub in_flight: u64,

    /// Customers who send the crowd's orders, each the next one as soon as one is answered
    #[arg(long, default_value_t = 256, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub customers: u64,

    /// Other sagas a second while the crowd drains
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub trickle: u64,

    #[command(flatten)]
    pub servers: ServerOptions,

    /// Seconds instead of minutes: whether results are right, not how fast they come. What CI runs
    #[arg(long)]
    pub smoke: bool,
}

/// What is measured, after what `--smoke` makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    pub sagas: u64,
    pub warm_up: Duration,
    pub measured: Duration,
    pub idle: Duration,
    pub in_flight: u64,
    pub customers: u64,
    pub trickle: u64,
}

const SMOKE_SAGAS: u64 = 3_000;
const SMOKE_SECONDS: u64 = 2;
/// Commands are known to be queued when they would have timed out, after five.
const SMOKE_IDLE_SECONDS: u64 = 6;
const SMOKE_IN_FLIGHT: u64 = 200;

impl CrowdOptions {
    pub fn pace(&self) -> Pace {
        let seconds = Duration::from_secs;
        let all = Pace {
            sagas: self.sagas,
            warm_up: seconds(self.warm_up),
            measured: seconds(self.seconds),
            idle: seconds(self.idle_seconds),
            in_flight: self.in_flight,
            customers: self.customers,
            trickle: self.trickle,
        };
        if !self.smoke {
            return all;
        }
        Pace {
            sagas: self.sagas.min(SMOKE_SAGAS),
            warm_up: seconds(1),
            measured: seconds(SMOKE_SECONDS),
            idle: seconds(SMOKE_IDLE_SECONDS),
            in_flight: SMOKE_IN_FLIGHT,
            ..all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: CrowdOptions,
    }

    fn pace(arguments: &[&str]) -> Pace {
        let all = ["crowd"].iter().chain(arguments);
        Alone::try_parse_from(all).expect("options").options.pace()
    }

    #[test]
    fn a_smoke_test_takes_seconds_whatever_else_is_asked_for() {
        let pace = pace(&["--smoke", "--seconds", "600", "--sagas", "500000"]);
        assert_eq!(pace.measured, Duration::from_secs(SMOKE_SECONDS));
        assert_eq!(pace.sagas, SMOKE_SAGAS);
    }

    #[test]
    fn a_crowd_is_as_large_as_it_is_asked_for() {
        assert_eq!(pace(&["--sagas", "5"]).sagas, 5);
        assert_eq!(pace(&[]).sagas, 1_000_000);
        assert!(Alone::try_parse_from(["crowd", "--sagas", "0"]).is_err());
    }
}
