//! Reads and sets the marks of a consumer group's commits, which show the database that the group belongs to.

use super::{
    Committed, GroupOffsets, Mark, QUERY_TIMEOUT,
    context::Context,
    error::{Refusal, classify},
    offsets::marked,
    topic_id::topic_id,
};
use crate::log::LogError;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    groups::GroupInfo,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The partition whose mark decides if two databases claim a new group at the same time.
const DECIDES: i32 = 0;

/// Refuses a group that belongs to another database.
fn refuse_stranger(
    group: &str,
    topic: &str,
    marked: &BTreeMap<i32, Committed>,
    ours: Uuid,
) -> Result<(), Refusal> {
    let stranger = marked.iter().find_map(|(partition, committed)| {
        let theirs = committed.mark.as_ref()?.database;
        (theirs != ours).then_some((*partition, theirs))
    });
    match stranger {
        None => Ok(()),
        Some((partition, theirs)) => Err(Refusal::Stranger {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition,
            theirs,
            ours,
        }),
    }
}

/// Claims those of the `assigned` partitions that have no mark. Returns `false` while the deciding partition is
/// unclaimed, which only the member that has it assigned may claim.
pub(super) fn claim(
    consumer: &impl Consumer<Context>,
    group: &str,
    topic: &str,
    assigned: &BTreeSet<i32>,
    ours: &Mark,
) -> Result<bool, LogError> {
    let found = marked(consumer, topic)?;
    refuse_stranger(group, topic, &found, ours.database)?;
    let (here, elsewhere): (BTreeMap<_, _>, BTreeMap<_, _>) = found
        .into_iter()
        .filter(|(_, committed)| committed.mark.is_none())
        .partition(|(partition, _)| assigned.contains(partition));
    if elsewhere.contains_key(&DECIDES) {
        return Ok(false);
    }
    let here = here
        .into_iter()
        .map(|(partition, committed)| (partition, committed.offset.unwrap_or(0)));
    set(consumer, topic, &here.collect(), ours)?;
    Ok(true)
}

/// Commits offsets with a mark. An offset of 0 means the same as no offset.
fn set(
    consumer: &impl Consumer<Context>,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
    mark: &Mark,
) -> Result<(), LogError> {
    if offsets.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        let mut element = list.add_partition(topic, *partition);
        element
            .set_offset(Offset::Offset(*offset))
            .map_err(|error| classify(error, topic))?;
        element.set_metadata(mark.to_string());
    }
    consumer
        .commit(&list, CommitMode::Sync)
        .map_err(|error| classify(error, topic))
}

impl GroupOffsets {
    /// Returns an error if the group's offsets of `topic` belong to another database than `ours`.
    pub fn refuse_stranger(
        &self,
        topic: &str,
        marked: &BTreeMap<i32, Committed>,
        ours: Uuid,
    ) -> Result<(), LogError> {
        Ok(refuse_stranger(self.group(), topic, marked, ours)?)
    }

    /// Returns the id that the broker gave the topic when it was created; empty if the broker gives none.
    pub async fn topic_id(&self, topic: &str) -> Result<String, LogError> {
        let topic = topic.to_owned();
        self.ask(move |client| topic_id(client.client(), &topic))
            .await
    }

    /// Returns the current members of the group, by the names of their clients and hosts.
    pub async fn members(&self) -> Result<Vec<String>, LogError> {
        let group = self.group().to_owned();
        self.ask(move |client| {
            let groups = client
                .fetch_group_list(Some(&group), QUERY_TIMEOUT)
                .map_err(|error| classify(error, &group))?;
            let members = groups.groups().iter().flat_map(GroupInfo::members);
            Ok(members
                .map(|member| format!("{} at {}", member.client_id(), member.client_host()))
                .collect())
        })
        .await
    }

    /// Commits offsets for the group, which must have no members; while it has members, the result is `Unavailable`.
    /// The broker refuses a commit from outside as soon as a member joins.
    pub async fn place(
        &self,
        topic: &str,
        offsets: BTreeMap<i32, i64>,
        mark: &Mark,
    ) -> Result<(), LogError> {
        let members = self.members().await?;
        if !members.is_empty() {
            let group = self.group().to_owned();
            let has_members = Refusal::HasMembers { group, members };
            return Err(LogError::Unavailable(has_members.into()));
        }
        let (topic, mark) = (topic.to_owned(), mark.clone());
        self.ask(move |client| set(client, &topic, &offsets, &mark))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(databases: &[Option<u128>]) -> BTreeMap<i32, Committed> {
        let of = |database: &Option<u128>| Committed {
            offset: None,
            mark: database.map(|id| Mark {
                database: Uuid::from_u128(id),
                tick: 0,
                topic_id: String::new(),
            }),
        };
        (0..).zip(databases.iter().map(of)).collect()
    }

    fn check(databases: &[Option<u128>], stranger: Option<(i32, u128)>) {
        let refused = refuse_stranger("g", "t", &marks(databases), Uuid::from_u128(1)).err();
        let found = refused.map(|refusal| {
            let Refusal::Stranger {
                partition, theirs, ..
            } = refusal
            else {
                panic!("{refusal}");
            };
            (partition, theirs.as_u128())
        });
        assert_eq!(found, stranger, "{databases:?}");
    }

    #[test]
    fn one_partition_of_another_database_is_enough_to_refuse() {
        check(&[None, None], None);
        check(&[Some(1), None], None);
        check(&[Some(1), Some(1)], None);
        check(&[Some(2), None], Some((0, 2)));
        check(&[None, Some(1), Some(3)], Some((2, 3)));
    }
}
