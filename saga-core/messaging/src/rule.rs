//! The one rule of every consumer: a batch, one transaction, what follows from it, then the offsets.

mod bisect;
mod oversize;

use crate::{
    crash_point::CrashPoint,
    log::{Delivered, Held, LogError, LogReader, LogWriter, Polled, TopicPartition},
};
use async_trait::async_trait;
use bisect::{Bisection, holds};
use saga_core::{
    message::{IncomingRecord, OutgoingRecord},
    mutant::{self, Mutant},
};
use std::{collections::VecDeque, time::Duration};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// Why a transaction did not commit. A commit whose answer was lost counts as not committed.
#[derive(Debug, Error)]
pub enum BatchError {
    /// The infrastructure is away or busy, or a rival was first: run the whole batch again.
    #[error("the transaction could not be carried out")]
    Retry(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// One of the records cannot be processed: find it.
    #[error("a record cannot be processed")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for BatchError {
    /// A data error is SQLSTATE class 22 or a violation that names a constraint (23514 without a name is a missing
    /// partition), or a value that cannot be read or written: a row that this program does not understand is the trouble
    /// of those who ask for that row, and trying again for ever would be everybody's. Everything else is
    /// infrastructure.
    fn from(error: sqlx::Error) -> Self {
        let refused = error.as_database_error().is_some_and(|db| {
            let code = db.code().unwrap_or_default();
            code.starts_with("22") || (code.starts_with("23") && db.constraint().is_some())
        });
        let unreadable = matches!(
            error,
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_)
        );
        if refused || unreadable {
            Self::Data(Box::new(error))
        } else {
            Self::Retry(Box::new(error))
        }
    }
}

/// What happens in the transaction.
#[async_trait]
pub trait Processor: Send {
    /// Applies the records in log order in one transaction and returns what follows from them. A record whose work
    /// was done before yields the same output again. Undecodable records yield their dead letters.
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError>;

    /// The record cannot be processed even alone: what is published instead (its dead letter, an `error` answer).
    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError>;

    /// What followed is acknowledged and stands there.
    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]);

    /// These partitions are this member's from now on.
    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError>;

    /// These are not any more.
    fn revoked(&mut self, partitions: &[TopicPartition]);
}

/// Bounds of one consumer.
#[derive(Clone, Copy, Debug)]
pub struct RuleSettings {
    /// Records a transaction at most.
    pub batch_limit: usize,
    /// First and longest wait between two tries while the infrastructure is away.
    pub first_retry: Duration,
    pub longest_retry: Duration,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self {
            batch_limit: 500,
            first_retry: Duration::from_millis(50),
            longest_retry: Duration::from_secs(2),
        }
    }
}

/// Runs until `shutdown`, then finishes the batch in hand and leaves the group.
pub async fn run<R: LogReader, W: LogWriter, P: Processor>(
    mut reader: R,
    writer: W,
    mut processor: P,
    settings: RuleSettings,
    shutdown: CancellationToken,
) -> Result<(), LogError> {
    let mut consumer = Consumer {
        reader: &mut reader,
        writer: &writer,
        processor: &mut processor,
        settings,
        shutdown: &shutdown,
        polled: VecDeque::new(),
    };
    let ended = consumer.consume().await;
    reader.close().await;
    ended
}

/// What one try came to.
enum Attempt {
    /// Done, and what follows is acknowledged; or the one record that it was is dead-lettered.
    Finished,
    /// One of several records cannot be processed.
    HasCulprit(BatchError),
    Failed(BatchError),
}

/// How a wait before the next try ended.
enum Waited {
    Elapsed,
    /// These were taken away meanwhile; the processor knows.
    Revoked(Vec<TopicPartition>),
    Stopping,
}

struct Consumer<'a, R, W, P> {
    reader: &'a mut R,
    writer: &'a W,
    processor: &'a mut P,
    settings: RuleSettings,
    shutdown: &'a CancellationToken,
    /// Polled while looking for a revocation, to be handled before anything newer.
    polled: VecDeque<Polled>,
}

