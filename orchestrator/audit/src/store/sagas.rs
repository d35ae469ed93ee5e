//! Reads the orchestrator's database: live sagas and history.

use super::{Snapshot, floor};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A saga's row, live or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saga {
    pub definition: String,
    /// `running`, `compensating`, `parked`, `completed`, `compensated`, `abandoned`.
    pub status: String,
    /// The reason why the saga is parked, if the row has one.
    pub reason: Option<String>,
    /// Sequence number of the last event.
    pub sequence: i64,
    /// Offset of the last input that changed the saga, by partition of `saga.inputs`.
    pub inputs: BTreeMap<i32, i64>,
    pub state: RowState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowState {
    Live {
        version: i64,
        waiting_kind: String,
        waiting_since: DateTime<Utc>,
        next_due: Option<DateTime<Utc>>,
        /// The time when the oldest queued command of the saga was sent.
        queued_since: Option<DateTime<Utc>>,
    },
    Ended {
        at: DateTime<Utc>,
    },
}

impl Saga {
    pub fn has_ended(&self) -> bool {
        matches!(self.state, RowState::Ended { .. })
    }
}

/// All sagas of a look.
#[derive(Clone, Debug, Default)]
pub struct Sagas {
    pub by_id: BTreeMap<Uuid, Saga>,
    /// Sagas that are both live and ended.
    pub overlapping: Vec<Uuid>,
    /// The least id that history still has a partition for. Older sagas may have been dropped.
    pub history_floor: Option<Uuid>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

type LiveRow = (
    Uuid,
    i64,
    String,
    String,
    String,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    Option<String>,
    i64,
    serde_json::Value,
    serde_json::Value,
);

type EndedRow = (
    Uuid,
    String,
    String,
    DateTime<Utc>,
    i64,
    serde_json::Value,
    serde_json::Value,
);

pub async fn read(snapshot: &mut Snapshot<'_>, since: Uuid) -> Result<Sagas, sqlx::Error> {
    let mut sagas = Sagas {
        history_floor: floor(snapshot, "saga_history").await?,
        now: sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&mut **snapshot)
            .await?,
        ..Sagas::default()
    };
    read_live(snapshot, since, &mut sagas).await?;
    read_ended(snapshot, since, &mut sagas).await?;
    Ok(sagas)
}

async fn read_live(
    snapshot: &mut Snapshot<'_>,
    since: Uuid,
    sagas: &mut Sagas,
) -> Result<(), sqlx::Error> {
    let rows: Vec<LiveRow> = sqlx::query_as(
        "SELECT id, version, definition, status, waiting_kind, waiting_since, next_due,
           (SELECT min((command->>'sent_at')::timestamptz) FROM json_array_elements(queued) AS command),
           NULLIF(concat_ws(': ', state->'reason'->>'code', state->'reason'->>'message'), ''),
           COALESCE((state->>'sequence')::bigint, 0),
           jsonb_path_query_array(state::jsonb, '$.log[*].partition'), jsonb_path_query_array(state::jsonb, '$.log[*].offset')
         FROM saga WHERE id >= $1",
    )
    .bind(since)
    .fetch_all(&mut **snapshot)
    .await?;
    for row in rows {
        let (id, version, definition, status, waiting_kind, waiting_since, ..) = row;
        let (.., next_due, queued_since, reason, sequence, partitions, offsets) = row;
        let saga = Saga {
            definition,
            status,
            reason,
            sequence,
            inputs: inputs(&partitions, &offsets),
            state: RowState::Live {
                version,
                waiting_kind,
                waiting_since,
                next_due,
                queued_since,
            },
        };
        sagas.by_id.insert(id, saga);
    }
    Ok(())
}

async fn read_ended(
    snapshot: &mut Snapshot<'_>,
    since: Uuid,
    sagas: &mut Sagas,
) -> Result<(), sqlx::Error> {
    let rows: Vec<EndedRow> = sqlx::query_as(
        "SELECT id, definition, status, ended_at, COALESCE((state->>'sequence')::bigint, 0),
           jsonb_path_query_array(state::jsonb, '$.log[*].partition'), jsonb_path_query_array(state::jsonb, '$.log[*].offset')
         FROM saga_history WHERE id >= $1",
    )
    .bind(since)
    .fetch_all(&mut **snapshot)
    .await?;
    for (id, definition, status, at, sequence, partitions, offsets) in rows {
        let saga = Saga {
            definition,
            status,
            reason: None,
            sequence,
            inputs: inputs(&partitions, &offsets),
            state: RowState::Ended { at },
        };
        if sagas.by_id.insert(id, saga).is_some() {
            sagas.overlapping.push(id);
        }
    }
    Ok(())
}

fn inputs(partitions: &serde_json::Value, offsets: &serde_json::Value) -> BTreeMap<i32, i64> {
    let numbers = |value: &serde_json::Value| -> Vec<i64> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(serde_json::Value::as_i64).collect()
    };
    let mut last = BTreeMap::new();
    for (partition, offset) in numbers(partitions).into_iter().zip(numbers(offsets)) {
        let highest = last.entry(partition as i32).or_insert(offset);
        *highest = offset.max(*highest);
    }
    last
}
