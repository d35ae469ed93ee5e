//! Tests that a consumer group belongs to one database.

use crate::{Bench, SOON, join, take};
use saga_messaging::{
    database::Database,
    kafka::{GroupOffsets, KafkaReader, Mark, ReaderOptions},
    log::{LogError, LogReader, PollResult},
};
use saga_test_support::environment::until;
use std::{collections::BTreeMap, error::Error, sync::Arc};
use tokio::time::timeout;
use uuid::Uuid;

const ONE: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn reader_of(bench: &Bench, database: Uuid) -> KafkaReader {
    let options = ReaderOptions {
        database: Some(Arc::new(Database::new(database))),
        ..ReaderOptions::default()
    };
    KafkaReader::subscribe(&bench.config, &bench.group, &[&bench.topic], options).unwrap()
}

async fn offsets(bench: &Bench) -> GroupOffsets {
    let offsets = GroupOffsets::connect(&bench.config, &bench.group).unwrap();
    until("the coordinator answers", SOON, async || {
        offsets.marked(&bench.topic).await
    })
    .await;
    offsets
}

/// Returns the committed offset and the database by partition.
async fn marks(offsets: &GroupOffsets, topic: &str) -> BTreeMap<i32, (Option<i64>, Option<Uuid>)> {
    let marked = offsets.marked(topic).await.unwrap().into_iter();
    marked
        .map(|(partition, committed)| {
            let database = committed.mark.map(|mark: Mark| mark.database);
            (partition, (committed.offset, database))
        })
        .collect()
}

