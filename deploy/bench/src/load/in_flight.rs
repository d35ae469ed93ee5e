//! Orders in flight: when each was accepted, and whether its saga's end was seen. The client records acceptance and the
//! watch records ends, each on its own thread and in either order.

use super::{
    tally::{Accepted, Outcome, Tally},
    trace::{Passage, Trace},
};
use crate::scenario::Kind;
use hashlink::LruCache;
use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use uuid::Uuid;

/// The answer to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted(Uuid),
    PushedBack,
    Refused,
    Unknown,
}

/// A terminal event, or one that says that the saga is parked.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub saga: Uuid,
    pub outcome: Outcome,
    pub at_us: u64,
}

/// The orders in flight, with the tally of the current stage.
pub struct InFlight {
    origin: Instant,
    ledger: Mutex<Ledger>,
    /// Orders that were sent, and neither turned away nor ended.
    open: AtomicI64,
    /// Notified when sagas have ended or orders were turned away.
    pub moved: Notify,
}

struct Ledger {
    tally: Tally,
    waiting: HashMap<Uuid, Accepted>,
    /// Ends that were seen before their order's 201 was read. It also holds ends that were read twice, ends of orders
    /// whose answer was lost, and ends of sagas from other senders.
    unclaimed: LruCache<Uuid, Ended>,
    /// Every end, if a caller asked for a trace.
    kept: Option<Vec<Passage>>,
}

/// How many ends may wait for their order's answer: several seconds' worth. Older ends belong to no order of the bench.
const UNCLAIMED_MAX: usize = 50_000;

impl Ledger {
    fn new(tally: Tally) -> Self {
        Self {
            tally,
            waiting: HashMap::new(),
            unclaimed: LruCache::new(UNCLAIMED_MAX),
            kept: None,
        }
    }

    fn ended(&mut self, order: &Accepted, ended: &Ended) {
        self.tally
            .ended(ended.saga, order, ended.outcome, ended.at_us);
        if let Some(kept) = &mut self.kept {
            kept.push(Passage {
                // The end may be seen before the answer was read.
                accepted_us: order.answered_us.min(ended.at_us),
                ended_us: ended.at_us,
            });
        }
    }
}

