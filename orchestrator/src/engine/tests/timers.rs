use crate::engine::{
    fold::Touched,
    shared::Shared,
    timers::{
        driver::{QueuedPage, TimerDriver, TimerStore, TimerStoreError},
        offsets::{OffsetSource, Offsets, PartitionSeen, Seen, TopicSeen},
        queue::{CurrentTimers, DueRow, Planned, QueuedRow, TimerQueue},
        verdict::Place,
        watchlist::Watched,
    },
};
use chrono::TimeDelta;
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{Direction, DuePart, TimerKind, Verdict},
};

use super::{
    Bench, commands, epoch, id_at,
    memory::{Columns, MemoryStore, Reads},
    order, settings, text, trace,
};
use crate::registry::Registry;
use async_trait::async_trait;
use saga_core::{
    instance::SagaInstance,
    message::{Outcome, OutgoingRecord, TimerDue, header},
};
use saga_messaging::log::{Delivered, LogError, LogWriter};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn at(milliseconds: i64) -> Timestamp {
    epoch() + TimeDelta::milliseconds(milliseconds)
}

fn saga() -> SagaId {
    id_at(epoch(), 1)
}

fn part(attempt: u32) -> DuePart {
    DuePart {
        step: "charge".to_owned(),
        direction: Direction::Forward,
        attempt,
    }
}

fn timeout(due_ms: i64, known: Option<Verdict>) -> ArmedTimer {
    ArmedTimer {
        due_at: at(due_ms),
        kind: TimerKind::Timeout,
        part: Some(part(1)),
        participant: Some("payment".to_owned()),
        sent_at: None,
        known,
    }
}

fn seen_picked_up(due_ms: i64) -> ArmedTimer {
    ArmedTimer {
        participant: None,
        ..timeout(due_ms, None)
    }
}

fn topic(at_ms: i64, committed: i64, end: i64) -> TopicSeen {
    TopicSeen {
        at: at(at_ms),
        partitions: [(
            0,
            PartitionSeen {
                start: 0,
                end,
                committed,
            },
        )]
        .into(),
    }
}

/// A look at the log: our own inputs' committed offset and end, and payment's.
fn look(at_ms: i64, inputs: (i64, i64), payment: (i64, i64)) -> Seen {
    Seen {
        inputs: Some(topic(at_ms, inputs.0, inputs.1)),
        participants: [("payment".to_owned(), topic(at_ms, payment.0, payment.1))].into(),
    }
}

/// A queue that owns partition 0, with one saga whose command stands at offset 5.
fn queue(timers: &[ArmedTimer]) -> TimerQueue {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    touch(&mut queue, timers, &[part(1)], &[]);
    queue.delivered(
        saga(),
        &part(1),
        Place::At {
            partition: 0,
            offset: 5,
            known_at: at(1),
        },
    );
    queue
}

fn touch(
    queue: &mut TimerQueue,
    timers: &[ArmedTimer],
    sent: &[DuePart],
    handled: &[(TimerKind, Option<DuePart>)],
) {
    queue.touched(Touched {
        id: saga(),
        home_partition: 0,
        timers: timers.to_vec(),
        sent: sent.to_vec(),
        handled: handled.to_vec(),
        ended: false,
    });
}

fn tick(queue: &mut TimerQueue, now_ms: i64, timers: &[ArmedTimer], seen: &Seen) -> Vec<Planned> {
    let mut candidates = queue.due(at(now_ms), 10);
    candidates.extend(queue.no_longer_queued(seen, 10));
    let current = [CurrentTimers {
        id: saga(),
        trace: trace(),
        timers: timers.to_vec(),
    }];
    queue.plan(at(now_ms), &candidates, &current, seen)
}

fn verdicts(planned: &[Planned]) -> Vec<Verdict> {
    planned
        .iter()
        .map(|planned| planned.timer.verdict)
        .collect()
}

