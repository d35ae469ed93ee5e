//! Simulated consumer groups: assignments, the members' delayed knowledge of them, and committed offsets.

use super::Broker;
use crate::{process::Process, world::World};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// The session timeout that the real consumers have configured.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

pub type MemberId = u64;

/// A change of the assignment, as a member receives it.
#[derive(Clone, Debug)]
pub enum Moved {
    Assigned(Vec<i32>),
    /// The member must return these partitions, and may still commit their offsets.
    Revoked(Vec<i32>),
    /// The member has lost these partitions already.
    Lost(Vec<i32>),
}

pub(super) struct Group {
    pub topic: String,
    members: BTreeMap<MemberId, Member>,
    owners: BTreeMap<i32, Owner>,
    pub committed: BTreeMap<i32, i64>,
    rotation: usize,
}

struct Member {
    process: Process,
    moved: VecDeque<Moved>,
    silent_since: Option<Instant>,
}

#[derive(Default)]
struct Owner {
    member: Option<MemberId>,
    /// True if the member was asked to return the partition.
    releasing: bool,
}

impl Group {
    pub fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            committed: BTreeMap::new(),
            rotation: 0,
        }
    }

    /// Returns the member that should own a partition.
    fn target(&self, partition: i32) -> Option<MemberId> {
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        let index = (partition as usize + self.rotation) % members.len().max(1);
        members.get(index).copied()
    }

    /// Moves every partition towards its target owner.
    fn rebalance(&mut self, partitions: i32) {
        let mut assigned: BTreeMap<MemberId, Vec<i32>> = BTreeMap::new();
        let mut revoked: BTreeMap<MemberId, Vec<i32>> = BTreeMap::new();
        for partition in 0..partitions {
            let Some(target) = self.target(partition) else {
                self.owners.remove(&partition);
                continue;
            };
            let members = &self.members;
            let owner = self.owners.entry(partition).or_default();
            match owner.member.filter(|member| members.contains_key(member)) {
                Some(member) if member == target || owner.releasing => {}
                Some(member) => {
                    owner.releasing = true;
                    revoked.entry(member).or_default().push(partition);
                }
                None => {
                    *owner = Owner {
                        member: Some(target),
                        releasing: false,
                    };
                    assigned.entry(target).or_default().push(partition);
                }
            }
        }
        for (member, partitions) in revoked {
            self.notify(member, Moved::Revoked(partitions));
        }
        for (member, partitions) in assigned {
            self.notify(member, Moved::Assigned(partitions));
        }
    }

    fn notify(&mut self, member: MemberId, moved: Moved) {
        if let Some(member) = self.members.get_mut(&member) {
            member.moved.push_back(moved);
        }
    }

    /// Frees partitions that the member has returned, so that their target owner can get them.
    fn release(&mut self, member: MemberId, partitions: &[i32]) {
        for partition in partitions {
            let owner = self.owners.entry(*partition).or_default();
            if owner.member == Some(member) {
                *owner = Owner::default();
            }
        }
    }

    fn owns(&self, member: MemberId, partition: i32) -> bool {
        self.members.contains_key(&member)
            && self
                .owners
                .get(&partition)
                .is_some_and(|owner| owner.member == Some(member))
    }

    /// Returns the members that the coordinator has not heard of for a session timeout.
    fn silent(&mut self) -> Vec<MemberId> {
        let mut silent = Vec::new();
        for (id, member) in &mut self.members {
            if member.process.is_dead() || member.process.is_stalled() {
                let since = *member.silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= SESSION_TIMEOUT {
                    silent.push(*id);
                }
            } else {
                member.silent_since = None;
            }
        }
        silent
    }
}

impl Broker {
    pub(super) fn join(&self, group: &str, topic: &str, process: &Process) -> MemberId {
        let mut state = self.state();
        state.members += 1;
        let id = state.members;
        let partitions = state.topic(topic).len() as i32;
        let group = state
            .groups
            .entry(group.to_owned())
            .or_insert_with(|| Group::new(topic));
        let member = Member {
            process: process.clone(),
            moved: VecDeque::new(),
            silent_since: None,
        };
        group.members.insert(id, member);
        group.rebalance(partitions);
        drop(state);
        self.changed.notify_waiters();
        id
    }

    fn with_group<T>(&self, name: &str, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let mut state = self.state();
        let topic = state.groups.get(name)?.topic.clone();
        let partitions = state.topic(&topic).len() as i32;
        let group = state.groups.get_mut(name)?;
        let result = change(group);
        group.rebalance(partitions);
        drop(state);
        self.changed.notify_waiters();
        Some(result)
    }

    /// Removes a member that leaves or is expelled. Its partitions are assigned again at once, even if it still
    /// believes that it owns them.
    pub(super) fn leave(&self, group: &str, member: MemberId) {
        self.with_group(group, |group| group.members.remove(&member));
    }

