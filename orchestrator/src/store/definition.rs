//! The registered definitions. They are never deleted, because instances are pinned to them.
//!
//! A transaction that changes which definitions new sagas take locks the row of `definition_generation`, and raises the
//! generation. The generation that a reader sees therefore belongs to the definitions in the same snapshot.

use super::pg_store::PgStore;
use crate::{
    engine::{
        saga_store::{CatalogError, DefinitionStore},
        settings::{Participant, Participants},
    },
    registry::{Catalog, Registered, RegistryError, Source, Withdrawn},
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use saga_core::definition::{DefinitionHash, SagaDefinition};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

#[async_trait]
impl DefinitionStore for PgStore {
    async fn catalog(&self) -> Result<Catalog, CatalogError> {
        catalog(self.reporting())
            .await
            .map_err(|error| CatalogError(Box::new(error)))
    }
}

/// Registers the definitions that were read, and the topics and groups of participants, all or nothing. Refuses a name
/// and version that are registered with other content.
pub async fn register(
    pool: &PgPool,
    sources: &[Source],
    participants: &Participants,
) -> Result<(), RegistryError> {
    let store = |error: sqlx::Error| RegistryError::Store(Box::new(error));
    let mut transaction = pool.begin().await.map_err(store)?;
    hold_generation(&mut transaction).await.map_err(store)?;
    let mut changed = register_participants(&mut transaction, participants)
        .await
        .map_err(store)?;
    for Source { file, definition } in sources {
        changed += sqlx::query(
            "INSERT INTO definition (hash, name, version, document) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name, version) DO NOTHING",
        )
        .bind(&definition.hash.0)
        .bind(&definition.name)
        .bind(definition.version.cast_signed())
        .bind(&definition.document)
        .execute(&mut *transaction)
        .await
        .map_err(store)?
        .rows_affected();
        // This is a separate statement, because the snapshot of the first one lacks what a rival registered while the
        // first one waited for it.
        let found: Option<String> =
            sqlx::query_scalar("SELECT hash FROM definition WHERE name = $1 AND version = $2")
                .bind(&definition.name)
                .bind(definition.version.cast_signed())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(store)?;
        if found.as_ref() != Some(&definition.hash.0) {
            return Err(RegistryError::Changed {
                name: definition.name.clone(),
                version: definition.version,
                file: file.clone(),
            });
        }
    }
    if changed > 0 {
        raise_generation(&mut transaction).await.map_err(store)?;
    }
    transaction.commit().await.map_err(store)
}

/// Locks the generation, so that registrations run one after the other and take their locks in one order.
async fn hold_generation(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT FROM definition_generation FOR UPDATE")
        .execute(connection)
        .await?;
    Ok(())
}

async fn raise_generation(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE definition_generation SET generation = generation + 1")
        .execute(connection)
        .await?;
    Ok(())
}

async fn register_participants(
    connection: &mut PgConnection,
    participants: &Participants,
) -> Result<u64, sqlx::Error> {
    let names: Vec<&str> = participants.configured.keys().map(String::as_str).collect();
    let of = |pick: fn(&Participant) -> &str| -> Vec<&str> {
        participants.configured.values().map(pick).collect()
    };
    let done = sqlx::query(
        "INSERT INTO participant AS p (name, topic, consumer_group)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
         ON CONFLICT (name) DO UPDATE SET topic = EXCLUDED.topic, consumer_group = EXCLUDED.consumer_group
         WHERE (p.topic, p.consumer_group) <> (EXCLUDED.topic, EXCLUDED.consumer_group)",
    )
    .bind(names)
    .bind(of(|one| &one.topic))
    .bind(of(|one| &one.group))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

struct Row {
    generation: i64,
    hash: Option<String>,
    name: Option<String>,
    version: Option<i32>,
    document: Option<Value>,
    registered_at: Option<DateTime<Utc>>,
    withdrawn_at: Option<DateTime<Utc>>,
    withdrawn_by: Option<String>,
    withdrawn_for: Option<String>,
}

saga_postgres::from_row!(
    Row: generation, hash, name, version, document, registered_at, withdrawn_at, withdrawn_by,
    withdrawn_for
);

/// Returns everything that is registered, by this orchestrator or another one, with its generation.
pub async fn catalog(pool: &PgPool) -> Result<Catalog, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT g.generation, d.hash, d.name, d.version, d.document, d.registered_at, d.withdrawn_at, d.withdrawn_by,
           d.withdrawn_for
         FROM definition_generation g LEFT JOIN definition d ON true ORDER BY d.name, d.version",
    )
    .fetch_all(pool)
    .await?;
    // Participants are read after the definitions: each definition was registered together with its participants.
    let participants: Vec<(String, String, String)> =
        sqlx::query_as("SELECT name, topic, consumer_group FROM participant")
            .fetch_all(pool)
            .await?;
    Ok(Catalog {
        generation: rows.first().map_or(0, |row| row.generation),
        definitions: rows.into_iter().filter_map(registered).collect(),
        participants: participants
            .into_iter()
            .map(|(name, topic, group)| (name, Participant { topic, group }))
            .collect::<BTreeMap<_, _>>(),
    })
}

