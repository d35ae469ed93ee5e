//! What an owner remembers of a saga that has timers: when to look at it, and which of its commands are watched.

use super::{
    verdict::Place,
    watchlist::{Spot, Watched, Watchlist},
};
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{DuePart, TimerKind, Verdict},
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) home_partition: i32,
    pub(super) revision: u64,
    pub(super) due: Option<Timestamp>,
    /// Whom to ask about commands that the row knows to be queued.
    pub(super) watched: Vec<Watched>,
    pub(super) places: Vec<(DuePart, Place)>,
    pub(super) outstanding: Vec<Outstanding>,
    pub(super) gate: Option<Gate>,
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) kind: TimerKind,
    pub(super) part: Option<DuePart>,
    pub(super) until: Timestamp,
}

/// The log's end, seen after a timer came due: what stands before it must be handled first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    pub(super) seen_at: Timestamp,
    pub(super) end: i64,
    /// Where our own reading stood then.
    pub(super) read_to: i64,
}

impl Entry {
    pub(super) fn new(home_partition: i32) -> Self {
        Self {
            home_partition,
            revision: 0,
            due: None,
            watched: Vec::new(),
            places: Vec::new(),
            outstanding: Vec::new(),
            gate: None,
        }
    }

    /// Takes what the engine knows; the rest is found out when it is due.
    pub(super) fn arm(&mut self, timers: &[ArmedTimer]) {
        self.due = None;
        self.watched.clear();
        for timer in timers {
            let outstanding = self.outstanding_until(timer.kind, timer.part.as_ref());
            match (outstanding, timer.known) {
                (Some(until), _) => self.look_at(until),
                (None, Some(Verdict::Queued)) => self.watch(timer),
                (
                    None,
                    Some(
                        Verdict::PickedUp | Verdict::Unanswered | Verdict::Gone | Verdict::Unknown,
                    )
                    | None,
                ) => {
                    self.look_at(timer.due_at);
                }
            }
        }
    }

    pub(super) fn watch(&mut self, timer: &ArmedTimer) {
        self.watched.extend(Watched::of(timer));
    }

    pub(super) fn list(&self, id: SagaId, list: &mut Watchlist) {
        for watched in &self.watched {
            if let Some(spot) = self.spot(watched) {
                list.add(&watched.participant, spot, id);
            }
        }
    }

    /// Before anything changes that [`Entry::spot`] goes by.
    pub(super) fn unlist(&self, id: SagaId, list: &mut Watchlist) {
        for watched in &self.watched {
            if let Some(spot) = self.spot(watched) {
                list.remove(&watched.participant, spot, id);
            }
        }
    }

    /// `None` before it is acknowledged: nobody can have come past it.
    fn spot(&self, watched: &Watched) -> Option<Spot> {
        match self.place(&watched.part) {
            Some(Place::Unpublished) => None,
            Some(Place::At {
                partition, offset, ..
            }) => Some(Spot::At { partition, offset }),
            None => Some(Spot::Before {
                home_partition: self.home_partition,
                sent_at: watched.sent_at,
            }),
        }
    }

    /// What is outstanding is looked at again by itself.
    pub(super) fn knows(&self, queued: &[Watched]) -> bool {
        !self.outstanding.is_empty() || queued.iter().all(|command| self.watched.contains(command))
    }

    pub(super) fn place(&self, part: &DuePart) -> Option<Place> {
        self.places
            .iter()
            .find(|(known, _)| known == part)
            .map(|(_, place)| *place)
    }

    pub(super) fn look_at(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When it is produced once more, if it was and has not come back.
    pub(super) fn outstanding_until(
        &self,
        kind: TimerKind,
        part: Option<&DuePart>,
    ) -> Option<Timestamp> {
        self.outstanding
            .iter()
            .find(|out| out.kind == kind && out.part.as_ref() == part)
            .map(|out| out.until)
    }
}
