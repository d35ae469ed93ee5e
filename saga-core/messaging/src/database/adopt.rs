//! Assigns a consumer group to the database of a service's configuration, for its `adopt-group` subcommand.

use super::{DatabaseError, store};
use crate::kafka::{GroupOffsets, KafkaConfig, Mark};
use saga_postgres::{
    PostgresConfig,
    migrations::{MigrationError, migration_pool},
};
use sqlx::PgPool;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use uuid::Uuid;

/// A service's consumer group, with the settings by which the group's broker and the service's database are reached.
pub struct ConsumerGroup<'a> {
    pub postgres: &'a PostgresConfig,
    pub kafka: &'a KafkaConfig,
    pub group: &'a str,
    pub topic: &'a str,
}

/// The reason why a group was not assigned.
#[derive(Debug, Error)]
pub enum AdoptError {
    #[error(transparent)]
    Connect(#[from] MigrationError),
    #[error("nothing was changed")]
    Unchanged(#[from] DatabaseError),
    #[error(
        "group '{group}' belongs to {before}; with --yes it will belong to database {ours} ({place}), and processes \
         with another one will refuse to start. Its offsets in {topic} stay as they are: what the former database \
         has handled is not handled again, and this database does not know of it"
    )]
    Unconfirmed {
        group: String,
        topic: String,
        before: String,
        ours: Uuid,
        place: String,
    },
}

impl ConsumerGroup<'_> {
    /// Assigns the group to the database of the service `name`, and returns a text that says what was changed. Without
    /// `confirmed`, fails with a text that says what would be changed. Fails while the group has members.
    pub async fn adopt(&self, name: &str, confirmed: bool) -> Result<String, AdoptError> {
        let pool = migration_pool(self.postgres, name).await?;
        let (ours, theirs) = self.owners(&pool).await?;
        let (group, place) = (self.group, self.postgres.place());
        let before = if theirs.is_empty() {
            "no database yet".to_owned()
        } else {
            let ids: Vec<String> = theirs.iter().map(ToString::to_string).collect();
            format!("database {}", ids.join(" and "))
        };
        if !confirmed {
            return Err(AdoptError::Unconfirmed {
                group: group.to_owned(),
                topic: self.topic.to_owned(),
                before,
                ours,
                place,
            });
        }
        self.assign(&pool).await?;
        pool.close().await;
        Ok(format!(
            "group '{group}' now belongs to database {ours} ({place}), before to {before}\n"
        ))
    }

    /// Returns the id of this database, and the ids of the databases that the group's offsets name: one, or none for a
    /// new group.
    async fn owners(&self, pool: &PgPool) -> Result<(Uuid, BTreeSet<Uuid>), DatabaseError> {
        let (ours, _) = store::identity(pool).await.map_err(DatabaseError::Unread)?;
        let offsets = GroupOffsets::connect(self.kafka, self.group)?;
        let marked = offsets.marked(self.topic).await?;
        let theirs = marked
            .into_values()
            .filter_map(|committed| committed.mark)
            .map(|mark| mark.database);
        Ok((ours, theirs.collect()))
    }

    /// Makes the group, which must have no members, belong to this database. Its offsets stay unchanged, and the
    /// database notes them: the records below them were handled in another database.
    async fn assign(&self, pool: &PgPool) -> Result<(), DatabaseError> {
        let (group, topic, unread) = (self.group, self.topic, DatabaseError::Unread);
        let (id, tick) = store::identity(pool).await.map_err(unread)?;
        let offsets = GroupOffsets::connect(self.kafka, group)?;
        let topic_id = offsets.topic_id(topic).await?;
        let marked = offsets.marked(topic).await?.into_iter();
        let next: BTreeMap<i32, i64> = marked
            .map(|(partition, committed)| (partition, committed.offset.unwrap_or(0)))
            .collect();
        store::begin(pool, group, topic, &topic_id, &next)
            .await
            .map_err(unread)?;
        let mark = Mark {
            database: id,
            tick,
            topic_id,
        };
        offsets.place(topic, next, &mark).await?;
        Ok(())
    }
}
