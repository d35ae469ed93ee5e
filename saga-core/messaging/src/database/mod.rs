//! The database behind a consumer group: checks that it owns the group, and that database, offsets and log are
//! consistent.
//!
//! Every database has an id, and counts the seconds in which it handled records (*ticks*). Every offset that its group
//! commits carries the id, the ticks and the topic's id ([`Mark`]). At every tick the database notes the group's
//! offsets.
//!
//! ```text
//!  start ───────▶ read the marks of all partitions
//!                   another database's id?  refuse to start, and name both
//!                   more ticks than ours?   restored from a backup: back to the offset that the database noted
//!                   another topic's id?     recreated: begin at its beginning; what is in flight is sent again
//!                   no offset at all?       continue at the offset that the database noted
//!  assignment ──▶ read them again before a record is handled ─▶ another id? stop
//!                 a partition without a mark: commit its present offset with ours
//!  every second ▶ tick; if the ticks went back, or a topic's id is another: stop, the next start corrects it
//! ```
//!
//! Going back is safe: records that are handled again find their work done, or repeat the work that the backup lacks,
//! in the same order. A skipped record would be lost.
//!
//! Two databases may come to a new group at the same time. The member that is assigned partition 0 claims the group;
//! all other members handle nothing until that is done, and then see the result. Kafka assigns the partition to one
//! member at a time and refuses the commit of a former one, so one database wins.

mod adopt;
mod keeper;
mod place;
mod store;

pub use adopt::{AdoptError, ConsumerGroup};
pub use keeper::{Changed, keep};

use crate::{
    kafka::{Committed, GroupOffsets, KafkaConfig, Mark},
    log::{LogError, TopicPartition},
};
use place::{NotedOffset, OffsetDecision, PartitionState, decide_offset};
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tracing::{error, warn};
use uuid::Uuid;

/// Time between two attempts while the database or the broker is unavailable.
const RETRY: Duration = Duration::from_secs(1);

