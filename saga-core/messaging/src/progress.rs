//! Measures whether work gets done: how long the oldest unfinished work has waited, for `/health` and for a metric with
//! an alert.
//!
//! A health check over a new connection would say little about the connection that a batch is waiting on, so the batch
//! itself is measured.

use crate::{
    consumer::{BatchError, Processor},
    log::{Delivered, TopicPartition},
};
use async_trait::async_trait;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_postgres::silence::limited;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Work that has waited for longer makes a service unhealthy. The limit is far above the milliseconds of an ordinary
/// batch, and below the time after which a silent connection is given up.
pub const WAITING_LIMIT: Duration = Duration::from_secs(15);

/// The work of one kind that has begun and not ended. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    next: u64,
    /// Start times by number. Numbers rise with time, so the first entry is the oldest.
    since: BTreeMap<u64, Instant>,
    /// The reason why nothing more can be read, by topic and partition.
    blocked: BTreeMap<(String, i32), String>,
}

/// A piece of work, which ends when this is dropped.
#[derive(Debug)]
#[must_use = "the work has ended when this is dropped"]
pub struct Begun {
    progress: Progress,
    number: u64,
}

impl Progress {
    pub fn begin(&self) -> Begun {
        let mut running = self.running();
        running.next += 1;
        let number = running.next;
        running.since.insert(number, Instant::now());
        Begun {
            progress: self.clone(),
            number,
        }
    }

    /// Returns [`Progress::waiting`] and [`Progress::trouble`], for a service's health checks.
    pub fn look(&self) -> (Duration, Option<String>) {
        (self.waiting(), self.trouble())
    }

    /// Returns how long the oldest piece of work has been waiting; zero if there is none.
    pub fn waiting(&self) -> Duration {
        let running = self.running();
        let oldest = running.since.values().next();
        oldest.map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Sets the reason why nothing more can be read from a partition; `None` clears it.
    pub fn block(&self, topic: &str, partition: i32, why: Option<String>) {
        let place = (topic.to_owned(), partition);
        let mut running = self.running();
        match why {
            Some(why) => running.blocked.insert(place, why),
            None => running.blocked.remove(&place),
        };
    }

    /// Returns the reason why work does not get done, or `None` if it does.
    pub fn trouble(&self) -> Option<String> {
        if let Some(why) = self.running().blocked.values().next() {
            return Some(why.clone());
        }
        let waiting = self.waiting();
        (waiting > WAITING_LIMIT).then(|| {
            let seconds = waiting.as_secs();
            format!("work has been waiting to be finished for {seconds} s")
        })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.progress.running().since.remove(&self.number);
    }
}

/// A processor whose work is measured, and aborted when its database has gone silent.
pub struct Watched<P> {
    processor: P,
    progress: Progress,
    batch: Option<UnfinishedBatch>,
}

/// An unfinished batch. All attempts at a batch are one piece of work.
struct UnfinishedBatch {
    /// Topic, partition and offset of the batch's first record.
    first: Option<(String, i32, i64)>,
    _begun: Begun,
}

impl<P> Watched<P> {
    pub fn new(processor: P, progress: Progress) -> Self {
        Self {
            processor,
            progress,
            batch: None,
        }
    }

    fn begin_batch(&mut self, records: &[IncomingRecord]) {
        let first = records
            .first()
            .map(|record| (record.topic.clone(), record.partition, record.offset));
        let same = self.batch.as_ref().is_some_and(|one| one.first == first);
        if !same {
            let begun = self.progress.begin();
            self.batch = Some(UnfinishedBatch {
                first,
                _begun: begun,
            });
        }
    }

    fn end_batch(&mut self) {
        self.batch = None;
    }
}

#[async_trait]
impl<P: Processor> Processor for Watched<P> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        self.begin_batch(records);
        let result = limited(self.processor.process(records)).await;
        let over = match &result {
            // A batch with outputs is finished once they are published.
            Ok(outputs) => outputs.is_empty(),
            // The batch waits for external calls, which may take any time.
            Err(error) => error.is_backpressure(),
        };
        if over {
            self.end_batch();
        }
        result
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        let result = limited(self.processor.reject(record, why)).await;
        if result.is_ok() {
            self.end_batch();
        }
        result
    }

    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        self.end_batch();
        self.processor.published(outputs, delivered);
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        limited(self.processor.assigned(partitions)).await
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.end_batch();
        self.processor.revoked(partitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::message::Headers;
    use std::future::pending;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the given results, one for each attempt; `None` never returns.
    struct Scripted(Vec<Option<Result<Vec<OutgoingRecord>, BatchError>>>);

    #[async_trait]
    impl Processor for Scripted {
        async fn process(
            &mut self,
            _: &[IncomingRecord],
        ) -> Result<Vec<OutgoingRecord>, BatchError> {
            match self.0.remove(0) {
                Some(result) => result,
                None => pending().await,
            }
        }

        async fn reject(
            &mut self,
            _: &IncomingRecord,
            _: &BatchError,
        ) -> Result<Vec<OutgoingRecord>, BatchError> {
            Ok(Vec::new())
        }

        fn published(&mut self, _: &[OutgoingRecord], _: &[Delivered]) {}

        async fn assigned(&mut self, _: &[TopicPartition]) -> Result<(), BatchError> {
            Ok(())
        }

        fn revoked(&mut self, _: &[TopicPartition]) {}
    }

    fn records(offset: i64) -> [IncomingRecord; 1] {
        [IncomingRecord {
            topic: "saga.inputs".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: None,
            headers: Headers::default(),
            payload: None,
        }]
    }

    fn unavailable() -> Result<Vec<OutgoingRecord>, BatchError> {
        Err(BatchError::Retry("away".into()))
    }

    fn output() -> Vec<OutgoingRecord> {
        vec![OutgoingRecord {
            topic: "saga.events".to_owned(),
            partition: None,
            key: Vec::new(),
            headers: Headers::default(),
            payload: Vec::new(),
        }]
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_from_its_first_try_until_its_outputs_are_acknowledged() {
        let progress = Progress::default();
        let tries = vec![
            Some(unavailable()),
            Some(Ok(output())),
            Some(Ok(Vec::new())),
        ];
        let mut watched = Watched::new(Scripted(tries), progress.clone());
        assert_eq!(progress.waiting(), Duration::ZERO);
        watched.process(&records(7)).await.unwrap_err();
        tokio::time::advance(SECOND).await;
        watched.process(&records(7)).await.unwrap();
        assert_eq!(progress.waiting(), SECOND);
        watched.published(&[], &[]);
        assert_eq!(progress.waiting(), Duration::ZERO);
        watched.process(&records(8)).await.unwrap();
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.waiting(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_went_silent_is_a_reason_to_try_again() {
        let progress = Progress::default();
        let mut watched = Watched::new(Scripted(vec![None]), progress.clone());
        let error = watched.process(&records(7)).await.unwrap_err();
        assert!(matches!(error, BatchError::Retry(_)), "{error:?}");
        assert!(progress.waiting() > WAITING_LIMIT);
        watched.revoked(&[]);
        assert_eq!(progress.waiting(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_several_counts() {
        let progress = Progress::default();
        let oldest = progress.begin();
        tokio::time::advance(SECOND).await;
        let younger = progress.begin();
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.waiting(), 2 * SECOND);
        drop(oldest);
        assert_eq!(progress.waiting(), SECOND);
        drop(younger);
        assert_eq!(progress.waiting(), Duration::ZERO);
    }
}
