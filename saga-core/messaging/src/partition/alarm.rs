//! Raises an alarm for a row that has no partition, until the partition exists.

use crate::consumer::BatchError;
use metrics::{counter, gauge};
use std::{
    future::{Ready, ready},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tracing::{error, info};

/// SQLSTATE `check_violation`. It is also the code for a missing partition, but then no constraint is named.
const CHECK_VIOLATION: &str = "23514";

/// Returns `true` if an insert found no partition for its row.
pub fn is_missing_partition(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| {
        database.code().as_deref() == Some(CHECK_VIOLATION) && database.constraint().is_none()
    })
}

/// The alarm of a table. Writers raise it, upkeep is woken by it and clears it, and `/health` shows it.
#[derive(Clone, Debug)]
pub struct PartitionAlarm {
    table: &'static str,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The error text about the missing partition.
    missing: Mutex<Option<String>>,
    raised: Notify,
}

impl PartitionAlarm {
    pub fn new(table: &'static str) -> Self {
        gauge!("saga_partition_missing", "table" => table).set(0.0);
        Self {
            table,
            state: Arc::default(),
        }
    }

    /// Raises the alarm if a missing partition is the reason for the error.
    pub fn look_at(&self, error: &BatchError) {
        let (BatchError::Retry(source) | BatchError::Data(source)) = error;
        if let Some(error) = source.downcast_ref::<sqlx::Error>() {
            self.look_at_sql(error);
        }
    }

    /// Raises the alarm like [`look_at`](Self::look_at).
    pub fn look_at_sql(&self, error: &sqlx::Error) {
        if is_missing_partition(error) {
            self.raise(&error.to_string());
        }
    }

    fn raise(&self, why: &str) {
        counter!("saga_missing_partition_total", "table" => self.table).increment(1);
        gauge!("saga_partition_missing", "table" => self.table).set(1.0);
        let first = self.missing().replace(why.to_owned()).is_none();
        if first {
            error!(
                table = self.table,
                error = why,
                "a partition is missing: rows that need it wait, and nothing is lost"
            );
        }
        self.state.raised.notify_one();
    }

    /// Clears the alarm when all partitions exist.
    pub fn clear(&self) {
        gauge!("saga_partition_missing", "table" => self.table).set(0.0);
        if self.missing().take().is_some() {
            info!(table = self.table, "the missing partition is made");
        }
    }

    /// Returns when the alarm has been raised since the last call.
    pub async fn raised(&self) {
        self.state.raised.notified().await;
    }

    /// Returns an error for `/health` while the alarm is raised.
    pub fn health(&self) -> Result<(), String> {
        match &*self.missing() {
            None => Ok(()),
            Some(why) => Err(format!("a partition of {} is missing: {why}", self.table)),
        }
    }

    /// Returns the alarm as a check that `/health` runs.
    pub fn health_check(self) -> impl Fn() -> Ready<Result<(), String>> + Send + Sync + 'static {
        move || ready(self.health())
    }

    fn missing(&self) -> MutexGuard<'_, Option<String>> {
        self.state
            .missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_alarm_remains_until_it_is_cleared() {
        let alarm = PartitionAlarm::new("inbox");
        assert_eq!(alarm.health(), Ok(()));
        alarm.look_at(&BatchError::Retry(Box::new(sqlx::Error::PoolTimedOut)));
        assert_eq!(alarm.health(), Ok(()));
        alarm.raise("no partition of relation \"inbox\" found for row");
        // A waiting task is woken even if the alarm was raised before.
        alarm.clone().raised().await;
        let told = alarm.health().unwrap_err();
        assert!(
            told.contains("a partition of inbox is missing: no partition"),
            "{told}"
        );
        alarm.clear();
        assert_eq!(alarm.health(), Ok(()));
    }
}