impl<R: LogReader, W: LogWriter, P: Processor> Consumer<'_, R, W, P> {
    async fn consume(&mut self) -> Result<(), LogError> {
        loop {
            match self.next().await {
                None => return Ok(()),
                Some(Ok(Polled::Records(records))) => self.handle(records).await?,
                Some(Ok(Polled::Assigned(partitions))) => self.assigned(partitions).await?,
                Some(Ok(Polled::Revoked(partitions))) => self.processor.revoked(&partitions),
                Some(Err(refused @ (LogError::Refused(_) | LogError::TooLarge(_)))) => {
                    return Err(refused);
                }
                Some(Err(LogError::Unavailable(source))) => {
                    warn!(error = %source, "the log is not available, polling on");
                    self.pause_for(self.settings.first_retry).await?;
                }
            }
        }
    }

    /// `None` when the process stops.
    async fn next(&mut self) -> Option<Result<Polled, LogError>> {
        if self.shutdown.is_cancelled() {
            return None;
        }
        match self.polled.pop_front() {
            Some(polled) => Some(Ok(polled)),
            None => self.poll().await,
        }
    }

    async fn poll(&mut self) -> Option<Result<Polled, LogError>> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            polled = self.reader.poll(self.settings.batch_limit) => Some(polled),
        }
    }

    async fn handle(&mut self, records: Vec<IncomingRecord>) -> Result<(), LogError> {
        if mutant::on(Mutant::CommitOffsetsFirst) {
            self.reader.done(&records)?;
        }
        let finished = self.settle(records).await?;
        if finished.is_empty() {
            return Ok(());
        }
        CrashPoint::RuleBeforeDone.pass();
        self.reader.done(&finished)?;
        CrashPoint::RuleAfterDone.pass();
        Ok(())
    }

    /// One transaction over all records; a bad one among them is searched by halves. Partitions that are taken away
    /// between two tries take their records out of the batch; the others must be finished here, since nobody polls them
    /// again. Returns what is finished: less than the batch if the process stops.
    async fn settle(
        &mut self,
        records: Vec<IncomingRecord>,
    ) -> Result<Vec<IncomingRecord>, LogError> {
        let mut batch = Bisection::of(records);
        let mut wait = self.settings.first_retry;
        while let Some(part) = batch.next() {
            let pause = match self.attempt(part).await? {
                Attempt::Finished => {
                    batch.finish();
                    wait = self.settings.first_retry;
                    continue;
                }
                Attempt::HasCulprit(error) => {
                    debug!(
                        error = &error as &dyn std::error::Error,
                        records = part.len(),
                        "a batch has a record that cannot be processed, looking for it"
                    );
                    batch.halve();
                    // A handler over its time takes all of it, each time: the group must hear of us in between.
                    Duration::ZERO
                }
                Attempt::Failed(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        records = part.len(),
                        retry_in_ms = wait.as_millis() as u64,
                        "a batch could not be finished, trying again"
                    );
                    let pause = wait;
                    wait = (wait * 2).min(self.settings.longest_retry);
                    pause
                }
            };
            match self.pause_for(pause).await? {
                Waited::Elapsed => {}
                Waited::Revoked(partitions) => batch.forget(&partitions),
                Waited::Stopping => break,
            }
        }
        Ok(batch.into_finished())
    }

    /// One transaction, and what follows from it.
    async fn attempt(&mut self, records: &[IncomingRecord]) -> Result<Attempt, LogError> {
        CrashPoint::RuleBeforeTransaction.pass();
        let ended = match self.processor.process(records).await {
            Ok(outputs) => {
                CrashPoint::RuleBeforePublish.pass();
                self.publish(&outputs).await?
            }
            Err(error) => Err(error),
        };
        match (ended, records) {
            (Ok(()), _) => Ok(Attempt::Finished),
            (Err(error @ BatchError::Data(_)), [culprit]) => self.reject(culprit, &error).await,
            (Err(error @ BatchError::Data(_)), _) => Ok(Attempt::HasCulprit(error)),
            (Err(error @ BatchError::Retry(_)), _) => Ok(Attempt::Failed(error)),
        }
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Attempt, LogError> {
        error!(
            error = why as &dyn std::error::Error,
            messaging.kafka.topic = record.topic,
            messaging.kafka.partition = record.partition,
            messaging.kafka.offset = record.offset,
            "a record cannot be processed, dead-lettering it"
        );
        let outputs = match self.processor.reject(record, why).await {
            Ok(outputs) => outputs,
            Err(error) => return Ok(Attempt::Failed(error)),
        };
        let ended = match self.publish(&outputs).await? {
            Err(BatchError::Data(_)) => self.publish_what_fits(&outputs).await?,
            ended => ended,
        };
        Ok(ended.map_or_else(Attempt::Failed, |()| Attempt::Finished))
    }

    /// A dead letter that is too large becomes one that only says where its record stands.
    async fn publish_what_fits(
        &mut self,
        outputs: &[OutgoingRecord],
    ) -> Result<Result<(), BatchError>, LogError> {
        for output in outputs {
            let published = match self.publish(std::slice::from_ref(output)).await? {
                Err(BatchError::Data(too_large)) => {
                    let Some(pointer) = oversize::pointer(output) else {
                        error!(
                            error = %too_large,
                            messaging.kafka.topic = output.topic,
                            "an answer is too large to be sent, its saga hears nothing"
                        );
                        continue;
                    };
                    self.publish(&[pointer]).await?
                }
                published => published,
            };
            if published.is_err() {
                return Ok(published);
            }
        }
        Ok(Ok(()))
    }

    /// Outer error: give the consumer up. Inner error: run the batch again, which yields the same records again.
    async fn publish(
        &mut self,
        outputs: &[OutgoingRecord],
    ) -> Result<Result<(), BatchError>, LogError> {
        if outputs.is_empty() {
            return Ok(Ok(()));
        }
        match self.writer.publish(outputs).await {
            Ok(delivered) => {
                self.processor.published(outputs, &delivered);
                Ok(Ok(()))
            }
            Err(LogError::Unavailable(source)) => Ok(Err(BatchError::Retry(source))),
            Err(LogError::TooLarge(source)) => Ok(Err(BatchError::Data(source))),
            Err(refused @ LogError::Refused(_)) => Err(refused),
        }
    }

    /// Until the processor has taken them over, or they are gone again.
    async fn assigned(&mut self, mut partitions: Vec<TopicPartition>) -> Result<(), LogError> {
        let mut wait = self.settings.first_retry;
        while !partitions.is_empty() {
            let Err(error) = self.processor.assigned(&partitions).await else {
                return Ok(());
            };
            warn!(
                error = &error as &dyn std::error::Error,
                retry_in_ms = wait.as_millis() as u64,
                "partitions could not be taken over, trying again"
            );
            match self.pause_for(wait).await? {
                Waited::Elapsed => {}
                Waited::Revoked(gone) => partitions.retain(|partition| !gone.contains(partition)),
                Waited::Stopping => return Ok(()),
            }
            wait = (wait * 2).min(self.settings.longest_retry);
        }
        Ok(())
    }

    /// Waits before the next try with the group kept.
    async fn pause_for(&mut self, time: Duration) -> Result<Waited, LogError> {
        let held = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(Waited::Stopping),
            held = self.reader.hold(time) => held,
        };
        match held {
            Held::Elapsed => Ok(Waited::Elapsed),
            Held::Lost => self.revoked().await,
        }
    }

    /// What was taken away: the log reports it before any record that came later.
    async fn revoked(&mut self) -> Result<Waited, LogError> {
        loop {
            match self.poll().await {
                None => return Ok(Waited::Stopping),
                Some(Ok(Polled::Revoked(partitions))) => {
                    self.processor.revoked(&partitions);
                    self.forget(&partitions);
                    return Ok(Waited::Revoked(partitions));
                }
                Some(Ok(other @ (Polled::Assigned(_) | Polled::Records(_)))) => {
                    self.polled.push_back(other);
                }
                Some(Err(refused @ (LogError::Refused(_) | LogError::TooLarge(_)))) => {
                    return Err(refused);
                }
                Some(Err(LogError::Unavailable(source))) => {
                    warn!(error = %source, "the log is not available, polling on");
                }
            }
        }
    }
}

impl<R, W, P> Consumer<'_, R, W, P> {
    /// What was polled of these partitions before they were taken away is void.
    fn forget(&mut self, gone: &[TopicPartition]) {
        for polled in &mut self.polled {
            match polled {
                Polled::Assigned(partitions) => {
                    partitions.retain(|partition| !gone.contains(partition));
                }
                Polled::Records(records) => records.retain(|record| !holds(gone, record)),
                Polled::Revoked(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
