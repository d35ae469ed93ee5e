//! The engine: the processor of `saga.inputs`. One batch of inputs is one transaction.
//!
//! ```text
//! records ─decode─▶ inputs ─load─▶ rows ─fold (pure)─▶ plan ─compare, write─▶ commit ─▶ commands, events
//!    └─ bad ─▶ dead letters                                                        └─▶ timers in memory
//! ```
//!
//! All decisions are made in [`fold`] and in `saga_core`. The store and the log are behind narrow traits, so that the
//! same engine runs on Postgres and Kafka and in the simulator. Correctness rests on the version of a saga's row, which
//! is compared when the row is written. That a partition has only one owner is an optimization.

pub mod cache;
pub mod db_clock;
pub mod decode;
pub mod fold;
pub mod fold_error;
pub mod outcome;
pub(crate) mod saga;
pub mod saga_store;
pub mod settings;
pub mod shared;
pub mod timer_driver;
pub mod timers;

use crate::{registry::Current, telemetry};
use async_trait::async_trait;
use decode::{Rejected, decode};
use fold::fold;
use outcome::{BatchOutcome, Context, Disposition, Output};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{CommandRef, IncomingRecord, Input, OutgoingRecord},
    mutant::{self, Mutant},
};
use saga_messaging::{
    consumer::{BatchError, Processor},
    crash_point::CrashPoint,
    dead_letter::{dead_letter, reason},
    log::{Delivered, TopicPartition},
};
use saga_store::{BusinessKeyOf, Loaded, SagaBatch, SagaStore};
use shared::Shared;
use std::{collections::BTreeSet, sync::Arc};
use timers::pick_up_status::CommandLocation;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

/// The orchestrator's [`Processor`].
pub struct Engine<S> {
    store: S,
    shared: Arc<Shared>,
    /// The command that each output of the last batch sends, until the log has acknowledged the outputs.
    unacknowledged: Vec<Option<(SagaId, CommandRef)>>,
}

impl<S: SagaStore> Engine<S> {
    pub fn new(store: S, shared: Arc<Shared>) -> Self {
        Self {
            store,
            shared,
            unacknowledged: Vec::new(),
        }
    }

    /// Runs one batch: reads the rows that are not cached, decides, compares versions and writes the plan, all or
    /// nothing. A plan without changes is committed too, because the commit also compares the versions of sagas that
    /// the plan does not write.
    async fn transact(
        &self,
        arrived: Vec<decode::ReceivedInput>,
    ) -> Result<BatchOutcome, BatchError> {
        let ids: BTreeSet<SagaId> = arrived.iter().map(decode::ReceivedInput::saga_id).collect();
        let ids: Vec<SagaId> = ids.into_iter().collect();
        let actions: Vec<Uuid> = arrived
            .iter()
            .filter_map(|arrived| match &arrived.input {
                Input::Operator(action) => Some(action.action_id),
                Input::Start(_) | Input::Reply(_) | Input::Timer(_) => None,
            })
            .collect();
        let mut batch = self.store.begin().await?;
        let loaded = batch.load(&ids, &actions, &keys_of(&arrived)).await?;
        CrashPoint::EngineAfterLoad.pass();
        self.shared.clock.set(loaded.now);
        let current = self.definitions(&arrived, &loaded).await?;
        let command_context = self.shared.command_context();
        let committed = self.shared.committed();
        let context = Context {
            registry: &self.shared.registry,
            current: &current,
            settings: &self.shared.settings,
            command_context: &command_context,
            committed: &committed,
        };
        let outcome = fold(context, arrived, loaded)?;
        CrashPoint::EngineBeforeCommit.pass();
        batch.commit(&outcome.plan).await?;
        CrashPoint::EngineAfterCommit.pass();
        Ok(outcome)
    }

