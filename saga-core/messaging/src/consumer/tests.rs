//! Tests the consumer against a log and a processor in memory. All events are one list, in order, so that a test reads
//! like the consumer's loop: process, publish, done.

mod bad_records;

use super::*;
use saga_core::message::{Headers, header};
use std::{
    collections::BTreeMap,
    slice,
    sync::{Arc, Mutex},
};
use tokio::task::JoinHandle;

#[derive(Debug, Error)]
#[error("{0}")]
struct Trouble(&'static str);

fn retry() -> BatchError {
    BatchError::Retry(Box::new(Trouble("away")))
}

fn data() -> BatchError {
    BatchError::Data(Box::new(Trouble("bad")))
}

/// The behavior of log and processor, and the actions of the consumer.
#[derive(Default)]
struct World {
    polls: VecDeque<PollResult>,
    holds: VecDeque<(PauseEnded, Vec<PollResult>)>,
    /// Errors of the next transactions; later ones succeed.
    process: VecDeque<BatchError>,
    publish: VecDeque<LogError>,
    /// Number of records that a failing publish has acknowledged.
    acknowledged: usize,
    /// Every record of a batch has an output of its own.
    outputs_each: bool,
    assign: VecDeque<BatchError>,
    /// Offsets of records that fail every batch that has them.
    bad: Vec<i64>,
    /// Outputs that no publish may contain.
    too_large: Vec<String>,
    did: Vec<String>,
    stop: CancellationToken,
    /// Number of the transaction, from 1, during which the process is stopped.
    stop_after_processing: Option<usize>,
    transactions: usize,
}

type Shared = Arc<Mutex<World>>;

struct Memory(Shared);

fn partition(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: "t".to_owned(),
        partition,
    }
}

fn record(partition: i32, offset: i64) -> IncomingRecord {
    IncomingRecord {
        topic: "t".to_owned(),
        partition,
        offset,
        timestamp_ms: 0,
        key: None,
        headers: Headers::default(),
        payload: None,
    }
}

fn records(partition: i32, offsets: std::ops::Range<i64>) -> PollResult {
    PollResult::Records(offsets.map(|offset| record(partition, offset)).collect())
}

fn outgoing(text: String) -> OutgoingRecord {
    OutgoingRecord {
        topic: "out".to_owned(),
        partition: None,
        key: text.into_bytes(),
        headers: Headers::default(),
        payload: Vec::new(),
    }
}

fn names(records: &[IncomingRecord]) -> String {
    let names: Vec<_> = records
        .iter()
        .map(|record| format!("{}:{}", record.partition, record.offset))
        .collect();
    names.join(" ")
}

#[async_trait]
impl LogReader for Memory {
    async fn poll(&mut self, _limit: usize) -> Result<PollResult, LogError> {
        let next = self.0.lock().unwrap().polls.pop_front();
        match next {
            Some(polled) => Ok(polled),
            None => std::future::pending().await,
        }
    }

    fn done(&mut self, records: &[IncomingRecord]) -> Result<(), LogError> {
        let mut highest = BTreeMap::new();
        for record in records {
            highest.insert(record.partition, record.offset);
        }
        let text = format!("done {highest:?}");
        self.0.lock().unwrap().did.push(text);
        Ok(())
    }

    async fn hold(&mut self, _time: Duration) -> PauseEnded {
        let mut world = self.0.lock().unwrap();
        world.did.push("hold".to_owned());
        match world.holds.pop_front() {
            None => PauseEnded::Elapsed,
            Some((held, polls)) => {
                for polled in polls.into_iter().rev() {
                    world.polls.push_front(polled);
                }
                held
            }
        }
    }

    async fn close(&mut self) {
        self.0.lock().unwrap().did.push("close".to_owned());
    }
}

#[async_trait]
impl LogWriter for Memory {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        let mut world = self.0.lock().unwrap();
        let at = Delivered {
            partition: 0,
            offset: 0,
        };
        let records: Vec<(&OutgoingRecord, &mut Option<Delivered>)> = records
            .iter()
            .zip(delivered)
            .filter(|(_, delivered)| delivered.is_none())
            .collect();
        if let Some(error) = world.publish.pop_front() {
            let acknowledged = world.acknowledged;
            for (record, delivered) in records.into_iter().take(acknowledged) {
                let key = String::from_utf8_lossy(&record.key);
                world.did.push(format!("publish {key}"));
                *delivered = Some(at);
            }
            world.did.push("publish failed".to_owned());
            return Err(error);
        }
        let keys: Vec<String> = records
            .iter()
            .map(|(record, _)| String::from_utf8_lossy(&record.key).into_owned())
            .collect();
        let is_pointer = |record: &OutgoingRecord| record.headers.len() > 1;
        let too_large = keys.iter().zip(&records).any(|(key, (record, _))| {
            !is_pointer(record) && world.too_large.iter().any(|part| key.contains(part))
        });
        if too_large {
            world.did.push("publish failed".to_owned());
            return Err(LogError::TooLarge(Box::new(Trouble("too large"))));
        }
        for (key, (record, delivered)) in keys.iter().zip(records) {
            let what = if is_pointer(record) { "pointer" } else { key };
            world.did.push(format!("publish {what}"));
            *delivered = Some(at);
        }
        Ok(())
    }
}

