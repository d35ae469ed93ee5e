//! What one stage came to, counted as it goes.

use super::latency::Latency;
use crate::scenario::Kind;
use serde::Serialize;
use std::{collections::BTreeMap, ops::Range};
use uuid::Uuid;

/// How a saga ended, or that it has stopped for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Compensated,
    Parked,
    Abandoned,
}

/// Orders of one kind that were accepted in a stage, from its beginning to the end of its drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orders {
    pub accepted: u64,
    pub ended_as_expected: u64,
    pub ended_otherwise: u64,
}

/// One second of a stage, by when sagas ended in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Second {
    pub ended: u64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// Answers of a stage other than 201.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotAccepted {
    /// 503: come again later.
    pub pushed_back: u64,
    /// Any other status: the load generator asked for something wrong, or the service broke.
    pub refused: u64,
    /// The connection broke before an answer came: the order may have been accepted.
    pub unknown: u64,
}

/// See the module. Times are microseconds of the run's clock.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    began_us: u64,
    /// Latencies are of orders that were meant for this time, throughput is of sagas that ended in it.
    window: Range<u64>,
    pub sent: u64,
    pub not_accepted: NotAccepted,
    pub orders: BTreeMap<Kind, Orders>,
    pub ended_in_window: u64,
    pub accepted_in_window: u64,
    /// From when an order was meant to be sent until its 201.
    pub intended_to_accepted: Latency,
    /// From its 201 until its saga's end was seen.
    pub accepted_to_ended: Latency,
    pub intended_to_ended: Latency,
    /// From when an order was meant to be sent until it was: the load generator's own fault.
    pub sending: Latency,
    pub seconds: Vec<Second>,
    this_second: Latency,
    /// Sagas that ended otherwise than they must, the first few.
    pub wrong: Vec<(Uuid, Kind, Outcome)>,
}

/// Of a kind of trouble, so many are named; the rest is counted.
const NAMED_AT_MOST: usize = 5;
const SECOND_US: u64 = 1_000_000;

/// When an accepted order was meant to be sent, and when it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub kind: Kind,
    pub intended_us: u64,
    pub answered_us: u64,
}

impl Tally {
    pub fn new(began_us: u64, window: Range<u64>) -> Self {
        Self {
            began_us,
            window,
            ..Self::default()
        }
    }

    pub fn sending(&mut self, intended_us: u64, sent_us: u64) {
        self.sent += 1;
        if self.window.contains(&intended_us) {
            self.sending.record(sent_us.saturating_sub(intended_us));
        }
    }

    pub fn accepted(&mut self, order: &Accepted) {
        self.orders.entry(order.kind).or_default().accepted += 1;
        if self.window.contains(&order.answered_us) {
            self.accepted_in_window += 1;
        }
        if self.window.contains(&order.intended_us) {
            let answer = order.answered_us.saturating_sub(order.intended_us);
            self.intended_to_accepted.record(answer);
        }
    }

    pub fn ended(&mut self, id: Uuid, order: &Accepted, outcome: Outcome, ended_us: u64) {
        let orders = self.orders.entry(order.kind).or_default();
        let expected = if order.kind.completes() {
            Outcome::Completed
        } else {
            Outcome::Compensated
        };
        if outcome == expected {
            orders.ended_as_expected += 1;
        } else {
            orders.ended_otherwise += 1;
            if self.wrong.len() < NAMED_AT_MOST {
                self.wrong.push((id, order.kind, outcome));
            }
        }
        // The end can be seen before the answer was read.
        let lasted = ended_us.saturating_sub(order.answered_us);
        if self.window.contains(&order.intended_us) {
            self.accepted_to_ended.record(lasted);
            self.intended_to_ended
                .record(ended_us.saturating_sub(order.intended_us));
        }
        if self.window.contains(&ended_us) {
            self.ended_in_window += 1;
        }
        self.in_second(ended_us, lasted);
    }

    fn in_second(&mut self, ended_us: u64, lasted_us: u64) {
        let second = (ended_us.saturating_sub(self.began_us) / SECOND_US) as usize;
        while self.seconds.len() < second {
            self.close_second();
        }
        self.this_second.record(lasted_us);
    }

