//! Whether everybody goes by a value that was stored.

use super::store;
use saga_core::ids::Timestamp;
use sqlx::PgConnection;

/// A value that was seen committed, and when. It is settled once no transaction lives that began before: every later one
/// reads it. Kept in memory between two rounds of upkeep; a process that restarts only takes a round more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled {
    seen: Option<(i64, Timestamp)>,
}

impl Settled {
    /// `value` was read outside of the transaction that wrote it, or is about to be compared by who has committed it.
    pub async fn note(
        &mut self,
        connection: &mut PgConnection,
        value: i64,
    ) -> Result<(), sqlx::Error> {
        // Since when it has been there is what counts: noting it again must not begin the wait anew.
        if self.seen.is_none_or(|(seen, _)| seen < value) {
            self.seen = Some((value, store::clock(connection).await?));
        }
        Ok(())
    }

    /// The value noted last, if nobody can still go by an older one.
    pub async fn is_settled(
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
