//! Tests of the checks: each fails on a history, or on tables, with the violation that it is for.

use super::{
    AT_END, at_end,
    history::{Accepted, Advance, Appended, History, Kind, Snapshot},
    instant,
};
use crate::{
    cluster::Cluster,
    intake,
    nemesis::by_hand,
    replay,
    store::Effect,
    workload::Workload,
    world::{Plan, World, saga_id},
};
use orchestrator::engine::timers::queued_index::QueuedCommand;
use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    instance::{
        Cause, LifecycleEvent, LifecycleKind, Position, SagaInstance, SagaStatus, StepState,
    },
    message::{Command, CommandRef, Direction, Fault, PayloadLimit, ReplyTo, Trace},
    transition::{self, CommandContext},
};
use saga_participant::storage::{Intent, IntentState, RowKey};
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

fn definition() -> Arc<SagaDefinition> {
    let sources = orchestrator::registry::read(true, None).unwrap();
    Arc::new(sources.into_iter().next().unwrap().definition)
}

fn at() -> Timestamp {
    Timestamp::from_timestamp_millis(1_790_000_000_000).unwrap()
}

fn saga() -> SagaId {
    saga_id(at(), 1)
}

fn started() -> SagaInstance {
    let definition = definition();
    let command_context = CommandContext {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
        payload_limit: PayloadLimit::NONE,
    };
    let position = Position {
        partition: 0,
        offset: 0,
        at_ms: 0,
    };
    let start = intake::start(saga(), &definition, 1);
    transition::start(&definition, &start, 0, at(), position, &command_context).saga
}

fn completed() -> SagaInstance {
    let mut instance = started();
    instance.status = SagaStatus::Completed;
    for step in &mut instance.steps {
        step.state = StepState::Succeeded;
    }
    instance
}

fn effect(step: &str, direction: Direction) -> Effect {
    Effect {
        saga: saga(),
        step: step.to_owned(),
        direction,
        at: Duration::ZERO,
    }
}

fn appended(kind: Kind, id: &str, record_type: &str) -> Appended {
    Appended {
        kind,
        topic: "topic".to_owned(),
        partition: 0,
        offset: 0,
        injected: false,
        at: Duration::ZERO,
        id: id.to_owned(),
        record_type: record_type.to_owned(),
        saga: Some(saga()),
        step: None,
        direction: None,
        sequence: None,
        letter_of: None,
        reason: None,
        payload: Vec::new(),
    }
}

fn event(sequence: u64, record_type: &str) -> Appended {
    Appended {
        sequence: Some(sequence),
        ..appended(Kind::Event, &format!("x/event/{sequence}"), record_type)
    }
}

/// Returns a history with one completed order and no violation.
fn good() -> History {
    let mut history = History::default();
    let mut instance = completed();
    instance.sequence = 2;
    let accepted = Accepted {
        number: 1,
        definition: definition(),
        calm: true,
        home_partition: 0,
    };
    history.accepted.insert(saga(), accepted);
    for step in &definition().steps {
        history.effects.push(effect(&step.name, Direction::Forward));
    }
    history.appended = vec![
        appended(Kind::Input, "x/start", "order.created"),
        event(1, "saga.started"),
        event(2, "saga.completed"),
    ];
    history.advances.push(Advance {
        saga: saga(),
        from_version: 0,
    });
    history.snapshots.push(Snapshot {
        at: Duration::ZERO,
        instance: instance.clone(),
        live: false,
        ended: true,
    });
    history.ended.insert(saga(), instance);
    history
}

fn charge(direction: Direction, attempt: u32) -> CommandRef {
    CommandRef {
        step: "charge-payment".to_owned(),
        direction,
        attempt,
    }
}

fn first_charge() -> CommandRef {
    charge(Direction::Forward, 1)
}

fn sent(part: CommandRef) -> LifecycleKind {
    LifecycleKind::CommandSent {
        part,
        command: "payment.charge".to_owned(),
        participant: "payment".to_owned(),
    }
}

/// Adds an event to the saga's log entry of its start.
fn add_event(history: &mut History, kind: LifecycleKind) {
    let instance = history.ended.get_mut(&saga()).unwrap();
    let mut entry = (*instance.log[0]).clone();
    entry.events.push(LifecycleEvent {
        sequence: 9,
        at: at(),
        kind,
    });
    instance.log[0] = entry.into();
}

