//! Determines when a stored value is visible to all transactions.

use super::store;
use saga_core::ids::Timestamp;
use sqlx::PgConnection;

/// A value that was seen committed, and the time. It is visible to all transactions once none lives that began before
/// that time. It is kept in memory between two rounds of upkeep; after a restart it takes one round more.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommittedValue {
    seen: Option<(i64, Timestamp)>,
}

impl CommittedValue {
    /// Notes a committed value: one that was read outside of the transaction that wrote it, or one that the caller has
    /// just committed.
    pub async fn note(
        &mut self,
        connection: &mut PgConnection,
        value: i64,
    ) -> Result<(), sqlx::Error> {
        // The time when the value was first seen counts: noting it again must not restart the wait.
        if self.seen.is_none_or(|(seen, _)| seen < value) {
            self.seen = Some((value, store::clock(connection).await?));
        }
        Ok(())
    }

    /// Returns the last noted value if no transaction can still use an older one.
    pub async fn visible_to_all(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<i64>, sqlx::Error> {
        let Some((value, at)) = self.seen else {
            return Ok(None);
        };
        let waiting = store::begun_before(connection, at).await?;
        Ok((!waiting).then_some(value))
    }
}
