//! One stage: a load, and the measurement of the system under it.
//!
//! ```text
//!  ├── warm-up ──┼──────── window ────────┼── drain ──┤
//!                └ snapshot, memory every second, snapshot
//! ```
//!
//! Latencies are of the orders that were intended to be sent within the window, however late they ended. Throughput and
//! cost are of the window.

use crate::{
    load::{Latency, NotAccepted, Offer, Orders, Percentiles, Tally},
    measure::Cost,
    options::Shared,
    scenario::Kind,
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// The least duration of a closed loop's warm-up and measurement, in rounds: see [`round`].
const ROUNDS_WARM_UP: f64 = 1.5;
const ROUNDS_MEASURED: f64 = 3.0;

#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub offer: Offer,
    pub warm_up: Duration,
    pub measured: Duration,
}

impl Plan {
    pub fn open(name: impl Into<String>, per_second: f64, shared: &Shared) -> Self {
        Self {
            name: name.into(),
            offer: Offer::Rate { per_second },
            warm_up: shared.warm_up(),
            measured: shared.measured(),
        }
    }

    pub fn closed(name: impl Into<String>, in_flight: u64, shared: &Shared) -> Self {
        Self {
            offer: Offer::InFlight(in_flight),
            ..Self::open(name, 0.0, shared)
        }
    }

    /// Makes a closed loop last several rounds of its orders, at the rate that the last closed loop reached.
    #[must_use]
    pub fn for_rounds(self, a_second: f64, round_max: Duration) -> Self {
        let round = match self.offer {
            Offer::InFlight(in_flight) => round(in_flight, a_second, round_max),
            Offer::Rate { .. } => Duration::ZERO,
        };
        Self {
            warm_up: self.warm_up.max(round.mul_f64(ROUNDS_WARM_UP)),
            measured: self.measured.max(round.mul_f64(ROUNDS_MEASURED)),
            ..self
        }
    }
}

/// Returns how long it takes until as many sagas have ended as are in flight. They are sent all at once and go through
/// the steps together, so throughput rises and falls in waves. A measurement of less than a few rounds would show only
/// the peak or the low of a wave.
fn round(in_flight: u64, a_second: f64, most: Duration) -> Duration {
    if a_second <= 0.0 {
        return most;
    }
    Duration::from_secs_f64(in_flight as f64 / a_second).min(most)
}

/// The results of a stage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The name of the workload that the stage belongs to.
    pub workload: String,
    pub name: String,
    /// Open loop: the orders a second that were offered.
    pub offered_a_second: Option<f64>,
    /// Closed loop: the orders in flight at any time.
    pub in_flight: Option<u64>,
    pub seconds: f64,
    pub sagas_a_second: f64,
    pub accepted_a_second: f64,
    pub sent: u64,
    pub not_accepted: NotAccepted,
    pub orders: BTreeMap<Kind, Orders>,
    pub accepted_to_ended: Percentiles,
    pub intended_to_ended: Percentiles,
    pub intended_to_accepted: Percentiles,
    /// How late the load generator itself sent orders. If this is not small, the load generator was short of CPU.
    pub sending: Percentiles,
    /// Pairs of a quantile and milliseconds from accepted to ended.
    pub curve: Vec<(f64, f64)>,
    /// The sagas that ended in each second, warm-up and drain included.
    pub timeline: Vec<u64>,
    pub cost: Cost,
    /// The time from the last order sent until the last saga ended; `None` if some sagas had not ended by the limit.
    pub drained_ms: Option<u64>,
    /// The mistakes that the stage shows by itself, without the databases.
    pub mistakes: Vec<String>,
}

impl Stage {
    pub fn new(plan: Plan, tally: Tally, cost: Cost, drained: Option<Duration>) -> Self {
        let percentiles = Latency::percentiles;
        let seconds = plan.measured.as_secs_f64();
        let (offered_a_second, in_flight) = match plan.offer {
            Offer::Rate { per_second } => (Some(per_second), None),
            Offer::InFlight(count) => (None, Some(count)),
        };
        Self {
            workload: String::new(),
            name: plan.name,
            offered_a_second,
            in_flight,
            seconds,
            sagas_a_second: tally.ended_in_window as f64 / seconds,
            accepted_a_second: tally.accepted_in_window as f64 / seconds,
            sent: tally.sent,
            not_accepted: tally.not_accepted,
            accepted_to_ended: percentiles(&tally.accepted_to_ended),
            intended_to_ended: percentiles(&tally.intended_to_ended),
            intended_to_accepted: percentiles(&tally.intended_to_accepted),
            sending: percentiles(&tally.sending),
            curve: tally.accepted_to_ended.curve(),
            mistakes: tally.mistakes(drained.is_some()),
            timeline: tally.seconds,
            orders: tally.orders,
            cost,
            drained_ms: drained.map(|drained| drained.as_millis() as u64),
        }
    }

    /// Returns the stage's name behind that of its workload.
    pub fn label(&self) -> String {
        join(&[&self.workload, &self.name], ", ")
    }
}

/// Joins the parts that are not empty.
pub fn join(parts: &[&str], between: &str) -> String {
    let mut parts = parts.to_vec();
    parts.retain(|part| !part.is_empty());
    parts.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_as_long_as_the_sagas_in_flight_take() {
        let most = Duration::from_secs(20);
        assert_eq!(round(4_000, 2_000.0, most), Duration::from_secs(2));
        assert_eq!(round(4_000, 100.0, most), most);
        assert_eq!(round(4_000, 0.0, most), most);
    }
}
