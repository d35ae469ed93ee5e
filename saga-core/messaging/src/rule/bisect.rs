//! A batch while a bad record is searched in it, by halves.
//!
//! ```text
//!  1 2 3 4 5 6 7 8      bad? halve      ─▶ finished: 1 2 3 4
//!  ├──────┤ ├──────┤                       alone:    6
//!           ├──┤├──┤                       finished: 5, then 7 8
//! ```
//!
//! Parts are always tried from the first to the last, so that a record is never handled before one that stands in front
//! of it in its partition, and what is finished of a partition is always its beginning: those offsets may be committed.
//! One bad record among `n` costs about `2 · log2(n)` transactions.

use crate::log::TopicPartition;
use saga_core::message::IncomingRecord;

#[derive(Debug)]
pub(super) struct Bisection {
    finished: Vec<IncomingRecord>,
    /// Still to be tried; the first in log order is the last in the list.
    open: Vec<Vec<IncomingRecord>>,
}

impl Bisection {
    pub fn of(records: Vec<IncomingRecord>) -> Self {
        Self {
            finished: Vec::new(),
            open: vec![records],
        }
    }

    /// What is to be tried now.
    pub fn next(&self) -> Option<&[IncomingRecord]> {
        self.open.last().map(Vec::as_slice)
    }

    /// What was tried is done.
    pub fn finish(&mut self) {
        self.finished
            .append(&mut self.open.pop().unwrap_or_default());
        self.skip_empty();
    }

    /// There is a bad record in what was tried: at least two records.
    pub fn halve(&mut self) {
        let Some(mut first) = self.open.pop() else {
            return;
        };
        let second = first.split_off(first.len() / 2);
        self.open.extend([second, first]);
    }

    /// These partitions are somebody else's now, and so is what was finished of them and not committed.
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
