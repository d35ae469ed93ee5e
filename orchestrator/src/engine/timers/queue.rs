//! The owner's memory of due times, and what to do about those that have come. No clock, no I/O.

use super::{
    entry::{Entry, Gate, Outstanding},
    offsets::Seen,
    owned::{Ends, Owned},
    verdict::{Place, verdict},
    watchlist::{Watched, Watchlist},
};
use crate::engine::fold::Touched;
use chrono::TimeDelta;
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{DuePart, TimerDue, TimerKind, Trace, Verdict},
    mutant::{self, Mutant},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// A produced timer that was not seen again for this long is produced once more. Its duplicate is harmless; never
/// firing again would not be.
const OUTSTANDING_LIMIT: TimeDelta = TimeDelta::seconds(60);
/// A due timer that cannot fire yet is looked at again after this.
const RECHECK: TimeDelta = TimeDelta::milliseconds(200);

/// A due time that a rescan found in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueRow {
    pub id: SagaId,
    pub home_partition: i32,
    pub next_due: Timestamp,
}

/// A saga with queued commands, as its row tells it beside the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedRow {
    pub id: SagaId,
    pub home_partition: i32,
    /// Of its other timers.
    pub next_due: Option<Timestamp>,
    pub queued: Vec<Watched>,
}

/// A saga to look at, and the state of our memory when it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: SagaId,
    revision: u64,
}

/// A saga as it stands in the table now.
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
    owned: BTreeMap<i32, Owned>,
    sagas: HashMap<SagaId, Entry>,
    due: BTreeSet<(Timestamp, SagaId)>,
    watched: Watchlist,
    assignments: u64,
    revisions: u64,
    counts: Counts,
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub produced: u64,
    pub postponed: u64,
}

enum Step {
    Produce(Verdict),
    Watch,
    At(Timestamp),
}

