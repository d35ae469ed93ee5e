//! Experiments with a system at rest: the effect of copied messages, of a replay of everything, of forgetting
//! everything that may be forgotten, and of different batches.

use super::{
    checker::{Violation, history::Kind, instant},
    client,
    cluster::{Cluster, RETENTION},
    intake::Order,
    log::Append,
    operator,
    process::Process,
    store::{Database, SagaTables, SimSagaStore},
};
use chrono::TimeDelta;
use orchestrator::engine::{Engine, shared::Shared};
use saga_core::message::topic::SAGA_INPUTS;
use saga_core::{
    barrier::Mark,
    ids::{SagaId, Timestamp},
    instance::{SagaInstance, SagaStatus},
    message::IncomingRecord,
};
use saga_messaging::consumer::Processor;
use saga_participant::storage::RowKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// The time without a new record after which the system is at rest.
const QUIET: Duration = Duration::from_secs(5);
/// The number of copies that are sent, and the most records that each may cause: a reply and the events about it.
const COPIES: usize = 6;
const RECORDS_A_COPY: usize = 3;
/// The most inputs of a batch in the experiment with batches.
const BATCH: u64 = 20;

/// The state that must not change any more.
#[derive(PartialEq)]
struct Rows {
    live: BTreeMap<SagaId, SagaInstance>,
    ended: BTreeMap<SagaId, SagaInstance>,
    actions: usize,
    barrier: BTreeMap<(&'static str, RowKey), Mark>,
    effects: usize,
}

impl Rows {
    fn of(cluster: &Cluster) -> Self {
        cluster.note_final_sagas();
        let history = cluster.world.history();
        // The participants of an abandoned saga do not know that it has ended: commands that were not refused may still
        // run.
        let is_abandoned = |saga: &SagaId| {
            let ended = history.ended.get(saga);
            ended.is_some_and(|instance| matches!(instance.status, SagaStatus::Abandoned { .. }))
        };
        let mut barrier = BTreeMap::new();
        for (name, database) in &cluster.participants {
            for (key, entry) in &database.tables().barrier {
                if !is_abandoned(&key.saga_id) {
                    barrier.insert((*name, key.clone()), entry.mark);
                }
            }
        }
        let effects = history.effects.iter();
        let effects = effects.filter(|effect| !is_abandoned(&effect.saga)).count();
        Self {
            live: history.live.clone(),
            ended: history.ended.clone(),
            actions: cluster.sagas.tables().actions.len(),
            barrier,
            effects,
        }
    }

    /// Returns a description of the difference to a later state.
    fn difference(&self, later: &Self) -> Option<String> {
        if self == later {
            return None;
        }
        let sagas = |rows: &Self| (rows.live.len(), rows.ended.len());
        let changed: Vec<&SagaId> = self
            .ended
            .iter()
            .filter(|(saga, instance)| later.ended.get(saga) != Some(*instance))
            .map(|(saga, _)| saga)
            .collect();
        Some(format!(
            "live and ended {:?} → {:?}, changed {changed:?}, actions {} → {}, barrier rows {} → {}, effects {} → {}",
            sagas(self),
            sagas(later),
            self.actions,
            later.actions,
            self.barrier.len(),
            later.barrier.len(),
            self.effects,
            later.effects
        ))
    }
}

fn violation(check: &'static str, detail: String) -> Violation {
    Violation { check, detail }
}

/// Waits until everything is read, sent and settled, and no new record is written.
pub async fn rest(cluster: &Cluster, patience: Duration) -> Result<(), Violation> {
    let began = Instant::now();
    loop {
        sleep(Duration::from_millis(500)).await;
        instant::always(cluster);
        let restless = restless(cluster);
        if restless.is_none() {
            return Ok(());
        }
        if began.elapsed() > patience {
            return Err(violation(
                "comes_to_rest",
                restless.unwrap_or_default().to_owned(),
            ));
        }
    }
}

fn restless(cluster: &Cluster) -> Option<&'static str> {
    if cluster.world.broker.quiet_for() < QUIET {
        return Some("records keep coming");
    }
    if !cluster.world.broker.is_consumed() {
        return Some("not everything is read and committed");
    }
    for database in cluster.participants.values() {
        let tables = database.tables();
        if !tables.outbox.is_empty() {
            return Some("an outbox is not empty");
        }
        let open = tables
            .intents
            .values()
            .any(|intent| intent.replies.is_some());
        if open || tables.barrier.values().any(|row| row.mark == Mark::Pending) {
            return Some("an external call is open");
        }
    }
    None
}