impl InFlight {
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            ledger: Mutex::new(Ledger::new(Tally::default())),
            open: AtomicI64::new(0),
            moved: Notify::new(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // No code panics while the ledger is half-changed.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time since the run's clock started, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// Converts a time of the run's clock to an `Instant`.
    pub fn instant(&self, us: u64) -> Instant {
        self.origin + Duration::from_micros(us)
    }

    /// Starts a new stage, measured within `window`.
    pub fn begin(&self, began_us: u64, window: Range<u64>) {
        let mut ledger = self.ledger();
        *ledger = Ledger {
            kept: ledger.kept.take(),
            ..Ledger::new(Tally::new(began_us, window))
        };
        drop(ledger);
        self.open.store(0, Ordering::Relaxed);
    }

    pub fn tally(&self) -> Tally {
        self.ledger().tally.clone()
    }

    /// Keeps every end from now on, until [`take_trace`](Self::take_trace).
    pub fn keep_trace(&self) {
        self.ledger().kept = Some(Vec::new());
    }

    pub fn take_trace(&self) -> Trace {
        Trace::new(self.ledger().kept.take().unwrap_or_default())
    }

    pub fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn sending(&self, intended_us: u64) {
        self.ledger().tally.sending(intended_us, self.now_us());
    }

    /// Counts one more order in flight.
    pub fn enter(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self, count: i64) {
        self.open.fetch_sub(count, Ordering::Relaxed);
        self.moved.notify_one();
    }

    pub fn answered(&self, kind: Kind, intended_us: u64, answer: Answer) {
        let mut ledger = self.ledger();
        let not_accepted = &mut ledger.tally.not_accepted;
        match answer {
            Answer::Accepted(saga) => {
                let order = Accepted {
                    kind,
                    intended_us,
                    answered_us: self.now_us(),
                };
                ledger.tally.accepted(&order);
                let Some(ended) = ledger.unclaimed.remove(&saga) else {
                    ledger.waiting.insert(saga, order);
                    return;
                };
                ledger.ended(&order, &ended);
            }
            Answer::PushedBack => not_accepted.pushed_back += 1,
            Answer::Refused => not_accepted.refused += 1,
            Answer::Unknown => not_accepted.unknown += 1,
        }
        drop(ledger);
        self.leave(1);
    }

    pub fn ended(&self, all: &[Ended]) {
        let mut left = 0;
        let mut ledger = self.ledger();
        for ended in all {
            match ledger.waiting.remove(&ended.saga) {
                Some(order) => {
                    ledger.ended(&order, ended);
                    left += 1;
                }
                None => {
                    ledger.unclaimed.insert(ended.saga, *ended);
                }
            }
        }
        drop(ledger);
        if left > 0 {
            self.leave(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight() -> InFlight {
        let flight = InFlight::new();
        flight.begin(0, 0..u64::MAX);
        flight
    }

    fn ended(saga: Uuid) -> Ended {
        Ended {
            saga,
            outcome: Outcome::Completed,
            at_us: 7,
        }
    }

    #[test]
    fn an_order_counts_once_in_either_order_of_answer_and_end() {
        let check = |answer_first: bool| {
            let (flight, saga) = (flight(), Uuid::new_v4());
            flight.enter();
            let answer = || flight.answered(Kind::Confirmed, 0, Answer::Accepted(saga));
            if answer_first {
                answer();
                assert_eq!(flight.open(), 1);
                flight.ended(&[ended(saga)]);
            } else {
                flight.ended(&[ended(saga)]);
                assert_eq!(flight.open(), 1);
                answer();
            }
            assert_eq!(flight.open(), 0);
            let tally = flight.tally();
            assert_eq!(tally.orders[&Kind::Confirmed].ended_as_expected, 1);
            assert_eq!(tally.missing(), 0);
        };
        check(true);
        check(false);
    }

    #[test]
    fn a_repeated_end_counts_once() {
        let (flight, saga) = (flight(), Uuid::new_v4());
        flight.enter();
        flight.answered(Kind::Confirmed, 0, Answer::Accepted(saga));
        flight.ended(&[ended(saga), ended(saga)]);
        flight.ended(&[ended(saga)]);
        assert_eq!(flight.open(), 0);
        assert_eq!(flight.tally().orders[&Kind::Confirmed].ended_as_expected, 1);
    }

    #[test]
    fn ends_are_kept_only_while_a_trace_is_requested() {
        let (flight, saga) = (flight(), Uuid::new_v4());
        flight.answered(Kind::Confirmed, 0, Answer::Accepted(saga));
        flight.ended(&[ended(saga)]);
        assert_eq!(flight.take_trace().within(&(0..u64::MAX)).len(), 0);
        flight.keep_trace();
        let saga = Uuid::new_v4();
        flight.ended(&[ended(saga)]);
        flight.answered(Kind::Confirmed, 0, Answer::Accepted(saga));
        assert_eq!(flight.take_trace().within(&(0..u64::MAX)).len(), 1);
    }

    #[test]
    fn ends_of_others_are_not_kept_for_ever() {
        let (flight, saga) = (flight(), Uuid::new_v4());
        for _ in 0..=UNCLAIMED_MAX {
            flight.ended(&[ended(Uuid::new_v4())]);
        }
        flight.ended(&[ended(saga)]);
        assert_eq!(flight.ledger().unclaimed.len(), UNCLAIMED_MAX);
        flight.enter();
        flight.answered(Kind::Confirmed, 0, Answer::Accepted(saga));
        assert_eq!(flight.open(), 0);
    }

    #[test]
    fn a_rejected_order_is_no_longer_in_flight() {
        for answer in [Answer::PushedBack, Answer::Refused, Answer::Unknown] {
            let flight = flight();
            flight.enter();
            flight.answered(Kind::Confirmed, 0, answer);
            assert_eq!(flight.open(), 0, "{answer:?}");
        }
    }
}
