//! The figures of one stage, counted while it runs.

use super::latency::Latency;
use crate::scenario::Kind;
use serde::Serialize;
use std::{collections::BTreeMap, ops::Range};
use uuid::Uuid;

/// How a saga ended; `Parked` means that it waits for a person.
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

/// Answers of a stage other than 201.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotAccepted {
    /// Answered with 503: the client should try again later.
    pub pushed_back: u64,
    /// Answered with any other status: the request was wrong, or the service failed.
    pub refused: u64,
    /// The connection broke before an answer arrived: the order may have been accepted.
    pub unknown: u64,
}

/// The counters and latencies of one stage. Times are microseconds of the run's clock.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    began_us: u64,
    /// The measured time. Latencies are of orders that were intended for this time, throughput is of sagas that ended
    /// in it.
    window: Range<u64>,
    pub sent: u64,
    pub not_accepted: NotAccepted,
    pub orders: BTreeMap<Kind, Orders>,
    pub ended_in_window: u64,
    pub accepted_in_window: u64,
    /// The time from an order's intended time until its 201.
    pub intended_to_accepted: Latency,
    /// The time from an order's 201 until its saga's end was seen.
    pub accepted_to_ended: Latency,
    pub intended_to_ended: Latency,
    /// The time from an order's intended time until it was sent: a delay of the load generator, not of the system.
    pub sending: Latency,
    /// The sagas that ended in each second.
    pub seconds: Vec<u64>,
    /// The first few sagas that ended otherwise than expected.
    pub wrong: Vec<(Uuid, Kind, Outcome)>,
}

/// How many mistakes of a kind are named; further ones are only counted.
const NAMED_AT_MOST: usize = 5;
const SECOND_US: u64 = 1_000_000;

/// An accepted order: its intended time, and when it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub kind: Kind,
    pub intended_us: u64,
    pub answered_us: u64,
}

/// Counts one more event in a second of a list of counts.
pub fn count_second(seconds: &mut Vec<u64>, second: usize) {
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    seconds[second] += 1;
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
        // The end may be seen before the answer was read.
        let lasted = ended_us.saturating_sub(order.answered_us);
        if self.window.contains(&order.intended_us) {
            self.accepted_to_ended.record(lasted);
            self.intended_to_ended
                .record(ended_us.saturating_sub(order.intended_us));
        }
        if self.window.contains(&ended_us) {
            self.ended_in_window += 1;
        }
        let second = ended_us.saturating_sub(self.began_us) / SECOND_US;
        count_second(&mut self.seconds, second as usize);
    }

    /// Returns the number of accepted orders whose end has not been seen.
    pub fn missing(&self) -> u64 {
        let missing =
            |orders: &Orders| orders.accepted - orders.ended_as_expected - orders.ended_otherwise;
        self.orders.values().map(missing).sum()
    }

    /// Returns the mistakes that the tally shows by itself, without the databases. Orders that were pushed back are
    /// none: the system was busy.
    pub fn mistakes(&self, drained: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if !drained || self.missing() > 0 {
            let missing = self.missing();
            wrong.push(format!("{missing} accepted orders have not ended"));
        }
        if self.not_accepted.refused > 0 {
            let refused = self.not_accepted.refused;
            wrong.push(format!(
                "{refused} orders were refused that should have been accepted"
            ));
        }
        wrong.extend(self.wrong.iter().map(|(saga, kind, outcome)| {
            let expected = kind.name();
            format!("saga {saga} was to be {expected}, and is {outcome:?}")
        }));
        wrong
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
    fn the_timeline_includes_seconds_without_an_end() {
        let mut tally = tally();
        run(&mut tally, order(0, 1), Outcome::Completed, MS);
        run(
            &mut tally,
            order(0, 1),
            Outcome::Completed,
            3 * SECOND_US + MS,
        );
        assert_eq!(tally.seconds, [1, 0, 0, 1]);
    }

    #[test]
    fn a_tally_that_lost_something_is_broken() {
        let check = |spoil: fn(&mut Tally), drained: bool, expected: Option<&str>| {
            let mut tally = Tally::default();
            spoil(&mut tally);
            let found = tally.mistakes(drained);
            match expected {
                Some(text) => assert!(found.iter().any(|one| one.contains(text)), "{found:?}"),
                None => assert!(found.is_empty(), "{found:?}"),
            }
        };
        check(|_| (), true, None);
        check(|_| (), false, Some("have not ended"));
        check(
            |tally| tally.orders.entry(Kind::Confirmed).or_default().accepted = 1,
            true,
            Some("1 accepted"),
        );
        check(
            |tally| tally.not_accepted.refused = 2,
            true,
            Some("2 orders were refused"),
        );
        check(
            |tally| {
                tally
                    .wrong
                    .push((Uuid::nil(), Kind::Confirmed, Outcome::Compensated));
            },
            true,
            Some("and is Compensated"),
        );
        // Orders are expected to be turned away under overload, because the system is busy.
        check(|tally| tally.not_accepted.pushed_back = 9, true, None);
    }
}
