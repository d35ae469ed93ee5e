use crate::engine::{
    outcome::SagaChange,
    saga_store::{CatalogError, DefinitionStore},
    shared::Shared,
    timer_driver::{QueuedPage, TimerDriver, TimerStore, TimerStoreError},
    timers::{
        offsets::{OffsetReader, OffsetSource, Offsets, PartitionOffsets, TopicOffsets},
        pick_up_status::CommandLocation,
        queue::{CurrentTimers, DueRow, Planned, QueuedRow, TimerQueue},
        queued_index::QueuedCommand,
    },
};
use chrono::TimeDelta;
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{CommandRef, Direction, PickUpStatus, TimerKind},
};

use super::{
    Bench, commands, epoch, id_at,
    memory::{Columns, MemoryStore, Reads},
    order, settings, text, trace,
};
use crate::registry::Catalog;
use async_trait::async_trait;
use saga_core::{
    definition::SagaDefinition,
    instance::SagaInstance,
    message::{Outcome, OutgoingRecord, StartSaga, TimerDue, header},
    transition,
};
use saga_messaging::{
    consumer::Processor,
    log::{Delivered, LogError, LogWriter},
    progress::Progress,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

fn at(milliseconds: i64) -> Timestamp {
    epoch() + TimeDelta::milliseconds(milliseconds)
}

fn saga() -> SagaId {
    id_at(epoch(), 1)
}

fn part(attempt: u32) -> CommandRef {
    CommandRef {
        step: "charge".to_owned(),
        direction: Direction::Forward,
        attempt,
    }
}

fn timeout(due_ms: i64, known: Option<PickUpStatus>) -> ArmedTimer {
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

fn topic(at_ms: i64, committed: i64, end: i64) -> TopicOffsets {
    TopicOffsets {
        at: at(at_ms),
        by: at(at_ms),
        partitions: [(
            0,
            PartitionOffsets {
                start: 0,
                end,
                committed,
            },
        )]
        .into(),
    }
}

/// Returns a reading of the log: the committed offset and the end of our own inputs, and of payment's commands.
fn look(at_ms: i64, inputs: (i64, i64), payment: (i64, i64)) -> Offsets {
    Offsets {
        inputs: Some(topic(at_ms, inputs.0, inputs.1)),
        participants: [("payment".to_owned(), topic(at_ms, payment.0, payment.1))].into(),
    }
}

/// Returns a queue that owns partition 0 and has one saga, whose command is at offset 5.
fn queue(timers: &[ArmedTimer]) -> TimerQueue {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    touch(&mut queue, timers, &[part(1)], &[]);
    queue.delivered(
        saga(),
        &part(1),
        CommandLocation::At {
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
    sent: &[CommandRef],
    handled: &[(TimerKind, Option<CommandRef>)],
) {
    queue.changed(SagaChange {
        id: saga(),
        home_partition: 0,
        timers: timers.to_vec(),
        sent: sent.to_vec(),
        handled: handled.to_vec(),
        ended: false,
    });
}

fn tick(
    queue: &mut TimerQueue,
    now_ms: i64,
    timers: &[ArmedTimer],
    seen: &Offsets,
) -> Vec<Planned> {
    let mut candidates = queue.due(at(now_ms), 10);
    candidates.extend(queue.dequeued(seen, 10));
    let current = [CurrentTimers {
        id: saga(),
        trace: trace(),
        timers: timers.to_vec(),
    }];
    queue.plan(at(now_ms), &candidates, &current, seen)
}

fn verdicts(planned: &[Planned]) -> Vec<PickUpStatus> {
    planned
        .iter()
        .map(|planned| planned.timer.verdict)
        .collect()
}

#[test]
fn a_due_timer_is_produced_once_with_the_verdict_of_the_offsets() {
    for (committed, expected) in [(5, PickUpStatus::Queued), (6, PickUpStatus::PickedUp)] {
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
fn a_timer_is_produced_again_soon_after_a_failure() {
    let timers = [timeout(1_000, None)];
    let mut queue = queue(&timers);
    let seen = look(1_001, (3, 3), (0, 9));
    let planned = tick(&mut queue, 1_001, &timers, &seen);
    queue.produce_failed(at(1_001), &planned);
    assert_eq!(tick(&mut queue, 1_300, &timers, &seen).len(), 1);
}

#[test]
fn nothing_fires_before_the_log_is_read_up_to_the_end_seen_when_it_came_due() {
    let timers = [seen_picked_up(1_000)];
    let mut queue = queue(&timers);
    let behind = look(1_001, (3, 10), (6, 9));
    assert_eq!(tick(&mut queue, 1_001, &timers, &behind), []);
    // The log grows meanwhile, but only its end when the timer came due counts.
    let grown = look(2_001, (3, 50), (6, 9));
    queue.read_to(0, 9);
    assert_eq!(tick(&mut queue, 2_001, &timers, &grown), []);
    queue.read_to(0, 10);
    let planned = tick(&mut queue, 2_300, &timers, &grown);
    assert_eq!(verdicts(&planned), [PickUpStatus::Unanswered]);
}

fn sent(due_ms: i64) -> ArmedTimer {
    ArmedTimer {
        sent_at: Some(at(0)),
        ..timeout(due_ms, None)
    }
}

fn told(planned: &[Planned]) -> Vec<(PickUpStatus, Option<Timestamp>)> {
    let timers = planned.iter().map(|planned| &planned.timer);
    timers
        .map(|timer| (timer.verdict, timer.picked_up_at))
        .collect()
}

#[test]
fn a_command_that_is_answered_soon_is_not_looked_for() {
    let queue = queue(&[sent(2_000)]);
    assert_eq!(queue.unanswered(at(100)), BTreeMap::new());
    let expected = [("payment".to_owned(), TimeDelta::milliseconds(100))];
    assert_eq!(queue.unanswered(at(101)), expected.into());
}

/// A timeout of two seconds ends two seconds after the pick-up was seen, and the row need not record the pick-up first.
#[test]
fn a_timeout_ends_from_when_the_pick_up_was_seen_in_memory() {
    let timers = [sent(2_000)];
    let mut queue = queue(&timers);
    queue.note_pick_ups(&look(200, (3, 3), (5, 9)));
    assert_eq!(queue.unanswered(at(300)).len(), 1, "it is queued");
    queue.note_pick_ups(&look(300, (3, 3), (6, 9)));
    assert_eq!(queue.unanswered(at(400)).len(), 0, "it was seen");
    // Later readings do not count.
    queue.note_pick_ups(&look(400, (3, 3), (7, 9)));
    let early = tick(&mut queue, 2_010, &timers, &look(2_010, (3, 3), (7, 9)));
    assert_eq!(told(&early), [(PickUpStatus::PickedUp, Some(at(300)))]);
    let seen = look(2_310, (3, 3), (7, 9));
    let mut queue = self::queue(&timers);
    queue.note_pick_ups(&look(300, (3, 3), (6, 9)));
    let late = tick(&mut queue, 2_310, &timers, &seen);
    assert_eq!(told(&late), [(PickUpStatus::Unanswered, Some(at(300)))]);
}

#[test]
fn an_unobserved_pick_up_is_detected_when_the_timer_is_due() {
    let timers = [sent(2_000)];
    let mut queue = queue(&timers);
    let planned = tick(&mut queue, 2_010, &timers, &look(2_010, (3, 3), (6, 9)));
    assert_eq!(told(&planned), [(PickUpStatus::PickedUp, Some(at(2_010)))]);
}

#[test]
fn a_pick_up_is_one_sendings() {
    let timers = [sent(2_000)];
    let mut queue = queue(&timers);
    queue.note_pick_ups(&look(300, (3, 3), (6, 9)));
    // The command's record was lost, and the command was sent again with the same attempt.
    let again = [ArmedTimer {
        sent_at: Some(at(1_000)),
        ..sent(3_000)
    }];
    touch(&mut queue, &again, &[part(1)], &[]);
    let place = CommandLocation::At {
        partition: 0,
        offset: 8,
        known_at: at(1_001),
    };
    queue.delivered(saga(), &part(1), place);
    let planned = tick(&mut queue, 3_010, &again, &look(3_010, (3, 3), (6, 9)));
    assert_eq!(told(&planned), [(PickUpStatus::Queued, None)]);
}

#[test]
fn only_the_oldest_of_a_partition_is_looked_for_and_a_look_serves_all() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    for number in 1..=100_u32 {
        let id = id_at(epoch(), number.into());
        queue.changed(SagaChange {
            id,
            home_partition: 0,
            timers: vec![sent(2_000)],
            sent: vec![part(1)],
            handled: Vec::new(),
            ended: false,
        });
        let place = CommandLocation::At {
            partition: 0,
            offset: number.into(),
            known_at: at(i64::from(number) * 10),
        };
        queue.delivered(id, &part(1), place);
    }
    let oldest = |queue: &TimerQueue| queue.unanswered(at(2_000)).get("payment").copied();
    assert_eq!(oldest(&queue), Some(TimeDelta::milliseconds(1_990)));
    queue.note_pick_ups(&look(2_000, (3, 3), (91, 200)));
    assert_eq!(oldest(&queue), Some(TimeDelta::milliseconds(1_090)));
    queue.note_pick_ups(&look(2_000, (3, 3), (101, 200)));
    assert_eq!(oldest(&queue), None);
}

/// The command's reply was lost with other inputs, and the command is sent again.
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
    let timers = [timeout(1_000, Some(PickUpStatus::Queued))];
    let mut queue = queue(&timers);
    touch(&mut queue, &timers, &[], &[]);
    assert_eq!(queue.due(at(5_000), 10), [], "nothing is due");
    assert_eq!(queue.watched_participants(), ["payment".to_owned()].into());
    assert_eq!(
        tick(&mut queue, 5_000, &timers, &look(5_000, (3, 3), (5, 9))),
        []
    );
    let planned = tick(&mut queue, 6_000, &timers, &look(6_000, (3, 3), (6, 9)));
    assert_eq!(verdicts(&planned), [PickUpStatus::PickedUp]);
    assert_eq!(
        tick(&mut queue, 7_000, &timers, &look(7_000, (3, 3), (6, 9))),
        []
    );
}

#[test]
fn a_queued_command_is_gone_once_its_record_is_lost() {
    let timers = [timeout(1_000, Some(PickUpStatus::Queued))];
    let mut queue = queue(&timers);
    touch(&mut queue, &timers, &[], &[]);
    let planned = tick(&mut queue, 6_000, &timers, &look(6_000, (3, 3), (0, 2)));
    assert_eq!(verdicts(&planned), [PickUpStatus::Gone]);
}

#[test]
fn unreadable_offsets_mean_unknown_and_are_reported_once() {
    let timers = [timeout(1_000, None)];
    let mut queue = queue(&timers);
    let mut seen = look(1_001, (3, 3), (0, 0));
    seen.participants.clear();
    assert_eq!(
        verdicts(&tick(&mut queue, 1_001, &timers, &seen)),
        [PickUpStatus::Unknown]
    );
    let queued = [timeout(1_000, Some(PickUpStatus::Queued))];
    touch(
        &mut queue,
        &queued,
        &[],
        &[(TimerKind::Timeout, Some(part(1)))],
    );
    assert_eq!(tick(&mut queue, 2_001, &queued, &seen), []);
}

#[test]
fn a_newly_due_saga_does_not_wait_behind_a_predecessors_backlog() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    let row = |number: u32, due_ms: i64| DueRow {
        id: id_at(epoch(), number.into()),
        home_partition: 0,
        next_due: at(due_ms),
    };
    let left: Vec<DueRow> = (1..=100).map(|n| row(n, i64::from(n))).collect();
    queue.merge_rescan(&left);
    queue.merge_rescan(&[row(500, 5_000)]);
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
    let timers = [timeout(1_000, Some(PickUpStatus::Queued))];
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    touch(&mut queue, &timers, &[part(1)], &[]);
    let passed = look(6_000, (3, 3), (6, 9));
    assert_eq!(queue.dequeued(&passed, 10), [], "not acknowledged");
    let place = CommandLocation::At {
        partition: 0,
        offset: 5,
        known_at: at(1),
    };
    queue.delivered(saga(), &part(1), place);
    assert_eq!(queue.dequeued(&passed, 10).len(), 1);
    queue.changed(SagaChange {
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
fn after_a_takeover_the_end_offset_bounds_unknown_command_offsets() {
    let timers = [timeout(1_000, None)];
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    let row = DueRow {
        id: saga(),
        home_partition: 0,
        next_due: at(1_000),
    };
    queue.merge_rescan(&[row]);
    let planned = tick(&mut queue, 1_001, &timers, &look(1_001, (3, 3), (7, 9)));
    assert_eq!(
        verdicts(&planned),
        [PickUpStatus::Queued],
        "the group is at 7, the log ended at 9"
    );
    let queued = [timeout(1_000, Some(PickUpStatus::Queued))];
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
        [PickUpStatus::PickedUp]
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

/// Another process has sent the next command, because a reply was misdirected to it.
#[test]
fn a_command_of_another_process_is_queued_until_a_newer_end_offset_is_consumed() {
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
    queue.merge_rescan(&[DueRow {
        id: saga(),
        home_partition: 0,
        next_due: at(5_000),
    }]);
    let timers = [sent(None)];
    let old = look(1_500, (9, 9), (3, 3));
    assert_eq!(tick(&mut queue, 5_000, &timers, &old), []);
    let queued = tick(&mut queue, 5_200, &timers, &look(5_100, (9, 9), (3, 4)));
    assert_eq!(verdicts(&queued), [PickUpStatus::Queued]);
    let timers = [sent(Some(PickUpStatus::Queued))];
    touch(
        &mut queue,
        &timers,
        &[],
        &[(TimerKind::Timeout, Some(part(1)))],
    );
    let waiting = look(6_000, (9, 9), (3, 9));
    assert_eq!(tick(&mut queue, 6_000, &timers, &waiting), []);
    let passed = tick(&mut queue, 7_000, &timers, &look(7_000, (9, 9), (4, 9)));
    assert_eq!(verdicts(&passed), [PickUpStatus::PickedUp]);
}

/// A store, a log and offsets for a driver without sagas. Counts rescans.
#[derive(Clone, Default)]
struct Quiet(Arc<AtomicUsize>);

#[async_trait]
impl DefinitionStore for Quiet {
    async fn catalog(&self) -> Result<Catalog, CatalogError> {
        Ok(Catalog::default())
    }
}

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
    async fn publish_rest(
        &self,
        _: &[OutgoingRecord],
        _: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        Ok(())
    }
}

#[async_trait]
impl OffsetSource for Quiet {
    async fn read(&self, _: &str, _: &str) -> Option<BTreeMap<i32, PartitionOffsets>> {
        None
    }
}

/// The partition's timers were lost with it, and it was owned again before the driver's next tick.
#[tokio::test]
async fn a_partition_that_was_given_up_and_taken_back_is_rescanned_at_once() {
    let quiet = Quiet::default();
    let shared = Arc::new(Shared::new(settings()));
    let driver = TimerDriver {
        store: quiet.clone(),
        writer: quiet.clone(),
        offsets: Arc::new(OffsetReader::new(quiet.clone(), Arc::clone(&shared.clock))),
        shared: Arc::clone(&shared),
        group: "orchestrator".to_owned(),
        progress: Progress::default(),
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
        queued: vec![QueuedCommand {
            part: part(attempt),
            participant: "payment".to_owned(),
            sent_at: Some(at(sent_ms)),
        }],
    }
}

fn sent_and_queued(sent_ms: i64) -> ArmedTimer {
    ArmedTimer {
        sent_at: Some(at(sent_ms)),
        ..timeout(sent_ms + 500, Some(PickUpStatus::Queued))
    }
}

#[test]
fn an_inherited_queued_command_waits_until_the_first_observed_end_offset_is_consumed() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    queue.queued(at(2_000), vec![queued_row(1, 500)]);
    assert_eq!(queue.watched_participants(), ["payment".to_owned()].into());
    assert_eq!(queue.due(at(2_000), 10), [], "nothing is due");
    for (at_ms, committed, end) in [(2_001, 7, 9), (3_001, 8, 20)] {
        let seen = look(at_ms, (3, 3), (committed, end));
        assert_eq!(queue.dequeued(&seen, 10), [], "{committed}");
    }
    let passed = look(4_001, (3, 3), (9, 30));
    let planned = tick(&mut queue, 4_001, &[sent_and_queued(500)], &passed);
    assert_eq!(verdicts(&planned), [PickUpStatus::PickedUp]);
}

#[test]
fn a_command_sent_after_the_first_observation_is_observed_again() {
    let mut queue = TimerQueue::default();
    queue.assign([0]);
    queue.queued(at(2_000), vec![queued_row(1, 2_500)]);
    let first = look(2_001, (3, 3), (3, 4));
    assert_eq!(queue.dequeued(&first, 10).len(), 1);
    let timers = [sent_and_queued(2_500)];
    let newer = look(3_001, (3, 3), (3, 9));
    assert_eq!(tick(&mut queue, 3_001, &timers, &newer), []);
    let not_yet = look(4_001, (3, 3), (8, 9));
    assert_eq!(tick(&mut queue, 4_001, &timers, &not_yet), []);
    let passed = look(5_001, (3, 3), (9, 9));
    let planned = tick(&mut queue, 5_001, &timers, &passed);
    assert_eq!(verdicts(&planned), [PickUpStatus::PickedUp]);
}

/// A caller that gets as many sagas as it asked for asks again at once.
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
    assert_eq!(queue.dequeued(&first, 3), []);
    let passed = look(4_001, (3, 3), (9, 30));
    assert_eq!(queue.dequeued(&passed, 3).len(), 3);
    assert_eq!(queue.dequeued(&passed, 2).len(), 2);
}

#[test]
fn other_timers_of_a_queued_saga_are_produced() {
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
    assert!(!queue.covers(saga, false, &row.queued, until), "unknown");
    queue.queued(at(2_000), vec![row.clone()]);
    assert!(queue.covers(saga, false, &row.queued, until));
    assert!(!queue.covers(saga, false, &retried, until));
    assert!(
        !queue.covers(saga, true, &row.queued, until),
        "its other timer is due in 90 s"
    );
    assert!(queue.covers(saga, true, &row.queued, at(90_000)));
}

/// Another process has changed the saga, because a reply was misdirected to it.
#[test]
fn a_rescan_finds_a_due_saga_that_is_indexed_as_queued() {
    let mut queue = queue(&[timeout(1_000, Some(PickUpStatus::Queued))]);
    queue.merge_rescan(&[DueRow {
        id: saga(),
        home_partition: 0,
        next_due: at(1_500),
    }]);
    assert_eq!(queue.due(at(1_500), 10).len(), 1);
}

/// Creates a saga that has recorded its charge as queued.
async fn charge_queued(bench: &mut Bench) -> (SagaId, CommandRef) {
    let saga = bench.saga_id();
    let start = bench.start_with(saga, "place-order", order());
    let reserve = commands(&bench.process(&[start]).await).remove(0);
    let reserved = bench.reply(&reserve, Outcome::Success, serde_json::json!({}));
    let charge = commands(&bench.process(&[reserved]).await).remove(0);
    let part = CommandRef {
        step: text(&charge, header::STEP),
        direction: Direction::Forward,
        attempt: 1,
    };
    fire(bench, saga, &part, PickUpStatus::Queued).await;
    (saga, part)
}

async fn fire(bench: &mut Bench, saga_id: SagaId, part: &CommandRef, verdict: PickUpStatus) {
    let timer = TimerDue {
        saga_id,
        kind: TimerKind::Timeout,
        part: Some(part.clone()),
        verdict,
        picked_up_at: None,
        trace: trace(),
    };
    let record = timer.encode(super::INPUTS, Some(0), "/timers", epoch());
    let record = bench.append(record);
    bench.process(&[record]).await;
}

#[tokio::test]
async fn a_row_lists_its_queued_commands_and_is_due_without_them() {
    let mut bench = Bench::new();
    let (saga, part) = charge_queued(&mut bench).await;
    let columns = |bench: &Bench| bench.store.tables().columns[&saga].clone();
    let Columns {
        next_due, queued, ..
    } = columns(&bench);
    let expected = QueuedCommand {
        part: part.clone(),
        participant: "payment".to_owned(),
        sent_at: Some(epoch()),
    };
    assert_eq!(queued, [expected]);
    assert_eq!(next_due, Some(bench.store.live(saga).deadline_at));
    fire(&mut bench, saga, &part, PickUpStatus::PickedUp).await;
    let Columns {
        next_due, queued, ..
    } = columns(&bench);
    assert_eq!(queued, []);
    assert!(next_due < Some(bench.store.live(saga).deadline_at));
}

const CROWD: usize = 10_000;

/// Creates [`CROWD`] sagas whose charges are queued, with the same rows as if each had run up to there by itself.
async fn backlog() -> Bench {
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

/// The log around a backlog of sagas: payment's group has consumed none of their commands, or all of them.
#[derive(Clone, Default)]
struct Away {
    is_back: Arc<AtomicBool>,
    produced: Arc<Mutex<Vec<OutgoingRecord>>>,
}

#[async_trait]
impl LogWriter for Away {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        _: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        self.produced.lock().unwrap().extend_from_slice(records);
        Ok(())
    }
}

#[async_trait]
impl OffsetSource for Away {
    async fn read(&self, topic: &str, _: &str) -> Option<BTreeMap<i32, PartitionOffsets>> {
        let end = CROWD as i64;
        let is_passed = topic != "payment.commands" || self.is_back.load(Ordering::SeqCst);
        let committed = if is_passed { end } else { 0 };
        let seen = PartitionOffsets {
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
        offsets: Arc::new(OffsetReader::new(
            log.clone(),
            Arc::clone(&bench.shared.clock),
        )),
        shared: Arc::clone(&bench.shared),
        group: "orchestrator".to_owned(),
        progress: Progress::default(),
    }
}

/// Starts the timers of a new owner of the partition, and waits five seconds.
async fn taken_over(bench: &Bench, log: &Away) -> (CancellationToken, JoinHandle<()>) {
    bench.shared.timers().revoke([0]);
    bench.shared.timers().assign([0]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(timers_of(bench, log).run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    (stop, running)
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_queued_commands_costs_a_new_owner_no_state_and_a_rescan_no_row() {
    let bench = backlog().await;
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

/// The saga changes while no owner watches it: another process has handled its input.
#[tokio::test(start_paused = true)]
async fn a_queued_command_that_memory_has_lost_is_found_again() {
    let bench = backlog().await;
    let log = Away::default();
    let (stop, running) = taken_over(&bench, &log).await;
    bench.shared.timers().changed(SagaChange {
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

/// The log around a participant that consumes every command and answers none. Its group commits a quarter of a second
/// after each command.
#[derive(Clone, Default)]
struct Silent {
    sent: Arc<Mutex<Vec<Instant>>>,
    inputs: Arc<AtomicUsize>,
    due: Arc<Mutex<Vec<OutgoingRecord>>>,
    reads: Arc<AtomicUsize>,
}

const COMMITTED_AFTER: Duration = Duration::from_millis(250);

#[async_trait]
impl LogWriter for Silent {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        _: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        self.due.lock().unwrap().extend_from_slice(records);
        Ok(())
    }
}

#[async_trait]
impl OffsetSource for Silent {
    async fn read(&self, topic: &str, _: &str) -> Option<BTreeMap<i32, PartitionOffsets>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let (end, committed) = if topic == "payment.commands" {
            let sent = self.sent.lock().unwrap();
            let taken = sent.iter().filter(|at| at.elapsed() >= COMMITTED_AFTER);
            (sent.len(), taken.count())
        } else {
            let read = self.inputs.load(Ordering::SeqCst);
            (read, read)
        };
        let seen = PartitionOffsets {
            start: 0,
            end: end as i64,
            committed: committed as i64,
        };
        Some([(0, seen)].into())
    }
}

impl Silent {
    /// Processes an input, and puts the commands that follow from it into payment's topic.
    async fn process(&self, bench: &mut Bench, record: OutgoingRecord) {
        let record = bench.append(record);
        let outputs = bench.engine.process(&[record]).await.unwrap();
        let mut sent = self.sent.lock().unwrap();
        let delivered: Vec<Delivered> = outputs
            .iter()
            .map(|output| Delivered {
                partition: 0,
                offset: if output.topic == "payment.commands" {
                    sent.push(Instant::now());
                    sent.len() as i64 - 1
                } else {
                    0
                },
            })
            .collect();
        drop(sent);
        bench.engine.published(&outputs, &delivered);
        self.inputs.fetch_add(1, Ordering::SeqCst);
    }
}

const PATIENT: &str = "
name: patient
version: 1
deadline: 1h
steps:
  - {name: pay, kind: pivot, participant: payment, command: payment.pay, timeout: 2s,
     retry: {attempts: 5, firstDelay: 4s, factor: 2, jitter: 0}}
";

/// Returns the time at which a timer should have been produced, by the state of its saga and by the timer's content.
fn wanted_at(bench: &Bench, definition: &SagaDefinition, due: &TimerDue) -> Timestamp {
    let instance = bench.store.live(due.saga_id);
    let armed = transition::timers(definition, &instance)
        .into_iter()
        .find(|armed| armed.kind == due.kind && armed.part == due.part)
        .unwrap();
    let timeout = TimeDelta::seconds(2);
    match (due.verdict, due.picked_up_at) {
        (PickUpStatus::Unanswered, Some(picked_up_at)) => picked_up_at + timeout,
        _ => armed.due_at,
    }
}

#[tokio::test(start_paused = true)]
async fn on_an_idle_system_timers_fire_within_200_ms_and_a_silent_participant_is_asked_by_the_policy()
 {
    let mut bench = Bench::new();
    let definition = SagaDefinition::parse("patient.yaml", PATIENT).unwrap();
    bench.store.tables().catalog = Catalog::of(1, [definition.clone()]);
    let log = Silent::default();
    let driver = TimerDriver {
        store: bench.store.clone(),
        writer: log.clone(),
        offsets: Arc::new(OffsetReader::new(
            log.clone(),
            Arc::clone(&bench.shared.clock),
        )),
        shared: Arc::clone(&bench.shared),
        group: "orchestrator".to_owned(),
        progress: Progress::default(),
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.run(stop.clone()));
    let began = Instant::now();
    let start = StartSaga {
        saga_id: bench.saga_id(),
        start_type: "order.created".to_owned(),
        definition: "patient".to_owned(),
        business_key: None,
        input: order(),
        trace: trace(),
    };
    let start = start.encode(super::INPUTS, 0, "/order-svc", epoch());
    log.process(&mut bench, start).await;
    let mut latest = TimeDelta::zero();
    while began.elapsed() < Duration::from_secs(70) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = epoch() + began.elapsed();
        bench.store.tables().now = now;
        let records = std::mem::take(&mut *log.due.lock().unwrap());
        for record in records {
            let due: TimerDue = serde_json::from_slice(&record.payload).unwrap();
            latest = latest.max(now - wanted_at(&bench, &definition, &due));
            log.process(&mut bench, record).await;
        }
    }
    let sent = log.sent.lock().unwrap().clone();
    let late: Vec<i64> = sent
        .iter()
        .zip([0, 6, 16, 34, 66])
        .map(|(at, second)| (*at - began).as_millis() as i64 - second * 1_000)
        .collect();
    // A pick-up is seen a tick or two after the participant has committed it.
    let is_by_policy = (0..)
        .zip(&late)
        .all(|(before, late)| (0..=before * 450).contains(late));
    assert!(late.len() == 5 && is_by_policy, "{late:?}");
    assert!(latest <= TimeDelta::milliseconds(200), "{latest}");
    let reads = log.reads.load(Ordering::SeqCst);
    assert!(reads < 100, "{reads} readings in 70 seconds");
    stop.cancel();
    running.await.unwrap();
}
