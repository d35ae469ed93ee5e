//! A row that no partition takes: said loudly, until the partition is there.

use crate::rule::BatchError;
use metrics::{counter, gauge};
use std::{
    future::{Ready, ready},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tracing::{error, info};

/// SQLSTATE `check_violation`, which says the same of a partition that is not there, only without a name.
const CHECK_VIOLATION: &str = "23514";

/// Whether an insert found no partition for its row.
pub fn is_missing_partition(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| {
        database.code().as_deref() == Some(CHECK_VIOLATION) && database.constraint().is_none()
    })
}

/// Shared by whoever writes (raises it), upkeep (is woken by it, and clears it) and `/health` (shows it).
#[derive(Clone, Debug)]
pub struct PartitionAlarm {
    table: &'static str,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was said of the missing partition.
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

    /// Raises the alarm if that is why a transaction failed.
    pub fn look_at(&self, error: &BatchError) {
        let (BatchError::Retry(source) | BatchError::Data(source)) = error;
        if let Some(error) = source.downcast_ref::<sqlx::Error>() {
            self.look_at_sql(error);
        }
    }

    /// As [`look_at`](Self::look_at).
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
                "a partition is missing: what needs it waits, and nothing is lost"
            );
        }
        self.state.raised.notify_one();
    }

    /// All partitions stand.
    pub fn clear(&self) {
        gauge!("saga_partition_missing", "table" => self.table).set(0.0);
        if self.missing().take().is_some() {
            info!(table = self.table, "the missing partition is made");
        }
    }

    /// Returns when the alarm was raised since the last call.
    pub async fn raised(&self) {
        self.state.raised.notified().await;
    }

    /// For `/health`.
    pub fn health(&self) -> Result<(), String> {
        match &*self.missing() {
            None => Ok(()),
            Some(why) => Err(format!("a partition of {} is missing: {why}", self.table)),
        }
    }

    /// As a check that `/health` runs.
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
    async fn the_alarm_stands_until_it_is_cleared() {
        let alarm = PartitionAlarm::new("inbox");
        assert_eq!(alarm.health(), Ok(()));
        alarm.look_at(&BatchError::Retry(Box::new(sqlx::Error::PoolTimedOut)));
        assert_eq!(alarm.health(), Ok(()));
        alarm.raise("no partition of relation \"inbox\" found for row");
        // Whoever waits for it is woken, also if it was raised before.
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
