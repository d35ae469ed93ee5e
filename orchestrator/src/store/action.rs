//! The audit of what people asked for.

use crate::engine::saga_store::ActionRow;
use chrono::{DateTime, Utc};
use saga_core::{ids::SagaId, instance::ActionVerdict, message::ActionKind};
use sqlx::{FromRow, PgConnection, PgPool};
use std::collections::HashSet;
use uuid::Uuid;

/// An action that was decided.
#[derive(Clone, Debug, FromRow)]
pub struct DecidedAction {
    pub id: Uuid,
    pub saga_id: Uuid,
    pub action: String,
    pub actor: String,
    pub reason: String,
    pub decided_at: DateTime<Utc>,
    /// `accepted`, `pending` or `refused`.
    pub decision: String,
    pub code: Option<String>,
    pub message: Option<String>,
    pub status_before: Option<String>,
    pub status_after: Option<String>,
}

pub const DECIDED: &str = "SELECT id FROM operator_action WHERE id = ANY($1::uuid[])";

pub(super) async fn decided(
    connection: &mut PgConnection,
    actions: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(DECIDED)
        .bind(actions)
        .fetch_all(connection)
        .await?;
    Ok(ids.into_iter().collect())
}

/// An action on an unknown saga has no row to lock, so a rival may have written it: the first one stands.
const INSERT: &str = "INSERT INTO operator_action (
  id, saga_id, action, actor, reason, if_version, decided_at, decision, code, message, status_before, status_after,
  correlation_id)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[],
  $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
ON CONFLICT (id) DO NOTHING";

pub(super) async fn insert(
    connection: &mut PgConnection,
    rows: &[ActionRow],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let text = |pick: fn(&ActionRow) -> &str| -> Vec<&str> { rows.iter().map(pick).collect() };
    let optional = |pick: fn(&ActionRow) -> Option<&str>| -> Vec<Option<&str>> {
        rows.iter().map(pick).collect()
    };
    let ids: Vec<Uuid> = rows.iter().map(|row| row.action.action_id).collect();
    let sagas: Vec<Uuid> = rows.iter().map(|row| row.action.saga_id.0).collect();
    let versions: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.action.if_version.map(u64::cast_signed))
        .collect();
    let decided: Vec<DateTime<Utc>> = rows.iter().map(|row| row.decided_at).collect();
    sqlx::query(INSERT)
        .bind(ids)
        .bind(sagas)
        .bind(text(|row| match row.action.kind {
            ActionKind::Cancel => "cancel",
            ActionKind::Retry => "retry",
        }))
        .bind(text(|row| &row.action.actor))
        .bind(text(|row| &row.action.reason))
        .bind(versions)
        .bind(decided)
        .bind(text(|row| match &row.verdict {
            ActionVerdict::Accepted => "accepted",
            ActionVerdict::Pending => "pending",
            ActionVerdict::Refused { .. } => "refused",
        }))
        .bind(optional(|row| refusal(row).map(|(code, _)| code)))
        .bind(optional(|row| refusal(row).map(|(_, message)| message)))
        .bind(optional(|row| row.status_before))
        .bind(optional(|row| row.status_after))
        .bind(text(|row| &row.action.trace.correlation_id))
        .execute(connection)
        .await?;
    Ok(())
}

fn refusal(row: &ActionRow) -> Option<(&str, &str)> {
    match &row.verdict {
        ActionVerdict::Refused { code, message } => Some((code, message)),
        ActionVerdict::Accepted | ActionVerdict::Pending => None,
    }
}

const BY_ID: &str =
    "SELECT id, saga_id, action, actor, reason, decided_at, decision, code, message, status_before,
  status_after FROM operator_action WHERE id = $1";

/// The verdict, once there is one.
pub async fn action(pool: &PgPool, id: Uuid) -> Result<Option<DecidedAction>, sqlx::Error> {
    sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await
}

/// More than anybody asks of one saga.
const BY_SAGA: &str =
    "SELECT id, saga_id, action, actor, reason, decided_at, decision, code, message, status_before,
  status_after FROM operator_action WHERE saga_id = $1 ORDER BY decided_at DESC, id LIMIT 100";

/// What was asked of a saga, newest first.
pub async fn actions_of(pool: &PgPool, saga: SagaId) -> Result<Vec<DecidedAction>, sqlx::Error> {
    sqlx::query_as(BY_SAGA).bind(saga.0).fetch_all(pool).await
}
