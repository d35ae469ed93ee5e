//! Periodic jobs, which any orchestrator may do: floors, partitions, sagas without a home partition, definitions that
//! another process has registered, the deletion of old rows, and gauges. Each job is idempotent, so two processes that
//! do it at once do no harm.
//!
//! [`floors`] decides how far floors may rise. [`retention`] raises them, creates partitions ahead of time, and drops
//! the partitions below them. [`resend`] is a task of its own: it resends commands after inputs were lost.

pub mod floors;
pub mod resend;
pub mod retention;

use crate::{
    engine::{saga_store::DefinitionStore, shared::Shared, timers::offsets::OffsetReader},
    store::{PgStore, definition, history, intake, listing},
    telemetry,
};
use retention::{Retention, UpkeepResult};
use saga_messaging::{kafka::KafkaWriter, outbox::Outbox};
use saga_postgres::silence::limited;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The time between two rounds. Commands carry the floor of the last round.
const INTERVAL: Duration = Duration::from_secs(30);
/// The time between two rounds while something is to be dropped and only waits until every process uses the new floor.
const SOON: Duration = Duration::from_secs(2);
/// The number of idempotency keys that one statement deletes, so that no statement holds its locks for long.
const FORGET_LIMIT: i64 = 10_000;

pub struct Upkeep {
    pub store: PgStore,
    pub shared: Arc<Shared>,
    pub offsets: Arc<OffsetReader>,
    pub writer: KafkaWriter,
    pub outbox: Outbox,
    pub group: &'static str,
    pub retention: Retention,
}

impl Upkeep {
    /// Does the jobs that must precede everything else: creates partitions, raises the floor, and gives every saga a
    /// home partition that exists.
    pub async fn before_start(&mut self) -> UpkeepResult {
        self.retention.make_room().await?;
        self.count().await
    }

    /// Does rounds until `shutdown`. A missing partition is created at once, and not only in the next round.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let alarm = self.store.alarm().clone();
        loop {
            let wait = if self.retention.is_pending() {
                SOON
            } else {
                INTERVAL
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = alarm.raised() => {
                    let made = limited(self.retention.make_room()).await;
                    log_failures(&[("the missing partition", made)]);
                }
                () = tokio::time::sleep(wait) => self.round().await,
            }
        }
    }

    /// Does every job on its own: a job that fails does not keep the others from being done.
    pub async fn round(&mut self) {
        let jobs = [
            (
                "partitions and the floor",
                limited(self.retention.make_room()).await,
            ),
            (
                "what is below the floor",
                limited(self.retention.forget()).await,
            ),
            ("definitions", limited(self.learn_definitions()).await),
            ("live sagas and their homes", limited(self.count()).await),
            ("idempotency keys", limited(self.forget_keys()).await),
            ("offsets", self.note_offsets().await),
        ];
        log_failures(&jobs);
        self.measure().await;
    }

    /// Takes over definitions that another process has registered. Starts do not wait for this job, because a batch
    /// with a start reads the generation itself.
    async fn learn_definitions(&self) -> UpkeepResult {
        let generation = definition::generation(self.store.reporting()).await?;
        if generation != self.shared.registry.current().generation {
            self.shared.learn(self.store.catalog().await?);
        }
        Ok(())
    }

    /// Counts the live sagas, and gives a home partition to those whose home partition does not exist. One scan of the
    /// table serves both, because the table may be large.
    async fn count(&self) -> UpkeepResult {
        let topic = &self.shared.settings.inputs_topic;
        // The number of partitions is read again. With a number from before partitions were added, the sagas of the new
        // partitions would be moved away from where their replies and cancels arrive.
        let partitions = self.writer.refresh_partition_count(topic).await;
        let homes = partitions.as_ref().ok().copied();
        let live = listing::count_live(self.store.reporting(), homes).await?;
        telemetry::live(&live.by_status);
        let partitions = partitions?;
        if live.homeless == 0 {
            return Ok(());
        }
        let moved = history::rehome(self.store.reporting(), partitions).await?;
        if moved > 0 {
            warn!(
                moved,
                partitions, "sagas whose home partition does not exist were given another one"
            );
        }
        Ok(())
    }

    async fn forget_keys(&self) -> UpkeepResult {
        while intake::forget_old_keys(self.store.reporting(), FORGET_LIMIT).await?
            >= FORGET_LIMIT.cast_unsigned()
        {}
        Ok(())
    }

    /// Notes the offsets that the orchestrators have committed. Log entries below them can never be redelivered.
    async fn note_offsets(&self) -> UpkeepResult {
        let topic = &self.shared.settings.inputs_topic;
        if let Some(seen) = self.offsets.seen(topic, self.group).await {
            telemetry::backlog(seen.lag(), self.outbox.backlog().cast_signed());
            let committed = seen
                .partitions
                .iter()
                .map(|(partition, seen)| (*partition, seen.committed))
                .collect();
            self.shared.set_committed(committed);
        }
        Ok(())
    }

    /// Reads the lag of every participant and reports it as a metric. A participant that is down cannot report its own
    /// lag, which is when operators look for it.
    async fn measure_lags(&self) {
        for participant in self.shared.settings.participants.all().values() {
            if let Some(seen) = self
                .offsets
                .seen(&participant.topic, &participant.group)
                .await
            {
                telemetry::participant_lag(&participant.topic, &participant.group, seen.lag());
            }
        }
    }

    async fn measure(&self) {
        let (held, watched) = {
            let timers = self.shared.timers();
            (timers.len(), timers.watched_len())
        };
        telemetry::timers_held(held, watched);
        self.measure_lags().await;
    }
}

fn log_failures(jobs: &[(&str, UpkeepResult)]) {
    for (job, result) in jobs {
        if let Err(error) = result {
            warn!(
                error = &**error as &dyn std::error::Error,
                job, "an upkeep job failed, trying again"
            );
        }
    }
}