#[test]
fn a_due_timer_is_produced_once_with_the_verdict_of_the_offsets() {
    for (committed, expected) in [(5, Verdict::Queued), (6, Verdict::PickedUp)] {
        let timers = [timeout(1_000, None)];
        let mut queue = queue(&timers);
        let seen = look(1_001, (3, 3), (committed, 9));
        assert_eq!(tick(&mut queue, 999, &timers, &seen), [], "not due yet");
        let planned = tick(&mut queue, 1_001, &timers, &seen);
        assert_eq!(verdicts(&planned), [expected]);
        assert_eq!(planned[0].home_partition, 0);
        assert_eq!(planned[0].timer.part, Some(part(1)));
        assert_eq!(
            tick(&mut queue, 1_500, &timers, &seen),
            [],
            "one outstanding an attempt"
        );
        touch(&mut queue, &timers, &[], &[]);
        assert_eq!(
            tick(&mut queue, 1_600, &timers, &seen),
            [],
            "also after another input"
        );
    }
}

#[test]
fn a_timer_that_was_lost_is_produced_again_after_a_while() {
    let timers = [timeout(1_000, None)];
    let mut queue = queue(&timers);
    assert_eq!(
        tick(&mut queue, 1_001, &timers, &look(1_001, (3, 3), (0, 9))).len(),
        1
    );
    let later = look(61_002, (3, 3), (0, 9));
    assert_eq!(tick(&mut queue, 61_002, &timers, &later).len(), 1);
}

#[test]
fn a_timer_whose_producing_failed_is_produced_again_soon() {
    let timers = [timeout(1_000, None)];
    let mut queue = queue(&timers);
    let seen = look(1_001, (3, 3), (0, 9));
    let planned = tick(&mut queue, 1_001, &timers, &seen);
    queue.unproduced(at(1_001), &planned);
    assert_eq!(tick(&mut queue, 1_300, &timers, &seen).len(), 1);
}

#[test]
fn nothing_fires_before_the_log_is_read_up_to_the_end_seen_when_it_came_due() {
    let timers = [seen_picked_up(1_000)];
    let mut queue = queue(&timers);
    let behind = look(1_001, (3, 10), (6, 9));
    assert_eq!(tick(&mut queue, 1_001, &timers, &behind), []);
    // The log grows on; what counts is its end when the timer came due.
    let grown = look(2_001, (3, 50), (6, 9));
    queue.read_to(0, 9);
    assert_eq!(tick(&mut queue, 2_001, &timers, &grown), []);
    queue.read_to(0, 10);
    let planned = tick(&mut queue, 2_300, &timers, &grown);
    assert_eq!(verdicts(&planned), [Verdict::Unanswered]);
}

/// Its answer was lost with other inputs, and is asked for again.
#[test]
fn nothing_fires_on_a_partition_that_is_held() {
    let timers = [seen_picked_up(1_000)];
    let mut queue = queue(&timers);
    queue.hold(0, at(5_000));
    let early = look(4_999, (3, 3), (6, 9));
    assert_eq!(tick(&mut queue, 4_999, &timers, &early), []);
    let late = look(5_000, (3, 3), (6, 9));
    assert_eq!(tick(&mut queue, 5_000, &timers, &late).len(), 1);
}

#[test]
fn a_look_from_before_a_timer_came_due_does_not_let_it_fire() {
    let timers = [seen_picked_up(1_000)];
    let mut queue = queue(&timers);
    assert_eq!(
        tick(&mut queue, 1_001, &timers, &look(900, (3, 3), (6, 9))),
        []
    );
    assert_eq!(
        tick(&mut queue, 1_300, &timers, &look(1_250, (3, 3), (6, 9))).len(),
        1
    );
}

