//! The history of a run: facts in the order in which they happened. Checks read nothing else.

use crate::{store::Effect, world::number_of};
use saga_core::{
    definition::SagaDefinition,
    ids::SagaId,
    instance::SagaInstance,
    message::{Direction, IncomingRecord, OutgoingRecord, header},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

/// The kind of the topic that a record was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Input,
    Event,
    Command,
    DeadLetter,
}

/// A record that was appended to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub kind: Kind,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// True if a fault or the nemesis wrote the record.
    pub injected: bool,
    pub at: Duration,
    pub id: String,
    pub record_type: String,
    pub saga: Option<SagaId>,
    pub step: Option<String>,
    pub direction: Option<Direction>,
    pub sequence: Option<u64>,
    /// The original position of a dead letter's record. `reason` says why it is a dead letter.
    pub letter_of: Option<(String, i32, i64)>,
    pub reason: Option<String>,
    pub payload: Vec<u8>,
}

impl Appended {
    pub fn of(
        record: &OutgoingRecord,
        partition: i32,
        offset: i64,
        injected: bool,
        at: Duration,
    ) -> Self {
        let text = |name: &str| {
            let value = record.headers.get(name)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let letter_of = || {
            Some((
                text(header::DEAD_LETTER_TOPIC)?,
                text(header::DEAD_LETTER_PARTITION)?.parse().ok()?,
                text(header::DEAD_LETTER_OFFSET)?.parse().ok()?,
            ))
        };
        let kind = match record.topic.rsplit('.').next() {
            Some("dlq") => Kind::DeadLetter,
            Some("events") => Kind::Event,
            Some("inputs") => Kind::Input,
            _ => Kind::Command,
        };
        let payload = match kind {
            Kind::Event => record.payload.clone(),
            Kind::Input | Kind::Command | Kind::DeadLetter => Vec::new(),
        };
        Self {
            kind,
            topic: record.topic.clone(),
            partition,
            offset,
            injected,
            at,
            id: text(header::CE_ID).unwrap_or_default(),
            record_type: text(header::CE_TYPE).unwrap_or_default(),
            saga: text(header::SAGA_ID).and_then(|id| id.parse().ok()),
            step: text(header::STEP),
            direction: text(header::DIRECTION).and_then(|text| text.parse().ok()),
            sequence: text(header::SEQUENCE).and_then(|text| text.parse().ok()),
            letter_of: letter_of(),
            reason: text(header::DEAD_LETTER_REASON),
            payload,
        }
    }
}

impl fmt::Display for Appended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.topic, self.partition, self.offset)?;
        if let Some(saga) = self.saga {
            write!(f, " saga {}", number_of(saga))?;
        }
        // The rest of a message's id follows the saga's id.
        let rest = self
            .id
            .split_once('/')
            .map_or(self.id.as_str(), |(_, rest)| rest);
        write!(f, " {} ({rest})", self.record_type)?;
        if let Some(reason) = &self.reason {
            write!(f, " {reason}")?;
        }
        if self.injected {
            write!(f, " injected")?;
        }
        Ok(())
    }
}

/// An advance of a saga, from the given version, by a committed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advance {
    pub saga: SagaId,
    pub from_version: i64,
}

/// A saga after a committed batch, and the tables that it was in.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: Duration,
    pub instance: SagaInstance,
    pub live: bool,
    pub ended: bool,
}

/// A saga whose start was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub number: u64,
    pub definition: Arc<SagaDefinition>,
    /// True if all participants answer this saga without failures and errors.
    pub calm: bool,
    pub home_partition: i32,
}

/// A violation that is found when it happens, because it could not be seen later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub check: &'static str,
    pub detail: String,
    pub at: Duration,
}

#[derive(Debug, Default)]
pub struct History {
    pub accepted: BTreeMap<SagaId, Accepted>,
    pub appended: Vec<Appended>,
    pub effects: Vec<Effect>,
    pub advances: Vec<Advance>,
    pub snapshots: Vec<Snapshot>,
    /// Sagas that the nemesis has interfered with. Their compensations may have a reason.
    pub meddled: BTreeSet<SagaId>,
    /// Positions of records that must become dead letters.
    pub bad: Vec<(String, i32, i64)>,
    /// The number of times that a saga's input was read again, or its batch run again.
    pub again: BTreeMap<SagaId, usize>,
    pub observed: Vec<Observed>,
    /// Sagas at the end of the run.
    pub live: BTreeMap<SagaId, SagaInstance>,
    pub ended: BTreeMap<SagaId, SagaInstance>,
    /// Each participant's own floor and the highest floor that it has received, at the last look.
    pub floors: BTreeMap<&'static str, (i64, i64)>,
    read: BTreeSet<(String, i32, i64)>,
    in_hand: BTreeMap<String, BTreeSet<SagaId>>,
}

impl History {
    /// Notes that a record was handed to a member of a group.
    pub fn handed_out(&mut self, group: &str, record: &IncomingRecord, saga: Option<SagaId>) {
        let first = self
            .read
            .insert((group.to_owned(), record.partition, record.offset));
        if let (false, Some(saga)) = (first, saga) {
            *self.again.entry(saga).or_default() += 1;
        }
    }

    /// Sets the sagas that a process works on now.
    pub fn in_hand(&mut self, process: &str, sagas: BTreeSet<SagaId>) {
        self.in_hand.insert(process.to_owned(), sagas);
    }

    /// Counts a repetition for the sagas of a process whose batch will be run again.
    pub fn excuse_in_hand(&mut self, process: &str) {
        for saga in self.in_hand.get(process).into_iter().flatten() {
            *self.again.entry(*saga).or_default() += 1;
        }
    }

    /// Returns the last state of a saga.
    pub fn last(&self, saga: SagaId) -> Option<&Snapshot> {
        self.snapshots
            .iter()
            .rev()
            .find(|snapshot| snapshot.instance.id == saga)
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Appended> {
        self.appended
            .iter()
            .filter(move |appended| appended.kind == kind)
    }
}
