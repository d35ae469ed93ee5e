//! The barrier's table: its partitions, and what the starter of a saga writes into it.
//!
//! ```text
//!  … inbox_oldest ][ inbox_20261119 ][ inbox_20261120 ][ … one a day … ][ inbox_20261128 ]
//!  everything before│  two days ago   │                                  │ today + ahead
//! ```
//!
//! Ids are UUIDv7, so a day of ids is a day of sagas. The oldest partition takes whatever began before the table was
//! made: a command of an old saga that still lives is no less valid for that. Days that were missed, because nothing
//! ran, become one partition.

use super::{reply, store};
use chrono::{DateTime, Days, NaiveDate, NaiveTime};
use metrics::gauge;
use saga_core::ids::{SagaId, Timestamp};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Ids are valid from 24 h before they arrive on; a day more covers whatever the clocks disagree about.
const DAYS_BACK: u64 = 2;

/// Writes the barrier records of the step that the starter of these sagas has done itself, in the transaction that
/// does it: without them, the step's compensation would find nothing done, and be empty.
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

/// Makes the partitions up to `ahead_days` days ahead, where they are missing. Safe while other processes do the same
/// and while the table is used.
pub async fn ensure_partitions(pool: &PgPool, ahead_days: u32) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    store::partition::lock(&mut tx).await?;
    let (now, upper) = store::partition::horizon(&mut tx).await?;
    let plan = plan(now.date_naive(), upper.map(day_of), ahead_days);
    for part in &plan {
        let name = part.from.map_or_else(
            || "inbox_oldest".to_owned(),
            |day| format!("inbox_{}", day.format("%Y%m%d")),
        );
        store::partition::make(&mut tx, &name, part.from.map(first_id), first_id(part.to)).await?;
    }
    tx.commit().await?;
    gauge!("saga_inbox_partitions_ahead_days").set(f64::from(ahead_days));
    Ok(())
}

/// Days that the barrier's partitions still reach, for the alarm when upkeep fails.
pub(super) async fn days_ahead(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let (now, upper) = store::partition::horizon(&mut connection).await?;
    let upper = upper.map_or_else(|| now.date_naive(), day_of);
    Ok((upper - now.date_naive()).num_days() - 1)
}

/// Ids from midnight to midnight, UTC; `None` is the beginning of time.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    from: Option<NaiveDate>,
    to: NaiveDate,
}

/// What must be made so that partitions reach from `upper`, or the beginning of time, to the end of the last day ahead.
fn plan(today: NaiveDate, upper: Option<NaiveDate>, ahead_days: u32) -> Vec<Part> {
    let end = today + Days::new(u64::from(ahead_days) + 1);
    let mut parts = Vec::new();
    let mut from = upper.unwrap_or_else(|| {
        let to = today - Days::new(DAYS_BACK);
        parts.push(Part { from: None, to });
        to
    });
    if upper.is_some() && from < today {
        parts.push(Part {
            from: Some(from),
            to: today,
        });
        from = today;
    }
    while from < end {
        let to = from + Days::new(1);
        parts.push(Part {
            from: Some(from),
            to,
        });
        from = to;
    }
    parts
}

/// The least id of a day: its milliseconds in the first six bytes, zeros behind.
fn first_id(day: NaiveDate) -> Uuid {
    let ms = day.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
    Uuid::from_u128((ms as u128) << 80)
}

fn day_of(first: Uuid) -> NaiveDate {
    let ms = (first.as_u128() >> 80) as i64;
    DateTime::from_timestamp_millis(ms)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn check(upper: Option<&str>, expected: &[(&str, &str)]) {
        let planned: Vec<(String, String)> = plan(day("2026-03-01"), upper.map(day), 1)
            .into_iter()
            .map(|part| {
                let from = part.from.map_or_else(String::new, |day| day.to_string());
                (from, part.to.to_string())
            })
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect();
        assert_eq!(planned, expected, "newest partition ends {upper:?}");
    }

    #[test]
    fn partitions_reach_ahead_without_a_gap() {
        check(
            None,
            &[
                ("", "2026-02-27"),
                ("2026-02-27", "2026-02-28"),
                ("2026-02-28", "2026-03-01"),
                ("2026-03-01", "2026-03-02"),
                ("2026-03-02", "2026-03-03"),
            ],
        );
        check(Some("2026-03-02"), &[("2026-03-02", "2026-03-03")]);
        check(Some("2026-03-03"), &[]);
        check(
            Some("2026-01-01"),
            &[
                ("2026-01-01", "2026-03-01"),
                ("2026-03-01", "2026-03-02"),
                ("2026-03-02", "2026-03-03"),
            ],
        );
    }

    #[test]
    fn ids_of_a_day_lie_in_its_partition() {
        let first = first_id(day("2026-03-01"));
        assert_eq!(day_of(first), day("2026-03-01"));
        let ms = day("2026-03-01")
            .and_time(NaiveTime::MIN)
            .and_utc()
            .timestamp_millis() as u64;
        let at = |ms: u64| uuid::Builder::from_unix_timestamp_millis(ms, &[0; 10]).into_uuid();
        assert!(at(ms) >= first && at(ms - 1) < first);
        assert!(at(ms + 86_399_999) < first_id(day("2026-03-02")));
    }
}