#[test]
fn a_queued_command_is_watched_in_memory_until_it_is_picked_up() {
    let timers = [timeout(1_000, Some(Verdict::Queued))];
    let mut queue = queue(&timers);
    touch(&mut queue, &timers, &[], &[]);
    assert_eq!(queue.due(at(5_000), 10), [], "nothing is due");
    assert_eq!(queue.watched_participants(), ["payment".to_owned()].into());
    assert_eq!(
        tick(&mut queue, 5_000, &timers, &look(5_000, (3, 3), (5, 9))),
        []
    );
    let planned = tick(&mut queue, 6_000, &timers, &look(6_000, (3, 3), (6, 9)));
    assert_eq!(verdicts(&planned), [Verdict::PickedUp]);
    assert_eq!(
        tick(&mut queue, 7_000, &timers, &look(7_000, (3, 3), (6, 9))),
        []
    );
}

#[test]
fn a_queued_command_whose_record_is_gone_is_told_so() {
    let timers = [timeout(1_000, Some(Verdict::Queued))];
    let mut queue = queue(&timers);
    touch(&mut queue, &timers, &[], &[]);
    let planned = tick(&mut queue, 6_000, &timers, &look(6_000, (3, 3), (0, 2)));
    assert_eq!(verdicts(&planned), [Verdict::Gone]);
}

#[test]
fn offsets_that_cannot_be_read_mean_unknown_which_is_told_once() {
    let timers = [timeout(1_000, None)];
    let mut queue = queue(&timers);
    let mut seen = look(1_001, (3, 3), (0, 0));
    seen.participants.clear();
    assert_eq!(
        verdicts(&tick(&mut queue, 1_001, &timers, &seen)),
        [Verdict::Unknown]
    );
    let queued = [timeout(1_000, Some(Verdict::Queued))];
    touch(
        &mut queue,
        &queued,
        &[],
        &[(TimerKind::Timeout, Some(part(1)))],
    );
    assert_eq!(tick(&mut queue, 2_001, &queued, &seen), []);
}

#[test]
fn what_comes_due_does_not_wait_behind_all_that_a_predecessor_has_left() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    let row = |number: u32, due_ms: i64| DueRow {
        id: id_at(epoch(), number.into()),
        home_partition: 0,
        next_due: at(due_ms),
    };
    let left: Vec<DueRow> = (1..=100).map(|n| row(n, i64::from(n))).collect();
    queue.rescanned(&left);
    queue.rescanned(&[row(500, 5_000)]);
    let chosen: Vec<SagaId> = queue.due(at(5_000), 10).iter().map(|one| one.id).collect();
    assert_eq!(chosen.len(), 10);
    for (number, is_chosen) in [(1, true), (500, true), (50, false)] {
        let id = id_at(epoch(), number);
        assert_eq!(chosen.contains(&id), is_chosen, "{number}");
    }
    assert_eq!(queue.due(at(3), 10).len(), 3, "each once");
}

#[test]
fn a_queued_command_is_found_by_its_place_once_that_is_known() {
    let timers = [timeout(1_000, Some(Verdict::Queued))];
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    touch(&mut queue, &timers, &[part(1)], &[]);
    let passed = look(6_000, (3, 3), (6, 9));
    assert_eq!(queue.no_longer_queued(&passed, 10), [], "not acknowledged");
    let place = Place::At {
        partition: 0,
        offset: 5,
        known_at: at(1),
    };
    queue.delivered(saga(), &part(1), place);
    assert_eq!(queue.no_longer_queued(&passed, 10).len(), 1);
    queue.touched(Touched {
        id: saga(),
        home_partition: 0,
        timers: Vec::new(),
        sent: Vec::new(),
        handled: Vec::new(),
        ended: true,
    });
    assert_eq!((queue.watched_len(), queue.len()), (0, 0));
}

