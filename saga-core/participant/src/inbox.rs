//! The barrier's table: its partitions, and the rows that the starter of a saga writes into it.
//!
//! ```text
//!  … inbox_oldest ][ inbox_20261119 ][ inbox_20261120 ][ … one a day … ][ inbox_20261128 ]
//!  everything before│  two days ago   │                                  │ today + ahead
//! ```
//!
//! Saga ids are UUIDv7, so a day of ids is a day of sagas. The oldest partition holds the rows of all sagas that began
//! before the table was created: a command of an old saga that has not ended is still valid. Once rows have been
//! forgotten, partitions begin at the participant's own floor, and no row of an older saga is written.

use super::{reply, store};
use saga_core::ids::SagaId;
use saga_messaging::partition::{PartitionAlarm, PartitionedTable, Span};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// Number of past days for which a new table has daily partitions: most sagas are younger when their commands arrive.
const DAYS_BACK: i64 = 2;

/// The barrier's table, with one partition a day.
pub const TABLE: PartitionedTable = PartitionedTable {
    name: "inbox",
    width_ms: DAY_MS,
    lock: 0x5341_4741_494E_424F,
};

/// The query for the barrier's rows of a batch, public so that its plan can be inspected. Parameters: the sagas, the
/// smallest and the largest of their ids.
pub const READ: &str = store::inbox::READ;

/// Returns an alarm for the barrier's partitions; see [`ParticipantConfig::partition_alarm`](super::ParticipantConfig).
pub fn alarm() -> PartitionAlarm {
    PartitionAlarm::new(TABLE.name)
}

/// Writes the barrier rows of a step that the starter of these sagas has done itself, in the transaction that does it.
/// Without these rows, the step's compensation would find nothing done and have no effect.
pub async fn record_started(
    tx: &mut PgConnection,
    sagas: &[SagaId],
    step: &str,
) -> Result<(), sqlx::Error> {
    let saved = reply::success(format!("{step}.done"), serde_json::Value::Null);
    let saved = serde_json::to_string(&saved).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.0).collect();
    store::inbox::record_started(tx, &ids, step, &saved).await
}

/// Creates the missing partitions up to `ahead_days` days ahead. This is safe while other processes do the same and
/// while the table is used.
pub async fn ensure_partitions(pool: &PgPool, ahead_days: u32) -> Result<(), sqlx::Error> {
    let floors = store::floor::read(pool).await?;
    for wanted in wanted(floors.now.timestamp_millis(), floors.own_ms, ahead_days) {
        TABLE.make(pool, wanted).await?;
    }
    Ok(())
}

/// Returns the two spans that partitions must cover: one partition from the floor, or from the beginning, to the first
/// daily partition of a new table; then daily partitions.
fn wanted(now_ms: i64, own_floor_ms: i64, ahead_days: u32) -> [Span; 2] {
    let ahead_ms = i64::from(ahead_days) * DAY_MS;
    let back_ms = (now_ms - DAYS_BACK * DAY_MS).max(own_floor_ms);
    let days = Span::covering(back_ms, now_ms + ahead_ms, DAY_MS);
    let before = Span {
        from_ms: (own_floor_ms > 0).then_some(own_floor_ms),
        to_ms: days.from_ms.unwrap_or_default(),
    };
    [before, days]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_reach_back_to_the_floor_and_ahead_of_today() {
        let span = |from_day: Option<i64>, to_day: i64| Span {
            from_ms: from_day.map(|day| day * DAY_MS),
            to_ms: to_day * DAY_MS,
        };
        let noon = 100 * DAY_MS + DAY_MS / 2;
        assert_eq!(wanted(noon, 0, 7), [span(None, 98), span(Some(98), 108)]);
        assert_eq!(
            wanted(noon, 70 * DAY_MS, 7),
            [span(Some(70), 98), span(Some(98), 108)]
        );
    }
}
