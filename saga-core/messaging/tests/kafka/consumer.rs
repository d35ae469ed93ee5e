//! Tests the consumer over the real log: members join and leave, and their database is unavailable now and then.

use crate::{Bench, SOON, next_records, numbers, text};
use async_trait::async_trait;
use saga_core::message::{Headers, IncomingRecord, OutgoingRecord, header};
use saga_messaging::{
    consumer::{self, BatchError, ConsumerSettings, Processor},
    kafka::GroupOffsets,
    log::{Delivered, LogError, LogReader, TopicPartition},
};
use saga_test_support::environment::until;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One in this many transactions fails, and one in this many records cannot be processed.
const FAILURES: usize = 4;
const CULPRITS: i64 = 97;

#[derive(Default)]
struct World {
    transactions: usize,
    done: BTreeSet<String>,
    rejected: BTreeSet<String>,
}

struct Member {
    world: Arc<Mutex<World>>,
    owned: BTreeSet<TopicPartition>,
    answers: String,
    /// The text of a record whose answer is too large for its topic.
    swells: Option<&'static str>,
}

impl Member {
    fn answer(&self, record: &IncomingRecord) -> OutgoingRecord {
        OutgoingRecord {
            topic: self.answers.clone(),
            partition: Some(record.partition),
            key: record.key.clone().unwrap_or_default(),
            headers: Headers::default(),
            payload: if self.swells == Some(text(record).as_str()) {
                vec![b'x'; 1_500_000]
            } else {
                record.payload.clone().unwrap_or_default()
            },
        }
    }
}

#[async_trait]
impl Processor for Member {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        let mut world = self.world.lock().unwrap();
        world.transactions += 1;
        if world.transactions.is_multiple_of(FAILURES) {
            return Err(BatchError::Retry("the database is away".into()));
        }
        if records.iter().any(|record| record.offset % CULPRITS == 1) {
            return Err(BatchError::Data("a bad record".into()));
        }
        world.done.extend(records.iter().map(text));
        Ok(records.iter().map(|record| self.answer(record)).collect())
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        _why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        self.world.lock().unwrap().rejected.insert(text(record));
        let place = record.offset.to_string();
        Ok(vec![OutgoingRecord {
            headers: [(header::DEAD_LETTER_OFFSET, place)].into(),
            ..self.answer(record)
        }])
    }

    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        assert_eq!(outputs.len(), delivered.len());
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        for partition in partitions {
            assert!(self.owned.insert(partition.clone()), "{partition:?} twice");
        }
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            assert!(self.owned.remove(partition), "{partition:?} was not ours");
        }
    }
}

fn start(
    bench: &Bench,
    answers: &str,
    world: &Arc<Mutex<World>>,
    swells: Option<&'static str>,
) -> (CancellationToken, JoinHandle<Result<(), LogError>>) {
    let stop = CancellationToken::new();
    let member = Member {
        world: Arc::clone(world),
        owned: BTreeSet::new(),
        answers: answers.to_owned(),
        swells,
    };
    let settings = ConsumerSettings {
        batch_limit: 20,
        ..ConsumerSettings::default()
    };
    let running = consumer::run(
        bench.reader(),
        bench.writer.clone(),
        member,
        settings,
        stop.clone(),
    );
    (stop, tokio::spawn(running))
}

/// Waits until the group has committed this many records of each partition.
async fn all_committed(bench: &Bench, partitions: i32, records: i64) {
    let offsets = GroupOffsets::connect(&bench.config, &bench.group).unwrap();
    let everything: BTreeMap<_, _> = (0..partitions).map(|n| (n, records)).collect();
    until("every offset is committed", SOON, async || {
        let committed = offsets
            .committed(&bench.topic)
            .await
            .map_err(|error| error.to_string())?;
        if committed == everything {
            Ok(())
        } else {
            Err(format!("{committed:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_processed_or_rejected_despite_changing_members() {
    let bench = Bench::new("rule", 4).await;
    let answers = Bench::new("answers", 4).await;
    let world = Arc::new(Mutex::new(World::default()));
    let mut members = Vec::new();
    for wave in 0..4 {
        members.push(start(&bench, &answers.topic, &world, None));
        bench.publish(wave * 400..(wave + 1) * 400, 4).await;
        if wave >= 2 {
            let (stop, left) = members.remove(0);
            stop.cancel();
            left.await.unwrap().unwrap();
        }
    }
    all_committed(&bench, 4, 400).await;
    for (stop, member) in members {
        stop.cancel();
        member.await.unwrap().unwrap();
    }
    let world = world.lock().unwrap();
    assert_eq!(world.done.len() + world.rejected.len(), 1_600);
    assert!(world.done.is_disjoint(&world.rejected));
    // The offsets 1, 98, 195, 292 and 389 of each partition are rejected.
    assert_eq!(world.rejected.len(), 4 * 5);
}

/// The answer's input is rejected alone, with a dead letter that fits; the partition continues.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_refused_by_its_topic_does_not_block_the_partition() {
    let bench = Bench::new("swelling", 1).await;
    let answers = Bench::new("answers", 1).await;
    let world = Arc::new(Mutex::new(World::default()));
    bench.publish(2..42, 1).await;
    let (stop, member) = start(&bench, &answers.topic, &world, Some("20"));
    all_committed(&bench, 1, 40).await;
    stop.cancel();
    member.await.unwrap().unwrap();
    // The record at offset 1 cannot be processed at all.
    let rejected: Vec<String> = world.lock().unwrap().rejected.iter().cloned().collect();
    assert_eq!(rejected, ["20", "3"]);
    let mut reader = answers.reader();
    let mut missing: BTreeSet<String> = numbers(2..42).into_iter().collect();
    while !missing.is_empty() {
        for record in next_records(&mut reader, 100).await {
            let pointer = record.payload.is_none();
            if pointer {
                assert_eq!(
                    record.header(header::DEAD_LETTER_OFFSET).unwrap(),
                    Some("18")
                );
                missing.remove("20");
            } else {
                missing.remove(&text(&record));
            }
        }
    }
    reader.close().await;
}