#[test]
fn after_a_takeover_the_logs_end_stands_in_for_places_nobody_knows() {
    let timers = [timeout(1_000, None)];
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    let row = DueRow {
        id: saga(),
        home_partition: 0,
        next_due: at(1_000),
    };
    queue.rescanned(&[row]);
    let planned = tick(&mut queue, 1_001, &timers, &look(1_001, (3, 3), (7, 9)));
    assert_eq!(
        verdicts(&planned),
        [Verdict::Queued],
        "the group is at 7, the log ended at 9"
    );
    let queued = [timeout(1_000, Some(Verdict::Queued))];
    touch(
        &mut queue,
        &queued,
        &[],
        &[(TimerKind::Timeout, Some(part(1)))],
    );
    assert_eq!(
        tick(&mut queue, 2_001, &queued, &look(2_001, (3, 3), (8, 20))),
        []
    );
    let passed = look(3_001, (3, 3), (9, 30));
    assert_eq!(
        verdicts(&tick(&mut queue, 3_001, &queued, &passed)),
        [Verdict::PickedUp]
    );
}

#[test]
fn a_command_that_is_not_acknowledged_yet_has_no_verdict() {
    let timers = [timeout(1_000, None)];
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    touch(&mut queue, &timers, &[part(1)], &[]);
    assert_eq!(
        tick(&mut queue, 1_001, &timers, &look(1_001, (3, 3), (9, 9))),
        []
    );
}

#[test]
fn backoff_and_deadline_need_no_offsets_of_anybody() {
    let backoff = ArmedTimer {
        kind: TimerKind::Backoff,
        participant: None,
        ..timeout(1_000, None)
    };
    let deadline = ArmedTimer {
        due_at: at(1_000),
        kind: TimerKind::Deadline,
        part: None,
        participant: None,
        sent_at: None,
        known: None,
    };
    let timers = [backoff, deadline];
    let mut queue = queue(&timers);
    let mut seen = look(1_001, (3, 3), (0, 0));
    seen.participants.clear();
    let kinds: Vec<TimerKind> = tick(&mut queue, 1_001, &timers, &seen)
        .into_iter()
        .map(|planned| planned.timer.kind)
        .collect();
    assert_eq!(kinds, [TimerKind::Backoff, TimerKind::Deadline]);
}

#[test]
fn a_saga_that_the_engine_moved_meanwhile_is_left_alone() {
    let timers = [timeout(1_000, None)];
    let mut queue = queue(&timers);
    let candidates = queue.due(at(1_001), 10);
    touch(&mut queue, &[timeout(9_000, None)], &[], &[]);
    let current = [CurrentTimers {
        id: saga(),
        trace: trace(),
        timers: timers.to_vec(),
    }];
    let seen = look(1_001, (3, 3), (6, 9));
    assert_eq!(queue.plan(at(1_001), &candidates, &current, &seen), []);
    assert_eq!(
        queue.due(at(9_000), 10).len(),
        1,
        "the newer due time stands"
    );
}

#[test]
fn sagas_without_a_row_and_partitions_given_up_are_forgotten() {
    let timers = [timeout(1_000, None)];
    let mut gone = queue(&timers);
    let candidates = gone.due(at(1_001), 10);
    let planned = gone.plan(at(1_001), &candidates, &[], &look(1_001, (3, 3), (6, 9)));
    assert_eq!((planned.len(), gone.len()), (0, 0));
    let mut revoked = queue(&timers);
    revoked.revoke([0]);
    assert!(revoked.is_empty());
    assert_eq!(revoked.due(at(9_000), 10), []);
}

#[test]
fn the_markers_of_somebodys_transaction_at_the_end_of_the_log_hold_timers_back_for_a_while_only() {
    let timers = [seen_picked_up(1_000)];
    let mut queue = queue(&timers);
    assert_eq!(
        tick(&mut queue, 1_001, &timers, &look(1_001, (9, 10), (6, 9))),
        []
    );
    assert_eq!(
        tick(&mut queue, 20_000, &timers, &look(20_000, (9, 10), (6, 9))),
        []
    );
    assert_eq!(
        tick(&mut queue, 31_002, &timers, &look(31_002, (9, 10), (6, 9))).len(),
        1
    );
}