    fn close_second(&mut self) {
        self.seconds.push(Second {
            ended: self.this_second.count(),
            p50_ms: self.this_second.at(0.5),
            p99_ms: self.this_second.at(0.99),
        });
        self.this_second.clear();
    }

    /// Accepted orders whose end has not been seen.
    pub fn missing(&self) -> u64 {
        let missing =
            |orders: &Orders| orders.accepted - orders.ended_as_expected - orders.ended_otherwise;
        self.orders.values().map(missing).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    fn order(intended_us: u64, answered_us: u64) -> Accepted {
        Accepted {
            kind: Kind::Confirmed,
            intended_us,
            answered_us,
        }
    }

    fn tally() -> Tally {
        Tally::new(0, SECOND_US..3 * SECOND_US)
    }

    fn run(tally: &mut Tally, order: Accepted, outcome: Outcome, ended_us: u64) {
        tally.accepted(&order);
        tally.ended(Uuid::nil(), &order, outcome, ended_us);
    }

    #[test]
    fn warm_up_and_drain_are_counted_but_not_measured() {
        let mut tally = tally();
        let completed = Outcome::Completed;
        run(&mut tally, order(0, 5 * MS), completed, 20 * MS);
        let (within, later) = (2 * SECOND_US, 3 * SECOND_US);
        run(
            &mut tally,
            order(within, within + 5 * MS),
            completed,
            within + 9 * MS,
        );
        run(
            &mut tally,
            order(later, later + MS),
            completed,
            later + 2 * MS,
        );
        assert_eq!(tally.orders[&Kind::Confirmed].ended_as_expected, 3);
        assert_eq!(tally.accepted_to_ended.count(), 1);
        assert_eq!((tally.ended_in_window, tally.accepted_in_window), (1, 1));
        assert_eq!(tally.missing(), 0);
    }

    #[test]
    fn latency_is_measured_from_the_intended_time_however_late_the_order_was_sent() {
        let mut tally = tally();
        let intended = SECOND_US;
        tally.sending(intended, intended + 300 * MS);
        let sent_late = order(intended, intended + 310 * MS);
        run(
            &mut tally,
            sent_late,
            Outcome::Completed,
            intended + 350 * MS,
        );
        let max = |latency: &Latency| latency.percentiles().max_ms.map(f64::round);
        assert_eq!(max(&tally.sending), Some(300.0));
        assert_eq!(max(&tally.intended_to_accepted), Some(310.0));
        assert_eq!(max(&tally.intended_to_ended), Some(350.0));
        assert_eq!(max(&tally.accepted_to_ended), Some(40.0));
    }

    #[test]
    fn an_end_that_is_not_the_expected_one_is_counted_and_named() {
        let check = |kind: Kind, outcome: Outcome, otherwise: u64| {
            let mut tally = tally();
            let order = Accepted {
                kind,
                ..order(0, 1)
            };
            run(&mut tally, order, outcome, 2);
            assert_eq!(
                tally.orders[&kind].ended_otherwise, otherwise,
                "{kind:?} {outcome:?}"
            );
            assert_eq!(tally.wrong.len() as u64, otherwise);
        };
        check(Kind::Confirmed, Outcome::Completed, 0);
        check(Kind::Confirmed, Outcome::Compensated, 1);
        check(Kind::Declined, Outcome::Compensated, 0);
        check(Kind::Declined, Outcome::Completed, 1);
        check(Kind::Refunded, Outcome::Parked, 1);
        check(Kind::PaidFirst, Outcome::Abandoned, 1);
    }

    #[test]
    fn accepted_orders_without_an_end_are_missing() {
        let mut tally = tally();
        tally.accepted(&order(0, 1));
        tally.accepted(&order(0, 1));
        tally.ended(Uuid::nil(), &order(0, 1), Outcome::Completed, 5);
        assert_eq!(tally.missing(), 1);
    }

    #[test]
    fn seconds_without_an_end_stand_in_the_timeline_too() {
        let mut tally = tally();
        run(&mut tally, order(0, 1), Outcome::Completed, MS);
        run(
            &mut tally,
            order(0, 1),
            Outcome::Completed,
            3 * SECOND_US + MS,
        );
        let ended: Vec<u64> = tally.seconds.iter().map(|second| second.ended).collect();
        // The last one is not over.
        assert_eq!(ended, [1, 0, 0]);
    }
}
