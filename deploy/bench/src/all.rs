//! Everything that can be measured, one after the other, each on a fresh system.

use crate::options::{EXIT_STATUS, Measurement, ServerOptions};
use clap::Args;

/// Measures everything, one after the other: run, scale, flat, crowd, soak. About three hours.
///
/// Each has the settings that it has by itself, and a directory of its own below --out. What they found stands together in
/// bench.md there. A time limit is that of each. Servers that are given cannot have two systems at a time, so flat is left
/// out with them.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct AllOptions {
    #[command(flatten)]
    pub servers: ServerOptions,

    /// Minutes instead of hours: whether results are right, not how fast they come. What CI runs
    #[arg(long)]
    pub smoke: bool,
}

const FLAT: &str = "flat";
const ALL: [&str; 5] = ["run", "scale", FLAT, "crowd", "soak"];

impl AllOptions {
    /// With their names.
    pub fn measurements(&self) -> Result<Vec<(&'static str, Measurement)>, clap::Error> {
        let given = self.has_given_servers();
        ALL.into_iter()
            .filter(|name| !(given && *name == FLAT))
            .map(|name| Ok((name, self.measurement(name)?)))
            .collect()
    }

    pub fn has_given_servers(&self) -> bool {
        self.servers.postgres_url.is_some() || self.servers.kafka_brokers.is_some()
    }

    fn measurement(&self, name: &str) -> Result<Measurement, clap::Error> {
        let smoke = self.smoke.then_some("--smoke");
        let words: Vec<&str> = [name].into_iter().chain(smoke).collect();
        let mut measurement = Measurement::named(&words)?;
        *measurement.servers_mut() = ServerOptions {
            out: self.servers.out.join(name),
            ..self.servers.clone()
        };
        Ok(measurement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Command, Options};
    use clap::Parser;

    fn measurements(arguments: &[&str]) -> Vec<(&'static str, Measurement)> {
        let words = ["saga-bench", "all"].iter().chain(arguments);
        let command = Options::try_parse_from(words).expect("options").command;
        let Command::All(options) = command else {
            panic!("not all: {command:?}");
        };
        options.measurements().expect("all of them")
    }

    #[test]
    fn each_has_the_servers_asked_for_a_directory_and_time_enough() {
        let found = measurements(&["--seed", "7", "--out", "there", "--time-limit", "100"]);
        assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ALL);
        for (name, measurement) in &found {
            let servers = measurement.servers();
            assert_eq!(servers.seed, 7);
            assert!(servers.out.ends_with(name), "{}", servers.out.display());
        }
        let limits = found.iter().map(|(_, one)| one.servers().time_limit);
        assert_eq!(limits.collect::<Vec<_>>(), [Some(100); 5]);
    }

    #[test]
    fn given_servers_hold_one_system() {
        let found = measurements(&["--kafka-brokers", "somewhere:9092"]);
        assert!(found.iter().all(|(name, _)| *name != FLAT));
        assert_eq!(found.len(), ALL.len() - 1);
    }

    #[test]
    fn a_smoke_test_of_all_is_one_of_each() {
        for (name, measurement) in measurements(&["--smoke"]) {
            let smoke = match measurement {
                Measurement::Run(options) => options.smoke,
                Measurement::Soak(options) => options.smoke,
                Measurement::Scale(options) => options.smoke,
                Measurement::Flat(options) => options.smoke,
                Measurement::Crowd(options) => options.smoke,
            };
            assert!(smoke, "{name}");
        }
    }
}
