//! The consumer's loop: it reads a batch, runs one transaction, publishes the outputs, and then commits the offsets.

mod bisect;
mod oversize;

use crate::{
    crash_point::CrashPoint,
    log::{Delivered, LogError, LogReader, LogWriter, PauseEnded, PollResult, TopicPartition},
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

/// The reason why a transaction did not commit. A commit whose answer was lost counts as not committed.
#[derive(Debug, Error)]
pub enum BatchError {
    /// The infrastructure is unavailable or busy, or a concurrent transaction was first: run the whole batch again.
    #[error("the transaction could not be carried out")]
    Retry(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// One of the records cannot be processed: search for it.
    #[error("a record cannot be processed")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The work of earlier records is in flight, so no more records are processed yet.
#[derive(Debug, Error)]
#[error("{0}")]
struct Backpressure(&'static str);

impl BatchError {
    /// Returns an error that retries the batch because `why`: work of earlier records is in flight.
    pub fn backpressure(why: &'static str) -> Self {
        Self::Retry(Box::new(Backpressure(why)))
    }

    /// Returns `true` if the batch waits only for work in flight.
    pub fn is_backpressure(&self) -> bool {
        let (Self::Retry(source) | Self::Data(source)) = self;
        source.is::<Backpressure>()
    }
}

impl From<sqlx::Error> for BatchError {
    /// Classifies a database error. A data error is SQLSTATE class 22, a violation that names a constraint (23514
    /// without a name is a missing partition), or a value that cannot be read or written. A row that this program
    /// cannot read should fail only the records that need it; if it were retried forever, all records would wait. Every
    /// other error is one of infrastructure.
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

/// The transaction of a consumer's batch.
#[async_trait]
pub trait Processor: Send {
    /// Applies the records in log order in one transaction and returns the outputs. A record whose work was done before
    /// yields the same output again. An undecodable record yields its dead letter.
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError>;

    /// Returns the outputs for a record that cannot be processed even alone: its dead letter, and an `error` reply.
    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError>;

    /// Notes that the outputs are acknowledged, and where each of them was delivered.
    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]);

    /// Takes over partitions that are assigned to this member.
    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError>;

    /// Gives up partitions that are assigned to this member no longer.
    fn revoked(&mut self, partitions: &[TopicPartition]);
}

/// Limits of one consumer.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerSettings {
    /// Most records in a transaction.
    pub batch_limit: usize,
    /// First and longest wait between two attempts while the infrastructure is unavailable.
    pub first_retry: Duration,
    pub longest_retry: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            batch_limit: 500,
            first_retry: Duration::from_millis(50),
            longest_retry: Duration::from_secs(2),
        }
    }
}

/// Runs until `shutdown`, then finishes the current batch and leaves the group.
pub async fn run<R: LogReader, W: LogWriter, P: Processor>(
    mut reader: R,
    writer: W,
    mut processor: P,
    settings: ConsumerSettings,
    shutdown: CancellationToken,
) -> Result<(), LogError> {
    let mut consumer = Consumer {
        reader: &mut reader,
        writer: &writer,
        processor: &mut processor,
        settings,
        shutdown: &shutdown,
        polled: VecDeque::new(),
        acknowledged: Vec::new(),
    };
    let ended = consumer.consume().await;
    reader.close().await;
    ended
}

/// The result of one attempt.
enum Attempt {
    /// The records are done and their outputs acknowledged, or the only record is dead-lettered.
    Finished,
    /// One of several records cannot be processed.
    HasCulprit(BatchError),
    Failed(BatchError),
}

/// The way in which a wait before the next attempt ended.
enum Waited {
    Elapsed,
    /// These partitions were revoked meanwhile, and the processor was notified.
    Revoked(Vec<TopicPartition>),
    Stopping,
}

struct Consumer<'a, R, W, P> {
    reader: &'a mut R,
    writer: &'a W,
    processor: &'a mut P,
    settings: ConsumerSettings,
    shutdown: &'a CancellationToken,
    /// Poll results that arrived during the search for a revocation. They are handled before any newer ones.
    polled: VecDeque<PollResult>,
    /// Outputs that the log acknowledged before an attempt failed. The next attempt yields them again and does not send
    /// them again: under a quota, or with a broker that has just come back, that would be the next reason to fail.
    acknowledged: Vec<(OutgoingRecord, Delivered)>,
}

