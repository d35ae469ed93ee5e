//! The engine: the processor of `saga.inputs`. One batch of inputs is one transaction.
//!
//! ```text
//! records ─decode─▶ inputs ─load─▶ rows ─fold (pure)─▶ plan ─compare, write─▶ commit ─▶ commands, events
//!    └─ bad ─▶ dead letters                                                        └─▶ timers in memory
//! ```
//!
//! Everything that decides is in [`fold`] and in `saga_core`; the store and the log are behind narrow traits, so that
//! the same engine runs on Postgres and Kafka and in a simulation. Correctness rests on the row's version, compared
//! when it is written; that a partition has one owner is an optimization.

pub mod cache;
pub mod db_clock;
pub mod decode;
pub mod fold;
pub mod oversize;
pub mod resend;
pub mod saga_store;
pub mod settings;
pub mod shared;
pub mod timers;
mod work;

use crate::telemetry;
use async_trait::async_trait;
use decode::{Rejected, decode};
use fold::{Context, Fate, Folded, MissingDefinition, fold};
use saga_core::{
    definition::DefinitionHash,
    ids::{SagaId, Timestamp},
    message::{DuePart, IncomingRecord, Input, OutgoingRecord, header},
    mutant::{self, Mutant},
    transition::Outbound,
};
use saga_messaging::{
    crash_point::CrashPoint,
    dead_letter::{dead_letter, reason},
    log::{Delivered, TopicPartition},
    rule::{BatchError, Processor},
};
use saga_store::{Loaded, SagaBatch, SagaStore};
use shared::Shared;
use std::{collections::BTreeSet, sync::Arc};
use timers::verdict::Place;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

/// The orchestrator's [`Processor`].
pub struct Engine<S> {
    store: S,
    shared: Arc<Shared>,
}

impl<S: SagaStore> Engine<S> {
    pub fn new(store: S, shared: Arc<Shared>) -> Self {
        Self { store, shared }
    }

    /// Reads what is not known, decides, compares and writes; everything or nothing. Also a plan without changes is
    /// compared.
    async fn transact(&self, arrived: Vec<decode::Arrived>) -> Result<Folded, BatchError> {
        let ids: BTreeSet<SagaId> = arrived.iter().map(decode::Arrived::saga_id).collect();
        let ids: Vec<SagaId> = ids.into_iter().collect();
        let actions: Vec<Uuid> = arrived
            .iter()
            .filter_map(|arrived| match &arrived.input {
                Input::Operator(action) => Some(action.action_id),
                Input::Start(_) | Input::Reply(_) | Input::Timer(_) => None,
            })
            .collect();
        let mut batch = self.store.begin().await?;
        let loaded = batch.load(&ids, &actions).await?;
        CrashPoint::EngineAfterLoad.pass();
        self.shared.clock.set(loaded.now);
        self.hold_definitions(&mut batch, &loaded).await?;
        let outbound = Outbound {
            reply_topic: self.shared.settings.inputs_topic.clone(),
            floor: self.shared.floor(),
        };
        let committed = self.shared.committed();
        let context = Context {
            registry: &self.shared.registry,
            settings: &self.shared.settings,
            outbound: &outbound,
            committed: &committed,
        };
        let folded = fold(context, arrived, loaded).map_err(missing)?;
        CrashPoint::EngineBeforeCommit.pass();
        batch.commit(&folded.plan).await?;
        CrashPoint::EngineAfterCommit.pass();
        Ok(folded)
    }

    /// Another orchestrator may have registered what a saga is pinned to.
    async fn hold_definitions(
        &self,
        batch: &mut S::Batch,
        loaded: &Loaded,
    ) -> Result<(), BatchError> {
        let live = loaded.live.iter().map(|row| &row.instance);
        let ended = loaded.ended.iter().map(|row| &row.instance);
        let unknown: BTreeSet<&DefinitionHash> = live
            .chain(ended)
            .map(|instance| &instance.definition_hash)
            .filter(|hash| self.shared.registry.by_hash(hash).is_none())
            .collect();
        for hash in unknown {
            let definition = batch
                .definition(hash)
                .await?
                .ok_or_else(|| missing(MissingDefinition(hash.clone())))?;
            self.shared.hold(definition);
        }
        Ok(())
    }