#[async_trait]
impl Processor for Memory {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        tokio::task::yield_now().await;
        let mut world = self.0.lock().unwrap();
        world.transactions += 1;
        if world.stop_after_processing == Some(world.transactions) {
            world.stop.cancel();
        }
        world.did.push(format!("process {}", names(records)));
        if let Some(error) = world.process.pop_front() {
            return Err(error);
        }
        if records
            .iter()
            .any(|record| world.bad.contains(&record.offset))
        {
            return Err(data());
        }
        if world.outputs_each {
            let output = |record: &IncomingRecord| outgoing(names(slice::from_ref(record)));
            return Ok(records.iter().map(output).collect());
        }
        Ok(vec![outgoing(names(records))])
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        _why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        Ok(vec![OutgoingRecord {
            headers: [(header::DEAD_LETTER_REASON, "")].into(),
            payload: b"the record".to_vec(),
            ..outgoing(format!("letter {}", record.offset))
        }])
    }

    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        assert_eq!(outputs.len(), delivered.len());
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        let mut world = self.0.lock().unwrap();
        let ids: Vec<_> = partitions.iter().map(|held| held.partition).collect();
        world.did.push(format!("assigned {ids:?}"));
        world.assign.pop_front().map_or(Ok(()), Err)
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        let ids: Vec<_> = partitions.iter().map(|held| held.partition).collect();
        let text = format!("revoked {ids:?}");
        self.0.lock().unwrap().did.push(text);
    }
}

fn start(shared: &Shared, stop: &CancellationToken) -> JoinHandle<Result<(), LogError>> {
    let memory = || Memory(Arc::clone(shared));
    tokio::spawn(run(
        memory(),
        memory(),
        memory(),
        ConsumerSettings::default(),
        stop.clone(),
    ))
}

/// Waits until the consumer has nothing more to do.
async fn settle(shared: &Shared, running: &JoinHandle<Result<(), LogError>>) {
    let mut quiet = 0;
    let mut last = 0;
    while quiet < 20 && !running.is_finished() {
        tokio::task::yield_now().await;
        let did = shared.lock().unwrap().did.len();
        quiet = if did == last { quiet + 1 } else { 0 };
        last = did;
    }
}

/// Runs until the consumer has nothing more to do, then stops it.
async fn check(world: World, expected: &[&str]) {
    let stop = world.stop.clone();
    let shared: Shared = Arc::new(Mutex::new(world));
    let running = start(&shared, &stop);
    settle(&shared, &running).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let did = std::mem::take(&mut shared.lock().unwrap().did);
    assert_eq!(did, expected);
}

#[tokio::test]
async fn offsets_are_committed_after_the_outputs_are_published() {
    let world = World {
        polls: [PollResult::Assigned(vec![partition(0)]), records(0, 0..2)].into(),
        ..World::default()
    };
    let expected = [
        "assigned [0]",
        "process 0:0 0:1",
        "publish 0:0 0:1",
        "done {0: 1}",
        "close",
    ];
    check(world, &expected).await;
}