#[test]
fn a_reader_that_moves_slowly_is_waited_for_however_long_it_takes() {
    let timers = [seen_picked_up(1_000)];
    let mut queue = queue(&timers);
    assert_eq!(
        tick(&mut queue, 1_001, &timers, &look(1_001, (3, 10), (6, 9))),
        []
    );
    queue.read_to(0, 5);
    assert_eq!(
        tick(&mut queue, 90_000, &timers, &look(90_000, (3, 10), (6, 9))),
        []
    );
}

/// A reply that went astray had another process send the next command.
#[test]
fn a_command_that_somebody_else_sent_after_our_look_is_queued_until_a_newer_one_is_passed() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    assert_eq!(
        tick(&mut queue, 1_000, &[], &look(1_000, (9, 9), (3, 3))),
        []
    );
    let sent = |known| ArmedTimer {
        sent_at: Some(at(2_000)),
        ..timeout(5_000, known)
    };
    queue.rescanned(&[DueRow {
        id: saga(),
        home_partition: 0,
        next_due: at(5_000),
    }]);
    let timers = [sent(None)];
    let old = look(1_500, (9, 9), (3, 3));
    assert_eq!(tick(&mut queue, 5_000, &timers, &old), []);
    let queued = tick(&mut queue, 5_200, &timers, &look(5_100, (9, 9), (3, 4)));
    assert_eq!(verdicts(&queued), [Verdict::Queued]);
    let timers = [sent(Some(Verdict::Queued))];
    touch(
        &mut queue,
        &timers,
        &[],
        &[(TimerKind::Timeout, Some(part(1)))],
    );
    let waiting = look(6_000, (9, 9), (3, 9));
    assert_eq!(tick(&mut queue, 6_000, &timers, &waiting), []);
    let passed = tick(&mut queue, 7_000, &timers, &look(7_000, (9, 9), (4, 9)));
    assert_eq!(verdicts(&passed), [Verdict::PickedUp]);
}

/// A driver's surroundings without a saga; counts rescans.
#[derive(Clone, Default)]
struct Quiet(Arc<AtomicUsize>);