    fn dead_letters(records: &[IncomingRecord], rejected: &[Rejected]) -> Vec<OutgoingRecord> {
        if mutant::on(Mutant::DropBadRecords) {
            return Vec::new();
        }
        rejected
            .iter()
            .filter_map(|bad| Some((records.get(bad.index)?, bad)))
            .map(|(record, bad)| {
                warn!(
                    messaging.kafka.topic = record.topic,
                    messaging.kafka.partition = record.partition,
                    messaging.kafka.offset = record.offset,
                    reason = bad.reason,
                    detail = bad.detail,
                    "an input is dead-lettered"
                );
                dead_letter(record, bad.reason, &bad.detail)
            })
            .collect()
    }

    fn now(&self) -> Timestamp {
        self.shared
            .clock
            .now()
            .unwrap_or_else(saga_service::clock::now)
    }

    /// Behind the commit: memory follows the table.
    fn remember(&self, records: &[IncomingRecord], folded: &mut Folded) {
        let mut timers = self.shared.timers();
        for touched in folded.touched.drain(..) {
            timers.touched(touched);
        }
        for record in records {
            timers.read_to(record.partition, record.offset + 1);
        }
    }
}

fn missing(error: MissingDefinition) -> BatchError {
    BatchError::Data(Box::new(error))
}

#[async_trait]
impl<S: SagaStore> Processor for Engine<S> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        let began = Instant::now();
        let (arrived, rejected) = decode(records);
        let undecodable = rejected.len() as u64;
        let mut outputs = Self::dead_letters(records, &rejected);
        let mut folded = if arrived.is_empty() {
            Folded::default()
        } else {
            self.transact(arrived).await?
        };
        outputs.extend(Self::dead_letters(records, &folded.rejected));
        outputs.append(&mut folded.outputs);
        self.remember(records, &mut folded);
        if undecodable > 0 {
            folded
                .fates
                .insert(("undecodable", Fate::DeadLettered), undecodable);
        }
        telemetry::batch(records.len(), began.elapsed(), &folded);
        telemetry::tell(&folded);
        debug!(
            records = records.len(),
            outputs = outputs.len(),
            duration_ms = began.elapsed().as_millis() as u64,
            "a batch is committed"
        );
        Ok(outputs)
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        telemetry::rejected();
        let detail = std::error::Error::source(why)
            .map_or_else(|| why.to_string(), |source| format!("{why}: {source}"));
        self.shared
            .timers()
            .read_to(record.partition, record.offset + 1);
        Ok(vec![dead_letter(
            record,
            reason::CANNOT_BE_PROCESSED,
            &detail,
        )])
    }

    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        let known_at = self.now();
        let participants = &self.shared.settings.participants;
        let mut timers = self.shared.timers();
        for (record, at) in outputs.iter().zip(delivered) {
            if participants.is_command_topic(&record.topic)
                && let Some((saga, part)) = command_of(record)
            {
                let place = Place::At {
                    partition: at.partition,
                    offset: at.offset,
                    known_at,
                };
                timers.delivered(saga, &part, place);
            }
        }
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        info!(?partitions, "took partitions over");
        let mut timers = self.shared.timers();
        timers.assign(partitions.iter().map(|taken| taken.partition));
        telemetry::partitions_owned(timers.owned().len());
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        info!(?partitions, "gave partitions up");
        self.store.forget();
        let mut timers = self.shared.timers();
        timers.revoke(partitions.iter().map(|given| given.partition));
        telemetry::partitions_owned(timers.owned().len());
    }
}

/// Which command a record is, by its headers.
fn command_of(record: &OutgoingRecord) -> Option<(SagaId, DuePart)> {
    let text = |name: &str| {
        let value = record.headers.get(name)?;
        std::str::from_utf8(value).ok()
    };
    let part = DuePart {
        step: text(header::STEP)?.to_owned(),
        direction: text(header::DIRECTION)?.parse().ok()?,
        attempt: text(header::ATTEMPT)?.parse().ok()?,
    };
    Some((text(header::SAGA_ID)?.parse().ok()?, part))
}

#[cfg(test)]
mod tests;
