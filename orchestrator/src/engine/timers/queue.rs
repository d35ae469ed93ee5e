//! The owner's memory of due times, and the decisions about timers that are due. It has no clock and does no I/O.

use super::{
    offsets::Offsets,
    pick_up::{PickUpTracker, has_moved_on},
    pick_up_status::CommandLocation,
    queued_index::QueuedCommand,
    saga_timers::{Outstanding, SagaTimers},
};
use crate::engine::outcome::SagaChange;
use chrono::TimeDelta;
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{CommandRef, PickUpStatus, TimerDue, Trace},
    mutant::{self, Mutant},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// The time after which a produced timer that has not come back is produced again. A duplicate is harmless; a timer
/// that never fires again would not be.
const OUTSTANDING_LIMIT: TimeDelta = TimeDelta::seconds(60);
/// The time after which a due timer that waits for earlier records of the log is checked again.
const RECHECK: TimeDelta = TimeDelta::milliseconds(200);
/// The time after which a due timer that only needs newer offsets is checked again: by the next tick.
const LOOK_AGAIN: TimeDelta = TimeDelta::milliseconds(50);
/// The time for which a command must be unanswered before its participant's offsets are read to see whether it was
/// picked up. Nearly every command is answered earlier, and costs no reading.
const LOOK_AFTER: TimeDelta = TimeDelta::milliseconds(100);

/// A due time that a rescan found in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueRow {
    pub id: SagaId,
    pub home_partition: i32,
    pub next_due: Timestamp,
}

/// A saga with queued commands, as its row lists them beside the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedRow {
    pub id: SagaId,
    pub home_partition: i32,
    /// The earliest due time of the saga's other timers.
    pub next_due: Option<Timestamp>,
    pub queued: Vec<QueuedCommand>,
}

/// A saga to check, and the revision of its entry when it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: SagaId,
    revision: u64,
}

/// The timers of a saga, as it is stored now.
#[derive(Clone, Debug)]
pub struct CurrentTimers {
    pub id: SagaId,
    pub trace: Trace,
    pub timers: Vec<ArmedTimer>,
}

/// A timer to produce.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub home_partition: i32,
    pub timer: TimerDue,
}

#[derive(Debug, Default)]
pub struct TimerQueue {
    sagas: HashMap<SagaId, SagaTimers>,
    due: BTreeSet<(Timestamp, SagaId)>,
    pick_ups: PickUpTracker,
    assignments: u64,
    revisions: u64,
    counts: Counts,
}

/// Counters for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub produced: u64,
    pub postponed: u64,
}

enum Step {
    /// Carries the time at which the command was seen picked up, if the row has to record it.
    Produce(PickUpStatus, Option<Timestamp>),
    Watch,
    At(Timestamp),
}

