//! Every end of a stage with its time, which a histogram does not keep. The figures of any part of the stage are
//! computed from it, and the times in which no saga ended although some were in flight.

use super::latency::Latency;
use std::ops::Range;

/// A saga that ended. Times are microseconds of the run's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When the 201 of its order was read, or its end if that was seen first.
    pub accepted_us: u64,
    pub ended_us: u64,
}

impl Passage {
    fn lasted_us(&self) -> u64 {
        self.ended_us - self.accepted_us
    }
}

/// A time in which no saga ended although an order had been accepted and its saga's end was still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub from_us: u64,
    pub to_us: u64,
}

impl Stall {
    pub fn us(&self) -> u64 {
        self.to_us - self.from_us
    }
}

/// The ended sagas, in the order of their ends.
#[derive(Clone, Debug, Default)]
pub struct Trace(Vec<Passage>);

impl Trace {
    pub fn new(mut passages: Vec<Passage>) -> Self {
        passages.sort_by_key(|passage| passage.ended_us);
        Self(passages)
    }

    /// Returns the sagas that ended in a part of the time.
    pub fn within(&self, time: &Range<u64>) -> &[Passage] {
        let at = |us: u64| self.0.partition_point(|passage| passage.ended_us < us);
        let (from, to) = (at(time.start), at(time.end));
        self.0.get(from..to).unwrap_or_default()
    }

    pub fn latency(&self, time: &Range<u64>) -> Latency {
        let mut latency = Latency::default();
        for passage in self.within(time) {
            latency.record(passage.lasted_us());
        }
        latency
    }

    /// Returns the longest duration of the sagas that ended in a part of the time.
    pub fn longest_us(&self, time: &Range<u64>) -> Option<u64> {
        self.within(time).iter().map(Passage::lasted_us).max()
    }

    /// Returns the stalls in their order. Each is the time between two ends, without the part in which no order was in
    /// flight.
    pub fn stalls(&self) -> Vec<Stall> {
        // The earliest acceptance among the sagas that end at each position or later. Computed backwards, because it
        // depends on the later ends.
        let mut first_us = u64::MAX;
        let mut waiting: Vec<u64> = Vec::with_capacity(self.0.len());
        for passage in self.0.iter().rev() {
            first_us = first_us.min(passage.accepted_us);
            waiting.push(first_us);
        }
        waiting.reverse();
        let pairs = self.0.windows(2).zip(waiting.iter().skip(1));
        pairs
            .filter_map(|(pair, waiting_since)| {
                let from_us = pair[0].ended_us.max(*waiting_since);
                let to_us = pair[1].ended_us;
                (from_us < to_us).then_some(Stall { from_us, to_us })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(pairs: &[(u64, u64)]) -> Trace {
        let passage = |(accepted_us, ended_us): &(u64, u64)| Passage {
            accepted_us: *accepted_us,
            ended_us: *ended_us,
        };
        Trace::new(pairs.iter().map(passage).collect())
    }

    fn check(pairs: &[(u64, u64)], expected: &[(u64, u64)]) {
        let found: Vec<(u64, u64)> = trace(pairs)
            .stalls()
            .iter()
            .map(|stall| (stall.from_us, stall.to_us))
            .collect();
        assert_eq!(found, expected, "{pairs:?}");
    }

    #[test]
    fn a_stall_lasts_from_one_end_to_the_next_while_a_saga_is_open() {
        check(&[(0, 10), (5, 50)], &[(10, 50)]);
        check(&[(0, 10), (5, 20), (6, 50)], &[(10, 20), (20, 50)]);
        check(&[], &[]);
        check(&[(0, 10)], &[]);
    }

    #[test]
    fn a_time_without_orders_is_no_stall() {
        // The second order was accepted only at 40.
        check(&[(0, 10), (40, 50)], &[(40, 50)]);
        // A saga that is overtaken waits all the time.
        check(&[(0, 10), (40, 50), (5, 90)], &[(10, 50), (50, 90)]);
    }

    #[test]
    fn simultaneous_ends_are_no_stall() {
        check(&[(0, 10), (1, 10), (2, 10)], &[]);
    }

    #[test]
    fn a_time_range_includes_the_sagas_that_ended_in_it() {
        let trace = trace(&[(0, 30), (5, 10), (15, 20)]);
        assert_eq!(trace.within(&(10..30)).len(), 2);
        assert_eq!(trace.longest_us(&(10..30)), Some(5));
        assert_eq!(trace.longest_us(&(30..31)), Some(30));
        assert_eq!(trace.longest_us(&(40..90)), None);
        assert_eq!(trace.latency(&(0..100)).count(), 3);
    }
}
