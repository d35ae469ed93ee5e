//! Processes a batch of commands: one transaction, and the replies that follow from it.
//!
//! ```text
//!  records ─▶ decode ─▶ BEGIN ─▶ intents (locked), barrier rows, floors ─▶ check ─▶ handler.load: all shared rows, once
//!    ─▶ command by command in log order: admit → answer, or handler.handle ─▶ handler.store ─▶ intents, barrier
//!       rows with their replies, counted ─▶ COMMIT ─▶ replies, dead letters │ calls to make
//! ```
//!
//! A command whose work is done finds its barrier row and yields the saved reply, with the same id. After a crash, or a
//! commit whose answer was lost, the batch is run again.

use super::{
    ParticipantConfig, RawBatchHandler, RawCalls,
    calls::{Job, OpenCalls},
    core::{Calls, Core},
    fold::Fold,
    guard::{FoldError, HandlerFault},
    intake::{self, Refusal},
    labels::CommandLabels,
    reply::PreparedReply,
    storage::{ParticipantStore, ParticipantTx},
};
use async_trait::async_trait;
use metrics::histogram;
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{Command, Fault, IncomingRecord, OutgoingRecord},
};
use saga_messaging::{
    consumer::{BatchError, Processor},
    crash_point::CrashPoint,
    dead_letter::dead_letter,
    log::{Delivered, TopicPartition},
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::warn;

/// The processor of a participant's batches. [`run`](super::run) hands it to the consumer; a test or a simulation may
/// drive it itself.
pub struct CommandProcessor<H, S: ParticipantStore = PgPool> {
    core: Arc<Core<H, S>>,
    /// Partition and offset of a record whose handler exceeded its time, alone in its batch, once. A stall of the
    /// machine or of the database looks the same, so only the second time counts.
    suspect: Option<(i32, i64)>,
}

/// A decoded command, in log order, which is `None` once it was taken to be decided; or the reason why the record was
/// refused.
type Received = Result<Option<Command>, Refusal>;

impl<S: ParticipantStore, H: RawBatchHandler<S::Connection>> CommandProcessor<H, S> {
    /// Returns the processor, and the [`OpenCalls`] if the participant has external calls.
    pub fn new(
        config: ParticipantConfig,
        handler: Arc<H>,
        calls: Option<Arc<dyn RawCalls<S::Connection>>>,
        store: S,
    ) -> (Self, Option<OpenCalls<H, S>>) {
        let (calls, jobs) = calls.map(Calls::new).unzip();
        let core = Arc::new(Core {
            config,
            handler,
            labels: CommandLabels::default(),
            store,
            calls,
        });
        let open = jobs.map(|jobs| OpenCalls::new(Arc::clone(&core), jobs));
        let frame = Self {
            core,
            suspect: None,
        };
        (frame, open)
    }

    /// Runs one transaction over all commands that could be decoded.
    async fn transact(&self, received: &mut [Received]) -> Result<Answers, FoldError> {
        let core = &self.core;
        let mut tx = core.store.open(core.config.handler_timeout).await?;
        CrashPoint::FrameAfterBegin.pass();
        let asked = received.iter().filter_map(|entry| entry.as_ref().ok());
        let mut ids: Vec<SagaId> = asked.flatten().map(|command| command.saga_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let (mut fold, terms) = Fold::begin(core, &mut tx, &ids).await?;
        let mut commands = Vec::with_capacity(received.len());
        for entry in received.iter_mut() {
            let Some(command) = entry.as_mut().ok().and_then(Option::take) else {
                continue;
            };
            match intake::admit_age(&command, &terms) {
                Ok(()) => commands.push(command),
                Err(refusal) => *entry = Err(refusal),
            }
        }
        if let Some(floor) = commands.iter().filter_map(intake::floor_of).max()
            && floor > terms.seen_floor_ms
        {
            tx.raise_seen_floor(floor).await?;
        }
        let replies = fold.run(&mut tx, &commands).await?;
        let jobs = fold.finish(&mut tx).await?;
        CrashPoint::FrameBeforeCommit.pass();
        tx.commit().await?;
        CrashPoint::FrameAfterCommit.pass();
        Ok(Answers {
            replies,
            jobs,
            at: terms.now,
        })
    }

    fn outputs(
        &self,
        records: &[IncomingRecord],
        received: &[Received],
        answers: &Answers,
    ) -> Vec<OutgoingRecord> {
        let source = &self.core.config.source;
        let mut replies = answers.replies.iter();
        let mut outputs = Vec::with_capacity(records.len());
        for (record, entry) in records.iter().zip(received) {
            match entry {
                Ok(_) => {
                    let reply = replies.next().and_then(Option::as_ref);
                    outputs.extend(reply.map(|reply| reply.encode(source)));
                }
                Err(refusal) => outputs.extend(self.refused(record, refusal, answers.at)),
            }
        }
        outputs
    }

    fn refused(
        &self,
        record: &IncomingRecord,
        refusal: &Refusal,
        at: Timestamp,
    ) -> Vec<OutgoingRecord> {
        warn!(
            saga.id = refusal
                .asked
                .as_ref()
                .map(|command| command.saga_id.to_string()),
            saga.step = refusal.asked.as_ref().map(|command| command.step.as_str()),
            messaging.kafka.topic = record.topic,
            messaging.kafka.partition = record.partition,
            messaging.kafka.offset = record.offset,
            reason = refusal.reason,
            "a command is dead-lettered: {}",
            refusal.detail
        );
        let mut outputs = vec![dead_letter(record, refusal.reason, &refusal.detail)];
        if let Some(command) = &refusal.asked {
            let reply = PreparedReply::error(command, &refusal.fault(), at);
            outputs.push(reply.encode(&self.core.config.source));
        }
        outputs
    }

    /// Turns the first timeout of a handler that is alone in its batch into a retry.
    fn second_chance(&mut self, records: &[IncomingRecord], error: BatchError) -> BatchError {
        let [record] = records else { return error };
        let BatchError::Data(why) = error else {
            return error;
        };
        let over_time = matches!(
            why.downcast_ref::<HandlerFault>(),
            Some(HandlerFault::OverTime { .. })
        );
        let position = (record.partition, record.offset);
        if over_time && self.suspect.replace(position) != Some(position) {
            BatchError::Retry(why)
        } else {
            BatchError::Data(why)
        }
    }
}

/// The result of a transaction.
struct Answers {
    replies: Vec<Option<PreparedReply>>,
    jobs: Vec<Job>,
    at: Timestamp,
}

#[async_trait]
impl<S: ParticipantStore, H: RawBatchHandler<S::Connection>> Processor for CommandProcessor<H, S> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        if let Some(calls) = &self.core.calls {
            calls.room_for(records.len()).await?;
        }
        let began = Instant::now();
        let config = &self.core.config;
        let mut received: Vec<Received> = records
            .iter()
            .map(|record| intake::read(record, config).map(Some))
            .collect();
        let answers = match Box::pin(self.transact(&mut received)).await {
            Ok(answers) => answers,
            Err(error) => {
                let error = self.core.judge(error).await;
                return Err(self.second_chance(records, error));
            }
        };
        let outputs = self.outputs(records, &received, &answers);
        if let Some(calls) = &self.core.calls {
            calls.enqueue(answers.jobs);
        }
        histogram!("saga_batch_seconds", "participant" => self.core.config.name.clone())
            .record(began.elapsed());
        Ok(outputs)
    }

    /// Dead-letters the record and answers its saga with an error. Nothing is written to the database: the dead letter
    /// keeps the command.
    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        let (BatchError::Data(source) | BatchError::Retry(source)) = why;
        let reason = source
            .downcast_ref::<HandlerFault>()
            .map_or("data_error", HandlerFault::code);
        let mut outputs = vec![dead_letter(record, reason, &source.to_string())];
        if let Ok(command) = intake::read(record, &self.core.config) {
            let now = self.core.store.now().await?;
            self.core.count(&command.command_type, "rejected");
            let fault = Fault::new(reason, source.to_string());
            let reply = PreparedReply::error(&command, &fault, now);
            outputs.push(reply.encode(&self.core.config.source));
        }
        Ok(outputs)
    }

    fn published(&mut self, _: &[OutgoingRecord], _: &[Delivered]) {}

    /// Does nothing: no state is cached between batches.
    async fn assigned(&mut self, _: &[TopicPartition]) -> Result<(), BatchError> {
        Ok(())
    }

    fn revoked(&mut self, _: &[TopicPartition]) {}
}
