//! The audit table of operators' actions.

use crate::engine::saga_store::{ActionRow, SettledRow};
use chrono::{DateTime, Utc};
use saga_core::{ids::SagaId, instance::ActionVerdict};
use serde_json::Value;
use sqlx::{PgConnection, PgPool, types::Json};
use std::collections::HashSet;
use uuid::Uuid;

/// An action, and the decision about it.
#[derive(Clone, Debug)]
pub struct DecidedAction {
    pub id: Uuid,
    pub saga_id: Uuid,
    pub action: String,
    pub step: Option<String>,
    pub given: Option<Json<Value>>,
    pub actor: String,
    pub reason: String,
    pub decided_at: DateTime<Utc>,
    /// `accepted`, `pending` or `refused`.
    pub decision: String,
    pub code: Option<String>,
    pub message: Option<String>,
    pub legal: Option<Vec<String>>,
    pub status_before: Option<String>,
    pub status_after: Option<String>,
}

saga_postgres::from_row!(
    DecidedAction: id, saga_id, action, step, given, actor, reason, decided_at, decision, code,
    message, legal, status_before, status_after
);

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

/// Inserts the audit rows of a batch. The first verdict counts: if rivals decide the same action, the transaction of
/// the second fails and writes nothing, and its next try finds the action decided.
const INSERT: &str = "WITH decided AS (
INSERT INTO operator_action (
  id, saga_id, action, step, given, actor, reason, if_version, decided_at, decision, code, message, legal, status_before,
  status_after, correlation_id)
SELECT id, saga_id, action, step, given, actor, reason, if_version, decided_at, decision, code, message,
  -- An array of arrays would have to be rectangular.
  ARRAY(SELECT jsonb_array_elements_text(legal)), status_before, status_after, correlation_id
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::text[], $8::bigint[],
  $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::jsonb[], $14::text[], $15::text[], $16::text[])
  AS u(id, saga_id, action, step, given, actor, reason, if_version, decided_at, decision, code, message, legal,
  status_before, status_after, correlation_id)
ON CONFLICT (id) DO NOTHING RETURNING 1
)
SELECT rows_as_planned('deciding an action', cardinality($1), (SELECT count(*) FROM decided))";

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
    let given: Vec<Option<Json<&Value>>> = rows
        .iter()
        .map(|row| row.action.kind.given().map(Json))
        .collect();
    let legal: Vec<Json<&[String]>> = rows.iter().map(|row| Json(legal(&row.verdict))).collect();
    sqlx::query(INSERT)
        .bind(ids)
        .bind(sagas)
        .bind(text(|row| row.action.kind.name().as_str()))
        .bind(optional(|row| row.action.kind.step()))
        .bind(given)
        .bind(text(|row| &row.action.actor))
        .bind(text(|row| &row.action.reason))
        .bind(versions)
        .bind(decided)
        .bind(text(|row| decision(&row.verdict)))
        .bind(optional(|row| code(&row.verdict)))
        .bind(optional(|row| message(&row.verdict)))
        .bind(legal)
        .bind(optional(|row| row.status_before))
        .bind(optional(|row| row.status_after))
        .bind(text(|row| &row.action.trace.correlation_id))
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes the final verdicts of pending actions. A row that is no longer pending stays as it is.
pub const SETTLE: &str = "UPDATE operator_action a SET
  decision = u.decision, code = u.code, message = u.message, decided_at = u.decided_at, status_after = u.status_after
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
  AS u(id, decision, code, message, decided_at, status_after)
WHERE a.id = ANY(ARRAY[u.id]) AND a.decision = 'pending'";

/// Writes the verdicts on actions that were pending.
pub(super) async fn settle(
    connection: &mut PgConnection,
    rows: &[SettledRow],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let verdicts = || rows.iter().map(|row| &row.verdict);
    let ids: Vec<Uuid> = rows.iter().map(|row| row.action_id).collect();
    let decided: Vec<DateTime<Utc>> = rows.iter().map(|row| row.decided_at).collect();
    let after: Vec<&str> = rows.iter().map(|row| row.status_after).collect();
    sqlx::query(SETTLE)
        .bind(ids)
        .bind(verdicts().map(decision).collect::<Vec<&str>>())
        .bind(verdicts().map(code).collect::<Vec<Option<&str>>>())
        .bind(verdicts().map(message).collect::<Vec<Option<&str>>>())
        .bind(decided)
        .bind(after)
        .execute(connection)
        .await?;
    Ok(())
}

fn decision(verdict: &ActionVerdict) -> &'static str {
    match verdict {
        ActionVerdict::Accepted { .. } => "accepted",
        ActionVerdict::Pending => "pending",
        ActionVerdict::Refused { .. } => "refused",
    }
}

fn code(verdict: &ActionVerdict) -> Option<&str> {
    match verdict {
        ActionVerdict::Refused { code, .. } => Some(code),
        ActionVerdict::Accepted { .. } | ActionVerdict::Pending => None,
    }
}

/// Returns the reason for a refusal, or the warning about a risk that the operator takes with an accepted action.
fn message(verdict: &ActionVerdict) -> Option<&str> {
    match verdict {
        ActionVerdict::Refused { message, .. } => Some(message),
        ActionVerdict::Accepted { warning } => warning.as_deref(),
        ActionVerdict::Pending => None,
    }
}

fn legal(verdict: &ActionVerdict) -> &[String] {
    match verdict {
        ActionVerdict::Refused { legal, .. } => legal,
        ActionVerdict::Accepted { .. } | ActionVerdict::Pending => &[],
    }
}

const BY_ID: &str = "SELECT id, saga_id, action, step, given, actor, reason, decided_at, decision, code, message, legal,
  status_before, status_after FROM operator_action WHERE id = $1";

/// Returns an action and its verdict, once there is one.
pub async fn action(pool: &PgPool, id: Uuid) -> Result<Option<DecidedAction>, sqlx::Error> {
    sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await
}

/// Reads the actions of one saga. The limit is more than operators ever request for one saga.
const BY_SAGA: &str = "SELECT id, saga_id, action, step, given, actor, reason, decided_at, decision, code, message, legal,
  status_before, status_after FROM operator_action WHERE saga_id = $1 ORDER BY decided_at DESC, id LIMIT 100";

/// Returns the actions that were requested for a saga, newest first.
pub async fn actions_of(pool: &PgPool, saga: SagaId) -> Result<Vec<DecidedAction>, sqlx::Error> {
    sqlx::query_as(BY_SAGA).bind(saga.0).fetch_all(pool).await
}
