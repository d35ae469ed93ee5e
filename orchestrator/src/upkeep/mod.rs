//! What has to be done now and then, by any orchestrator: floors, partitions, homes that are gone, definitions that
//! another one registered, what is old enough to be forgotten, and gauges. Each job is idempotent; two processes doing
//! it do no harm.
//!
//! [`floors`] decides how far floors may rise, [`retention`] raises them, makes partitions ahead and drops those below.

pub mod floors;
pub mod retention;

use crate::{
    engine::{shared::Shared, timers::offsets::Offsets},
    store::{PgStore, definition, history, intake, listing},
    telemetry,
};
use retention::Retention;
use saga_messaging::{kafka::KafkaWriter, outbox::Outbox};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two rounds. Commands carry the floor of the last one.
const INTERVAL: Duration = Duration::from_secs(30);
/// As long as something is to be forgotten that only waits for everybody to go by the new floor.
const SOON: Duration = Duration::from_secs(2);
/// Idempotency keys that one statement forgets, so that none holds its locks for long.
const FORGET_LIMIT: i64 = 10_000;

pub struct Upkeep {
    pub store: PgStore,
    pub shared: Arc<Shared>,
    pub offsets: Arc<Offsets>,
    pub writer: KafkaWriter,
    pub outbox: Outbox,
    pub group: &'static str,
    pub retention: Retention,
}

pub(crate) type UpkeepResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Upkeep {
    /// What nothing can run without: partitions, the floor, and homes that exist.
    pub async fn before_start(&mut self) -> UpkeepResult {
        self.retention.make_room().await?;
        self.count().await
    }

    /// Rounds until `shutdown`. A missing partition is not kept waiting for the next one.
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
                    let made = self.retention.make_room().await;
                    tell(&[("the missing partition", made)]);
                }
                () = tokio::time::sleep(wait) => self.round().await,
            }
        }
    }

    /// Every job, each for itself: one that fails does not keep the others from being done.
    pub async fn round(&mut self) {
        let jobs = [
            ("partitions and the floor", self.retention.make_room().await),
            ("what is below the floor", self.retention.forget().await),
            ("definitions", self.learn_definitions().await),
            ("live sagas and their homes", self.count().await),
            ("idempotency keys", self.forget_keys().await),
            ("offsets", self.note_offsets().await),
        ];
        tell(&jobs);
        self.measure().await;
    }

    async fn learn_definitions(&self) -> UpkeepResult {
        for definition in definition::all(self.store.reporting()).await? {
            if self.shared.registry.by_hash(&definition.hash).is_none() {
                info!(
                    definition = definition.name,
                    version = definition.version,
                    "learned"
                );
                self.shared.hold(definition);
            }
        }
        Ok(())
    }

    /// How many live, and whether all have a home: one look at the table for both, since it may be large.
    async fn count(&self) -> UpkeepResult {
        let topic = &self.shared.settings.inputs_topic;
        // Asked anew: by a count from before partitions were added, their sagas would be moved away from where their
        // replies and cancels arrive.
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
                partitions, "sagas whose home partition does not exist have a new one"
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

    /// Log entries below a committed offset can never be redelivered.
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

    /// A participant that is down cannot tell its own lag, just when people look for it.
    async fn measure_lags(&self) {
        for participant in self.shared.settings.participants.0.values() {
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

fn tell(jobs: &[(&str, UpkeepResult)]) {
    for (job, result) in jobs {
        if let Err(error) = result {
            warn!(
                error = &**error as &dyn std::error::Error,
                job, "upkeep has to wait"
            );
        }
    }
}
