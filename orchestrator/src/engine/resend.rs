//! After inputs were lost, what is in flight is sent again.
//!
//! The replies that were lost are the participants' saved ones: a command that comes again, with the same id, is answered
//! again. So a saga goes on as if nothing had happened, and no attempt is spent. Meanwhile the timers of the partition
//! wait: what they would count as unanswered may be on its way.

use super::{shared::Shared, work};
use crate::store::{PgStore, timer};
use chrono::TimeDelta;
use saga_core::{message::OutgoingRecord, transition::Outbound};
use saga_messaging::log::LogWriter;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// So long participants get to answer what is sent again, before attempts may end as unanswered.
pub const TIMERS_WAIT: TimeDelta = TimeDelta::seconds(30);
/// Partitions that may have lost something at once: more than any topic has.
const WAITING_PARTITIONS: usize = 10_000;
/// Sagas read and sent at once.
const PAGE: i64 = 500;
/// Between two tries while the database or the broker is away.
const RETRY: Duration = Duration::from_secs(1);

/// Tells the other end that a home partition has lost inputs.
#[derive(Clone)]
pub struct LostInputs {
    partitions: mpsc::Sender<i32>,
    shared: Arc<Shared>,
}

/// Sends again what is in flight.
pub struct Resend<W> {
    store: PgStore,
    writer: W,
    shared: Arc<Shared>,
    partitions: mpsc::Receiver<i32>,
}

impl LostInputs {
    pub fn tell(&self, partition: i32) {
        let now = self
            .shared
            .clock
            .now()
            .unwrap_or_else(saga_service::clock::now);
        self.shared.timers().hold(partition, now + TIMERS_WAIT);
        if self.partitions.try_send(partition).is_err() {
            warn!(partition, "what is in flight there is left to its timers");
        }
    }
}

impl<W: LogWriter> Resend<W> {
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

    /// Until `shutdown`.
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

    /// Every live saga whose home it is. Whoever owns it by now: a command more changes nothing.
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
                    warn!(error = &*error, partition, "sending again has to wait");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        info!(
            partition,
            commands = sent,
            "what was in flight is sent again"
        );
    }

    async fn page(&self, partition: i32, after: Uuid) -> Result<Option<Page>, Failure> {
        let sagas = timer::live_of(self.store.reporting(), partition, after, PAGE).await?;
        let Some(last) = sagas.last().map(|saga| saga.id.0) else {
            return Ok(None);
        };
        let outbound = Outbound {
            reply_topic: self.shared.settings.inputs_topic.clone(),
            floor: self.shared.floor(),
        };
        let context = super::fold::Context {
            registry: &self.shared.registry,
            settings: &self.shared.settings,
            outbound: &outbound,
            committed: &BTreeMap::new(),
        };
        let mut commands: Vec<OutgoingRecord> = Vec::new();
        for saga in &sagas {
            // One that another process registered is learned at upkeep; until then that process sends.
            if let Some(definition) = self.shared.registry.by_hash(&saga.definition_hash) {
                commands.extend(work::in_flight(&context, &definition, saga));
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