pub async fn questions(cluster: &Arc<Cluster>) -> Result<(), Violation> {
    copies_breed_nothing(cluster).await?;
    replay_changes_nothing(cluster, "replay_fixpoint").await?;
    Box::pin(batching_is_free(cluster)).await?;
    forgetting_is_safe(cluster).await
}

/// Checks that a copy causes at most a constant number of further records, which cause none.
async fn copies_breed_nothing(cluster: &Cluster) -> Result<(), Violation> {
    let world = &cluster.world;
    let before = Rows::of(cluster);
    let candidates: Vec<(String, i32, i64)> = {
        let history = world.history();
        let read = history
            .appended
            .iter()
            .filter(|one| matches!(one.kind, Kind::Input | Kind::Command));
        read.map(|one| (one.topic.clone(), one.partition, one.offset))
            .collect()
    };
    let first_new = world.history().appended.len();
    let order = world.dice().order(candidates.len(), "copies", "world");
    let chosen = order.into_iter().take(COPIES);
    for (topic, partition, offset) in chosen.map(|index| &candidates[index]) {
        let Some(stored) = world.broker.stored(topic, *partition, *offset) else {
            continue;
        };
        let at = Append {
            partition: *partition,
            timestamp_ms: stored.timestamp_ms,
            injected: true,
        };
        world.broker.append(world, "copier", &stored.record, at);
    }
    rest(cluster, Duration::from_mins(2)).await?;
    let caused = {
        let history = world.history();
        let new = history.appended.iter().skip(first_new);
        new.filter(|one| !one.injected).count()
    };
    if caused > COPIES * RECORDS_A_COPY {
        return Err(violation(
            "copies_breed_nothing",
            format!("{COPIES} copies caused {caused} records"),
        ));
    }
    unchanged(&before, cluster, "copies_breed_nothing")
}

fn unchanged(before: &Rows, cluster: &Cluster, check: &'static str) -> Result<(), Violation> {
    match before.difference(&Rows::of(cluster)) {
        None => Ok(()),
        Some(difference) => Err(violation(check, difference)),
    }
}

/// Reads everything again from the beginning, and checks that no row changes and no command is sent.
async fn replay_changes_nothing(cluster: &Cluster, check: &'static str) -> Result<(), Violation> {
    let world = &cluster.world;
    let before = Rows::of(cluster);
    let first_new = world.history().appended.len();
    for (group, topic) in world.broker.groups() {
        for partition in 0..world.broker.partition_count(&topic) {
            world.broker.reset(&group, partition, 0);
        }
    }
    world.note("world", format_args!("everything is read again"));
    rest(cluster, Duration::from_mins(5)).await?;
    let sent = {
        let history = world.history();
        let mut new = history.appended.iter().skip(first_new);
        new.find(|one| one.kind == Kind::Command)
            .map(ToString::to_string)
    };
    if let Some(command) = sent {
        return Err(violation(check, format!("a replay sent {command}")));
    }
    unchanged(&before, cluster, check)
}