impl<R: LogReader, W: LogWriter, P: Processor> Consumer<'_, R, W, P> {
    async fn consume(&mut self) -> Result<(), LogError> {
        loop {
            match self.next().await {
                None => return Ok(()),
                Some(Ok(PollResult::Records(records))) => self.handle(records).await?,
                Some(Ok(PollResult::Assigned(partitions))) => self.assigned(partitions).await?,
                Some(Ok(PollResult::Revoked(partitions))) => self.processor.revoked(&partitions),
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

    /// Returns `None` when the process stops.
    async fn next(&mut self) -> Option<Result<PollResult, LogError>> {
        if self.shutdown.is_cancelled() {
            return None;
        }
        match self.polled.pop_front() {
            Some(polled) => Some(Ok(polled)),
            None => self.poll().await,
        }
    }

    async fn poll(&mut self) -> Option<Result<PollResult, LogError>> {
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

    /// Runs one transaction over all records; a bad record is found by bisection. If partitions are revoked between two
    /// attempts, their records are removed from the batch. The records of other partitions must be finished here,
    /// because no later poll returns them again. Returns the finished records, which are fewer than the batch if the
    /// process stops.
    async fn settle(
        &mut self,
        records: Vec<IncomingRecord>,
    ) -> Result<Vec<IncomingRecord>, LogError> {
        self.acknowledged.clear();
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
                    // A handler that exceeds its time uses all of it in each attempt, so the group must be polled in
                    // between.
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

    /// Runs one transaction and publishes its outputs.
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

    /// Publishes the outputs one by one. A dead letter that is too large is replaced by a pointer to its record.
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
                            "a reply is too large to be sent, its saga does not get it"
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

    /// Publishes the outputs. An outer error ends the consumer. After an inner error the batch is run again, which
    /// yields the same outputs.
    async fn publish(
        &mut self,
        outputs: &[OutgoingRecord],
    ) -> Result<Result<(), BatchError>, LogError> {
        if outputs.is_empty() {
            return Ok(Ok(()));
        }
        let mut delivered: Vec<Option<Delivered>> =
            outputs.iter().map(|output| self.delivery(output)).collect();
        let ended = self.writer.publish_rest(outputs, &mut delivered).await;
        if ended.is_err() {
            self.acknowledged = outputs
                .iter()
                .zip(&delivered)
                .filter_map(|(output, at)| at.map(|at| (output.clone(), at)))
                .collect();
        }
        match ended {
            Ok(()) => {
                let delivered: Vec<Delivered> = delivered.into_iter().flatten().collect();
                self.processor.published(outputs, &delivered);
                Ok(Ok(()))
            }
            Err(LogError::Unavailable(source)) => Ok(Err(BatchError::Retry(source))),
            Err(LogError::TooLarge(source)) => Ok(Err(BatchError::Data(source))),
            Err(refused @ LogError::Refused(_)) => Err(refused),
        }
    }

    fn delivery(&self, output: &OutgoingRecord) -> Option<Delivered> {
        self.acknowledged
            .iter()
            .find(|(acknowledged, _)| acknowledged == output)
            .map(|(_, at)| *at)
    }

    /// Retries until the processor has taken the partitions over, or until they are revoked.
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

    /// Waits before the next attempt while keeping the member in its group.
    async fn pause_for(&mut self, time: Duration) -> Result<Waited, LogError> {
        let held = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(Waited::Stopping),
            held = self.reader.hold(time) => held,
        };
        match held {
            PauseEnded::Elapsed => Ok(Waited::Elapsed),
            PauseEnded::Revoked => self.revoked().await,
        }
    }

    /// Polls until the log reports the revocation, which comes before any record of a later assignment.
    async fn revoked(&mut self) -> Result<Waited, LogError> {
        loop {
            match self.poll().await {
                None => return Ok(Waited::Stopping),
                Some(Ok(PollResult::Revoked(partitions))) => {
                    self.processor.revoked(&partitions);
                    self.forget(&partitions);
                    return Ok(Waited::Revoked(partitions));
                }
                Some(Ok(other @ (PollResult::Assigned(_) | PollResult::Records(_)))) => {
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
    /// Discards poll results of these partitions that arrived before the revocation.
    fn forget(&mut self, gone: &[TopicPartition]) {
        for polled in &mut self.polled {
            match polled {
                PollResult::Assigned(partitions) => {
                    partitions.retain(|partition| !gone.contains(partition));
                }
                PollResult::Records(records) => records.retain(|record| !holds(gone, record)),
                PollResult::Revoked(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
