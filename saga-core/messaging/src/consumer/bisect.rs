//! Searches a batch for a bad record, by halves.
//!
//! ```text
//!  1 2 3 4 5 6 7 8      bad? halve      ─▶ finished: 1 2 3 4
//!  ├──────┤ ├──────┤                       alone:    6
//!           ├──┤├──┤                       finished: 5, then 7 8
//! ```
//!
//! Parts are always tried in log order, so that a record is never handled before an earlier one of its partition. The
//! finished records of a partition are therefore always its first ones, and their offsets may be committed. One bad
//! record among `n` costs about `2 · log2(n)` transactions.

use crate::log::TopicPartition;
use saga_core::message::IncomingRecord;

#[derive(Debug)]
pub(super) struct Bisection {
    finished: Vec<IncomingRecord>,
    /// The parts still to be tried; the first part in log order is the last in the list.
    open: Vec<Vec<IncomingRecord>>,
}

impl Bisection {
    pub fn of(records: Vec<IncomingRecord>) -> Self {
        Self {
            finished: Vec::new(),
            open: vec![records],
        }
    }

    /// Returns the part to be tried now.
    pub fn next(&self) -> Option<&[IncomingRecord]> {
        self.open.last().map(Vec::as_slice)
    }

    /// Marks the current part as finished.
    pub fn finish(&mut self) {
        self.finished
            .append(&mut self.open.pop().unwrap_or_default());
        self.skip_empty();
    }

    /// Splits the current part, which has a bad record among at least two.
    pub fn halve(&mut self) {
        let Some(mut first) = self.open.pop() else {
            return;
        };
        let second = first.split_off(first.len() / 2);
        self.open.extend([second, first]);
    }

    /// Removes the records of revoked partitions, including finished records whose offsets are not committed.
    pub fn forget(&mut self, gone: &[TopicPartition]) {
        for part in self
            .open
            .iter_mut()
            .chain(std::iter::once(&mut self.finished))
        {
            part.retain(|record| !holds(gone, record));
        }
        self.skip_empty();
    }

    pub fn into_finished(self) -> Vec<IncomingRecord> {
        self.finished
    }

    fn skip_empty(&mut self) {
        self.open.retain(|part| !part.is_empty());
    }
}

pub(super) fn holds(partitions: &[TopicPartition], record: &IncomingRecord) -> bool {
    partitions
        .iter()
        .any(|held| held.partition == record.partition && held.topic == record.topic)
}
