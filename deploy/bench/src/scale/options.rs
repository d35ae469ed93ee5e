//! The command line of `saga-bench scale`.

use crate::options::{EXIT_STATUS, ServerOptions};
use clap::Args;

/// Shows what several processes of each service make of the same load, and what a saga costs by partitions and by sagas.
///
/// For each count of partitions a system of its own. Copies are added while the others run; a count of copies above the
/// count of partitions is left out, since some would have nothing to do.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct ScaleOptions {
    /// Processes of each service
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "LIST",
        default_value = "1,2,4",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub copies: Vec<u16>,

    /// Partitions of each topic, instead of --partitions
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "LIST",
        default_value = "2,4,8,16",
        value_parser = clap::value_parser!(u16).range(1..=1_000)
    )]
    pub partition_counts: Vec<u16>,

    /// Orders in flight
    #[arg(long, default_value_t = 2_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub in_flight: u64,

    /// How long each stage is measured; one of each count of partitions takes four times as long
    #[arg(long, default_value_t = 8, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,

    /// How long each stage runs before it is measured
    #[arg(long, default_value_t = 4, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub warm_up: u64,

    #[command(flatten)]
    pub servers: ServerOptions,

    /// Seconds, two copies, two partitions: whether results are right. What CI runs
    #[arg(long)]
    pub smoke: bool,
}