/// Lets time pass, so that floors rise and everything below them is forgotten. Checks that old messages have no effect.
async fn forgetting_is_safe(cluster: &Arc<Cluster>) -> Result<(), Violation> {
    let world = &cluster.world;
    world.pass(RETENTION + TimeDelta::hours(1));
    // Waits for two rounds of upkeep. The commands of new sagas then carry the floor to all participants.
    sleep(Duration::from_secs(30)).await;
    for number in 0..3 {
        let order = Order::new(world, &cluster.workload, 500_000 + number);
        tokio::spawn(client::place(Arc::clone(cluster), order));
    }
    let began = Instant::now();
    loop {
        sleep(Duration::from_secs(1)).await;
        let accepted = world.history().accepted.len() as u64 == cluster.workload.sagas + 3;
        if accepted && cluster.sagas.tables().live.is_empty() {
            break;
        }
        if began.elapsed() > Duration::from_mins(30) {
            let detail = "a saga that began after time had passed does not end".to_owned();
            return Err(violation("every_saga_ends", detail));
        }
        // As in the run: an operator who looked every second would retry a saga before anybody decides about it.
        let second = 2_000 + began.elapsed().as_secs();
        if second.is_multiple_of(operator::ROUND_INTERVAL_SECS) {
            operator::look_after_parked(cluster, second);
        }
    }
    rest(cluster, Duration::from_mins(5)).await?;
    cluster.forget();
    let effects = world.history().effects.len();
    let check = "forgetting_is_safe";
    let before = world.history().appended.len();
    for (group, topic) in world.broker.groups() {
        for partition in 0..world.broker.partition_count(&topic) {
            world.broker.reset(&group, partition, 0);
        }
    }
    rest(cluster, Duration::from_mins(5)).await?;
    if world.history().effects.len() != effects {
        return Err(violation(
            check,
            "what is forgotten took effect again".to_owned(),
        ));
    }
    let history = world.history();
    let mut new = history.appended.iter().skip(before);
    let live: BTreeSet<SagaId> = cluster.sagas.tables().live.keys().copied().collect();
    let of_the_dead = |saga: SagaId| !live.contains(&saga);
    match new.find(|one| one.kind == Kind::Command && one.saga.is_some_and(of_the_dead)) {
        Some(command) => Err(violation(check, format!("a replay sent {command}"))),
        None => Ok(()),
    }
}

/// Checks that the same inputs give the same sagas, processed one by one or in batches.
async fn batching_is_free(cluster: &Cluster) -> Result<(), Violation> {
    let world = &cluster.world;
    let mut one_by_one = Bench::new(cluster, "one-by-one");
    let mut at_once = Bench::new(cluster, "at-once");
    for partition in 0..world.broker.partition_count(SAGA_INPUTS) {
        let end = world.broker.end(SAGA_INPUTS, partition);
        let mut offset = 0;
        while offset < end {
            let count = world.dice().between(1, BATCH, "batch", "world") as i64;
            let records: Vec<IncomingRecord> = (offset..end.min(offset + count))
                .filter_map(|offset| world.broker.read(SAGA_INPUTS, partition, offset))
                .collect();
            offset += count;
            for record in &records {
                one_by_one
                    .process(std::slice::from_ref(record), &records)
                    .await?;
            }
            at_once.process(&records, &records).await?;
        }
    }
    let (one, other) = (one_by_one.sagas(), at_once.sagas());
    if one == other {
        return Ok(());
    }
    let different = one
        .iter()
        .find(|(saga, instance)| other.get(saga) != Some(*instance));
    Err(violation(
        "batching_changes_nothing",
        format!(
            "{:?}",
            different.map(|(saga, instance)| (saga, &instance.status, &instance.steps))
        ),
    ))
}

/// An engine with tables of its own, whose clock can be set.
struct Bench {
    database: Arc<Database<SagaTables>>,
    engine: Engine<SimSagaStore>,
}

impl Bench {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let tables = {
            let registered = cluster.sagas.tables();
            SagaTables {
                definitions: registered.definitions.clone(),
                generation: registered.generation,
                withdrawn: registered.withdrawn.clone(),
                ..SagaTables::default()
            }
        };
        let database = Database::new(Arc::clone(&cluster.world), name, tables);
        let process = Process::new(Arc::clone(&cluster.world), name);
        let shared: Arc<Shared> = cluster.orchestrators_memory();
        let store = SimSagaStore::new(&database, &process).unrecorded();
        Self {
            engine: Engine::new(store, shared),
            database,
        }
    }

    /// Processes records at the time of the first record of the batch that they would have been in.
    async fn process(
        &mut self,
        records: &[IncomingRecord],
        batch: &[IncomingRecord],
    ) -> Result<(), Violation> {
        let at = batch.first().map_or(0, |record| record.timestamp_ms);
        let at = Timestamp::from_timestamp_millis(at).unwrap_or_default();
        self.database.pin(at);
        match self.engine.process(records).await {
            Ok(_) => Ok(()),
            Err(error) => Err(violation(
                "batching_changes_nothing",
                format!("a batch cannot be processed: {error:?}"),
            )),
        }
    }

    fn sagas(&self) -> BTreeMap<SagaId, SagaInstance> {
        let tables = self.database.tables();
        let live = tables
            .live
            .iter()
            .map(|(saga, live)| (*saga, live.row.instance.clone()));
        let ended = tables
            .history
            .iter()
            .map(|(saga, row)| (*saga, row.instance.clone()));
        live.chain(ended).collect()
    }
}
