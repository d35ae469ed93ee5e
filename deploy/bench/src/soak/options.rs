//! The command line of `saga-bench soak`.

use crate::options::{EXIT_STATUS, ServerOptions};
use clap::Args;

/// Looks whether anything drifts in a long run, and what dropping old partitions does to the load.
///
/// Saturation is found by one closed loop; then orders arrive at a share of it for the minutes, and each minute is looked
/// at for itself. Afterwards partitions are aged, so that retention drops them under the same load.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct SoakOptions {
    /// How long
    #[arg(long, default_value_t = 30, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub minutes: u64,

    /// Of saturation
    #[arg(long, default_value_t = 0.7, value_name = "SHARE", value_parser = share)]
    pub share: f64,

    /// Orders in flight of the step that looks for saturation
    #[arg(long, default_value_t = 2_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub in_flight: u64,

    /// Orders a second, instead of a share of saturation
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: Option<u64>,

    /// Age no partitions, and so drop none
    #[arg(long)]
    pub without_retention: bool,

    /// Partitions of each table that are to be dropped under load, one a minute
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub aged_partitions: u32,

    /// Rows in each of them
    #[arg(long, default_value_t = 100_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub aged_rows: u32,

    #[command(flatten)]
    pub servers: ServerOptions,

    /// Seconds instead of minutes: whether results are right and old partitions go. What CI runs
    #[arg(long)]
    pub smoke: bool,
}

/// Above zero, and not above twice of it, which is overload enough.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 2.0 => Ok(share),
        Ok(_) | Err(_) => Err(format!("'{text}' is not a share, such as 0.7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