fn assert_names_both(refused: &LogError) {
    assert!(matches!(refused, LogError::Refused(_)), "{refused}");
    let text = refused.source().unwrap().to_string();
    for part in [&ONE.to_string(), &OTHER.to_string(), "adopt-group"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

/// Polls until the reader is refused; panics if the reader returns a record.
async fn refusal(reader: &mut KafkaReader) -> LogError {
    loop {
        match timeout(SOON, reader.poll(10)).await.unwrap() {
            Err(refused) => return refused,
            Ok(PollResult::Assigned(_) | PollResult::Revoked(_)) => {}
            Ok(PollResult::Records(records)) => panic!("{records:?}"),
        }
    }
}

#[tokio::test]
async fn all_partitions_of_a_group_carry_its_database_with_every_commit() {
    let bench = Bench::new("marked", 2).await;
    bench.publish(0..10, 1).await;
    let offsets = offsets(&bench).await;
    let mut reader = reader_of(&bench, ONE);
    let records = take(&mut reader, 10).await;
    // The group is claimed at the assignment, before any record is done.
    let claimed = BTreeMap::from([(0, (Some(0), Some(ONE))), (1, (Some(0), Some(ONE)))]);
    assert_eq!(marks(&offsets, &bench.topic).await, claimed);
    reader.done(&records[..4]).unwrap();
    until("the client commits by itself", SOON, async || {
        let found = marks(&offsets, &bench.topic).await[&0];
        if found == (Some(4), Some(ONE)) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    reader.done(&records[4..]).unwrap();
    reader.close().await;
    let left = BTreeMap::from([(0, (Some(10), Some(ONE))), (1, (Some(0), Some(ONE)))]);
    assert_eq!(marks(&offsets, &bench.topic).await, left);
}

#[tokio::test]
async fn an_unclaimed_group_is_claimed_at_its_offsets_and_no_record_is_read_twice() {
    let bench = Bench::new("unmarked", 1).await;
    bench.publish(0..10, 1).await;
    let mut before = bench.reader();
    let records = take(&mut before, 10).await;
    before.done(&records[..6]).unwrap();
    before.close().await;
    let mut reader = reader_of(&bench, ONE);
    let rest = take(&mut reader, 4).await;
    assert_eq!(rest[0].offset, 6);
    let offsets = offsets(&bench).await;
    let claimed = BTreeMap::from([(0, (Some(6), Some(ONE)))]);
    assert_eq!(marks(&offsets, &bench.topic).await, claimed);
    reader.close().await;
}

#[tokio::test]
async fn another_database_is_refused_at_the_start_and_at_an_assignment() {
    let bench = Bench::new("stranger", 2).await;
    bench.publish(0..10, 2).await;
    let mut reader = reader_of(&bench, ONE);
    join(&mut reader).await;
    let offsets = offsets(&bench).await;
    let marked = offsets.marked(&bench.topic).await.unwrap();
    let refused = |database| offsets.refuse_stranger(&bench.topic, &marked, database);
    refused(ONE).unwrap();
    assert_names_both(&refused(OTHER).unwrap_err());
    // A stranger that joined nevertheless is refused, both while the first member has partitions and after it has left.
    let mut stranger = reader_of(&bench, OTHER);
    let mut leaving = tokio::spawn(async move {
        let refused = refusal(&mut stranger).await;
        stranger.close().await;
        refused
    });
    let refused = loop {
        tokio::select! {
            refused = &mut leaving => break refused.unwrap(),
            polled = reader.poll(10) => drop(polled.unwrap()),
        }
    };
    assert_names_both(&refused);
    reader.close().await;
    let mut stranger = reader_of(&bench, OTHER);
    assert_names_both(&refusal(&mut stranger).await);
    stranger.close().await;
}

/// Reads until it is refused, or until `count` records were read.
async fn read_or_leave(mut reader: KafkaReader, count: usize) -> Result<usize, LogError> {
    let mut read = 0;
    while read < count {
        match timeout(SOON, reader.poll(100)).await.unwrap() {
            Ok(PollResult::Records(records)) => {
                read += records.len();
                reader.done(&records).unwrap();
            }
            Ok(PollResult::Assigned(_) | PollResult::Revoked(_)) => {}
            Err(refused) => {
                reader.close().await;
                assert_eq!(read, 0, "it read before it knew whose the group is");
                return Err(refused);
            }
        }
    }
    reader.close().await;
    Ok(read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_group_is_claimed_by_one_of_two_databases() {
    let bench = Bench::new("rivals", 4).await;
    bench.publish(0..100, 4).await;
    let one = tokio::spawn(read_or_leave(reader_of(&bench, ONE), 100));
    let other = tokio::spawn(read_or_leave(reader_of(&bench, OTHER), 100));
    match (one.await.unwrap(), other.await.unwrap()) {
        (Ok(100), Err(refused)) | (Err(refused), Ok(100)) => assert_names_both(&refused),
        others => panic!("{others:?}"),
    }
}

#[tokio::test]
async fn a_group_is_given_to_another_database_only_while_it_has_no_members() {
    let bench = Bench::new("adopted", 2).await;
    bench.publish(0..10, 1).await;
    let offsets = offsets(&bench).await;
    let mut reader = reader_of(&bench, ONE);
    let records = take(&mut reader, 10).await;
    reader.done(&records[..7]).unwrap();
    let mark = Database::new(OTHER).mark(&bench.topic);
    let place = || offsets.place(&bench.topic, [(0, 7), (1, 0)].into(), &mark);
    let refused = place().await.unwrap_err();
    let text = refused.source().unwrap().to_string();
    assert!(text.contains("has members"), "{text}");
    reader.close().await;
    place().await.unwrap();
    let theirs = BTreeMap::from([(0, (Some(7), Some(OTHER))), (1, (Some(0), Some(OTHER)))]);
    assert_eq!(marks(&offsets, &bench.topic).await, theirs);
    let mut former = reader_of(&bench, ONE);
    assert_names_both(&refusal(&mut former).await);
    former.close().await;
    let mut reader = reader_of(&bench, OTHER);
    assert_eq!(take(&mut reader, 3).await[0].offset, 7);
    reader.close().await;
}
