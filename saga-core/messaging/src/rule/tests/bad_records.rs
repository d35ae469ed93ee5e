//! Bad records in batches: what their neighbors pay, and in which order everything happens.

use super::*;

const BATCH: i64 = 500;
const PARTITIONS: i64 = 4;

/// A full batch, the partitions interleaved; every offset stands for one record.
fn full_batch() -> Polled {
    let records = (0..BATCH).map(|offset| record((offset % PARTITIONS) as i32, offset));
    Polled::Records(records.collect())
}

/// What the consumer did with a world, in order.
async fn run_out(world: World) -> Vec<String> {
    let stop = world.stop.clone();
    let shared: Shared = Arc::new(Mutex::new(world));
    let running = start(&shared, &stop);
    settle(&shared, &running).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    std::mem::take(&mut shared.lock().unwrap().did)
}

/// Offsets in the order in which their outcome was published.
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

/// A full batch with these bad records takes so many transactions; everything is published once, in the order of the
/// batch, and the bad ones as letters.
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

/// While a culprit is searched the group is kept, and it is noticed when a partition goes.
#[tokio::test]
async fn partitions_that_are_lost_during_a_search_are_given_up_and_the_others_finished() {
    let world = World {
        polls: [Polled::Records(vec![
            record(0, 0),
            record(1, 1),
            record(0, 2),
            record(1, 3),
        ])]
        .into(),
        bad: vec![2],
        holds: [
            (Held::Elapsed, Vec::new()),
            (Held::Lost, vec![Polled::Revoked(vec![partition(1)])]),
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
        // What was finished of partition 1 is its next owner's to finish again.
        "done {0: 2}",
        "close",
    ];
    check(world, &expected).await;
}

#[tokio::test]
async fn a_process_that_stops_during_a_search_commits_what_is_finished() {
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
async fn infrastructure_that_goes_away_during_a_search_is_waited_for() {
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

/// Its transaction stands, so the others get their answers, and it goes where a person finds it.
#[tokio::test]
async fn an_input_whose_output_is_too_large_is_rejected_alone() {
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
async fn a_dead_letter_that_is_too_large_says_where_its_record_stands() {
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