impl TimerQueue {
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.pick_ups.assign(partition);
        }
        self.assignments += 1;
    }

    /// Keeps the timers of an owned partition from firing before `until`.
    pub fn hold(&mut self, partition: i32, until: Timestamp) {
        self.pick_ups.hold(partition, until);
    }

    /// Returns how often partitions were assigned. A partition that was revoked and assigned again has lost its timers,
    /// although the owned partitions are the same.
    pub fn assignments(&self) -> u64 {
        self.assignments
    }

    pub fn revoke(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.pick_ups.revoke(partition);
        }
        let gone: Vec<SagaId> = self
            .sagas
            .iter()
            .filter(|(_, entry)| !self.pick_ups.owns(entry.home_partition))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.forget(id);
        }
    }

    pub fn owned(&self) -> Vec<i32> {
        self.pick_ups.owned()
    }

    pub fn len(&self) -> usize {
        self.sagas.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sagas.is_empty()
    }

    pub fn watched_len(&self) -> usize {
        self.pick_ups.queued().count()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Records that everything below `next_offset` of an owned partition has been handled.
    pub fn read_to(&mut self, partition: i32, next_offset: i64) {
        self.pick_ups.read_to(partition, next_offset);
    }

    /// Takes over a saga's change from a batch that the engine has committed.
    pub fn changed(&mut self, changed: SagaChange) {
        if changed.ended || !self.pick_ups.owns(changed.home_partition) {
            self.forget(changed.id);
            return;
        }
        let mut entry = self.take(changed.id, changed.home_partition);
        let is_armed = |part: &CommandRef| {
            changed
                .timers
                .iter()
                .any(|timer| timer.part.as_ref() == Some(part))
        };
        entry
            .locations
            .retain(|(part, _)| is_armed(part) && !changed.sent.contains(part));
        entry.locations.extend(
            changed
                .sent
                .into_iter()
                .map(|part| (part, CommandLocation::Unpublished)),
        );
        entry.outstanding.retain(|out| {
            !changed
                .handled
                .iter()
                .any(|(kind, part)| *kind == out.kind && *part == out.part)
        });
        entry.arm(&changed.timers);
        self.put(changed.id, entry);
    }

    /// Records the location of a command that this process has sent, once the log has acknowledged it.
    pub fn delivered(&mut self, saga: SagaId, part: &CommandRef, at: CommandLocation) {
        let Some(entry) = self.sagas.get_mut(&saga) else {
            return;
        };
        self.pick_ups.unlist(saga, entry);
        if let Some((_, place)) = entry.locations.iter_mut().find(|(known, _)| known == part) {
            *place = at;
        }
        self.pick_ups.list(saga, entry);
    }

    /// Returns the location of a command in flight, for the API. The outer `None` means that this process does not own
    /// the saga.
    pub fn place(&self, saga: SagaId, part: &CommandRef) -> Option<Option<CommandLocation>> {
        Some(self.sagas.get(&saga)?.place(part))
    }

    /// Returns the end offsets that stand in for the locations of commands that a previous owner sent.
    pub fn ends(&self, home_partition: i32, participant: &str) -> Option<BTreeMap<i32, i64>> {
        let ends = self.pick_ups.ends(home_partition, participant)?;
        Some(ends.partitions.clone())
    }

    pub fn home_of(&self, saga: SagaId) -> Option<i32> {
        self.sagas.get(&saga).map(|entry| entry.home_partition)
    }

    /// Adds the due times of a rescan that memory lacks, or knows only with a later time.
    pub fn merge_rescan(&mut self, rows: &[DueRow]) {
        if mutant::on(Mutant::ForgetTimersOnTakeover) {
            return;
        }
        for row in rows {
            let known = self.sagas.get(&row.id).is_some_and(|entry| {
                !entry.outstanding.is_empty() || entry.due.is_some_and(|due| due <= row.next_due)
            });
            if known || !self.pick_ups.owns(row.home_partition) {
                continue;
            }
            let mut entry = self.take(row.id, row.home_partition);
            entry.due = Some(row.next_due);
            self.put(row.id, entry);
        }
    }

    /// Watches the queued commands that memory lacks. This uses only the rows' columns: a state is read once the
    /// participant has consumed one of the saga's commands, or when another timer of the saga is due. If memory knows
    /// the saga with another command, either memory or the row is outdated, and the saga's state decides which of them.
    pub fn queued(&mut self, now: Timestamp, rows: Vec<QueuedRow>) {
        if mutant::on(Mutant::ForgetTimersOnTakeover) {
            return;
        }
        for row in rows {
            if !self.pick_ups.owns(row.home_partition) {
                continue;
            }
            let is_known = self
                .sagas
                .get(&row.id)
                .map(|entry| entry.knows(&row.queued));
            if is_known == Some(true) {
                continue;
            }
            let mut entry = self.take(row.id, row.home_partition);
            if is_known.is_some() {
                entry.look_at(now);
            } else {
                entry.due = row.next_due;
                entry.watched = row.queued;
            }
            self.put(row.id, entry);
        }
    }

    /// Returns whether memory covers a saga whose row `is_due` by `until` and lists these commands as queued. Memory
    /// covers it if the saga is checked by `until`, or if the row is not due and each of the commands is watched.
    pub fn covers(
        &self,
        id: SagaId,
        is_due: bool,
        queued: &[QueuedCommand],
        until: Timestamp,
    ) -> bool {
        self.sagas.get(&id).is_some_and(|entry| {
            // A saga that is due is checked as a whole, including its queued commands.
            let is_looked_at = entry.due.is_some_and(|due| due <= until);
            let are_watched = queued.iter().all(|command| entry.watched.contains(command));
            is_looked_at || !is_due && are_watched
        })
    }

    /// Returns sagas with something due: those that have been due for longest, and those that came due last. A new
    /// owner has to check all sagas that wait, and what comes due meanwhile must not wait behind them.
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<Candidate> {
        let due = || self.due.range(..=(now, SagaId(Uuid::max())));
        let latest = due().rev().take(limit / 2);
        let longest = due().take(limit - limit / 2);
        let ids: BTreeSet<SagaId> = longest.chain(latest).map(|(_, id)| *id).collect();
        ids.into_iter()
            .filter_map(|id| self.candidate(id))
            .collect()
    }

    fn candidate(&self, id: SagaId) -> Option<Candidate> {
        self.sagas.get(&id).map(|entry| Candidate {
            id,
            revision: entry.revision,
        })
    }

    /// Returns the participants at which watched commands are queued.
    pub fn watched_participants(&self) -> BTreeSet<String> {
        self.pick_ups.queued().participants()
    }

    /// Returns the participants with a command that has been unanswered for a while and was not seen picked up, and for
    /// how long. Only the first command of each partition is checked, because the commands behind it are younger.
    pub fn unanswered(&self, now: Timestamp) -> BTreeMap<String, TimeDelta> {
        let mut found: BTreeMap<String, TimeDelta> = BTreeMap::new();
        for (participant, saga) in self.pick_ups.unanswered().first_of_each() {
            let entry = self.sagas.get(&saga);
            let Some(since) = entry.and_then(|entry| entry.unseen_since(participant)) else {
                continue;
            };
            let age = now - since;
            if age >= LOOK_AFTER {
                let longest = found.entry(participant.to_owned()).or_insert(age);
                *longest = age.max(*longest);
            }
        }
        found
    }

    /// Records which of the unanswered commands were picked up according to `seen`. Their timeouts run from then on.
    pub fn note_pick_ups(&mut self, seen: &Offsets) {
        for (participant, topic) in &seen.participants {
            let passed: Vec<SagaId> = self
                .pick_ups
                .unanswered()
                .passed(participant, topic, |_| None)
                .collect();
            for id in passed {
                let Some(entry) = self.sagas.get_mut(&id) else {
                    continue;
                };
                self.pick_ups.unlist(id, entry);
                entry.note_pick_ups(participant, topic);
                self.pick_ups.list(id, entry);
            }
        }
    }

    /// Returns the sagas whose queued command has been picked up or is gone according to `seen`, or needs newer end
    /// offsets than ours. The first reading after the assignment stands in for the locations of commands that a
    /// previous owner sent.
    pub fn dequeued(&mut self, seen: &Offsets, limit: usize) -> Vec<Candidate> {
        self.pick_ups.observe(seen);
        // A saga is found once for each of its commands.
        let mut found = BTreeSet::new();
        for id in self.pick_ups.passed(seen) {
            if found.len() == limit {
                break;
            }
            let entry = self.sagas.get(&id);
            if entry.is_some_and(|entry| self.pick_ups.has_moved_on(entry, seen)) {
                found.insert(id);
            }
        }
        found
            .into_iter()
            .filter_map(|id| self.candidate(id))
            .collect()
    }

    /// Decides about every candidate, and returns the timers to produce. `current` has the timers of the rows as they
    /// are now; a candidate without a row has ended.
    pub fn plan(
        &mut self,
        now: Timestamp,
        candidates: &[Candidate],
        current: &[CurrentTimers],
        seen: &Offsets,
    ) -> Vec<Planned> {
        self.pick_ups.observe(seen);
        let mut planned = Vec::new();
        for candidate in candidates {
            // The engine has changed the saga meanwhile: the loaded row is outdated, and memory is newer.
            if self.sagas.get(&candidate.id).map(|entry| entry.revision) != Some(candidate.revision)
            {
                continue;
            }
            match current.iter().find(|row| row.id == candidate.id) {
                None => self.forget(candidate.id),
                Some(row) => self.plan_saga(now, row, seen, &mut planned),
            }
        }
        self.counts.produced += planned.len() as u64;
        planned
    }

    /// Handles timers that could not be produced: they are not outstanding, and their sagas are checked again.
    pub fn produce_failed(&mut self, now: Timestamp, planned: &[Planned]) {
        for Planned {
            timer,
            home_partition,
        } in planned
        {
            if !self.sagas.contains_key(&timer.saga_id) {
                continue;
            }
            let mut entry = self.take(timer.saga_id, *home_partition);
            entry
                .outstanding
                .retain(|out| out.kind != timer.kind || out.part != timer.part);
            entry.due = Some(now + RECHECK);
            self.put(timer.saga_id, entry);
        }
    }

    fn plan_saga(
        &mut self,
        now: Timestamp,
        row: &CurrentTimers,
        seen: &Offsets,
        planned: &mut Vec<Planned>,
    ) {
        let Some(home) = self.home_of(row.id) else {
            return;
        };
        let mut entry = self.take(row.id, home);
        entry.outstanding.retain(|out| out.until > now);
        entry.watched.clear();
        entry.due = None;
        for timer in &row.timers {
            if timer.due_at <= now {
                self.pick_ups.cover(&entry, timer, seen);
            }
            match self.step(now, &mut entry, timer, seen) {
                Step::Produce(verdict, picked_up_at) => {
                    entry.outstanding.push(Outstanding {
                        kind: timer.kind,
                        part: timer.part.clone(),
                        until: now + OUTSTANDING_LIMIT,
                    });
                    entry.look_at(now + OUTSTANDING_LIMIT);
                    planned.push(Planned {
                        home_partition: home,
                        timer: TimerDue {
                            saga_id: row.id,
                            kind: timer.kind,
                            part: timer.part.clone(),
                            verdict,
                            picked_up_at,
                            trace: row.trace.clone(),
                        },
                    });
                }
                Step::Watch => entry.watch(timer),
                Step::At(at) => entry.look_at(at),
            }
        }
        self.put(row.id, entry);
    }

    fn step(
        &mut self,
        now: Timestamp,
        entry: &mut SagaTimers,
        timer: &ArmedTimer,
        seen: &Offsets,
    ) -> Step {
        if let Some(until) = entry.outstanding_until(timer.kind, timer.part.as_ref()) {
            return Step::At(until);
        }
        if let Some(watched) = QueuedCommand::queued(timer) {
            return match self.pick_ups.pick_up_status(entry, &watched, seen) {
                Some(verdict) if has_moved_on(verdict) => decided(now, entry, timer, seen, verdict),
                Some(_) | None => Step::Watch,
            };
        }
        if timer.due_at > now {
            return Step::At(timer.due_at);
        }
        let held_until = self.pick_ups.held_until(entry.home_partition);
        if let Some(until) = held_until.filter(|until| now < *until) {
            self.counts.postponed += 1;
            return Step::At(until);
        }
        if !self
            .pick_ups
            .has_read_what_was_there(entry, timer.due_at, seen)
        {
            self.counts.postponed += 1;
            let has_looked = entry
                .read_barrier
                .is_some_and(|read_barrier| read_barrier.seen_at >= timer.due_at);
            return Step::At(now + if has_looked { RECHECK } else { LOOK_AGAIN });
        }
        let Some(watched) = QueuedCommand::of(timer) else {
            return Step::Produce(PickUpStatus::Unanswered, None);
        };
        let Some(verdict) = self.pick_ups.pick_up_status(entry, &watched, seen) else {
            self.counts.postponed += 1;
            return Step::At(now + LOOK_AGAIN);
        };
        decided(now, entry, timer, seen, verdict)
    }

    fn take(&mut self, id: SagaId, home_partition: i32) -> SagaTimers {
        match self.sagas.remove(&id) {
            Some(entry) => {
                if let Some(due) = entry.due {
                    self.due.remove(&(due, id));
                }
                self.pick_ups.unlist(id, &entry);
                SagaTimers {
                    home_partition,
                    ..entry
                }
            }
            None => SagaTimers::new(home_partition),
        }
    }

    fn put(&mut self, id: SagaId, mut entry: SagaTimers) {
        self.revisions += 1;
        entry.revision = self.revisions;
        if let Some(due) = entry.due {
            self.due.insert((due, id));
        }
        self.pick_ups.list(id, &entry);
        self.sagas.insert(id, entry);
    }

    fn forget(&mut self, id: SagaId) {
        if let Some(entry) = self.sagas.remove(&id) {
            if let Some(due) = entry.due {
                self.due.remove(&(due, id));
            }
            self.pick_ups.unlist(id, &entry);
        }
    }
}

/// Returns the step that produces a command's timer with its verdict. A command that was seen picked up a whole timeout
/// ago is reported as unanswered at once; the row need not record the pick-up first.
fn decided(
    now: Timestamp,
    entry: &SagaTimers,
    timer: &ArmedTimer,
    seen: &Offsets,
    verdict: PickUpStatus,
) -> Step {
    match verdict {
        PickUpStatus::PickedUp => {}
        PickUpStatus::Queued
        | PickUpStatus::Unanswered
        | PickUpStatus::Gone
        | PickUpStatus::Unknown => {
            return Step::Produce(verdict, None);
        }
    }
    let first = QueuedCommand::of(timer).and_then(|command| entry.picked_up_at(&command));
    let topic = timer
        .participant
        .as_ref()
        .and_then(|participant| seen.participants.get(participant));
    let picked_up_at = first.or_else(|| topic.map(|topic| topic.by));
    let has_passed = picked_up_at
        .zip(timer.sent_at)
        .is_some_and(|(picked_up_at, sent_at)| picked_up_at + (timer.due_at - sent_at) <= now);
    let verdict = if has_passed {
        PickUpStatus::Unanswered
    } else {
        PickUpStatus::PickedUp
    };
    Step::Produce(verdict, picked_up_at)
}
