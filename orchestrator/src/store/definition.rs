//! Registered definitions. Never deleted: instances are pinned to them.

use crate::registry::{RegistryError, Source};
use saga_core::definition::{DefinitionError, DefinitionHash, SagaDefinition};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum StoredDefinitionError {
    #[error("the definition table cannot be read")]
    Database(#[from] sqlx::Error),
    #[error("the stored definition {hash} can no longer be read: {faults:?}")]
    Unreadable {
        hash: String,
        faults: Vec<DefinitionError>,
    },
}

/// Registers what was read, all or nothing. The same name and version with another content is refused.
pub async fn register(pool: &PgPool, sources: &[Source]) -> Result<(), RegistryError> {
    let store = |error: sqlx::Error| RegistryError::Store(Box::new(error));
    let mut transaction = pool.begin().await.map_err(store)?;
    for Source { file, definition } in sources {
        sqlx::query(
            "INSERT INTO definition (hash, name, version, document) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name, version) DO NOTHING",
        )
        .bind(&definition.hash.0)
        .bind(&definition.name)
        .bind(definition.version.cast_signed())
        .bind(&definition.document)
        .execute(&mut *transaction)
        .await
        .map_err(store)?;
        // A statement of its own: what a rival registered while the first one waited for it is not in that one's snapshot.
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
    transaction.commit().await.map_err(store)
}

/// Everything registered, by this orchestrator or another.
pub async fn all(pool: &PgPool) -> Result<Vec<SagaDefinition>, StoredDefinitionError> {
    let rows: Vec<(String, Value)> =
        sqlx::query_as("SELECT hash, document FROM definition ORDER BY name, version")
            .fetch_all(pool)
            .await?;
    rows.into_iter()
        .map(|(hash, document)| restore(hash, &document))
        .collect()
}

/// What a saga is pinned to.
pub async fn by_hash(
    connection: &mut PgConnection,
    hash: &DefinitionHash,
) -> Result<Option<SagaDefinition>, StoredDefinitionError> {
    let document: Option<Value> =
        sqlx::query_scalar("SELECT document FROM definition WHERE hash = $1")
            .bind(&hash.0)
            .fetch_optional(connection)
            .await?;
    document
        .map(|document| restore(hash.0.clone(), &document))
        .transpose()
}

/// Whether any live saga is pinned to it. Reads the live table; asked only about what cannot be reached.
pub async fn in_use(pool: &PgPool, hash: &DefinitionHash) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM saga WHERE definition_hash = $1)")
        .bind(&hash.0)
        .fetch_one(pool)
        .await
}

/// The hash it was registered under is its identity, also if a later release hashes otherwise.
fn restore(hash: String, document: &Value) -> Result<SagaDefinition, StoredDefinitionError> {
    match SagaDefinition::from_document(document) {
        Ok(definition) => Ok(SagaDefinition {
            hash: DefinitionHash(hash),
            ..definition
        }),
        Err(faults) => Err(StoredDefinitionError::Unreadable { hash, faults }),
    }
}

/// A definition's versions, newest first: version, hash, document.
pub async fn versions(pool: &PgPool, name: &str) -> Result<Vec<(i32, String, Value)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT version, hash, document FROM definition WHERE name = $1 ORDER BY version DESC",
    )
    .bind(name)
    .fetch_all(pool)
    .await
}
