//! Tests bad records in batches: their cost to the other records, and the order of all effects.

use super::*;

const BATCH: i64 = 500;
const PARTITIONS: i64 = 4;

/// Returns a full batch with interleaved partitions, in which each offset occurs once.
fn full_batch() -> PollResult {
    let records = (0..BATCH).map(|offset| record((offset % PARTITIONS) as i32, offset));
    PollResult::Records(records.collect())
}

/// Returns the actions of the consumer, in order.
async fn run_out(world: World) -> Vec<String> {
    let stop = world.stop.clone();
    let shared: Shared = Arc::new(Mutex::new(world));
    let running = start(&shared, &stop);
    settle(&shared, &running).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    std::mem::take(&mut shared.lock().unwrap().did)
}

/// Returns the offsets in the order in which their outcome was published.
fn published(did: &[String]) -> Vec<i64> {
    did.iter()
        .filter_map(|entry| entry.strip_prefix("publish "))
        .filter(|entry| *entry != "failed")
        .flat_map(|entry| match entry.strip_prefix("letter ") {
            Some(offset) => vec![offset.parse().unwrap()],
            None => entry
                .split(' ')
                .map(|name| name.split_once(':').unwrap().1.parse().unwrap())
                .collect(),
        })
        .collect()
}

/// Checks that a full batch with these bad records takes this many transactions, and that everything is published once,
/// in the order of the batch, with the bad records as dead letters.
async fn check_cost(bad: &[i64], transactions: usize) {
    let world = World {
        polls: [full_batch()].into(),
        bad: bad.to_vec(),
        ..World::default()
    };
    let did = run_out(world).await;
    let count = did.iter().filter(|entry| entry.starts_with("process"));
    assert_eq!(count.count(), transactions, "bad: {bad:?}");
    assert_eq!(published(&did), (0..BATCH).collect::<Vec<_>>());
    let letters: Vec<String> = did
        .iter()
        .filter(|entry| entry.starts_with("publish letter"))
        .cloned()
        .collect();
    let expected: Vec<String> = bad.iter().map(|n| format!("publish letter {n}")).collect();
    assert_eq!(letters, expected);
    assert_eq!(
        did[did.len() - 2],
        "done {0: 496, 1: 497, 2: 498, 3: 499}",
        "offsets are done once, at the end"
    );
}

/// The bound is `2 · log2(500) + 1`, 19.
#[tokio::test]
async fn the_first_record_of_a_full_batch_costs_its_neighbors_a_bisection() {
    check_cost(&[0], 17).await;
}

#[tokio::test]
async fn a_record_in_the_middle_of_a_full_batch_costs_its_neighbors_a_bisection() {
    check_cost(&[250], 17).await;
}

#[tokio::test]
async fn the_last_record_of_a_full_batch_costs_its_neighbors_a_bisection() {
    check_cost(&[BATCH - 1], 19).await;
}

#[tokio::test]
async fn two_bad_records_cost_at_most_two_bisections() {
    check_cost(&[0, BATCH - 1], 33).await;
    check_cost(&[250, 251], 19).await;
}

#[tokio::test]
async fn a_batch_of_bad_records_is_all_letters() {
    let world = World {
        polls: [records(0, 0..4)].into(),
        bad: vec![0, 1, 2, 3],
        ..World::default()
    };
    let did = run_out(world).await;
    assert_eq!(published(&did), [0, 1, 2, 3]);
}

/// During the search for a bad record the member stays in its group, and notices a revoked partition.
#[tokio::test]
async fn partitions_that_are_lost_during_a_search_are_given_up_and_the_others_finished() {
    let world = World {
        polls: [PollResult::Records(vec![
            record(0, 0),
            record(1, 1),
            record(0, 2),
            record(1, 3),
        ])]
        .into(),
        bad: vec![2],
        holds: [
            (PauseEnded::Elapsed, Vec::new()),
            (
                PauseEnded::Revoked,
                vec![PollResult::Revoked(vec![partition(1)])],
            ),
        ]
        .into(),
        ..World::default()
    };
    let expected = [
        "process 0:0 1:1 0:2 1:3",
        "hold",
        "process 0:0 1:1",
        "publish 0:0 1:1",
        "process 0:2 1:3",
        "hold",
        "revoked [1]",
        "process 0:2",
        "publish letter 2",
        // The records of partition 1 that were finished are not committed, so its next owner finishes them again.
        "done {0: 2}",
        "close",
    ];
    check(world, &expected).await;
}

#[tokio::test]
async fn a_shutdown_during_a_bisection_commits_the_finished_records() {
    let world = World {
        polls: [records(0, 0..4)].into(),
        bad: vec![3],
        stop_after_processing: Some(3),
        ..World::default()
    };
    let expected = [
        "process 0:0 0:1 0:2 0:3",
        "hold",
        "process 0:0 0:1",
        "publish 0:0 0:1",
        "process 0:2 0:3",
        "done {0: 1}",
        "close",
    ];
    check(world, &expected).await;
}

#[tokio::test]
async fn an_outage_during_a_bisection_is_waited_for() {
    let world = World {
        polls: [records(0, 0..2)].into(),
        process: [data(), retry()].into(),
        ..World::default()
    };
    let expected = [
        "process 0:0 0:1",
        "hold",
        "process 0:0",
        "hold",
        "process 0:0",
        "publish 0:0",
        "process 0:1",
        "publish 0:1",
        "done {0: 1}",
        "close",
    ];
    check(world, &expected).await;
}

/// The input's transaction is committed, so the other inputs get their replies, and the input goes to the dead letters.
#[tokio::test]
async fn an_input_with_a_too_large_output_is_rejected_alone() {
    let world = World {
        polls: [records(0, 0..3)].into(),
        too_large: vec!["0:1".to_owned()],
        ..World::default()
    };
    let expected = [
        "process 0:0 0:1 0:2",
        "publish failed",
        "hold",
        "process 0:0",
        "publish 0:0",
        "process 0:1 0:2",
        "publish failed",
        "hold",
        "process 0:1",
        "publish failed",
        "publish letter 1",
        "process 0:2",
        "publish 0:2",
        "done {0: 2}",
        "close",
    ];
    check(world, &expected).await;
}

#[tokio::test]
async fn a_too_large_dead_letter_points_to_its_record() {
    let world = World {
        polls: [records(0, 0..1)].into(),
        bad: vec![0],
        too_large: vec!["letter 0".to_owned()],
        ..World::default()
    };
    let expected = [
        "process 0:0",
        "publish failed",
        "publish failed",
        "publish pointer",
        "done {0: 0}",
        "close",
    ];
    check(world, &expected).await;
}