    /// Returns the definitions that new sagas take, at the generation that was read together with the rows. Reads the
    /// catalog again if the batch has a start and the generation has changed, or if a loaded saga is pinned to a
    /// definition that the registry lacks: another orchestrator may have registered it.
    async fn definitions(
        &self,
        arrived: &[decode::ReceivedInput],
        loaded: &Loaded,
    ) -> Result<Arc<Current>, BatchError> {
        let registry = &self.shared.registry;
        let current = registry.current();
        let starts = arrived
            .iter()
            .any(|arrived| matches!(arrived.input, Input::Start(_)));
        let outdated = starts
            && loaded
                .generation
                .is_some_and(|generation| generation != current.generation)
            && !mutant::on(Mutant::TrustDefinitions);
        let live = loaded.live.iter().map(|row| &row.instance);
        let ended = loaded.ended.iter().map(|row| &row.instance);
        let lacks_one = live
            .chain(ended)
            .any(|instance| registry.by_hash(&instance.definition_hash).is_none());
        if outdated || lacks_one {
            return Ok(self.shared.learn(self.store.catalog().await?));
        }
        Ok(current)
    }

    fn dead_letters(records: &[IncomingRecord], rejected: &[Rejected]) -> Vec<Output> {
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
                Output::of(dead_letter(record, bad.reason, &bad.detail))
            })
            .collect()
    }

    fn now(&self) -> Timestamp {
        self.shared
            .clock
            .now()
            .unwrap_or_else(saga_service::clock::now)
    }

    /// Updates the timers from a committed batch. Runs after the commit, so that memory follows the table.
    fn remember(&self, records: &[IncomingRecord], outcome: &mut BatchOutcome) {
        let mut timers = self.shared.timers();
        for changed in outcome.changed.drain(..) {
            timers.changed(changed);
        }
        for record in records {
            timers.read_to(record.partition, record.offset + 1);
        }
    }
}

/// Returns the business keys of the starts, each with its definition's name.
fn keys_of(arrived: &[decode::ReceivedInput]) -> BTreeSet<BusinessKeyOf> {
    arrived
        .iter()
        .filter_map(|arrived| match &arrived.input {
            Input::Start(start) => Some((start.definition.clone(), start.business_key.clone()?)),
            Input::Reply(_) | Input::Timer(_) | Input::Operator(_) => None,
        })
        .collect()
}

#[async_trait]
impl<S: SagaStore> Processor for Engine<S> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        self.unacknowledged.clear();
        let began = Instant::now();
        let (arrived, rejected) = decode(records);
        let undecodable = rejected.len() as u64;
        let mut outputs = Self::dead_letters(records, &rejected);
        let mut outcome = if arrived.is_empty() {
            BatchOutcome::default()
        } else {
            self.transact(arrived).await?
        };
        outputs.extend(Self::dead_letters(records, &outcome.rejected));
        outputs.append(&mut outcome.outputs);
        self.remember(records, &mut outcome);
        if undecodable > 0 {
            outcome
                .dispositions
                .insert(("undecodable", Disposition::DeadLettered), undecodable);
        }
        telemetry::batch(records.len(), began.elapsed(), &outcome);
        telemetry::log_transitions(&outcome);
        debug!(
            records = records.len(),
            outputs = outputs.len(),
            duration_ms = began.elapsed().as_millis() as u64,
            "a batch is committed"
        );
        let records_and_commands = outputs
            .into_iter()
            .map(|output| (output.record, output.command));
        let (outputs, commands) = records_and_commands.unzip();
        self.unacknowledged = commands;
        Ok(outputs)
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        telemetry::rejected();
        self.unacknowledged.clear();
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

    fn published(&mut self, _outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        let known_at = self.now();
        let mut timers = self.shared.timers();
        for (command, at) in self.unacknowledged.drain(..).zip(delivered) {
            if let Some((saga, part)) = command {
                let place = CommandLocation::At {
                    partition: at.partition,
                    offset: at.offset,
                    known_at,
                };
                timers.delivered(saga, &part, place);
            }
        }
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        info!(?partitions, "partitions assigned");
        let mut timers = self.shared.timers();
        timers.assign(partitions.iter().map(|taken| taken.partition));
        telemetry::partitions_owned(timers.owned().len());
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        info!(?partitions, "partitions revoked");
        self.store.forget();
        let mut timers = self.shared.timers();
        timers.revoke(partitions.iter().map(|given| given.partition));
        telemetry::partitions_owned(timers.owned().len());
    }
}

#[cfg(test)]
mod tests;
