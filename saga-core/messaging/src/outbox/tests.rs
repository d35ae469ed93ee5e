//! Tests the relay over a table and a log in memory.

use super::{
    storage::{OutboxStore, OutboxTx},
    *,
};
use crate::{
    consumer::BatchError,
    log::{Delivered, LogError, LogWriter},
    progress::WAITING_LIMIT,
};
use async_trait::async_trait;
use saga_core::message::{Headers, OutgoingRecord};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Time that the log takes for one publish.
const PUBLISH_TIME: Duration = Duration::from_millis(10);
/// Largest record, in bytes.
const LIMIT: usize = 10;
/// Longest wait of a test: far above the time of the four sweeps that it waits for.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Tables {
    rows: Mutex<BTreeMap<i64, Vec<u8>>>,
    next: AtomicI64,
    sweeps: AtomicUsize,
    /// True while sweeps fail.
    fails: AtomicBool,
}

#[derive(Clone, Default)]
struct Memory(Arc<Tables>);

#[async_trait]
impl OutboxTx for Memory {
    async fn replace(
        &mut self,
        acked: &[i64],
        _count: usize,
        records: &[u8],
        _lease: Duration,
    ) -> Result<i64, BatchError> {
        self.remove(acked).await?;
        let id = self.0.next.fetch_add(1, Ordering::SeqCst);
        self.0.rows.lock().unwrap().insert(id, records.to_vec());
        Ok(id)
    }
}

#[async_trait]
impl OutboxStore for Memory {
    async fn remove(&self, ids: &[i64]) -> Result<(), BatchError> {
        let mut rows = self.0.rows.lock().unwrap();
        rows.retain(|id, _| !ids.contains(id));
        Ok(())
    }

    async fn claim(
        &self,
        _limit: usize,
        _lease: Duration,
    ) -> Result<Vec<(i64, Vec<u8>)>, BatchError> {
        self.0.sweeps.fetch_add(1, Ordering::SeqCst);
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(BatchError::Retry("away".into()));
        }
        Ok(Vec::new())
    }

    async fn abandoned(&self) -> Result<u64, BatchError> {
        Ok(0)
    }
}

#[async_trait]
impl LogWriter for Memory {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        sleep(PUBLISH_TIME).await;
        if records.iter().any(|record| record.payload.len() > LIMIT) {
            return Err(LogError::TooLarge("too large".into()));
        }
        let at = Delivered {
            partition: 0,
            offset: 0,
        };
        delivered.fill(Some(at));
        Ok(())
    }
}

fn record() -> OutgoingRecord {
    OutgoingRecord {
        topic: "t".to_owned(),
        partition: None,
        key: Vec::new(),
        headers: Headers::default(),
        payload: Vec::new(),
    }
}

/// Rows that a crash left behind must not wait until the load is low.
#[tokio::test]
async fn a_constant_stream_of_batches_does_not_keep_the_sweep_from_its_work() {
    let memory = Memory::default();
    let stop = CancellationToken::new();
    let settings = RelaySettings {
        sweep: PUBLISH_TIME * 2,
        ..RelaySettings::default()
    };
    let (outbox, relay, running) =
        Relay::new(memory.clone(), memory.clone(), settings, stop.clone());
    let running = tokio::spawn(running);
    let swept = async {
        while memory.0.sweeps.load(Ordering::SeqCst) < 4 {
            let mut tx = memory.clone();
            let staged = outbox.stage(&mut tx, &[record()]).await.unwrap();
            relay.publish_soon(staged);
            // The queue always has one batch more than the relay has taken.
            sleep(PUBLISH_TIME / 10).await;
        }
    };
    timeout(PATIENCE, swept).await.expect("the sweep starves");
    stop.cancel();
    running.await.unwrap();
    assert!(memory.0.rows.lock().unwrap().is_empty(), "sent rows stay");
}

#[tokio::test(start_paused = true)]
async fn sweeps_that_fail_are_one_piece_of_work_until_one_succeeds() {
    let memory = Memory::default();
    memory.0.fails.store(true, Ordering::SeqCst);
    let stop = CancellationToken::new();
    let settings = RelaySettings::default();
    let (_outbox, relay, running) =
        Relay::new(memory.clone(), memory.clone(), settings, stop.clone());
    let running = tokio::spawn(running);
    sleep(WAITING_LIMIT + settings.sweep).await;
    let (waiting, trouble) = relay.progress().look();
    assert!(waiting > WAITING_LIMIT, "{waiting:?}");
    assert!(trouble.is_some());
    memory.0.fails.store(false, Ordering::SeqCst);
    sleep(2 * settings.sweep).await;
    assert_eq!(relay.progress().look(), (Duration::ZERO, None));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_record_that_does_not_fit_keeps_only_its_own_batch() {
    let memory = Memory::default();
    let stop = CancellationToken::new();
    let settings = RelaySettings::default();
    let (outbox, relay, running) =
        Relay::new(memory.clone(), memory.clone(), settings, stop.clone());
    // All three batches are queued when the relay starts.
    for length in [1, LIMIT + 1, 2] {
        let large = OutgoingRecord {
            payload: vec![b'x'; length],
            ..record()
        };
        let mut tx = memory.clone();
        let staged = outbox.stage(&mut tx, &[large]).await.unwrap();
        relay.publish_soon(staged);
    }
    stop.cancel();
    timeout(PATIENCE, running).await.expect("it ends");
    let left: Vec<i64> = memory.0.rows.lock().unwrap().keys().copied().collect();
    assert_eq!(left, [1], "the one that does not fit stays");
}