fn spoil(check: &str) -> History {
    let mut bad = good();
    match check {
        "one_advance_per_version" => bad.advances.push(bad.advances[0]),
        "live_and_history_are_disjoint" => bad.snapshots[0].live = true,
        "pivot_decides" => {
            bad.snapshots[0].instance.steps[1].state = StepState::Compensated;
        }
        "no_effect_after_compensation" => {
            bad.effects
                .push(effect("reserve-stock", Direction::Compensation));
            bad.effects
                .push(effect("reserve-stock", Direction::Forward));
            bad.effects.retain(|effect| effect.step != "charge-payment");
        }
        "compensations_run_backwards" => {
            bad.effects
                .push(effect("create-order", Direction::Compensation));
            bad.effects.retain(|effect| effect.step != "charge-payment");
        }
        "effects_exactly_once" => bad
            .effects
            .push(effect("confirm-order", Direction::Forward)),
        "asking_ends" => {
            add_event(&mut bad, LifecycleKind::DeadlinePassed);
            for attempt in 1..=6 {
                add_event(&mut bad, sent(charge(Direction::Resolve, attempt)));
            }
        }
        "pauses_after_timeouts" => {
            let (part, retry_at) = (first_charge(), None);
            add_event(&mut bad, LifecycleKind::StepTimedOut { part, retry_at });
            add_event(&mut bad, sent(charge(Direction::Forward, 2)));
        }
        "accepted_is_never_lost" => {
            bad.ended.clear();
        }
        "every_saga_ends" => {
            bad.live.insert(saga_id(at(), 2), started());
        }
        "nothing_needless" => {
            let instance = bad.ended.get_mut(&saga()).unwrap();
            instance.cause = Some(Cause::of_saga("timed_out", "for no reason"));
        }
        "errors_end_their_own_attempt" => {
            let kind = LifecycleKind::StepErrored {
                part: first_charge(),
                fault: Fault::new("broken", "by nobody"),
                retry_at: None,
            };
            add_event(&mut bad, kind);
        }
        "only_sent_commands_are_timed" => {
            let (part, retry_at) = (first_charge(), None);
            add_event(&mut bad, LifecycleKind::StepTimedOut { part, retry_at });
        }
        "bad_records_are_kept" => bad.bad.push(("saga.inputs".to_owned(), 0, 7)),
        "events_are_gapless" => bad.appended.retain(|one| one.sequence != Some(1)),
        "inputs_come_home" => bad.appended[0].partition = 1,
        "bounded_amplification" => {
            let command = appended(
                Kind::Command,
                "x/charge-payment/forward/1",
                "payment.charge",
            );
            bad.appended.extend(vec![command; 30]);
        }
        other => panic!("no bad history for {other}"),
    }
    bad
}

#[test]
fn a_good_history_passes() {
    assert_eq!(at_end(&good()), None);
}

#[test]
fn every_check_fails_on_a_history_that_it_is_there_for() {
    for (check, _) in AT_END {
        let found = at_end(&spoil(check)).map(|violation| violation.check);
        assert_eq!(found, Some(*check));
    }
}

#[test]
fn a_command_that_was_sent_before_its_timer_came_may_time_out() {
    let mut history = good();
    let id = format!("{}/charge-payment/forward/1", saga());
    let command = appended(Kind::Command, &id, "payment.charge");
    add_event(
        &mut history,
        LifecycleKind::StepTimedOut {
            part: first_charge(),
            retry_at: None,
        },
    );
    history.appended.insert(0, command.clone());
    assert_eq!(at_end(&history), None);
    history.appended.remove(0);
    history.appended.push(command);
    let found = at_end(&history).unwrap().check;
    assert_eq!(
        found, "only_sent_commands_are_timed",
        "it was sent too late"
    );
}

#[test]
fn a_step_that_an_operator_settled_must_not_have_run() {
    for state in [StepState::Skipped, StepState::Succeeded] {
        let mut history = good();
        let instance = history.ended.get_mut(&saga()).unwrap();
        let step = instance.steps.len() - 1;
        if state == StepState::Succeeded {
            instance.steps[step].result = Some(by_hand().into());
        }
        instance.steps[step].state = state;
        assert_eq!(at_end(&history).unwrap().check, "effects_exactly_once");
        let name = &definition().steps[step].name;
        history.effects.retain(|effect| effect.step != *name);
        assert_eq!(at_end(&history), None);
    }
}

#[test]
fn an_event_with_two_contents_is_found() {
    let mut bad = good();
    let mut other = event(1, "saga.started");
    other.payload = b"other".to_vec();
    bad.appended.push(other);
    assert_eq!(at_end(&bad).unwrap().check, "events_are_gapless");
}

/// Returns tables without any process.
fn still() -> Arc<Cluster> {
    let world = World::new(&Plan::default());
    Cluster::new(&world, Workload::new(0))
}

fn live(cluster: &Cluster, due: Option<Timestamp>) {
    live_and_queued(cluster, due, Vec::new());
}

