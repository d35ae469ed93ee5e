//! `sagactl audit`: checks that orders, sagas, stock, money and messages are consistent. Reads the databases and the
//! topics themselves, without the services.

use crate::{
    failure::Failure,
    session::{Conclusion, Session},
};
use chrono::{DateTime, Utc};
use clap::Args;
use saga_audit::{AuditError, Journal, Settings, Sources, audit};
use std::{error::Error, path::PathBuf, time::Duration};

const AFTER_HELP: &str = "\
Reads only, and may be used while everything runs: what is merely in flight is not reported, since it is looked twice.

Exit status:
  0  everything adds up
  1  there are discrepancies; each is named, with its ids
  2  it was not possible to look

Where to look: --data-dir of a standalone system, or all four databases and the brokers.";

/// Look for effects that were lost, done twice, or left behind.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct AuditArguments {
    #[command(flatten)]
    addresses: Addresses,
    /// Only sagas that began at or after this instant, such as 2026-03-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// A client's acknowledged orders and received stock, as JSON lines; see the documentation of `saga-audit`.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Time between two reads of the system.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    interval: u64,
    /// Report a saga as stalled if its next step is overdue by this time.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    overdue: u64,
    /// Expect every saga to have ended, and report those that have not.
    #[arg(long)]
    drained: bool,
}

/// Addresses of the databases and the brokers.
#[derive(Debug, Args)]
struct Addresses {
    /// Data directory of a system that `cargo run` has started, such as `.saga`.
    #[arg(long, env = "SAGACTL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[arg(
        long,
        env = "SAGACTL_ORCHESTRATOR_DB",
        value_name = "URL",
        hide_env_values = true
    )]
    orchestrator_db: Option<String>,
    #[arg(
        long,
        env = "SAGACTL_ORDER_DB",
        value_name = "URL",
        hide_env_values = true
    )]
    order_db: Option<String>,
    #[arg(
        long,
        env = "SAGACTL_INVENTORY_DB",
        value_name = "URL",
        hide_env_values = true
    )]
    inventory_db: Option<String>,
    #[arg(
        long,
        env = "SAGACTL_PAYMENT_DB",
        value_name = "URL",
        hide_env_values = true
    )]
    payment_db: Option<String>,
    /// Brokers as `host:port`, separated by commas.
    #[arg(long, env = "SAGACTL_BROKERS", value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// A further property of the Kafka client, such as security.protocol=sasl_plaintext.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    kafka: Vec<(String, String)>,
}

impl Addresses {
    fn sources(self) -> Result<Sources, Failure> {
        let mut sources = match &self.data_dir {
            Some(directory) => {
                Sources::from_data_dir(directory).map_err(|error| cannot_look(&error))?
            }
            None => Sources {
                orchestrator: String::new(),
                order: String::new(),
                inventory: String::new(),
                payment: String::new(),
                brokers: String::new(),
                kafka: Vec::new(),
                orchestrator_group: Sources::DEFAULT_GROUP.to_owned(),
            },
        };
        for (given, place, option) in [
            (
                self.orchestrator_db,
                &mut sources.orchestrator,
                "--orchestrator-db",
            ),
            (self.order_db, &mut sources.order, "--order-db"),
            (self.inventory_db, &mut sources.inventory, "--inventory-db"),
            (self.payment_db, &mut sources.payment, "--payment-db"),
            (self.brokers, &mut sources.brokers, "--brokers"),
        ] {
            if let Some(given) = given {
                *place = given;
            } else if place.is_empty() {
                let what = format!("where to look? give --data-dir, or {option} and the others");
                return Err(Failure::Usage(what));
            }
        }
        sources.kafka = self.kafka;
        Ok(sources)
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub async fn run(arguments: AuditArguments, session: &Session) -> Result<Conclusion, Failure> {
    let sources = arguments.addresses.sources()?;
    let journal = match &arguments.journal {
        Some(path) => Journal::read(path).map_err(|error| cannot_look(&error))?,
        None => Journal::default(),
    };
    let settings = Settings {
        since: arguments.since,
        interval: Duration::from_secs(arguments.interval),
        overdue: Duration::from_secs(arguments.overdue),
        drained: arguments.drained,
        ..Settings::default()
    };
    let report = audit(&sources, &journal, &settings)
        .await
        .map_err(|error| cannot_look(&error))?;
    session.output.show(&report);
    Ok(if report.is_clean() {
        Conclusion::Good
    } else {
        Conclusion::Negative
    })
}

/// Makes a failure from an error and its causes: "cannot be read" alone does not name the reason.
fn cannot_look(error: &AuditError) -> Failure {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // Some errors include their causes in their own text.
        let why = next.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        cause = next.source();
    }
    Failure::Usage(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(orchestrator_db: Option<&str>) -> Addresses {
        let url = || Some("postgres://h/d".to_owned());
        Addresses {
            data_dir: None,
            orchestrator_db: orchestrator_db.map(str::to_owned),
            order_db: url(),
            inventory_db: url(),
            payment_db: url(),
            brokers: Some("h:1".to_owned()),
            kafka: Vec::new(),
        }
    }

    #[test]
    fn a_place_that_is_missing_is_named() {
        let error = addresses(None).sources().unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains("--orchestrator-db"), "{error}");
        let sources = addresses(Some("postgres://o/d")).sources().unwrap();
        assert_eq!(sources.orchestrator, "postgres://o/d");
        assert_eq!(sources.brokers, "h:1");
    }

    #[test]
    fn properties_have_a_name_and_a_value() {
        let expected = ("a.b".to_owned(), "c=d".to_owned());
        assert_eq!(property("a.b=c=d"), Ok(expected));
        assert!(property("a.b").is_err());
    }
}