#[async_trait]
impl TimerStore for Quiet {
    async fn due_rows(
        &self,
        _: &[i32],
        _: TimeDelta,
    ) -> Result<(Timestamp, Vec<DueRow>), TimerStoreError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok((epoch(), Vec::new()))
    }

    async fn queued_rows(
        &self,
        _: &[i32],
        _: Option<SagaId>,
        _: usize,
    ) -> Result<QueuedPage, TimerStoreError> {
        Ok(QueuedPage::default())
    }

    async fn live(&self, _: &[SagaId]) -> Result<Vec<SagaInstance>, TimerStoreError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl LogWriter for Quiet {
    async fn publish(&self, _: &[OutgoingRecord]) -> Result<Vec<Delivered>, LogError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl OffsetSource for Quiet {
    async fn read(&self, _: &str, _: &str) -> Option<BTreeMap<i32, PartitionSeen>> {
        None
    }
}

/// Its timers went with it, and between two ticks nobody saw it go.
#[tokio::test]
async fn a_partition_that_was_given_up_and_taken_back_is_rescanned_at_once() {
    let quiet = Quiet::default();
    let shared = Arc::new(Shared::new(settings(), Registry::default()));
    let driver = TimerDriver {
        store: quiet.clone(),
        writer: quiet.clone(),
        offsets: Arc::new(Offsets::new(quiet.clone(), Arc::clone(&shared.clock))),
        shared: Arc::clone(&shared),
        group: "orchestrator".to_owned(),
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.run(stop.clone()));
    shared.timers().assign([0]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(quiet.0.load(Ordering::SeqCst), 1);
    {
        let mut timers = shared.timers();
        timers.revoke([0]);
        timers.assign([0]);
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(quiet.0.load(Ordering::SeqCst), 2);
    stop.cancel();
    running.await.unwrap();
}

fn queued_row(attempt: u32, sent_ms: i64) -> QueuedRow {
    QueuedRow {
        id: saga(),
        home_partition: 0,
        next_due: Some(at(90_000)),
        queued: vec![Watched {
            part: part(attempt),
            participant: "payment".to_owned(),
            sent_at: Some(at(sent_ms)),
        }],
    }
}

fn sent_and_queued(sent_ms: i64) -> ArmedTimer {
    ArmedTimer {
        sent_at: Some(at(sent_ms)),
        ..timeout(1_000, Some(Verdict::Queued))
    }
}

#[test]
fn what_a_new_owner_finds_queued_waits_until_the_end_that_it_saw_first_is_passed() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    queue.queued(at(2_000), vec![queued_row(1, 500)]);
    assert_eq!(queue.watched_participants(), ["payment".to_owned()].into());
    assert_eq!(queue.due(at(2_000), 10), [], "nothing is due");
    for (at_ms, committed, end) in [(2_001, 7, 9), (3_001, 8, 20)] {
        let seen = look(at_ms, (3, 3), (committed, end));
        assert_eq!(queue.no_longer_queued(&seen, 10), [], "{committed}");
    }
    let passed = look(4_001, (3, 3), (9, 30));
    let planned = tick(&mut queue, 4_001, &[sent_and_queued(500)], &passed);
    assert_eq!(verdicts(&planned), [Verdict::PickedUp]);
}

#[test]
fn what_was_sent_after_the_first_look_is_looked_at_again() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    queue.queued(at(2_000), vec![queued_row(1, 2_500)]);
    let first = look(2_001, (3, 3), (3, 4));
    assert_eq!(queue.no_longer_queued(&first, 10).len(), 1);
    let timers = [sent_and_queued(2_500)];
    let newer = look(3_001, (3, 3), (3, 9));
    assert_eq!(tick(&mut queue, 3_001, &timers, &newer), []);
    let not_yet = look(4_001, (3, 3), (8, 9));
    assert_eq!(tick(&mut queue, 4_001, &timers, &not_yet), []);
    let passed = look(5_001, (3, 3), (9, 9));
    let planned = tick(&mut queue, 5_001, &timers, &passed);
    assert_eq!(verdicts(&planned), [Verdict::PickedUp]);
}

/// Whoever gets as many as it asked for asks again at once.
#[test]
fn a_saga_with_several_queued_commands_is_found_once() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    let rows = (0..3).map(|number| {
        let first = queued_row(1, 500 + 2 * number);
        let second = queued_row(2, 501 + 2 * number);
        QueuedRow {
            id: id_at(epoch(), 1 + u128::from(number.unsigned_abs())),
            queued: [first.queued, second.queued].concat(),
            ..queued_row(1, 500)
        }
    });
    queue.queued(at(2_000), rows.collect());
    let first = look(2_001, (3, 3), (7, 9));
    assert_eq!(queue.no_longer_queued(&first, 3), []);
    let passed = look(4_001, (3, 3), (9, 30));
    assert_eq!(queue.no_longer_queued(&passed, 3).len(), 3);
    assert_eq!(queue.no_longer_queued(&passed, 2).len(), 2);
}

#[test]
fn other_timers_of_a_saga_that_is_queued_come_due() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    queue.queued(at(2_000), vec![queued_row(1, 500)]);
    assert_eq!(queue.due(at(89_999), 10), []);
    assert_eq!(queue.due(at(90_000), 10).len(), 1);
}

