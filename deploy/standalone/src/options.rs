//! The command line of `saga`.

use clap::{Parser, ValueEnum};
use saga_service::{Service, telemetry::LogFormat};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Runs the whole system: a private Postgres and Kafka, and order-svc, orchestrator, inventory-svc and payment-svc.
///
/// Everything listens on loopback and keeps its data in --data-dir. A later start continues with that data, even after
/// a crash. Ctrl-C stops everything cleanly at any moment; a second Ctrl-C stops everything at once.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "saga",
    version,
    max_term_width = 100,
    after_help = "Each service's other settings are set by its own environment variables, which the services here \
        read too: PAYMENT_SVC__GATEWAY__LIMIT=500.00, ORCHESTRATOR__PARTICIPANTS__SHIPPING__TOPIC=… \
        (`cargo run -p payment-svc -- --print-config` lists a service's keys).\n\n\
        To work on one service, leave it out and run it beside the rest:\n  \
        cargo run -- --without payment-svc\n  \
        cargo run -p payment-svc -- --data-dir .saga\n\n\
        To start from scratch, stop the system and remove the data directory."
)]
pub struct Options {
    /// Directory for the data of Postgres and Kafka and the services' configuration
    #[arg(
        long,
        env = "SAGA_DATA_DIR",
        default_value = ".saga",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// Address that the four services listen on. Unless it is a loopback address, nothing can be changed without
    /// --access-token. Postgres and Kafka always listen on loopback
    #[arg(
        long,
        env = "SAGA_BIND",
        default_value = "127.0.0.1",
        value_name = "IP"
    )]
    pub bind: IpAddr,

    /// Token that the orchestrator requires for every change
    #[arg(
        long,
        env = "SAGA_ACCESS_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub access_token: Option<String>,

    #[arg(
        long,
        env = "SAGA_ORDER_PORT",
        default_value_t = 3000,
        value_name = "PORT"
    )]
    pub order_port: u16,

    /// Port of the orchestrator's API and page
    #[arg(
        long,
        env = "SAGA_ORCHESTRATOR_PORT",
        default_value_t = 3001,
        value_name = "PORT"
    )]
    pub orchestrator_port: u16,

    #[arg(
        long,
        env = "SAGA_INVENTORY_PORT",
        default_value_t = 3002,
        value_name = "PORT"
    )]
    pub inventory_port: u16,

    #[arg(
        long,
        env = "SAGA_PAYMENT_PORT",
        default_value_t = 3003,
        value_name = "PORT"
    )]
    pub payment_port: u16,

    /// Port of the private Kafka
    #[arg(
        long,
        env = "SAGA_KAFKA_PORT",
        default_value_t = 9092,
        value_name = "PORT"
    )]
    pub kafka_port: u16,

    /// Port of the private Postgres
    #[arg(
        long,
        env = "SAGA_POSTGRES_PORT",
        default_value_t = 5433,
        value_name = "PORT"
    )]
    pub postgres_port: u16,

    /// Use these brokers instead of a private Kafka (host:port, separated by commas)
    #[arg(long, env = "SAGA_KAFKA_BROKERS", value_name = "LIST")]
    pub kafka_brokers: Option<String>,

    /// Use this Postgres instead of a private one. The URL must be a superuser's, since databases and roles are created
    #[arg(
        long,
        env = "SAGA_POSTGRES_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub postgres_url: Option<String>,

    /// Leave out a service, which can then run beside the rest. May be given several times
    #[arg(
        long,
        env = "SAGA_WITHOUT",
        value_enum,
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub without: Vec<Name>,

    /// Saga definition for orders that name none: place-order or place-order-payment-first
    #[arg(long, env = "SAGA_DEFINITION", value_name = "NAME")]
    pub definition: Option<String>,

    /// Directory with your own saga definitions, which are loaded in addition to the shipped ones
    #[arg(long, env = "SAGA_DEFINITIONS", value_name = "DIR")]
    pub definitions: Option<PathBuf>,

    #[arg(long, env = "SAGA_LOG_FORMAT", value_enum, default_value = "human")]
    pub log_format: Format,

    /// Log filter in the syntax of RUST_LOG; `info,sqlx=warn` shows every request
    #[arg(
        long,
        env = "SAGA_LOG_FILTER",
        default_value = "warn,librdkafka=error",
        value_name = "FILTER"
    )]
    pub log_filter: String,
}

/// A service's name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    OrderSvc,
    Orchestrator,
    InventorySvc,
    PaymentSvc,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Human,
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Human => Self::Human,
            Format::Json => Self::Json,
        }
    }
}

impl Name {
    pub const ALL: [Self; 4] = [
        Self::OrderSvc,
        Self::Orchestrator,
        Self::InventorySvc,
        Self::PaymentSvc,
    ];

    /// Returns the service's own name.
    pub fn service(self) -> &'static str {
        match self {
            Self::OrderSvc => order_svc::OrderService::NAME,
            Self::Orchestrator => orchestrator::Orchestrator::NAME,
            Self::InventorySvc => inventory_svc::InventoryService::NAME,
            Self::PaymentSvc => payment_svc::PaymentService::NAME,
        }
    }

    /// Returns the flag and the environment variable that set the service's port.
    pub fn port_flag(self) -> (&'static str, &'static str) {
        match self {
            Self::OrderSvc => ("--order-port", "SAGA_ORDER_PORT"),
            Self::Orchestrator => ("--orchestrator-port", "SAGA_ORCHESTRATOR_PORT"),
            Self::InventorySvc => ("--inventory-port", "SAGA_INVENTORY_PORT"),
            Self::PaymentSvc => ("--payment-port", "SAGA_PAYMENT_PORT"),
        }
    }
}

impl Options {
    pub fn address(&self, name: Name) -> SocketAddr {
        let port = match name {
            Name::OrderSvc => self.order_port,
            Name::Orchestrator => self.orchestrator_port,
            Name::InventorySvc => self.inventory_port,
            Name::PaymentSvc => self.payment_port,
        };
        SocketAddr::new(self.bind, port)
    }

    pub fn runs(&self, name: Name) -> bool {
        !self.without.contains(&name)
    }

    pub fn brokers(&self) -> String {
        let private = || format!("127.0.0.1:{}", self.kafka_port);
        self.kafka_brokers.clone().unwrap_or_else(private)
    }

    /// Returns the URL at which the service is reachable from this machine.
    pub fn url(&self, name: Name) -> String {
        let mut address = self.address(name);
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::from([127, 0, 0, 1]));
        }
        format!("http://{address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_flag_has_a_variable_and_a_help_text() {
        let command = Options::command();
        command.clone().debug_assert();
        for argument in command.get_arguments() {
            let name = argument.get_long().expect("a long name");
            if ["help", "version"].contains(&name) {
                continue;
            }
            let variable = format!("SAGA_{}", name.to_uppercase().replace('-', "_"));
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(variable.as_str())
            );
        }
    }

    #[test]
    fn addresses_for_people_are_ones_that_can_be_reached() {
        let url = |bind: &str| {
            let options = Options::try_parse_from(["saga", "--bind", bind]).expect("options");
            options.url(Name::OrderSvc)
        };
        assert_eq!(url("127.0.0.1"), "http://127.0.0.1:3000");
        assert_eq!(url("0.0.0.0"), "http://127.0.0.1:3000");
        assert_eq!(url("::1"), "http://[::1]:3000");
    }
}
