//! Detects partitions that are blocked: there are more records, but none can be read.
//!
//! A consumer reads only committed records. A producer that opens a transaction on a topic and dies leaves every record
//! from the first one of its transaction on unreadable, until the broker ends the transaction after its
//! `transaction.timeout.ms`. To the client the topic looks empty; only its statistics distinguish the two offsets.

use rdkafka::statistics::Partition;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Transactions that end take less. A position that has not moved for longer is blocked by a producer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The open transaction that blocks a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standstill {
    /// Offset of the first record of the open transaction.
    pub offset: i64,
    /// Number of records from that offset on.
    pub records: i64,
}

/// Positions and the time since which they have not moved, by topic and partition.
#[derive(Debug, Default)]
pub(super) struct Standstills(BTreeMap<(String, i32), Seen>);

#[derive(Debug)]
struct Seen {
    offset: i64,
    since: Instant,
}

impl Standstills {
    /// Returns `Some` if the partition has been blocked for too long.
    pub(super) fn look(
        &mut self,
        topic: &str,
        id: i32,
        partition: &Partition,
        now: Instant,
    ) -> Option<Standstill> {
        let place = (topic.to_owned(), id);
        let offset = partition.ls_offset;
        // Everything up to the last stable offset has been fetched, and there are records after it.
        let stands = offset >= 0 && partition.hi_offset > offset && partition.next_offset >= offset;
        if !stands {
            self.0.remove(&place);
            return None;
        }
        let seen = self.0.entry(place).or_insert(Seen { offset, since: now });
        if seen.offset != offset {
            *seen = Seen { offset, since: now };
        }
        (now.duration_since(seen.since) >= PATIENCE).then_some(Standstill {
            offset,
            records: partition.hi_offset - offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn partition(next_offset: i64, ls_offset: i64, hi_offset: i64) -> Partition {
        Partition {
            next_offset,
            ls_offset,
            hi_offset,
            ..Partition::default()
        }
    }

    /// Checks statistics at these times, in seconds, against the expected results.
    fn check(looks: &[(u32, Partition, Option<Standstill>)]) {
        let began = Instant::now();
        let mut standstills = Standstills::default();
        for (seconds, partition, expected) in looks {
            let now = began + *seconds * SECOND;
            let found = standstills.look("saga.inputs", 0, partition, now);
            assert_eq!(found, *expected, "after {seconds} s");
        }
    }

    #[test]
    fn an_open_transaction_is_reported_after_a_delay() {
        let told = Some(Standstill {
            offset: 7,
            records: 5,
        });
        check(&[
            (0, partition(7, 7, 8), None),
            (5, partition(7, 7, 12), None),
            (10, partition(7, 7, 12), told),
            (15, partition(12, 12, 12), None),
        ]);
    }

    #[test]
    fn transactions_that_end_are_nobodys_fault() {
        check(&[
            (0, partition(7, 7, 9), None),
            (8, partition(9, 9, 12), None),
            (16, partition(12, 12, 15), None),
        ]);
    }

    #[test]
    fn a_backlog_is_no_standstill() {
        check(&[
            (0, partition(3, 7, 9), None),
            (20, partition(4, 7, 9), None),
            (40, partition(-1001, -1001, 9), None),
        ]);
    }
}