#[test]
fn a_state_is_read_only_if_its_row_and_memory_know_different_commands() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    touch(&mut queue, &[sent_and_queued(500)], &[], &[]);
    queue.queued(at(2_000), vec![queued_row(1, 500)]);
    assert_eq!(queue.due(at(2_000), 10), [], "the same");
    queue.queued(at(2_000), vec![queued_row(2, 1_500)]);
    assert_eq!(queue.due(at(2_000), 10).len(), 1, "another attempt");
    let other = QueuedRow {
        id: id_at(epoch(), 2),
        home_partition: 1,
        ..queued_row(1, 500)
    };
    queue.queued(at(2_000), vec![other]);
    assert_eq!(queue.len(), 1, "somebody else's");
}

#[test]
fn a_saga_is_looked_after_if_it_is_due_in_time_or_all_that_is_queued_is_watched() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    let row = queued_row(1, 500);
    let retried = queued_row(2, 1_500).queued;
    let until = at(60_000);
    let saga = row.id;
    assert!(
        !queue.looks_after(saga, false, &row.queued, until),
        "unknown"
    );
    queue.queued(at(2_000), vec![row.clone()]);
    assert!(queue.looks_after(saga, false, &row.queued, until));
    assert!(!queue.looks_after(saga, false, &retried, until));
    assert!(
        !queue.looks_after(saga, true, &row.queued, until),
        "its other timer is due in 90 s"
    );
    assert!(queue.looks_after(saga, true, &row.queued, at(90_000)));
}

/// Another process has moved it: a reply that went astray.
#[test]
fn a_rescan_finds_what_is_due_of_a_saga_that_memory_takes_for_queued() {
    let mut queue = queue(&[timeout(1_000, Some(Verdict::Queued))]);
    queue.rescanned(&[DueRow {
        id: saga(),
        home_partition: 0,
        next_due: at(1_500),
    }]);
    assert_eq!(queue.due(at(1_500), 10).len(), 1);
}

/// A saga whose charge is known to be queued.
async fn charge_queued(bench: &mut Bench) -> (SagaId, DuePart) {
    let saga = bench.saga_id();
    let start = bench.start_with(saga, "place-order", order());
    let reserve = commands(&bench.process(&[start]).await).remove(0);
    let reserved = bench.reply(&reserve, Outcome::Success, serde_json::json!({}));
    let charge = commands(&bench.process(&[reserved]).await).remove(0);
    let part = DuePart {
        step: text(&charge, header::STEP),
        direction: Direction::Forward,
        attempt: 1,
    };
    fire(bench, saga, &part, Verdict::Queued).await;
    (saga, part)
}

async fn fire(bench: &mut Bench, saga_id: SagaId, part: &DuePart, verdict: Verdict) {
    let timer = TimerDue {
        saga_id,
        kind: TimerKind::Timeout,
        part: Some(part.clone()),
        verdict,
        trace: trace(),
    };
    let record = timer.encode(super::INPUTS, Some(0), "/timers", epoch());
    let record = bench.append(record);
    bench.process(&[record]).await;
}

#[tokio::test]
async fn a_row_lists_what_is_queued_and_comes_due_without_it() {
    let mut bench = Bench::new();
    let (saga, part) = charge_queued(&mut bench).await;
    let columns = |bench: &Bench| bench.store.tables().columns[&saga].clone();
    let Columns { next_due, queued } = columns(&bench);
    let expected = Watched {
        part: part.clone(),
        participant: "payment".to_owned(),
        sent_at: Some(epoch()),
    };
    assert_eq!(queued, [expected]);
    assert_eq!(next_due, Some(bench.store.live(saga).deadline_at));
    fire(&mut bench, saga, &part, Verdict::PickedUp).await;
    let Columns { next_due, queued } = columns(&bench);
    assert_eq!(queued, []);
    assert!(next_due < Some(bench.store.live(saga).deadline_at));
}

const CROWD: usize = 10_000;