/// The reason why a process may not join its group now.
#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error("the database's identity cannot be read")]
    Unread(#[source] sqlx::Error),
    #[error("the consumer group cannot be used")]
    Log(#[from] LogError),
}

/// The database behind a group, as a process of the group knows it. It is shared by the reader of the records and by
/// the keeper of the database's notes.
#[derive(Debug)]
pub struct Database {
    id: Uuid,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The ticks that the database has reached for certain.
    tick: i64,
    topic_ids: BTreeMap<String, String>,
    /// Next offsets that the database has not noted yet.
    done: BTreeMap<TopicPartition, i64>,
    recreated: BTreeSet<TopicPartition>,
}

impl Database {
    /// Returns a database of which only the id is known.
    pub fn new(id: Uuid) -> Self {
        Self {
            id,
            state: Mutex::default(),
        }
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the tick that the database has reached for certain.
    pub fn tick(&self) -> i64 {
        self.state().tick
    }

    /// Returns the mark for a commit of an offset of `topic`.
    pub fn mark(&self, topic: &str) -> Mark {
        let state = self.state();
        Mark {
            database: self.id,
            tick: state.tick,
            topic_id: state.topic_ids.get(topic).cloned().unwrap_or_default(),
        }
    }

    /// Notes that everything below `next_offset` is handled in this database.
    pub fn done(&self, place: TopicPartition, next_offset: i64) {
        self.state().done.insert(place, next_offset);
    }

    /// Returns `true` once if the partition was found to belong to a recreated topic.
    pub fn take_recreated(&self, place: &TopicPartition) -> bool {
        let mut state = self.state();
        let found = state.recreated.remove(place);
        if found {
            state.done.entry(place.clone()).or_insert(0);
        }
        found
    }
}

/// Calls [`approve`] until database and broker are available. Returns an error if the group belongs to another
/// database.
pub async fn wait(
    pool: &PgPool,
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
) -> Result<Arc<Database>, LogError> {
    loop {
        let error = match approve(pool, kafka, group, topic).await {
            Ok(database) => return Ok(database),
            Err(DatabaseError::Log(refused @ (LogError::Refused(_) | LogError::TooLarge(_)))) => {
                return Err(refused);
            }
            Err(error @ (DatabaseError::Unread(_) | DatabaseError::Log(_))) => error,
        };
        warn!(
            error = &error as &dyn std::error::Error,
            messaging.consumer.group.name = group,
            "waiting to learn which database the group belongs to"
        );
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns the database if its group, which consumes `topic`, belongs to it or to no database; returns an error
/// otherwise. Moves the group's offsets to where they are consistent with the database and the log. A move needs a
/// group without members: members notice the problem themselves and stop.
pub async fn approve(
    pool: &PgPool,
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
) -> Result<Arc<Database>, DatabaseError> {
    let offsets = GroupOffsets::connect(kafka, group)?;
    // The offsets are read before the database, so that the ticks in them are never ahead of the database's ticks read
    // here.
    let partitions = look(&offsets, topic).await?;
    let unread = DatabaseError::Unread;
    let (id, ticks) = store::identity(pool).await.map_err(unread)?;
    offsets.refuse_stranger(topic, &committed(&partitions), id)?;
    let known = store::consumed(pool, group, topic).await.map_err(unread)?;
    let topic_id = partitions
        .values()
        .next()
        .map(|state| state.topic_id.clone());
    let mut state = State {
        tick: ticks,
        ..State::default()
    };
    state
        .topic_ids
        .insert(topic.to_owned(), topic_id.clone().unwrap_or_default());
    let database = Database {
        id,
        state: Mutex::new(state),
    };
    let decisions = decide(&known, &partitions, ticks);
    let targets = moves(&decisions, &partitions);
    let next: BTreeMap<i32, i64> = partitions
        .iter()
        .map(|(partition, state)| {
            let target = targets.get(partition).copied();
            (*partition, target.or(state.committed.offset).unwrap_or(0))
        })
        .collect();
    if !targets.is_empty() {
        let placed = offsets.place(topic, targets, &database.mark(topic)).await;
        placed.inspect_err(|_| {
            log_inconsistencies(group, topic, &decisions, "before its group can continue");
        })?;
    }
    log_inconsistencies(group, topic, &decisions, "now");
    let topic_id = topic_id.unwrap_or_default();
    store::begin(pool, group, topic, &topic_id, &next)
        .await
        .map_err(unread)?;
    let recreated = decisions
        .iter()
        .filter(|(_, decision)| matches!(decision, OffsetDecision::Recreated { .. }));
    database.state().recreated = recreated
        .map(|(partition, _)| TopicPartition {
            topic: topic.to_owned(),
            partition: *partition,
        })
        .collect();
    Ok(Arc::new(database))
}

async fn look(
    offsets: &GroupOffsets,
    topic: &str,
) -> Result<BTreeMap<i32, PartitionState>, LogError> {
    let topic_id = offsets.topic_id(topic).await?;
    let mut state = BTreeMap::new();
    for (partition, committed) in offsets.marked(topic).await? {
        let (_, end) = offsets.watermarks(topic, partition).await?;
        let topic_id = topic_id.clone();
        state.insert(
            partition,
            PartitionState {
                committed,
                topic_id,
                end,
            },
        );
    }
    Ok(state)
}

fn committed(state: &BTreeMap<i32, PartitionState>) -> BTreeMap<i32, Committed> {
    let committed = state.iter();
    committed
        .map(|(partition, state)| (*partition, state.committed.clone()))
        .collect()
}

fn decide(
    known: &BTreeMap<i32, NotedOffset>,
    state: &BTreeMap<i32, PartitionState>,
    ticks: i64,
) -> BTreeMap<i32, OffsetDecision> {
    let is_older = state.values().any(|state| {
        let mark = state.committed.mark.as_ref();
        mark.is_some_and(|mark| mark.tick > ticks)
    });
    let of = |(partition, state): (&i32, &PartitionState)| {
        let decision = decide_offset(known.get(partition), state, is_older);
        (*partition, decision)
    };
    state.iter().map(of).collect()
}

/// Returns the offsets to be committed. A group without an offset in a new topic begins at its beginning by itself.
fn moves(
    decisions: &BTreeMap<i32, OffsetDecision>,
    state: &BTreeMap<i32, PartitionState>,
) -> BTreeMap<i32, i64> {
    let moved = decisions.iter().filter_map(|(partition, decision)| {
        let to = match decision {
            OffsetDecision::Restored { to, .. } | OffsetDecision::Forgotten { to } => *to,
            OffsetDecision::Recreated {
                has_begun: false, ..
            } if state.get(partition)?.committed.offset.is_some() => 0,
            OffsetDecision::Fits | OffsetDecision::Recreated { .. } => return None,
        };
        Some((*partition, to))
    });
    moved.collect()
}

/// Logs one line for each kind of inconsistency.
fn log_inconsistencies(
    group: &str,
    topic: &str,
    decisions: &BTreeMap<i32, OffsetDecision>,
    when: &str,
) {
    let list = |text: &dyn Fn(&OffsetDecision) -> Option<String>| -> String {
        let found = decisions.iter().filter_map(|(partition, decision)| {
            text(decision).map(|text| format!("partition {partition} {text}"))
        });
        found.collect::<Vec<_>>().join(", ")
    };
    let restored = list(&|decision| match decision {
        OffsetDecision::Restored { from, to } => Some(format!("from {to} to {from}")),
        OffsetDecision::Fits
        | OffsetDecision::Forgotten { .. }
        | OffsetDecision::Recreated { .. } => None,
    });
    let forgotten = list(&|decision| match decision {
        OffsetDecision::Forgotten { to } => Some(format!("from {to}")),
        OffsetDecision::Fits
        | OffsetDecision::Restored { .. }
        | OffsetDecision::Recreated { .. } => None,
    });
    let recreated = list(&|decision| match decision {
        OffsetDecision::Recreated { consumed, .. } => {
            Some(format!("was consumed up to {consumed}"))
        }
        OffsetDecision::Fits
        | OffsetDecision::Restored { .. }
        | OffsetDecision::Forgotten { .. } => None,
    });
    let told = [
        (
            restored,
            "the database is older than its group's offsets: it was restored from a backup. What it lacks is handled again",
        ),
        (
            forgotten,
            "the group's offsets are gone. It continues at the offsets that its database noted",
        ),
        (
            recreated,
            "the topic was deleted and recreated: the records that were not consumed are lost. It is read from its beginning",
        ),
    ];
    for (partitions, what) in told.iter().filter(|(partitions, _)| !partitions.is_empty()) {
        error!(
            messaging.consumer.group.name = group,
            messaging.kafka.topic = topic,
            partitions,
            "{what}, {when}"
        );
    }
}
