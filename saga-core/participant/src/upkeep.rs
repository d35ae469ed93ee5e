//! Creates the barrier's partitions ahead of time, and forgets the rows that no saga can ask for any more.
//!
//! Commands carry the orchestrator's floor: every saga that began before it has ended. The partitions that lie wholly
//! below the highest floor seen are forgotten in three steps, so that no command is ever run a second time because its
//! first run was forgotten:
//!
//! 1. The participant's own floor rises to the end of the newest partition below the floor seen. From then on, commands
//!    below the own floor are refused.
//! 2. Upkeep waits until no transaction lives that may have read the former own floor.
//! 3. The partitions below the own floor are dropped, with the intents that ended there. A call that is still open
//!    there, because its saga was abandoned, keeps its partition until the call is settled.

use super::{inbox, store};
use metrics::gauge;
use saga_messaging::partition::{CommittedValue, PartitionAlarm, Span, reach_of};
use saga_postgres::silence::limited;
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Time between two rounds, the same as that between two rises of the orchestrator's floor.
const INTERVAL: Duration = Duration::from_secs(30);
/// Time between two rounds while a raised floor waits only for older transactions to end.
const SOON: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(5);
/// With fewer days of partitions ahead than this, the shortage is logged as an error: it cannot wait until Monday.
const ALARM_DAYS: i64 = 3;
const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// Most intents that one statement removes.
const FORGET_LIMIT: i64 = 10_000;

/// The task that maintains the barrier's partitions. [`run`](super::run) starts it; tests call its rounds themselves.
pub struct BarrierUpkeep {
    pool: PgPool,
    ahead_days: u32,
    alarm: PartitionAlarm,
    settled: CommittedValue,
    /// Set while a raised floor is not settled, so that the next round comes soon.
    pending: bool,
}

impl BarrierUpkeep {
    pub fn new(pool: PgPool, ahead_days: u32, alarm: PartitionAlarm) -> Self {
        Self {
            pool,
            ahead_days,
            alarm,
            settled: CommittedValue::default(),
            pending: false,
        }
    }

    /// Returns when the partitions exist, or at `shutdown`. An unavailable database is waited for, because nothing else
    /// works without it either.
    pub async fn first(&self, shutdown: &CancellationToken) {
        while !self.make_room().await {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Runs rounds until `shutdown`. A missing partition is created at once.
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

    /// Runs all tasks once. A task that fails is done by a later round.
    pub async fn round(&mut self) {
        self.make_room().await;
        if let Err(error) = limited(self.forget()).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "rows below the floor cannot be removed now, trying again"
            );
        }
    }

    /// Creates missing partitions. Returns `false` if partitions are still missing.
    async fn make_room(&self) -> bool {
        let made = limited(inbox::ensure_partitions(&self.pool, self.ahead_days)).await;
        if let Err(failed) = &made {
            warn!(
                error = failed as &dyn std::error::Error,
                "partitions of the barrier cannot be made now, trying again"
            );
        } else {
            self.alarm.clear();
        }
        if let Err(failed) = limited(self.watch_room()).await {
            warn!(
                error = &failed as &dyn std::error::Error,
                "the reach of the barrier's partitions cannot be read"
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
        let settled = self.settled.visible_to_all(&mut connection).await?;
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

    /// Raises the own floor as far as whole partitions lie below the highest floor that a command carried. Returns the
    /// own floor.
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

/// Returns the end of the newest partition that lies wholly below `floor_ms`.
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