    pub(super) fn is_member(&self, group: &str, member: MemberId) -> bool {
        let state = self.state();
        state
            .groups
            .get(group)
            .is_some_and(|group| group.members.contains_key(&member))
    }

    pub(super) fn next_move(&self, group: &str, member: MemberId) -> Option<Moved> {
        let mut state = self.state();
        let group = state.groups.get_mut(group)?;
        group.members.get_mut(&member)?.moved.pop_front()
    }

    pub(super) fn must_give_back(&self, group: &str, member: MemberId) -> bool {
        let state = self.state();
        let found = state
            .groups
            .get(group)
            .and_then(|group| group.members.get(&member));
        found.is_some_and(|member| {
            member
                .moved
                .iter()
                .any(|moved| !matches!(moved, Moved::Assigned(_)))
        })
    }

    pub(super) fn release(&self, group: &str, member: MemberId, partitions: &[i32]) {
        self.with_group(group, |group| group.release(member, partitions));
    }

    /// Commits an offset. Returns false if the member has been removed or does not own the partition.
    pub(super) fn commit(&self, group: &str, member: MemberId, partition: i32, next: i64) -> bool {
        let mut state = self.state();
        let Some(group) = state.groups.get_mut(group) else {
            return false;
        };
        let owns = group.owns(member, partition);
        if owns {
            group.committed.insert(partition, next);
        }
        drop(state);
        self.changed.notify_waiters();
        owns
    }

    pub fn committed(&self, group: &str) -> BTreeMap<i32, i64> {
        let state = self.state();
        state
            .groups
            .get(group)
            .map(|group| group.committed.clone())
            .unwrap_or_default()
    }

    /// Returns true if every group has committed all records of its topic.
    pub fn is_consumed(&self) -> bool {
        let mut state = self.state();
        let groups: Vec<(String, BTreeMap<i32, i64>)> = state
            .groups
            .values()
            .map(|group| (group.topic.clone(), group.committed.clone()))
            .collect();
        groups.into_iter().all(|(topic, committed)| {
            let logs = state.topic(&topic);
            (0..).zip(logs.iter()).all(|(partition, log)| {
                committed.get(&partition).copied().unwrap_or_default() >= log.len() as i64
            })
        })
    }

    pub fn groups(&self) -> Vec<(String, String)> {
        let state = self.state();
        state
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group.topic.clone()))
            .collect()
    }

    /// Returns the process that owns a partition according to the coordinator.
    pub fn owner(&self, group: &str, partition: i32) -> Option<Process> {
        let state = self.state();
        let group = state.groups.get(group)?;
        let member = group.owners.get(&partition)?.member?;
        Some(group.members.get(&member)?.process.clone())
    }

    /// Assigns each partition to the next member.
    pub fn rotate(&self, group: &str) {
        self.with_group(group, |group| group.rotation += 1);
    }

    /// Expels a member, which does not notice at first.
    pub fn expel(&self, group: &str, which: usize) {
        self.with_group(group, |group| {
            let ids: Vec<MemberId> = group.members.keys().copied().collect();
            if let Some(id) = ids.get(which % ids.len().max(1)) {
                group.members.remove(id);
            }
        });
    }

    /// Sets the committed offset of a partition back, so that all records from `offset` on are read again.
    pub fn reset(&self, group: &str, partition: i32, offset: i64) {
        self.with_group(group, |group| {
            group.committed.insert(partition, offset);
            let owner = group.owners.remove(&partition);
            if let Some(member) = owner.and_then(|owner| owner.member) {
                group.notify(member, Moved::Lost(vec![partition]));
            }
        });
    }

    /// Expels the members whose session has timed out.
    pub fn expire_sessions(&self, world: &World) {
        let expired: Vec<(String, MemberId, String)> = {
            let mut state = self.state();
            let mut expired = Vec::new();
            for (name, group) in &mut state.groups {
                for id in group.silent() {
                    let process = group.members[&id].process.name().to_owned();
                    expired.push((name.clone(), id, process));
                }
            }
            expired
        };
        for (group, member, process) in expired {
            world.note(&process, format_args!("session in {group} expires"));
            self.leave(&group, member);
        }
    }

    /// Returns the partitions of a group's topic that a process owns.
    pub fn owned_by(&self, group: &str, process: &str) -> BTreeSet<i32> {
        let state = self.state();
        let Some(group) = state.groups.get(group) else {
            return BTreeSet::new();
        };
        let is_theirs = |member: &MemberId| {
            group
                .members
                .get(member)
                .is_some_and(|member| member.process.name() == process)
        };
        group
            .owners
            .iter()
            .filter(|(_, owner)| owner.member.as_ref().is_some_and(is_theirs))
            .map(|(partition, _)| *partition)
            .collect()
    }
}