/// As if each had come there by itself.
async fn crowd() -> Bench {
    let mut bench = Bench::new();
    let (saga, _) = charge_queued(&mut bench).await;
    let mut tables = bench.store.tables();
    let (row, columns) = (tables.live[&saga].clone(), tables.columns[&saga].clone());
    for number in 0..CROWD as u128 - 1 {
        let mut row = row.clone();
        row.instance.id = id_at(epoch(), 1_000 + number);
        tables.columns.insert(row.instance.id, columns.clone());
        tables.live.insert(row.instance.id, row);
    }
    tables.now += TimeDelta::minutes(1);
    drop(tables);
    bench
}

/// The log around a crowd: payment's group stands before all of it, or has passed it.
#[derive(Clone, Default)]
struct Away {
    is_back: Arc<AtomicBool>,
    produced: Arc<Mutex<Vec<OutgoingRecord>>>,
}

#[async_trait]
impl LogWriter for Away {
    async fn publish(&self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>, LogError> {
        self.produced.lock().unwrap().extend_from_slice(records);
        Ok(Vec::new())
    }
}

#[async_trait]
impl OffsetSource for Away {
    async fn read(&self, topic: &str, _: &str) -> Option<BTreeMap<i32, PartitionSeen>> {
        let end = CROWD as i64;
        let is_passed = topic != "payment.commands" || self.is_back.load(Ordering::SeqCst);
        let committed = if is_passed { end } else { 0 };
        let seen = PartitionSeen {
            start: 0,
            end,
            committed,
        };
        Some([(0, seen)].into())
    }
}

fn timers_of(bench: &Bench, log: &Away) -> TimerDriver<MemoryStore, Away> {
    TimerDriver {
        store: bench.store.clone(),
        writer: log.clone(),
        offsets: Arc::new(Offsets::new(log.clone(), Arc::clone(&bench.shared.clock))),
        shared: Arc::clone(&bench.shared),
        group: "orchestrator".to_owned(),
    }
}

/// The timers of somebody who has taken the crowd's partition over, five seconds later.
async fn taken_over(bench: &Bench, log: &Away) -> (CancellationToken, JoinHandle<()>) {
    bench.shared.timers().revoke([0]);
    bench.shared.timers().assign([0]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(timers_of(bench, log).run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    (stop, running)
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_is_queued_costs_a_new_owner_no_state_and_a_rescan_no_row() {
    let bench = crowd().await;
    let log = Away::default();
    let (stop, running) = taken_over(&bench, &log).await;
    assert_eq!(bench.shared.timers().watched_len(), CROWD);
    let reads = |bench: &Bench| bench.store.tables().reads;
    let Reads { queued_rows, .. } = reads(&bench);
    assert_eq!(queued_rows, CROWD, "each is read once");
    tokio::time::sleep(Duration::from_secs(100)).await;
    let Reads {
        rescans,
        due_rows,
        states,
        ..
    } = reads(&bench);
    assert_eq!((rescans, due_rows, states), (4, 0, 0));
    assert_eq!(log.produced.lock().unwrap().len(), 0);

    log.is_back.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(reads(&bench).states, CROWD, "what is passed is read once");
    let produced = log.produced.lock().unwrap().clone();
    let told: BTreeSet<String> = produced
        .iter()
        .map(|record| text(record, header::CE_ID))
        .filter(|id| id.ends_with("pickedup"))
        .collect();
    assert_eq!((told.len(), produced.len()), (CROWD, CROWD));
    stop.cancel();
    running.await.unwrap();
}

/// It moves while nobody watches it: another process has taken its input.
#[tokio::test(start_paused = true)]
async fn a_queued_command_that_memory_has_lost_is_found_again() {
    let bench = crowd().await;
    let log = Away::default();
    let (stop, running) = taken_over(&bench, &log).await;
    bench.shared.timers().touched(Touched {
        id: id_at(epoch(), 1_000),
        home_partition: 0,
        timers: Vec::new(),
        sent: Vec::new(),
        handled: Vec::new(),
        ended: true,
    });
    assert_eq!(bench.shared.timers().watched_len(), CROWD - 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.shared.timers().watched_len(), CROWD);
    stop.cancel();
    running.await.unwrap();
}
