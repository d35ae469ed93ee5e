//! Descriptions of this service's own metrics.

use saga_messaging::{
    metric::{self, Help},
    metric_table,
};

const HELP: &[Help] = metric_table! {
    Histogram "order_duration_seconds": "From accepting an order to its end, by status",
    Gauge "orders": "Orders that have not ended; more than 100,000 are not counted",
    Counter "orders_accepted_total": "Orders that were accepted",
    Counter "orders_ended_total": "Orders that ended, by status",
};

/// Describes the metrics of this service and of the messaging library.
pub fn describe() {
    metric::describe(metric::HELP);
    metric::describe(HELP);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_metric_has_a_help_text() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let told: Vec<&str> = HELP.iter().map(|(_, name, _)| *name).collect();
        assert_eq!(
            saga_test_support::metrics::undescribed(&sources, &told),
            [""; 0]
        );
    }
}
