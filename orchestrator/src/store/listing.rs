//! The statements of the API: listings, one saga, and counts. They use the reporting pool, whose planner is free.

use chrono::{DateTime, Utc};
use saga_core::{ids::SagaId, instance::SagaInstance};
use sqlx::{PgPool, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

/// The filter of a listing. A field that is `None` matches every saga.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub status: Option<String>,
    /// The name of a participant.
    pub waiting_on: Option<String>,
    pub business_key: Option<String>,
    pub definition: Option<String>,
    /// Only ids below this one, which is the last id of the page before.
    pub before: Option<Uuid>,
}

/// A line of a listing.
#[derive(Clone, Debug)]
pub struct SagaLine {
    pub id: Uuid,
    pub definition: String,
    pub definition_version: i32,
    pub status: String,
    pub business_key: Option<String>,
    pub correlation_id: String,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub waiting_kind: Option<String>,
    pub waiting_on: Option<String>,
    pub waiting_since: Option<DateTime<Utc>>,
    pub attempt: Option<i32>,
    pub next_due: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
}

saga_postgres::from_row!(
    SagaLine: id, definition, definition_version, status, business_key, correlation_id, started_at,
    ended_at, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error
);

/// Returns live and ended sagas, newest first. This is one statement, so that a saga that ends meanwhile is returned
/// once.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<SagaLine>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "SELECT * FROM ((SELECT id, definition, definition_version, status, business_key, correlation_id, started_at,
           NULL::timestamptz AS ended_at, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error
         FROM saga WHERE true",
    );
    narrow(&mut query, filter);
    if let Some(participant) = &filter.waiting_on {
        query
            .push(" AND waiting_on = ")
            .push_bind(participant.clone());
    }
    query
        .push(" ORDER BY id DESC LIMIT ")
        .push_bind(limit)
        .push(")");
    // A saga that has ended waits for no participant.
    if filter.waiting_on.is_none() {
        query.push(
            " UNION ALL (SELECT id, definition, definition_version, status, business_key, correlation_id, started_at,
               ended_at, NULL, NULL, NULL, NULL, NULL, NULL FROM saga_history WHERE true",
        );
        narrow(&mut query, filter);
        query
            .push(" ORDER BY id DESC LIMIT ")
            .push_bind(limit)
            .push(")");
    }
    query
        .push(") AS sagas ORDER BY id DESC LIMIT ")
        .push_bind(limit);
    query
        .build_query_as()
        .persistent(false)
        .fetch_all(pool)
        .await
}

fn narrow(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    let columns = [
        (" AND status = ", &filter.status),
        (" AND business_key = ", &filter.business_key),
        (" AND definition = ", &filter.definition),
    ];
    for (condition, value) in columns {
        if let Some(value) = value {
            query.push(condition).push_bind(value.clone());
        }
    }
    if let Some(before) = filter.before {
        query.push(" AND id < ").push_bind(before);
    }
}

/// A saga's present state, and when it ended.
#[derive(Clone, Debug)]
pub struct FoundSaga {
    pub instance: SagaInstance,
    pub ended_at: Option<DateTime<Utc>>,
}

/// Reads a saga. This is one statement, so that a saga that ends meanwhile is found.
const FIND: &str = "SELECT state, NULL::timestamptz AS ended_at FROM saga WHERE id = $1
UNION ALL SELECT state, ended_at FROM saga_history WHERE id = $1";

pub async fn find(pool: &PgPool, id: SagaId) -> Result<Option<FoundSaga>, sqlx::Error> {
    let row: Option<(Json<SagaInstance>, Option<DateTime<Utc>>)> =
        sqlx::query_as(FIND).bind(id.0).fetch_optional(pool).await?;
    Ok(row.map(|(Json(instance), ended_at)| FoundSaga { instance, ended_at }))
}

/// The counts of the whole table of live sagas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCount {
    /// The number of sagas of each status, ordered by the status's name.
    pub by_status: Vec<(String, i64)>,
    /// The number of sagas whose home partition does not exist; 0 if the number of partitions is unknown.
    pub homeless: i64,
}

/// Counts the live sagas. `partitions` is the number of home partitions, if it is known.
pub async fn count_live(pool: &PgPool, partitions: Option<i32>) -> Result<LiveCount, sqlx::Error> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT status, count(*), count(*) FILTER (WHERE home_partition NOT BETWEEN 0 AND $1::integer - 1)
         FROM saga GROUP BY status ORDER BY status",
    )
    .bind(partitions)
    .fetch_all(pool)
    .await?;
    Ok(LiveCount {
        homeless: rows.iter().map(|(_, _, homeless)| homeless).sum(),
        by_status: rows
            .into_iter()
            .map(|(status, count, _)| (status, count))
            .collect(),
    })
}

/// The live sagas that wait for the same participant in the same way: participant, kind, count, and the earliest time
/// since which one of them has waited.
pub type Waiting = (Option<String>, String, i64, DateTime<Utc>);

pub async fn live_by_waiting(pool: &PgPool) -> Result<Vec<Waiting>, sqlx::Error> {
    sqlx::query_as(
        "SELECT waiting_on, waiting_kind, count(*), min(waiting_since) FROM saga
         GROUP BY waiting_on, waiting_kind ORDER BY count(*) DESC, waiting_on, waiting_kind",
    )
    .fetch_all(pool)
    .await
}

/// Counts the ended sagas that began at or after `from_id`, by status. Only the newest `limit` of them are counted.
pub async fn ended_since(
    pool: &PgPool,
    from_id: Uuid,
    limit: i64,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT status, count(*) FROM (
           SELECT status FROM saga_history WHERE id >= $1 ORDER BY id DESC LIMIT $2) AS newest
         GROUP BY status ORDER BY status",
    )
    .bind(from_id)
    .bind(limit)
    .fetch_all(pool)
    .await
}