impl TimerQueue {
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.owned.insert(partition, Owned::default());
        }
        self.assignments += 1;
    }

    /// Nothing of a partition of ours falls due before `until`.
    pub fn hold(&mut self, partition: i32, until: Timestamp) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.held_until = Some(until);
        }
    }

    /// How often partitions were assigned: one that was given up and taken back has no timers, and looks the same.
    pub fn assignments(&self) -> u64 {
        self.assignments
    }

    pub fn revoke(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.owned.remove(&partition);
        }
        let gone: Vec<SagaId> = self
            .sagas
            .iter()
            .filter(|(_, entry)| !self.owned.contains_key(&entry.home_partition))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.forget(id);
        }
    }

    pub fn owned(&self) -> Vec<i32> {
        self.owned.keys().copied().collect()
    }

    pub fn len(&self) -> usize {
        self.sagas.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sagas.is_empty()
    }

    pub fn watched_len(&self) -> usize {
        self.watched.count()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Everything below `next_offset` of a partition of ours has been handled.
    pub fn read_to(&mut self, partition: i32, next_offset: i64) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.read_to = owned.read_to.max(next_offset);
        }
    }

    /// The engine has committed a batch that moved this saga.
    pub fn touched(&mut self, touched: Touched) {
        if touched.ended || !self.owned.contains_key(&touched.home_partition) {
            self.forget(touched.id);
            return;
        }
        let mut entry = self.take(touched.id, touched.home_partition);
        let is_armed = |part: &DuePart| {
            touched
                .timers
                .iter()
                .any(|timer| timer.part.as_ref() == Some(part))
        };
        entry
            .places
            .retain(|(part, _)| is_armed(part) && !touched.sent.contains(part));
        entry.places.extend(
            touched
                .sent
                .into_iter()
                .map(|part| (part, Place::Unpublished)),
        );
        entry.outstanding.retain(|out| {
            !touched
                .handled
                .iter()
                .any(|(kind, part)| *kind == out.kind && *part == out.part)
        });
        entry.arm(&touched.timers);
        self.put(touched.id, entry);
    }

    /// A command of ours is acknowledged and stands there.
    pub fn delivered(&mut self, saga: SagaId, part: &DuePart, at: Place) {
        let Some(entry) = self.sagas.get_mut(&saga) else {
            return;
        };
        entry.unlist(saga, &mut self.watched);
        if let Some((_, place)) = entry.places.iter_mut().find(|(known, _)| known == part) {
            *place = at;
        }
        entry.list(saga, &mut self.watched);
    }

    /// Where a command in flight stands, for the API. Outer `None`: this process does not own the saga.
    pub fn place(&self, saga: SagaId, part: &DuePart) -> Option<Option<Place>> {
        let entry = self.sagas.get(&saga)?;
        Some(
            entry
                .places
                .iter()
                .find(|(known, _)| known == part)
                .map(|(_, place)| *place),
        )
    }

    /// Log ends that stand in for the places of commands which an owner before us sent.
    pub fn ends(&self, home_partition: i32, participant: &str) -> Option<BTreeMap<i32, i64>> {
        self.owned
            .get(&home_partition)?
            .ends
            .get(participant)
            .map(|ends| ends.partitions.clone())
    }

    pub fn home_of(&self, saga: SagaId) -> Option<i32> {
        self.sagas.get(&saga).map(|entry| entry.home_partition)
    }

    /// Adds what a rescan found and memory misses, or would look at too late.
    pub fn rescanned(&mut self, rows: &[DueRow]) {
        if mutant::on(Mutant::ForgetTimersOnTakeover) {
            return;
        }
        for row in rows {
            let known = self.sagas.get(&row.id).is_some_and(|entry| {
                !entry.outstanding.is_empty() || entry.due.is_some_and(|due| due <= row.next_due)
            });
            if known || !self.owned.contains_key(&row.home_partition) {
                continue;
            }
            let mut entry = self.take(row.id, row.home_partition);
            entry.due = Some(row.next_due);
            self.put(row.id, entry);
        }
    }

    /// Watches queued commands that memory misses, by their rows alone: a state is read once its participant has come past
    /// one of them, or something else of the saga is due. Where memory knows the saga and another command of it, one of
    /// both is old, and its state tells which.
    pub fn queued(&mut self, now: Timestamp, rows: Vec<QueuedRow>) {
        if mutant::on(Mutant::ForgetTimersOnTakeover) {
            return;
        }
        for row in rows {
            if !self.owned.contains_key(&row.home_partition) {
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

    /// Whether a saga is looked at by `until` if its row `is_due` by then, and each of the commands that its row lists as
    /// queued is watched.
    pub fn looks_after(
        &self,
        id: SagaId,
        is_due: bool,
        queued: &[Watched],
        until: Timestamp,
    ) -> bool {
        self.sagas.get(&id).is_some_and(|entry| {
            // Whatever is due is looked at whole.
            let is_looked_at = entry.due.is_some_and(|due| due <= until);
            let are_watched = queued.iter().all(|command| entry.watched.contains(command));
            is_looked_at || !is_due && are_watched
        })
    }

    /// Sagas with something due: those that are due for longest, and those that came due last. Whoever takes over has to
    /// look at all that wait, and what comes due meanwhile must not wait behind them.
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

    /// Participants that watched commands are queued at.
    pub fn watched_participants(&self) -> BTreeSet<String> {
        self.watched.participants()
    }

    /// Sagas whose queued command has been picked up, or is gone, by what was seen; or needs a newer look than ours. What
    /// is seen first after the assignment stands in for the places of commands that a predecessor sent.
    pub fn no_longer_queued(&mut self, seen: &Seen, limit: usize) -> Vec<Candidate> {
        self.note(seen);
        let queue = &*self;
        let moved_on = seen
            .participants
            .iter()
            .flat_map(|(participant, topic)| {
                let ends_of = move |home: i32| {
                    let ends = queue.owned.get(&home)?.ends.get(participant)?;
                    Some((&ends.partitions, ends.at))
                };
                queue.watched.passed(participant, topic, ends_of)
            })
            .filter(|id| {
                let entry = queue.sagas.get(id);
                entry.is_some_and(|entry| queue.has_moved_on(entry, seen))
            });
        // A saga is found once for each of its commands.
        let mut found = BTreeSet::new();
        for id in moved_on {
            if found.len() == limit {
                break;
            }
            found.insert(id);
        }
        found
            .into_iter()
            .filter_map(|id| queue.candidate(id))
            .collect()
    }

    fn has_moved_on(&self, entry: &Entry, seen: &Seen) -> bool {
        entry.watched.iter().any(|watched| {
            let moved = match self.verdict(entry, watched, seen) {
                Some(verdict) => has_moved_on(verdict),
                None => !self.is_covered(entry, watched),
            };
            moved
                && entry
                    .outstanding_until(TimerKind::Timeout, Some(&watched.part))
                    .is_none()
        })
    }

    /// `None` if it takes a newer look to tell.
    fn verdict(&self, entry: &Entry, watched: &Watched, seen: &Seen) -> Option<Verdict> {
        let topic = seen.participants.get(&watched.participant);
        if topic.is_some() && !self.is_covered(entry, watched) {
            return None;
        }
        let none = BTreeMap::new();
        let ends = self
            .ends_for(entry, &watched.participant)
            .map_or(&none, |ends| &ends.partitions);
        verdict(entry.place(&watched.part), ends, topic)
    }

    /// Whether the command stands where we know, or below the ends that we saw.
    fn is_covered(&self, entry: &Entry, watched: &Watched) -> bool {
        entry.place(&watched.part).is_some()
            || self
                .ends_for(entry, &watched.participant)
                .zip(watched.sent_at)
                .is_none_or(|(ends, sent_at)| sent_at < ends.at)
    }

    fn ends_for(&self, entry: &Entry, participant: &str) -> Option<&Ends> {
        self.owned.get(&entry.home_partition)?.ends.get(participant)
    }

    /// Somebody else may send a command after our look at the ends: a process that has lost the partition and does not
    /// know it yet, or one that a reply went astray to. Then a newer look stands in for its place.
    fn cover(&mut self, entry: &Entry, timer: &ArmedTimer, seen: &Seen) {
        let Some(watched) = Watched::of(timer) else {
            return;
        };
        if self.is_covered(entry, &watched) {
            return;
        }
        if let Some(topic) = seen.participants.get(&watched.participant)
            && watched.sent_at.is_some_and(|sent_at| sent_at < topic.at)
            && let Some(owned) = self.owned.get_mut(&entry.home_partition)
        {
            owned.ends.insert(watched.participant, Ends::of(topic));
        }
    }

    /// Decides about every candidate. `current` is what their rows say now; a candidate without a row has ended.
    pub fn plan(
        &mut self,
        now: Timestamp,
        candidates: &[Candidate],
        current: &[CurrentTimers],
        seen: &Seen,
    ) -> Vec<Planned> {
        self.note(seen);
        let mut planned = Vec::new();
        for candidate in candidates {
            // The engine was faster: what was loaded is old, and memory is newer.
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

    /// Producing failed: nothing is outstanding, and everything is looked at again.
    pub fn unproduced(&mut self, now: Timestamp, planned: &[Planned]) {
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

    /// Keeps the first look at each command topic after the assignment, and how far our own group is.
    fn note(&mut self, seen: &Seen) {
        for (partition, owned) in &mut self.owned {
            if let Some(inputs) = &seen.inputs
                && let Some(now) = inputs.partitions.get(partition)
            {
                owned.read_to = owned.read_to.max(now.committed);
            }
            for (participant, topic) in &seen.participants {
                if !owned.ends.contains_key(participant) {
                    owned.ends.insert(participant.clone(), Ends::of(topic));
                }
            }
        }
    }

    fn plan_saga(
        &mut self,
        now: Timestamp,
        row: &CurrentTimers,
        seen: &Seen,
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
                self.cover(&entry, timer, seen);
            }
            match self.step(now, &mut entry, timer, seen) {
                Step::Produce(verdict) => {
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

    fn step(&mut self, now: Timestamp, entry: &mut Entry, timer: &ArmedTimer, seen: &Seen) -> Step {
        if let Some(until) = entry.outstanding_until(timer.kind, timer.part.as_ref()) {
            return Step::At(until);
        }
        if let Some(watched) = Watched::queued(timer) {
            return match self.verdict(entry, &watched, seen) {
                Some(verdict) if has_moved_on(verdict) => Step::Produce(verdict),
                Some(_) | None => Step::Watch,
            };
        }
        if timer.due_at > now {
            return Step::At(timer.due_at);
        }
        let held_until = self
            .owned
            .get(&entry.home_partition)
            .and_then(|owned| owned.held_until);
        if let Some(until) = held_until.filter(|until| now < *until) {
            self.counts.postponed += 1;
            return Step::At(until);
        }
        if !self.has_read_what_was_there(entry, timer.due_at, seen) {
            self.counts.postponed += 1;
            return Step::At(now + RECHECK);
        }
        let Some(watched) = Watched::of(timer) else {
            return Step::Produce(Verdict::Unanswered);
        };
        let Some(verdict) = self.verdict(entry, &watched, seen) else {
            self.counts.postponed += 1;
            return Step::At(now + RECHECK);
        };
        Step::Produce(verdict)
    }

    /// Whether we have handled the home partition up to the end that was seen once the timer had come due: the reply
    /// may stand there.
    fn has_read_what_was_there(&self, entry: &mut Entry, due_at: Timestamp, seen: &Seen) -> bool {
        if mutant::on(Mutant::FireTimersUnread) {
            return true;
        }
        let Some(owned) = self.owned.get(&entry.home_partition) else {
            return false;
        };
        let fits = entry.gate.is_some_and(|gate| gate.seen_at >= due_at);
        if !fits {
            entry.gate = seen
                .inputs
                .as_ref()
                .filter(|inputs| inputs.at >= due_at)
                .and_then(|inputs| {
                    let now = inputs.partitions.get(&entry.home_partition)?;
                    Some(Gate {
                        seen_at: inputs.at,
                        end: now.end,
                        read_to: owned.read_to,
                    })
                });
        }
        entry.gate.is_some_and(|gate| {
            owned.read_to >= gate.end || owned.has_nothing_left(gate, entry.home_partition, seen)
        })
    }

    fn take(&mut self, id: SagaId, home_partition: i32) -> Entry {
        match self.sagas.remove(&id) {
            Some(entry) => {
                if let Some(due) = entry.due {
                    self.due.remove(&(due, id));
                }
                entry.unlist(id, &mut self.watched);
                Entry {
                    home_partition,
                    ..entry
                }
            }
            None => Entry::new(home_partition),
        }
    }

    fn put(&mut self, id: SagaId, mut entry: Entry) {
        self.revisions += 1;
        entry.revision = self.revisions;
        if let Some(due) = entry.due {
            self.due.insert((due, id));
        }
        entry.list(id, &mut self.watched);
        self.sagas.insert(id, entry);
    }

    fn forget(&mut self, id: SagaId) {
        if let Some(entry) = self.sagas.remove(&id) {
            if let Some(due) = entry.due {
                self.due.remove(&(due, id));
            }
            entry.unlist(id, &mut self.watched);
        }
    }
}

fn has_moved_on(verdict: Verdict) -> bool {
    match verdict {
        Verdict::PickedUp | Verdict::Unanswered | Verdict::Gone => true,
        Verdict::Queued | Verdict::Unknown => false,
    }
}