#[tokio::test]
async fn a_failed_batch_is_run_again_with_the_group_kept() {
    let world = World {
        polls: [records(0, 0..2)].into(),
        process: [retry(), retry()].into(),
        ..World::default()
    };
    check(
        world,
        &[
            "process 0:0 0:1",
            "hold",
            "process 0:0 0:1",
            "hold",
            "process 0:0 0:1",
            "publish 0:0 0:1",
            "done {0: 1}",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_data_error_rejects_the_culprit_only() {
    let world = World {
        polls: [records(0, 0..3)].into(),
        bad: vec![1],
        ..World::default()
    };
    check(
        world,
        &[
            "process 0:0 0:1 0:2",
            "hold",
            "process 0:0",
            "publish 0:0",
            "process 0:1 0:2",
            "hold",
            "process 0:1",
            "publish letter 1",
            "process 0:2",
            "publish 0:2",
            "done {0: 2}",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_failed_publish_runs_the_batch_again_before_offsets_are_done() {
    let world = World {
        polls: [records(0, 0..1), records(0, 1..2)].into(),
        publish: [LogError::Unavailable(Box::new(Trouble("away")))].into(),
        ..World::default()
    };
    check(
        world,
        &[
            "process 0:0",
            "publish failed",
            "hold",
            "process 0:0",
            "publish 0:0",
            "done {0: 0}",
            "process 0:1",
            "publish 0:1",
            "done {0: 1}",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn outputs_that_a_failed_publish_delivered_are_not_sent_again() {
    let world = World {
        polls: [records(0, 0..3), records(0, 0..1)].into(),
        publish: [LogError::Unavailable(Box::new(Trouble("throttled")))].into(),
        acknowledged: 2,
        outputs_each: true,
        ..World::default()
    };
    check(
        world,
        &[
            "process 0:0 0:1 0:2",
            "publish 0:0",
            "publish 0:1",
            "publish failed",
            "hold",
            "process 0:0 0:1 0:2",
            "publish 0:2",
            "done {0: 2}",
            // The group gives a record out again, perhaps because its log was replaced: its output is sent.
            "process 0:0",
            "publish 0:0",
            "done {0: 0}",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_dead_letter_that_is_not_acknowledged_is_sent_again() {
    let world = World {
        polls: [records(0, 0..1)].into(),
        bad: vec![0],
        publish: [LogError::Unavailable(Box::new(Trouble("away")))].into(),
        ..World::default()
    };
    check(
        world,
        &[
            "process 0:0",
            "publish failed",
            "hold",
            "process 0:0",
            "publish letter 0",
            "done {0: 0}",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_lost_partition_gives_its_batch_up() {
    let world = World {
        polls: [records(0, 0..2)].into(),
        process: [retry()].into(),
        holds: [(
            PauseEnded::Revoked,
            vec![PollResult::Revoked(vec![partition(0)])],
        )]
        .into(),
        ..World::default()
    };
    check(world, &["process 0:0 0:1", "hold", "revoked [0]", "close"]).await;
}

#[tokio::test]
async fn records_of_kept_partitions_are_finished_when_another_partition_is_revoked() {
    let both = vec![record(0, 5), record(1, 7), record(0, 6)];
    let world = World {
        polls: [PollResult::Records(both), records(0, 7..8)].into(),
        process: [retry()].into(),
        holds: [(
            PauseEnded::Revoked,
            vec![PollResult::Revoked(vec![partition(1)])],
        )]
        .into(),
        ..World::default()
    };
    check(
        world,
        &[
            "process 0:5 1:7 0:6",
            "hold",
            "revoked [1]",
            "process 0:5 0:6",
            "publish 0:5 0:6",
            "done {0: 6}",
            "process 0:7",
            "publish 0:7",
            "done {0: 7}",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn partitions_assigned_and_revoked_during_a_wait_are_tracked() {
    let moves = vec![
        PollResult::Assigned(vec![partition(1), partition(2)]),
        PollResult::Revoked(vec![partition(1)]),
    ];
    let world = World {
        polls: [records(0, 0..1)].into(),
        process: [retry()].into(),
        holds: [(PauseEnded::Revoked, moves)].into(),
        ..World::default()
    };
    check(
        world,
        &[
            "process 0:0",
            "hold",
            "revoked [1]",
            "process 0:0",
            "publish 0:0",
            "done {0: 0}",
            "assigned [2]",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn taking_over_is_retried_until_it_succeeds_for_the_partitions_still_assigned() {
    let world = World {
        polls: [PollResult::Assigned(vec![partition(0), partition(1)])].into(),
        assign: [retry(), retry()].into(),
        holds: [
            (PauseEnded::Elapsed, Vec::new()),
            (
                PauseEnded::Revoked,
                vec![PollResult::Revoked(vec![partition(0)])],
            ),
        ]
        .into(),
        ..World::default()
    };
    check(
        world,
        &[
            "assigned [0, 1]",
            "hold",
            "assigned [0, 1]",
            "hold",
            "revoked [0]",
            "assigned [1]",
            "close",
        ],
    )
    .await;
}

#[tokio::test]
async fn shutdown_finishes_the_batch_in_hand() {
    let world = World {
        polls: [records(0, 0..1), records(0, 1..2)].into(),
        stop_after_processing: Some(1),
        ..World::default()
    };
    check(
        world,
        &["process 0:0", "publish 0:0", "done {0: 0}", "close"],
    )
    .await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_batch_that_fails() {
    let world = World {
        polls: [records(0, 0..1)].into(),
        process: [retry()].into(),
        stop_after_processing: Some(1),
        ..World::default()
    };
    check(world, &["process 0:0", "close"]).await;
}

#[tokio::test]
async fn a_refusal_ends_the_consumer_and_leaves_the_group() {
    let shared: Shared = Arc::new(Mutex::new(World {
        polls: [records(0, 0..1)].into(),
        publish: [LogError::Refused(Box::new(Trouble("no such topic")))].into(),
        ..World::default()
    }));
    let memory = || Memory(Arc::clone(&shared));
    let stop = CancellationToken::new();
    let ended = run(
        memory(),
        memory(),
        memory(),
        ConsumerSettings::default(),
        stop,
    )
    .await;
    assert!(matches!(ended, Err(LogError::Refused(_))));
    let did = std::mem::take(&mut shared.lock().unwrap().did);
    assert_eq!(did, ["process 0:0", "publish failed", "close"]);
}