/// Converts a row. Returns `None` for the row that stands for a table without definitions.
fn registered(row: Row) -> Option<Registered> {
    let hash = DefinitionHash(row.hash?);
    let withdrawn = match (row.withdrawn_at, row.withdrawn_by, row.withdrawn_for) {
        (Some(at), Some(actor), Some(reason)) => Some(Withdrawn { at, actor, reason }),
        _ => None,
    };
    Some(Registered {
        name: row.name?,
        version: row.version?.cast_unsigned(),
        definition: restore(&hash, &row.document?),
        hash,
        registered_at: row.registered_at?,
        withdrawn,
    })
}

/// Restores a definition from its document. Its identity is the hash under which it was registered, even if a later
/// release computes another hash.
fn restore(hash: &DefinitionHash, document: &Value) -> Result<Arc<SagaDefinition>, String> {
    match SagaDefinition::from_document(document) {
        Ok(definition) => Ok(Arc::new(SagaDefinition {
            hash: hash.clone(),
            ..definition
        })),
        Err(faults) => {
            let faults: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
            Err(faults.join("; "))
        }
    }
}

/// Returns the generation of the definition table.
pub async fn generation(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT generation FROM definition_generation WHERE singleton")
        .fetch_one(pool)
        .await
}

/// Returns whether any live saga is pinned to a definition. This scans the live table, so it is called only for
/// definitions with participants that this process is not configured with.
pub async fn in_use(pool: &PgPool, hash: &DefinitionHash) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM saga WHERE definition_hash = $1)")
        .bind(&hash.0)
        .fetch_one(pool)
        .await
}

/// A request to withdraw versions of a definition, or to restore them.
#[derive(Clone, Debug)]
pub struct DefinitionAction {
    pub name: String,
    /// The version to change, or `None` for every version.
    pub version: Option<u32>,
    /// True to withdraw the versions, false to restore them.
    pub withdraw: bool,
    pub actor: String,
    pub reason: String,
    pub correlation_id: String,
}

/// Changes the versions that are not yet in the requested state, each with an audit row, and returns them. `None` if
/// there is no such version.
pub async fn decide(
    pool: &PgPool,
    action: &DefinitionAction,
) -> Result<Option<Vec<u32>>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    hold_generation(&mut transaction).await?;
    let version = action.version.map(u32::cast_signed);
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM definition WHERE name = $1 AND ($2::integer IS NULL OR version = $2))",
    )
    .bind(&action.name)
    .bind(version)
    .fetch_one(&mut *transaction)
    .await?;
    if !known {
        return Ok(None);
    }
    let changed: Vec<i32> = sqlx::query_scalar(
        "UPDATE definition SET withdrawn_at = CASE WHEN $3 THEN clock_timestamp() END,
           withdrawn_by = CASE WHEN $3 THEN $4 END, withdrawn_for = CASE WHEN $3 THEN $5 END
         WHERE name = $1 AND ($2::integer IS NULL OR version = $2) AND (withdrawn_at IS NULL) = $3
         RETURNING version",
    )
    .bind(&action.name)
    .bind(version)
    .bind(action.withdraw)
    .bind(&action.actor)
    .bind(&action.reason)
    .fetch_all(&mut *transaction)
    .await?;
    if !changed.is_empty() {
        let ids: Vec<Uuid> = changed
            .iter()
            .map(|_| saga_service::clock::new_id())
            .collect();
        sqlx::query(
            "INSERT INTO definition_action (id, name, version, action, actor, reason, correlation_id)
             SELECT u.id, $3, u.version, $4, $5, $6, $7 FROM unnest($1::uuid[], $2::integer[]) AS u(id, version)",
        )
        .bind(ids)
        .bind(&changed)
        .bind(&action.name)
        .bind(if action.withdraw {
            "withdrawn"
        } else {
            "restored"
        })
        .bind(&action.actor)
        .bind(&action.reason)
        .bind(&action.correlation_id)
        .execute(&mut *transaction)
        .await?;
        raise_generation(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(Some(changed.into_iter().map(i32::cast_unsigned).collect()))
}

/// Returns the decisions about a definition, newest first: version, action, actor, reason and time.
pub async fn actions(
    pool: &PgPool,
    name: &str,
) -> Result<Vec<(i32, String, String, String, DateTime<Utc>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT version, action, actor, reason, decided_at FROM definition_action WHERE name = $1
         ORDER BY decided_at DESC, id DESC",
    )
    .bind(name)
    .fetch_all(pool)
    .await
}