fn live_and_queued(cluster: &Cluster, due: Option<Timestamp>, queued: Vec<QueuedCommand>) {
    let definition = definition();
    let mut tables = cluster.sagas.tables();
    tables
        .definitions
        .insert(definition.hash.clone(), (*definition).clone());
    tables.insert_live(started(), due, queued);
}

fn observed(cluster: &Cluster) -> BTreeSet<&'static str> {
    let history = cluster.world.history();
    history.observed.iter().map(|found| found.check).collect()
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_nothing_will_ever_move_is_found() {
    let cluster = still();
    live(&cluster, None);
    instant::always(&cluster);
    assert_eq!(observed(&cluster), ["says_what_it_waits_for"].into());
}

#[tokio::test(start_paused = true)]
async fn a_saga_with_an_unarmed_timer_is_found() {
    let cluster = still();
    live(&cluster, Some(cluster.sagas.now()));
    instant::always(&cluster);
    assert_eq!(observed(&cluster), BTreeSet::new());
    instant::when_well(&cluster);
    assert_eq!(observed(&cluster), ["armed_timer"].into());
}

#[tokio::test(start_paused = true)]
async fn a_saga_with_an_unwatched_queued_command_is_found() {
    let cluster = still();
    let queued = QueuedCommand {
        part: CommandRef {
            step: "charge-payment".to_owned(),
            direction: Direction::Forward,
            attempt: 1,
        },
        participant: "payment".to_owned(),
        sent_at: None,
    };
    live_and_queued(&cluster, None, vec![queued]);
    instant::always(&cluster);
    assert_eq!(observed(&cluster), BTreeSet::new());
    instant::when_well(&cluster);
    assert_eq!(observed(&cluster), ["armed_timer"].into());
}

#[tokio::test(start_paused = true)]
async fn an_order_without_a_saga_and_without_a_start_is_found() {
    let cluster = still();
    let order = intake::Order::new(&cluster.world, &cluster.workload, 1);
    cluster.participants["order"].tables().insert_order(
        order.saga,
        cluster.sagas.now(),
        order.accepted,
    );
    instant::always(&cluster);
    assert_eq!(observed(&cluster), ["pending_order_has_saga"].into());
}

#[tokio::test(start_paused = true)]
async fn a_floor_that_falls_is_found() {
    let cluster = still();
    cluster.participants["order"].tables().seen_floor_ms = 10;
    instant::always(&cluster);
    assert_eq!(observed(&cluster), BTreeSet::new());
    cluster.participants["order"].tables().seen_floor_ms = 9;
    instant::always(&cluster);
    assert_eq!(observed(&cluster), ["floors_only_rise"].into());
}

#[tokio::test(start_paused = true)]
async fn forgetting_a_live_saga_is_found() {
    let cluster = still();
    live(&cluster, Some(cluster.sagas.now()));
    cluster.participants["order"].tables().seen_floor_ms = i64::MAX;
    cluster.forget();
    assert_eq!(observed(&cluster), ["barrier_outlives_saga"].into());
}

fn open_intent(cluster: &Cluster, lease_until: Timestamp) {
    let command = Command {
        saga_id: saga(),
        step: "charge-payment".to_owned(),
        direction: Direction::Forward,
        attempt: 1,
        command_type: "payment.charge".to_owned(),
        payload: Value::Null,
        save_failure: true,
        reply_to: ReplyTo {
            topic: "saga.inputs".to_owned(),
            partition: 0,
        },
        floor: None,
        trace: Trace::default(),
    };
    let key = RowKey {
        saga_id: saga(),
        step: command.step.clone(),
        direction: Direction::Forward,
    };
    let intent = Intent {
        generation: 1,
        state: IntentState::Open,
        lease_until,
        opened_at: lease_until,
        command,
        cancel: None,
        resolve: None,
        replies: Some(Vec::new()),
    };
    let mut tables = cluster.participants["payment"].tables();
    tables.intents.insert(key, intent);
}

#[tokio::test(start_paused = true)]
async fn an_unsettled_intent_is_found() {
    let cluster = still();
    open_intent(&cluster, at());
    instant::when_well(&cluster);
    assert_eq!(observed(&cluster), BTreeSet::new());
    tokio::time::advance(Duration::from_mins(2)).await;
    instant::when_well(&cluster);
    assert_eq!(observed(&cluster), ["intents_are_bounded"].into());
}

#[tokio::test(start_paused = true)]
async fn a_system_that_never_becomes_idle_is_found() {
    let cluster = still();
    open_intent(&cluster, at());
    let found = replay::rest(&cluster, Duration::from_secs(10)).await;
    assert_eq!(found.unwrap_err().check, "comes_to_rest");
}
