//! The command line of chaos.

use super::plan::Kind;
use clap::Parser;
use std::{path::PathBuf, time::Duration};

const EXIT_STATUS: &str = "\
Exit status:
  0  every promise was kept
  1  a violation, a needless compensation, or something did not end; the report names it
  2  wrong usage, or the system could not be started";

/// Injects faults from a seed into a real system while clients place orders, and then audits the result.
///
/// Runs two copies of every service, as processes, on a private Kafka and a private Postgres. Nothing else on this
/// machine is touched.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos", after_help = EXIT_STATUS)]
pub struct Options {
    /// The seed that determines the faults and the orders. Without it, a seed is chosen at random and printed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long faults are injected, in minutes.
    #[arg(long, default_value_t = 5.0)]
    pub minutes: f64,
    #[arg(long, default_value_t = 4)]
    pub clients: u64,
    /// Orders per second of all clients together.
    #[arg(long, default_value_t = 12.0)]
    pub rate: f64,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 4)]
    pub partitions: i32,
    /// The time limit within which all orders and sagas must end after the last fault.
    #[arg(long, default_value_t = 4.0, value_name = "MINUTES")]
    pub drain_minutes: f64,
    /// Injects only these kinds of faults.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    pub only: Vec<Kind>,
    /// Leaves out these kinds of faults.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    pub without: Vec<Kind>,
    /// A directory with the binaries order-svc, inventory-svc, payment-svc and orchestrator. Without it, chaos starts
    /// copies of its own executable as the services.
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,
    /// The directory for logs, the clients' journal and the report. Without it, a new temporary directory is used.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Writes the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Prints the plan of faults and exits.
    #[arg(long)]
    pub plan: bool,
}

impl Options {
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes.max(0.0) * 60.0)
    }

    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs_f64(self.drain_minutes.max(0.0) * 60.0)
    }

    pub fn kinds(&self) -> Vec<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| self.only.is_empty() || self.only.contains(kind))
            .filter(|kind| !self.without.contains(kind))
            .collect()
    }

    /// Returns the command that repeats this run.
    pub fn command(&self, seed: u64) -> String {
        let names = |kinds: &[Kind]| -> String {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            names.join(",")
        };
        let mut command = format!(
            "cargo run -p saga-e2e --bin chaos -- --seed {seed} --minutes {} --clients {} --rate {} --partitions {}",
            self.minutes, self.clients, self.rate, self.partitions
        );
        if !self.only.is_empty() {
            command = format!("{command} --only {}", names(&self.only));
        }
        if !self.without.is_empty() {
            command = format!("{command} --without {}", names(&self.without));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_can_be_repeated() {
        <Options as CommandFactory>::command().debug_assert();
        let line = ["chaos", "--minutes", "1", "--without", "kill,poison"];
        let options = Options::parse_from(line);
        let command = options.command(7);
        assert!(command.contains("--seed 7 --minutes 1 "), "{command}");
        assert!(command.ends_with("--without kill,poison"), "{command}");
        assert!(!options.kinds().contains(&Kind::Kill));
    }
}
