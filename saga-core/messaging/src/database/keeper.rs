//! Keeps the database's notes on its group, and detects that the database or a topic was replaced.

use super::{Database, State, store};
use crate::{
    kafka::{GroupOffsets, KafkaConfig},
    log::{LogError, TopicPartition},
};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Time between two ticks. A database that loses no more than this much work is not detected as restored.
const TICK: Duration = Duration::from_secs(1);
/// Time between two checks of the topics, and of a database in which no work is done.
const LOOK: Duration = Duration::from_secs(5);

/// The database or topic that a process worked with was replaced. The state in its memory is useless; its next start
/// moves the group to the right offsets.
#[derive(Debug, Error)]
pub enum Changed {
    #[error(
        "the database went back behind tick {tick}: it was restored from a backup, or replaced, under a running process. \
         The next start takes its consumer group '{group}' back to the offsets that the database noted"
    )]
    Database { group: String, tick: i64 },
    #[error(
        "topic '{topic}' was deleted and recreated under a running process (its id was {was} and is {is}). The next start \
         reads it from its beginning, and says what was lost"
    )]
    Topic {
        topic: String,
        was: String,
        is: String,
    },
}

/// Keeps the notes of `database` until `stop`, and writes them once more then. Ends with [`Changed`] if the process has
/// to stop.
pub async fn keep(
    database: Arc<Database>,
    pool: PgPool,
    kafka: KafkaConfig,
    group: String,
    stop: CancellationToken,
) -> Result<(), LogError> {
    let offsets = GroupOffsets::connect(&kafka, &group)?;
    let keeper = Keeper {
        database,
        pool,
        offsets,
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_at = Instant::now();
    loop {
        let stopping = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let look = !stopping && looked_at.elapsed() >= LOOK;
        keeper.tick(look).await?;
        if stopping {
            return Ok(());
        }
        if look {
            looked_at = Instant::now();
            keeper.look_at_topics().await?;
        }
    }
}

struct Keeper {
    database: Arc<Database>,
    pool: PgPool,
    offsets: GroupOffsets,
}

impl Keeper {
    /// Notes the offsets of the records that were handled since the last tick. If there are none, only checks the
    /// database's ticks, if `look` is set.
    async fn tick(&self, look: bool) -> Result<(), LogError> {
        let (tick, done) = self.take();
        let id = self.database.id();
        let found = if !done.is_empty() {
            let rows: Vec<_> = done
                .iter()
                .map(|(place, next)| {
                    let topic_id = self.database.mark(&place.topic).topic_id;
                    (place.clone(), topic_id, *next)
                })
                .collect();
            store::tick(&self.pool, (id, tick), self.offsets.group(), &rows).await
        } else if look {
            let found = store::identity(&self.pool).await;
            found.map(|(found, ticks)| (found == id && ticks >= tick).then_some(tick))
        } else {
            return Ok(());
        };
        match found {
            Ok(Some(tick)) => {
                self.database.state().tick = tick;
                Ok(())
            }
            Ok(None) => {
                let group = self.offsets.group().to_owned();
                Err(LogError::Refused(Changed::Database { group, tick }.into()))
            }
            // The component that does the work has the same error, and logs it.
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "the database's notes cannot be written now, trying again"
                );
                self.put_back(done);
                Ok(())
            }
        }
    }

    fn take(&self) -> (i64, Vec<(TopicPartition, i64)>) {
        let mut state = self.database.state();
        let done = std::mem::take(&mut state.done);
        (state.tick, done.into_iter().collect())
    }

    fn put_back(&self, done: Vec<(TopicPartition, i64)>) {
        let State { done: newer, .. } = &mut *self.database.state();
        for (place, next) in done {
            newer.entry(place).or_insert(next);
        }
    }

    async fn look_at_topics(&self) -> Result<(), LogError> {
        let topics = self.database.state().topic_ids.clone();
        for (topic, was) in topics {
            match self.offsets.topic_id(&topic).await {
                Ok(is) if is != was && !is.is_empty() && !was.is_empty() => {
                    return Err(LogError::Refused(Changed::Topic { topic, was, is }.into()));
                }
                Ok(_) => {}
                Err(error) => debug!(
                    error = &error as &dyn std::error::Error,
                    messaging.kafka.topic = topic,
                    "the topic's id cannot be read"
                ),
            }
        }
        Ok(())
    }
}
