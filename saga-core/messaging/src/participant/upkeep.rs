//! Keeps the barrier's partitions ahead of time, and forgets what no saga can ask for any more.
//!
//! Commands carry the orchestrator's floor: every saga that began before it has ended. What lies wholly below the highest
//! one seen is forgotten in three steps, so that no command is ever run a second time because its first was forgotten:
//!
//! 1. the participant's own floor rises to the end of the newest partition below the floor seen: from then on commands
//!    below it are refused;
//! 2. nothing happens while a transaction lives that may have read the former one;
//! 3. the partitions below it go, with the intents that ended there. A call that is still open there, because its saga was
//!    abandoned, keeps its partition until it is settled.

use super::{inbox, store};
use crate::partition::{PartitionAlarm, Settled, Span, reach_of};
use metrics::gauge;
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// As often as the orchestrator's floor rises.
const INTERVAL: Duration = Duration::from_secs(30);
/// As long as something is to be forgotten that only waits for everybody to go by the new floor.
const SOON: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(5);
/// Fewer days than this left, and it cannot wait until Monday.
const ALARM_DAYS: i64 = 3;
const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// Intents that one statement removes.
const FORGET_LIMIT: i64 = 10_000;

/// See the module. [`run`](super::run) keeps one; tests drive it themselves.
pub struct BarrierUpkeep {
    pool: PgPool,
    ahead_days: u32,
    alarm: PartitionAlarm,
    settled: Settled,
    /// Whether another round soon will have something to forget.
    pending: bool,
}

impl BarrierUpkeep {
    pub fn new(pool: PgPool, ahead_days: u32, alarm: PartitionAlarm) -> Self {
        Self {
            pool,
            ahead_days,
            alarm,
            settled: Settled::default(),
            pending: false,
        }
    }

    /// Returns when the partitions stand, or at `shutdown`. A database that is away is waited for: so is everything else.
    pub async fn first(&self, shutdown: &CancellationToken) {
        while !self.make_room().await {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Until `shutdown`. A missing partition is made at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let alarm = self.alarm.clone();
        loop {
            let wait = if self.pending { SOON } else { INTERVAL };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = alarm.raised() => {
                    self.make_room().await;
                }
                () = tokio::time::sleep(wait) => self.round().await,
            }
        }
    }

    /// Everything once. What cannot be done now is done by a later round.
    pub async fn round(&mut self) {
        self.make_room().await;
        if let Err(error) = self.forget().await {
            warn!(
                error = &error as &dyn std::error::Error,
                "what lies below the floor cannot be forgotten now, trying again"
            );
        }
    }

    /// `false`: partitions are missing still.
    async fn make_room(&self) -> bool {
        let made = inbox::ensure_partitions(&self.pool, self.ahead_days).await;
        if let Err(failed) = &made {
            warn!(
                error = failed as &dyn std::error::Error,
                "partitions of the barrier cannot be made now, trying again"
            );
        } else {
            self.alarm.clear();
        }
        if let Err(failed) = self.watch_room().await {
            warn!(
                error = &failed as &dyn std::error::Error,
                "nobody can say how far the barrier's partitions reach"
            );
        }
        made.is_ok()
    }

    async fn watch_room(&self) -> Result<(), sqlx::Error> {
        let now_ms = store::floor::read(&self.pool).await?.now.timestamp_millis();
        let stand = inbox::TABLE.partitions(&self.pool).await?;
        let days = (reach_of(&stand, now_ms) - now_ms) / DAY_MS;
        gauge!("saga_inbox_partitions_ahead_days").set(days as f64);
        if days < ALARM_DAYS.min(i64::from(self.ahead_days)) {
            error!(
                days,
                "the barrier's partitions run out: no command can be handled then"
            );
        }
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), sqlx::Error> {
        let own_ms = self.raise_own_floor().await?;
        let mut connection = self.pool.acquire().await?;
        self.settled.note(&mut connection, own_ms).await?;
        let settled = self.settled.is_settled(&mut connection).await?;
        self.pending = settled.is_none();
        let Some(settled_ms) = settled else {
            return Ok(());
        };
        let open_ms = store::intent::oldest_open(&mut connection).await?;
        let below_ms = settled_ms.min(open_ms.unwrap_or(i64::MAX));
        while store::intent::forget(&mut connection, below_ms, FORGET_LIMIT).await?
            >= FORGET_LIMIT.cast_unsigned()
        {}
        drop(connection);
        let dropped = inbox::TABLE.drop_below(&self.pool, below_ms).await?;
        gauge!("saga_inbox_partitions_left").set(dropped.left as f64);
        if below_ms < settled_ms || dropped.left > 0 {
            warn!(
                left = dropped.left,
                open_call_below_the_floor = below_ms < settled_ms,
                "partitions of the barrier cannot be dropped yet, trying again"
            );
        }
        Ok(())
    }

    /// As far as whole partitions lie below the highest floor that a command carried.
    async fn raise_own_floor(&self) -> Result<i64, sqlx::Error> {
        let floors = store::floor::read(&self.pool).await?;
        let age_ms = floors.now.timestamp_millis() - floors.own_ms;
        gauge!("saga_own_floor_age_seconds").set(age_ms as f64 / 1_000.0);
        let stand: Vec<Span> = inbox::TABLE
            .partitions(&self.pool)
            .await?
            .into_iter()
            .map(|partition| partition.span)
            .collect();
        let reached = forgettable(&stand, floors.seen_ms);
        if reached.is_none_or(|reached| reached <= floors.own_ms) {
            return Ok(floors.own_ms);
        }
        let reached = reached.unwrap_or_default();
        store::floor::raise_own(&self.pool, reached).await?;
        info!(
            floor_ms = reached,
            "commands of sagas that began before this are refused from now on"
        );
        Ok(reached)
    }
}

/// The end of the newest partition that lies wholly below `floor_ms`.
fn forgettable(stand: &[Span], floor_ms: i64) -> Option<i64> {
    let ends = stand.iter().map(|span| span.to_ms);
    ends.filter(|to_ms| *to_ms <= floor_ms).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_partitions_are_forgotten() {
        let span = |from_ms, to_ms| Span { from_ms, to_ms };
        let stand = [span(None, 10), span(Some(10), 20), span(Some(20), 30)];
        let check = |floor_ms, expected| assert_eq!(forgettable(&stand, floor_ms), expected);
        check(0, None);
        check(9, None);
        check(10, Some(10));
        check(29, Some(20));
        check(1_000, Some(30));
    }
}
