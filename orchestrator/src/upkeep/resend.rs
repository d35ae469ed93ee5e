//! Resends the commands in flight after inputs were lost.
//!
//! Participants have saved the replies that were lost: a command that arrives again, with the same id, is answered
//! again. The saga continues as if nothing had happened, and no attempt is spent. Meanwhile the timers of the partition
//! wait, because a reply that they would count as missing may be on its way.

use crate::{
    engine::{saga, saga_store::DefinitionStore, shared::Shared},
    store::{PgStore, timer},
};
use chrono::TimeDelta;
use saga_core::message::OutgoingRecord;
use saga_messaging::log::LogWriter;
use saga_postgres::silence::limited;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// The time that participants have to answer resent commands, before attempts may end as unanswered.
pub const TIMERS_WAIT: TimeDelta = TimeDelta::seconds(30);
/// The number of partitions that can wait to be resent at once: more than any topic has.
const WAITING_PARTITIONS: usize = 10_000;
/// The number of sagas whose commands are read and resent at once.
const PAGE: i64 = 500;
/// The time between two tries while the database or the broker is unavailable.
const RETRY: Duration = Duration::from_secs(1);

/// Reports to the [`InFlightResender`] that a home partition has lost inputs.
#[derive(Clone)]
pub struct LostInputs {
    partitions: mpsc::Sender<i32>,
    shared: Arc<Shared>,
}

/// Resends the commands in flight of every partition that has lost inputs.
pub struct InFlightResender<W> {
    store: PgStore,
    writer: W,
    shared: Arc<Shared>,
    partitions: mpsc::Receiver<i32>,
}

impl LostInputs {
    pub fn report(&self, partition: i32) {
        let now = self
            .shared
            .clock
            .now()
            .unwrap_or_else(saga_service::clock::now);
        self.shared.timers().hold(partition, now + TIMERS_WAIT);
        if self.partitions.try_send(partition).is_err() {
            warn!(partition, "commands in flight are left to their timers");
        }
    }
}

impl<W: LogWriter> InFlightResender<W> {
    pub fn new(store: PgStore, writer: W, shared: Arc<Shared>) -> (LostInputs, Self) {
        let (sender, partitions) = mpsc::channel(WAITING_PARTITIONS);
        let lost = LostInputs {
            partitions: sender,
            shared: Arc::clone(&shared),
        };
        let resend = Self {
            store,
            writer,
            shared,
            partitions,
        };
        (lost, resend)
    }

    /// Resends for each reported partition until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let partition = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                partition = self.partitions.recv() => match partition {
                    Some(partition) => partition,
                    None => return,
                },
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.partition(partition) => {}
            }
        }
    }

    /// Resends the commands in flight of every live saga with this home partition. This is safe even if another process
    /// owns the partition by now, because a duplicate command changes nothing.
    async fn partition(&self, partition: i32) {
        let (mut after, mut sent) = (Uuid::nil(), 0);
        loop {
            match self.page(partition, after).await {
                Ok(Some(page)) => {
                    sent += page.commands;
                    after = page.last;
                }
                Ok(None) => break,
                Err(error) => {
                    warn!(error = &*error, partition, "resending failed, will retry");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        info!(
            partition,
            commands = sent,
            "the commands in flight are resent"
        );
    }

    async fn page(&self, partition: i32, after: Uuid) -> Result<Option<Page>, Failure> {
        let sagas = timer::live_of(self.store.reporting(), partition, after, PAGE);
        let sagas = limited(sagas).await?;
        let Some(last) = sagas.last().map(|saga| saga.id.0) else {
            return Ok(None);
        };
        let lacks_one = sagas.iter().any(|saga| {
            self.shared
                .registry
                .by_hash(&saga.definition_hash)
                .is_none()
        });
        if lacks_one {
            self.shared.learn(self.store.catalog().await?);
        }
        let Shared {
            settings, registry, ..
        } = &*self.shared;
        let context = self.shared.command_context();
        let mut commands: Vec<OutgoingRecord> = Vec::new();
        for saga in &sagas {
            if let Some(definition) = registry.by_hash(&saga.definition_hash) {
                let in_flight = saga::in_flight(settings, &context, &definition, saga);
                commands.extend(in_flight.into_iter().map(|(_, record)| record));
            }
        }
        self.writer.publish(&commands).await?;
        Ok(Some(Page {
            last,
            commands: commands.len(),
        }))
    }
}

struct Page {
    last: Uuid,
    commands: usize,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
