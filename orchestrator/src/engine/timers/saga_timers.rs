//! The memory that an owner has of a saga with timers: when to check the saga, and which of its commands are watched.

use super::{
    offsets::TopicOffsets,
    pick_up_status::{CommandLocation, pick_up_status},
    queued_index::{IndexKey, QueuedCommand},
};
use saga_core::{
    ids::Timestamp,
    instance::ArmedTimer,
    message::{CommandRef, PickUpStatus, TimerKind},
};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct SagaTimers {
    pub(super) home_partition: i32,
    pub(super) revision: u64,
    pub(super) due: Option<Timestamp>,
    /// Commands that the row has recorded as queued, with the participants whose offsets must be read.
    pub(super) watched: Vec<QueuedCommand>,
    /// Commands in flight for which the row has not recorded whether they were picked up.
    pub(super) unanswered: Vec<Unanswered>,
    pub(super) locations: Vec<(CommandRef, CommandLocation)>,
    pub(super) outstanding: Vec<Outstanding>,
    pub(super) read_barrier: Option<ReadBarrier>,
}

#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) command: QueuedCommand,
    /// The time at which the command was first seen picked up, if it was. The row records it once the command's timer
    /// is due.
    pub(super) picked_up_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) kind: TimerKind,
    pub(super) part: Option<CommandRef>,
    pub(super) until: Timestamp,
}

/// The end of the home partition, as read after a timer came due. Every record before it must be handled before the
/// timer fires.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadBarrier {
    pub(super) seen_at: Timestamp,
    pub(super) end: i64,
    /// The next offset that this process had to handle at that time.
    pub(super) read_to: i64,
}

impl SagaTimers {
    pub(super) fn new(home_partition: i32) -> Self {
        Self {
            home_partition,
            revision: 0,
            due: None,
            watched: Vec::new(),
            unanswered: Vec::new(),
            locations: Vec::new(),
            outstanding: Vec::new(),
            read_barrier: None,
        }
    }

    /// Takes over the timers that the engine has computed. The rest is determined when a timer is due.
    pub(super) fn arm(&mut self, timers: &[ArmedTimer]) {
        self.due = None;
        self.watched.clear();
        self.look_for_pick_ups(timers);
        for timer in timers {
            let outstanding = self.outstanding_until(timer.kind, timer.part.as_ref());
            match (outstanding, timer.known) {
                (Some(until), _) => self.look_at(until),
                (None, Some(PickUpStatus::Queued)) => self.watch(timer),
                (
                    None,
                    Some(
                        PickUpStatus::PickedUp
                        | PickUpStatus::Unanswered
                        | PickUpStatus::Gone
                        | PickUpStatus::Unknown,
                    )
                    | None,
                ) => {
                    self.look_at(timer.due_at);
                }
            }
        }
    }

    fn look_for_pick_ups(&mut self, timers: &[ArmedTimer]) {
        let before = std::mem::take(&mut self.unanswered);
        let unseen = timers.iter().filter(|timer| timer.known.is_none());
        self.unanswered = unseen
            .filter_map(QueuedCommand::of)
            .map(|command| Unanswered {
                picked_up_at: before
                    .iter()
                    .find(|unanswered| unanswered.command == command)
                    .and_then(|unanswered| unanswered.picked_up_at),
                command,
            })
            .collect();
    }

    pub(super) fn watch(&mut self, timer: &ArmedTimer) {
        self.watched.extend(QueuedCommand::of(timer));
    }

    /// Returns the keys of the commands that the row has recorded as queued, with their participants.
    pub(super) fn queued_keys(&self) -> impl Iterator<Item = (&str, IndexKey)> {
        self.watched
            .iter()
            .filter_map(|watched| Some((watched.participant.as_str(), self.key(watched)?)))
    }

    /// Returns the keys of the commands that this process has sent and that were not seen picked up, with their
    /// participants. Commands of a previous owner are checked when they are due.
    pub(super) fn unseen_keys(&self) -> impl Iterator<Item = (&str, IndexKey)> {
        let unseen = self
            .unanswered
            .iter()
            .filter(|unanswered| unanswered.picked_up_at.is_none());
        unseen.filter_map(|unanswered| {
            let command = &unanswered.command;
            match self.key(command)? {
                key @ IndexKey::At { .. } => Some((command.participant.as_str(), key)),
                IndexKey::Before { .. } => None,
            }
        })
    }

    /// Returns the earliest time since which the participant has had a command that it was not seen to pick up.
    pub(super) fn unseen_since(&self, participant: &str) -> Option<Timestamp> {
        let unseen = self.unanswered.iter().filter(|unanswered| {
            unanswered.picked_up_at.is_none() && unanswered.command.participant == participant
        });
        unseen
            .filter_map(|unanswered| match self.place(&unanswered.command.part)? {
                CommandLocation::At { known_at, .. } => Some(known_at),
                CommandLocation::Unpublished => None,
            })
            .min()
    }

    /// Records which commands were picked up, according to a reading of their participant's topic.
    pub(super) fn note_pick_ups(&mut self, participant: &str, topic: &TopicOffsets) {
        let mut unanswered = std::mem::take(&mut self.unanswered);
        for one in &mut unanswered {
            let place = self.place(&one.command.part);
            if one.picked_up_at.is_none()
                && one.command.participant == participant
                && place.is_some()
                && pick_up_status(place, &BTreeMap::new(), Some(topic))
                    == Some(PickUpStatus::PickedUp)
            {
                one.picked_up_at = Some(topic.by);
            }
        }
        self.unanswered = unanswered;
    }

    /// Returns the time at which a command was first seen picked up.
    pub(super) fn picked_up_at(&self, command: &QueuedCommand) -> Option<Timestamp> {
        let mut all = self.unanswered.iter();
        all.find(|unanswered| unanswered.command == *command)?
            .picked_up_at
    }

    /// Returns a command's key in the indexes. `None` before the command is acknowledged, because no participant can
    /// have consumed it.
    fn key(&self, watched: &QueuedCommand) -> Option<IndexKey> {
        match self.place(&watched.part) {
            Some(CommandLocation::Unpublished) => None,
            Some(CommandLocation::At {
                partition, offset, ..
            }) => Some(IndexKey::At { partition, offset }),
            None => Some(IndexKey::Before {
                home_partition: self.home_partition,
                sent_at: watched.sent_at,
            }),
        }
    }

    /// Returns whether memory needs nothing from a row with these queued commands: all of them are watched, or a timer
    /// is outstanding, so that the saga is checked again anyway.
    pub(super) fn knows(&self, queued: &[QueuedCommand]) -> bool {
        !self.outstanding.is_empty() || queued.iter().all(|command| self.watched.contains(command))
    }

    pub(super) fn place(&self, part: &CommandRef) -> Option<CommandLocation> {
        self.locations
            .iter()
            .find(|(known, _)| known == part)
            .map(|(_, place)| *place)
    }

    pub(super) fn look_at(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Returns the time at which a timer is produced again, if it was produced and is not handled yet.
    pub(super) fn outstanding_until(
        &self,
        kind: TimerKind,
        part: Option<&CommandRef>,
    ) -> Option<Timestamp> {
        self.outstanding
            .iter()
            .find(|out| out.kind == kind && out.part.as_ref() == part)
            .map(|out| out.until)
    }
}
