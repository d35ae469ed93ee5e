//! Checks that must hold at any instant. They run during the run.

use crate::{cluster::Cluster, world::number_of};
use chrono::TimeDelta;
use orchestrator::engine::timers::queued_index::QueuedCommand;
use saga_core::message::topic::{ORCHESTRATOR_GROUP, SAGA_INPUTS};
use saga_core::{ids::SagaId, instance::SagaStatus, message::header, transition::waiting_on};
use saga_participant::storage::IntentState;
use std::collections::BTreeSet;

/// The least time beyond the next rescan up to which a rescan loads timers.
const ARMED_AHEAD: TimeDelta = TimeDelta::seconds(50);
/// A timer that was produced is checked again after a minute.
const LOOKED_AT_WITHIN: TimeDelta = TimeDelta::seconds(70);
/// The time beyond an intent's lease that its sweep, its call and its settlement may take.
const INTENT_BOUND: TimeDelta = TimeDelta::seconds(60);

/// Checks that hold at any instant, whatever fails.
pub fn always(cluster: &Cluster) {
    pending_order_has_saga(cluster);
    says_what_it_waits_for(cluster);
    floors_only_rise(cluster);
}

/// Checks that hold when nothing has failed for long enough to take over, rescan and sweep.
pub fn when_well(cluster: &Cluster) {
    armed_timer(cluster);
    intents_are_bounded(cluster);
}

/// An accepted order without an ended saga has a live saga, a row in the outbox, or a start that the orchestrators have
/// not committed yet.
fn pending_order_has_saga(cluster: &Cluster) {
    let orders: Vec<SagaId> = cluster.participants["order"]
        .tables()
        .orders
        .keys()
        .copied()
        .collect();
    let waiting: Vec<SagaId> = {
        let tables = cluster.sagas.tables();
        let known = |saga: &SagaId| {
            let forgotten =
                saga.created_at_ms().unwrap_or_default() < tables.floor.timestamp_millis();
            forgotten || tables.live.contains_key(saga) || tables.history.contains_key(saga)
        };
        orders.into_iter().filter(|saga| !known(saga)).collect()
    };
    if waiting.is_empty() {
        return;
    }
    let on_their_way = starts_in_flight(cluster);
    for saga in waiting {
        let staged = {
            let tables = cluster.participants["order"].tables();
            let id = saga.to_string().into_bytes();
            tables
                .outbox
                .values()
                .any(|row| row.records.windows(id.len()).any(|text| text == id))
        };
        if !staged && !on_their_way.contains(&saga) {
            cluster.world.observe(
                "pending_order_has_saga",
                format!("order {} has neither a saga nor a start", number_of(saga)),
            );
        }
    }
}

/// Returns the sagas of records that the orchestrators' group has not committed.
fn starts_in_flight(cluster: &Cluster) -> BTreeSet<SagaId> {
    let broker = &cluster.world.broker;
    let committed = broker.committed(ORCHESTRATOR_GROUP);
    let mut found = BTreeSet::new();
    for partition in 0..broker.partition_count(SAGA_INPUTS) {
        let first = committed.get(&partition).copied().unwrap_or_default();
        for offset in first..broker.end(SAGA_INPUTS, partition) {
            let record = broker.read(SAGA_INPUTS, partition, offset);
            let saga = record.and_then(|record| record.parsed::<SagaId>(header::SAGA_ID).ok());
            found.extend(saga);
        }
    }
    found
}

/// P2: a live saga can say what it waits for, and continues by itself unless a person is needed.
fn says_what_it_waits_for(cluster: &Cluster) {
    let tables = cluster.sagas.tables();
    for (saga, live) in &tables.live {
        let instance = &live.row.instance;
        let Some(definition) = tables.definitions.get(&instance.definition_hash) else {
            continue;
        };
        let waiting = waiting_on(definition, instance);
        let parked = matches!(instance.status, SagaStatus::Parked { .. });
        // A saga with a queued command continues once the participant has consumed the command.
        let moves = parked || live.next_due.is_some() || !live.queued.is_empty();
        if waiting.kind == "nothing" || waiting.text.is_empty() || !moves {
            cluster.world.observe(
                "says_what_it_waits_for",
                format!("saga {} waits for {waiting:?}", number_of(*saga)),
            );
        }
    }
}

fn floors_only_rise(cluster: &Cluster) {
    for (name, database) in &cluster.participants {
        let tables = database.tables();
        let floors = (tables.own_floor_ms, tables.seen_floor_ms);
        drop(tables);
        let before = cluster.world.history().floors.insert(name, floors);
        let fell = before.is_some_and(|before| floors.0 < before.0 || floors.1 < before.1);
        if fell || floors.0 > floors.1 {
            cluster.world.observe(
                "floors_only_rise",
                format!("{name}: from {before:?} to {floors:?}"),
            );
        }
    }
}

/// Every live saga that does not wait for a person has a timer in the memory of its partition's owner. The owner
/// watches each of the saga's queued commands.
fn armed_timer(cluster: &Cluster) {
    let now = cluster.sagas.now();
    let looked_after: Vec<(SagaId, i32, bool, Vec<QueuedCommand>)> = {
        let tables = cluster.sagas.tables();
        let rows = tables.live.iter().map(|(saga, live)| {
            let is_due = live.next_due.is_some_and(|due| due < now + ARMED_AHEAD);
            let home = live.row.instance.home_partition;
            (*saga, home, is_due, live.queued.clone())
        });
        rows.filter(|(_, _, is_due, queued)| *is_due || !queued.is_empty())
            .collect()
    };
    for (saga, home, is_due, queued) in looked_after {
        let owner = cluster.world.broker.owner(ORCHESTRATOR_GROUP, home);
        let shared = owner.and_then(|owner| cluster.shared(owner.name()));
        let armed = shared.is_some_and(|shared| {
            let until = now + LOOKED_AT_WITHIN;
            shared.timers().covers(saga, is_due, &queued, until)
        });
        if !armed {
            cluster.world.observe(
                "armed_timer",
                format!("nobody has a timer for saga {}", number_of(saga)),
            );
        }
    }
}

fn intents_are_bounded(cluster: &Cluster) {
    for (name, database) in &cluster.participants {
        let now = database.now();
        let tables = database.tables();
        let late = tables.intents.iter().find(|(_, intent)| {
            let open = intent.state == IntentState::Open || intent.replies.is_some();
            open && intent.lease_until + INTENT_BOUND < now
        });
        if let Some((key, intent)) = late {
            cluster.world.observe(
                "intents_are_bounded",
                format!(
                    "{name}: the call of saga {} {} has been open since {}",
                    number_of(key.saga_id),
                    key.step,
                    intent.opened_at
                ),
            );
        }
    }
}
