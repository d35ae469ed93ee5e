//! The contract of the engine's [`SagaStore`], and of the reads of its timers: [`TimerStore`].

#![expect(
    clippy::unwrap_used,
    reason = "a promise that is not kept is a test that fails"
)]

use async_trait::async_trait;
use chrono::TimeDelta;
use orchestrator::engine::{
    saga_store::{ActionRow, DefinitionStore, Loaded, Plan, SagaBatch, SagaRow, SagaStore},
    timer_driver::{QueuedPage, TimerStore},
    timers::{
        queue::{DueRow, QueuedRow},
        queued_index::QueuedCommand,
    },
};
use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, Position, SagaInstance, SagaStatus},
    message::{ActionKind, CommandRef, Direction, OperatorAction, PayloadLimit, StartSaga, Trace},
    transition::{self, CommandContext},
};
use saga_messaging::consumer::BatchError;
use saga_test_support::contract::must_end;
use serde_json::json;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Makes stores of the implementation under test.
#[async_trait]
pub trait SagaBench: Send + Sync {
    type Store: SagaStore + TimerStore;

    /// Returns an empty store for one test, in which the definition is registered.
    async fn store(&self, definition: &SagaDefinition) -> Self::Store;
}

/// Defines one test per promise; see [`participant_store_contract!`](saga_test_support::participant_store_contract).
#[macro_export]
macro_rules! saga_store_contract {
    ($bench:expr, $(#[$test:meta])+) => {
        $crate::contract_tests! {
            $bench, [$(#[$test])+], [$crate::store_contract],
            a_plan_that_is_committed_is_loaded,
            a_batch_that_is_dropped_leaves_nothing,
            an_update_raises_the_version,
            an_update_of_an_older_version_is_a_conflict,
            a_plan_is_written_whole_or_not_at_all,
            an_end_moves_the_saga_into_history,
            an_end_of_an_older_version_is_a_conflict,
            a_saga_may_start_and_end_in_one_plan,
            an_ended_saga_is_not_started_and_ended_again,
            a_live_saga_is_not_started_again,
            an_ended_saga_is_not_started_again,
            a_saga_that_a_rival_moves_meanwhile_is_a_conflict,
            a_saga_that_is_left_alone_is_compared_too,
            a_batch_that_was_in_conflict_reads_what_there_is,
            rivals_that_start_the_same_saga_are_in_conflict,
            an_action_that_is_decided_is_found,
            what_is_registered_is_found_with_its_generation,
            a_start_that_was_decided_from_an_older_generation_is_a_conflict,
            a_business_key_is_one_live_sagas_if_its_definition_says_so,
            rivals_that_start_with_one_business_key_are_in_conflict,
            the_clock_never_runs_backwards,
            what_falls_due_is_found_in_the_homes_that_are_asked_for,
            queued_commands_are_found_page_by_page,
            a_command_that_is_no_longer_queued_is_not_found,
            sagas_that_live_are_read_as_they_stand
        }
    };
}

const DEFINITION: &str = "
name: contract
version: 1
deadline: 24h
steps:
  - name: only
    kind: compensatable
    participant: test
    command: test.do
    compensation: { command: test.undo }
";

fn definition() -> SagaDefinition {
    SagaDefinition::parse("contract.yaml", DEFINITION).expect("the definition is valid")
}

/// A store, and functions to make sagas for it.
struct World<S> {
    store: S,
    definition: SagaDefinition,
    now: Timestamp,
    generation: i64,
}

impl<S: SagaStore + TimerStore> World<S> {
    async fn of<B: SagaBench<Store = S>>(bench: &B) -> Self {
        let definition = definition();
        let store = bench.store(&definition).await;
        let mut batch = store.begin().await.expect("a batch begins");
        // The id is of a saga that does not exist: a batch that asks for nothing need not read anything.
        let nobody = [SagaId(Uuid::nil())];
        let loaded = batch.load(&nobody, &[], &BTreeSet::new()).await;
        let loaded = loaded.expect("the clock is read");
        Self {
            store,
            definition,
            now: loaded.now,
            generation: loaded.generation.expect("the generation is read"),
        }
    }

    async fn begin(&self) -> S::Batch {
        self.store.begin().await.expect("a batch begins")
    }

    /// Makes the start of the `number`th saga. The ids are in the order of the numbers.
    fn start(&self, number: u8) -> SagaRow {
        let mut random = [0; 10];
        random[9] = number;
        let ms = self.now.timestamp_millis() as u64;
        let id = uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid();
        let start = StartSaga {
            saga_id: SagaId(id),
            start_type: "test.created".to_owned(),
            definition: self.definition.name.clone(),
            business_key: Some(format!("key-{number}")),
            input: json!({"number": number}),
            trace: Trace::default(),
        };
        let position = Position {
            partition: 0,
            offset: i64::from(number),
            at_ms: 0,
        };
        let command_context = CommandContext {
            reply_topic: "saga.inputs".to_owned(),
            floor: None,
            payload_limit: PayloadLimit::NONE,
        };
        let made = transition::start(
            &self.definition,
            &start,
            0,
            self.now,
            position,
            &command_context,
        );
        self.row(made.saga, 0)
    }

    fn row(&self, instance: SagaInstance, version: i64) -> SagaRow {
        SagaRow {
            version,
            start_hash: vec![1, 2, 3],
            waiting: transition::waiting(&self.definition, &instance),
            next_due: None,
            queued: Vec::new(),
            last_error: None,
            has_key_to_itself: false,
            instance,
        }
    }

    /// Makes the same start with a business key that no other live saga may have.
    fn start_with_key(&self, number: u8, key: &str) -> SagaRow {
        let mut row = self.start(number);
        row.instance.business_key = Some(key.to_owned());
        row.has_key_to_itself = true;
        row
    }

    fn starts(&self, of: &[&SagaRow]) -> Plan {
        Plan {
            generation: self.generation,
            starts: rows(of),
            ..Plan::default()
        }
    }

    /// Returns the live saga that holds this business key.
    async fn holder(&self, key: &str) -> Option<SagaId> {
        let key = (self.definition.name.clone(), key.to_owned());
        let mut batch = self.begin().await;
        // The saga is unknown, so that there is something to read.
        let unknown = [self.start(255).instance.id];
        let keys = BTreeSet::from([key.clone()]);
        let loaded = batch.load(&unknown, &[], &keys);
        loaded
            .await
            .expect("keys are read")
            .holders
            .get(&key)
            .copied()
    }

    /// Starts a saga with this home partition, this due time and these queued commands.
    async fn started_with(
        &self,
        number: u8,
        home_partition: i32,
        next_due: Option<Timestamp>,
        queued: Vec<QueuedCommand>,
    ) -> SagaRow {
        let mut row = self.start(number);
        row.instance.home_partition = home_partition;
        row.next_due = next_due;
        row.queued = queued;
        self.commit(self.starts(&[&row]))
            .await
            .expect("a saga starts");
        row
    }

    async fn queued(
        &self,
        homes: &[i32],
        after: Option<&SagaRow>,
        limit: usize,
    ) -> (Vec<QueuedRow>, Option<SagaId>) {
        let after = after.map(|row| row.instance.id);
        let page = self.store.queued_rows(homes, after, limit).await;
        let QueuedPage { mut rows, last } = page.expect("a page is read");
        rows.sort_by_key(|row| row.id);
        (rows, last)
    }

    /// Makes the row of the same saga one event later.
    fn later(&self, row: &SagaRow, version: i64) -> SagaRow {
        let mut instance = row.instance.clone();
        instance.sequence += 1;
        self.row(instance, version)
    }

    fn ended(&self, row: &SagaRow, version: i64) -> SagaRow {
        let mut instance = row.instance.clone();
        instance.status = SagaStatus::Completed;
        self.row(instance, version)
    }

    async fn commit(&self, plan: Plan) -> Result<(), BatchError> {
        self.begin().await.commit(&plan).await
    }

    async fn started(&self, number: u8) -> SagaRow {
        let row = self.start(number);
        self.commit(self.starts(&[&row]))
            .await
            .expect("a saga starts");
        row
    }

    async fn load(&self, rows: &[&SagaRow]) -> Loaded {
        let ids: Vec<SagaId> = rows.iter().map(|row| row.instance.id).collect();
        let mut batch = self.begin().await;
        let loaded = batch.load(&ids, &[], &BTreeSet::new()).await;
        loaded.expect("rows are loaded")
    }

    /// Returns version and sequence of the live saga, and the sequence of the ended one.
    async fn stands(&self, row: &SagaRow) -> (Option<(i64, u64)>, Option<u64>) {
        let loaded = self.load(&[row]).await;
        assert!(loaded.live.len() + loaded.ended.len() <= 1, "{loaded:?}");
        (
            loaded
                .live
                .first()
                .map(|live| (live.version, live.instance.sequence)),
            loaded.ended.first().map(|ended| ended.instance.sequence),
        )
    }
}

fn rows(rows: &[&SagaRow]) -> Vec<SagaRow> {
    rows.iter().map(|row| (*row).clone()).collect()
}

fn updates(of: &[&SagaRow]) -> Plan {
    Plan {
        updates: rows(of),
        ..Plan::default()
    }
}

fn ends(of: &[&SagaRow]) -> Plan {
    Plan {
        ends: rows(of),
        ..Plan::default()
    }
}

fn conflict(result: &Result<(), BatchError>) {
    assert!(matches!(result, Err(BatchError::Retry(_))), "{result:?}");
}

pub async fn a_plan_that_is_committed_is_loaded<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let first = world.started(1).await;
    let second = world.started(2).await;
    let loaded = world.load(&[&first, &second, &world.start(3)]).await;
    let read: Vec<&SagaInstance> = loaded.live.iter().map(|row| &row.instance).collect();
    assert_eq!(read, [&first.instance, &second.instance]);
    assert!(loaded.live.iter().all(|row| row.version == 1));
    assert!(loaded.live.iter().all(|row| row.start_hash == [1, 2, 3]));
    assert!(loaded.ended.is_empty());
}

pub async fn a_batch_that_is_dropped_leaves_nothing<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let mut batch = world.begin().await;
    batch
        .load(&[row.instance.id], &[], &BTreeSet::new())
        .await
        .unwrap();
    drop(batch);
    let later = world.later(&row, 1);
    must_end(world.commit(updates(&[&later])), "an update")
        .await
        .unwrap();
}

pub async fn an_update_raises_the_version<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let mut row = world.started(1).await;
    let begun = row.instance.sequence;
    for version in 1..4 {
        row = world.later(&row, version);
        world.commit(updates(&[&row])).await.unwrap();
        let sequence = begun + version as u64;
        assert_eq!(
            world.stands(&row).await,
            (Some((version + 1, sequence)), None)
        );
    }
}

pub async fn an_update_of_an_older_version_is_a_conflict<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let later = world.later(&row, 1);
    world.commit(updates(&[&later])).await.unwrap();
    conflict(&world.commit(updates(&[&later])).await);
    conflict(&world.commit(updates(&[&world.later(&later, 7)])).await);
    conflict(
        &world
            .commit(updates(&[&world.later(&world.start(2), 1)]))
            .await,
    );
    let sequence = later.instance.sequence;
    assert_eq!(world.stands(&row).await, (Some((2, sequence)), None));
}

pub async fn a_plan_is_written_whole_or_not_at_all<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let (first, second) = (world.started(1).await, world.started(2).await);
    let new = world.start(3);
    let plan = Plan {
        generation: world.generation,
        starts: vec![new.clone()],
        updates: vec![world.later(&first, 1)],
        ends: vec![world.ended(&second, 9)],
        actions: vec![action(&world, &first, 1)],
        settled: Vec::new(),
    };
    conflict(&world.commit(plan).await);
    let begun = first.instance.sequence;
    assert_eq!(world.stands(&first).await, (Some((1, begun)), None));
    assert_eq!(world.stands(&second).await.1, None);
    assert_eq!(world.stands(&new).await, (None, None));
    let mut batch = world.begin().await;
    let decided = batch
        .load(&[], &[Uuid::from_u128(1)], &BTreeSet::new())
        .await
        .unwrap()
        .decided;
    assert!(decided.is_empty());
}

pub async fn an_end_moves_the_saga_into_history<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let ended = world.ended(&row, 1);
    world.commit(ends(&[&ended])).await.unwrap();
    let loaded = world.load(&[&row]).await;
    assert!(loaded.live.is_empty());
    assert_eq!(loaded.ended.len(), 1);
    assert_eq!(loaded.ended[0].instance, ended.instance);
    assert_eq!(loaded.ended[0].start_hash, [1, 2, 3]);
}

pub async fn an_end_of_an_older_version_is_a_conflict<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let later = world.later(&row, 1);
    world.commit(updates(&[&later])).await.unwrap();
    conflict(&world.commit(ends(&[&world.ended(&row, 1)])).await);
    let sequence = later.instance.sequence;
    assert_eq!(world.stands(&row).await, (Some((2, sequence)), None));
    world
        .commit(ends(&[&world.ended(&later, 2)]))
        .await
        .unwrap();
    conflict(&world.commit(ends(&[&world.ended(&later, 2)])).await);
    conflict(&world.commit(updates(&[&world.later(&later, 2)])).await);
    assert_eq!(world.stands(&row).await, (None, Some(sequence)));
}

pub async fn a_saga_may_start_and_end_in_one_plan<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.start(1);
    let ended = world.ended(&row, 1);
    let plan = Plan {
        generation: world.generation,
        starts: vec![SagaRow {
            version: 0,
            ..ended.clone()
        }],
        ends: vec![ended.clone()],
        ..Plan::default()
    };
    world.commit(plan).await.unwrap();
    let sequence = ended.instance.sequence;
    assert_eq!(world.stands(&row).await, (None, Some(sequence)));
}

pub async fn an_ended_saga_is_not_started_and_ended_again<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.start(1);
    let ended = world.ended(&row, 1);
    let plan = || Plan {
        generation: world.generation,
        starts: vec![SagaRow {
            version: 0,
            ..ended.clone()
        }],
        ends: vec![ended.clone()],
        ..Plan::default()
    };
    world.commit(plan()).await.unwrap();
    conflict(&world.commit(plan()).await);
}

pub async fn a_live_saga_is_not_started_again<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let other = world.start(2);
    conflict(&world.commit(world.starts(&[&row, &other])).await);
    assert_eq!(world.stands(&other).await, (None, None));
}

pub async fn an_ended_saga_is_not_started_again<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    world.commit(ends(&[&world.ended(&row, 1)])).await.unwrap();
    conflict(&world.commit(world.starts(&[&row])).await);
    let sequence = row.instance.sequence;
    assert_eq!(world.stands(&row).await, (None, Some(sequence)));
}

pub async fn a_saga_that_a_rival_moves_meanwhile_is_a_conflict<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let ids = [row.instance.id];
    let (mut first, mut second) = (world.begin().await, world.begin().await);
    first.load(&ids, &[], &BTreeSet::new()).await.unwrap();
    second.load(&ids, &[], &BTreeSet::new()).await.unwrap();
    let later = world.later(&row, 1);
    first.commit(&updates(&[&later])).await.unwrap();
    conflict(&second.commit(&updates(&[&world.later(&row, 1)])).await);
    let sequence = later.instance.sequence;
    assert_eq!(world.stands(&row).await, (Some((2, sequence)), None));
}

pub async fn a_saga_that_is_left_alone_is_compared_too<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let (row, other) = (world.started(1).await, world.started(2).await);
    let ids = [row.instance.id, other.instance.id];
    let mut batch = world.begin().await;
    let loaded = batch.load(&ids, &[], &BTreeSet::new()).await.unwrap();
    assert_eq!(loaded.live.len(), 2);
    world
        .commit(updates(&[&world.later(&row, 1)]))
        .await
        .unwrap();
    conflict(&batch.commit(&updates(&[&world.later(&other, 1)])).await);
    let begun = other.instance.sequence;
    assert_eq!(world.stands(&other).await, (Some((1, begun)), None));
}

pub async fn a_batch_that_was_in_conflict_reads_what_there_is<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let mut batch = world.begin().await;
    batch
        .load(&[row.instance.id], &[], &BTreeSet::new())
        .await
        .unwrap();
    let later = world.later(&row, 1);
    world.commit(updates(&[&later])).await.unwrap();
    conflict(&batch.commit(&Plan::default()).await);
    let loaded = world.load(&[&row]).await;
    assert_eq!(loaded.live[0].version, 2);
    assert_eq!(loaded.live[0].instance, later.instance);
}

pub async fn rivals_that_start_the_same_saga_are_in_conflict<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.start(1);
    let ids = [row.instance.id];
    let (mut first, mut second) = (world.begin().await, world.begin().await);
    first.load(&ids, &[], &BTreeSet::new()).await.unwrap();
    second.load(&ids, &[], &BTreeSet::new()).await.unwrap();
    first.commit(&world.starts(&[&row])).await.unwrap();
    conflict(&second.commit(&world.starts(&[&row])).await);
}

fn action<S: SagaStore + TimerStore>(world: &World<S>, row: &SagaRow, id: u128) -> ActionRow {
    ActionRow {
        action: OperatorAction {
            saga_id: row.instance.id,
            action_id: Uuid::from_u128(id),
            kind: ActionKind::Cancel,
            actor: "somebody".to_owned(),
            reason: "a test".to_owned(),
            if_version: None,
            trace: Trace::default(),
        },
        verdict: ActionVerdict::ACCEPTED,
        decided_at: world.now,
        status_before: Some("running"),
        status_after: Some("compensating"),
    }
}

pub async fn an_action_that_is_decided_is_found<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let row = world.started(1).await;
    let plan = || Plan {
        actions: vec![action(&world, &row, 1)],
        ..Plan::default()
    };
    world.commit(plan()).await.unwrap();
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let mut batch = world.begin().await;
    let decided = batch
        .load(&[], &ids, &BTreeSet::new())
        .await
        .unwrap()
        .decided;
    assert_eq!(decided.into_iter().collect::<Vec<_>>(), ids[..1]);
    drop(batch);
    // A batch that decides the action again, from before the decision was read, writes nothing: the first decision
    // stays.
    conflict(&world.commit(plan()).await);
}

pub async fn what_is_registered_is_found_with_its_generation<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let catalog = world.store.catalog().await.expect("definitions are read");
    assert_eq!(catalog.generation, world.generation);
    let mut names = catalog.by_name();
    let versions = names.remove(world.definition.name.as_str()).unwrap();
    let hashes: Vec<_> = versions.iter().map(|one| &one.hash).collect();
    assert_eq!(hashes, [&world.definition.hash]);
    let read = versions[0].definition.as_ref().unwrap();
    assert_eq!(read.document, world.definition.document);
}

pub async fn a_start_that_was_decided_from_an_older_generation_is_a_conflict<B: SagaBench>(
    bench: &B,
) {
    let world = World::of(bench).await;
    let row = world.start(1);
    let plan = Plan {
        generation: world.generation - 1,
        ..world.starts(&[&row])
    };
    conflict(&world.commit(plan).await);
    assert_eq!(world.stands(&row).await, (None, None));
    world.commit(world.starts(&[&row])).await.unwrap();
}

pub async fn a_business_key_is_one_live_sagas_if_its_definition_says_so<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let first = world.start_with_key(1, "key");
    assert_eq!(world.holder("key").await, None);
    world.commit(world.starts(&[&first])).await.unwrap();
    assert_eq!(world.holder("key").await, Some(first.instance.id));
    let (second, other) = (
        world.start_with_key(2, "key"),
        world.start_with_key(3, "other"),
    );
    conflict(&world.commit(world.starts(&[&second, &other])).await);
    assert_eq!(world.stands(&other).await, (None, None));
    // A start whose definition allows several sagas of one key neither conflicts nor holds the key.
    let mut any = world.start_with_key(4, "key");
    any.has_key_to_itself = false;
    world.commit(world.starts(&[&any])).await.unwrap();
    assert_eq!(world.holder("key").await, Some(first.instance.id));
    // Two starts of one plan have the same key.
    let (one, two) = (
        world.start_with_key(5, "twice"),
        world.start_with_key(6, "twice"),
    );
    conflict(&world.commit(world.starts(&[&one, &two])).await);
    world
        .commit(ends(&[&world.ended(&first, 1)]))
        .await
        .unwrap();
    assert_eq!(world.holder("key").await, None);
    world.commit(world.starts(&[&second])).await.unwrap();
    assert_eq!(world.holder("key").await, Some(second.instance.id));
}

pub async fn rivals_that_start_with_one_business_key_are_in_conflict<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let (one, other) = (
        world.start_with_key(1, "key"),
        world.start_with_key(2, "key"),
    );
    let (mut first, mut second) = (world.begin().await, world.begin().await);
    first
        .load(&[one.instance.id], &[], &BTreeSet::new())
        .await
        .unwrap();
    second
        .load(&[other.instance.id], &[], &BTreeSet::new())
        .await
        .unwrap();
    first.commit(&world.starts(&[&one])).await.unwrap();
    conflict(&second.commit(&world.starts(&[&other])).await);
    assert_eq!(world.stands(&other).await, (None, None));
}

pub async fn the_clock_never_runs_backwards<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let mut last = world.now;
    for _ in 0..20 {
        let now = world.load(&[]).await.now;
        assert!(now >= last, "{now} {last}");
        last = now;
    }
}

pub async fn what_falls_due_is_found_in_the_homes_that_are_asked_for<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let due = |seconds| Some(world.now + TimeDelta::seconds(seconds));
    let past = world.started_with(1, 0, due(-3_600), Vec::new()).await;
    world.started_with(2, 1, due(-3_600), Vec::new()).await;
    let soon = world.started_with(3, 2, due(60), Vec::new()).await;
    world.started_with(4, 0, due(3_600), Vec::new()).await;
    world.started_with(5, 0, None, vec![queued(&world)]).await;
    let found = world.store.due_rows(&[0, 2], TimeDelta::seconds(600)).await;
    let (now, mut rows) = found.expect("due times are read");
    rows.sort_by_key(|row| row.id);
    let expected = [&past, &soon].map(|row| DueRow {
        id: row.instance.id,
        home_partition: row.instance.home_partition,
        next_due: row.next_due.unwrap(),
    });
    assert_eq!(rows, expected);
    assert!(now >= world.now, "{now} {}", world.now);
}

fn queued<S>(world: &World<S>) -> QueuedCommand {
    QueuedCommand {
        part: CommandRef {
            step: "only".to_owned(),
            direction: Direction::Forward,
            attempt: 1,
        },
        participant: "test".to_owned(),
        sent_at: Some(world.now),
    }
}

fn as_found(row: &SagaRow) -> QueuedRow {
    QueuedRow {
        id: row.instance.id,
        home_partition: row.instance.home_partition,
        next_due: row.next_due,
        queued: row.queued.clone(),
    }
}

/// Pages are made of live sagas, whether or not they have queued commands, so that each page takes the same time.
pub async fn queued_commands_are_found_page_by_page<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    assert_eq!(world.queued(&[0, 2], None, 2).await, (Vec::new(), None));
    let two = || vec![queued(&world), queued(&world)];
    let mut rows = Vec::new();
    for (number, home, queued) in [
        (1, 0, vec![queued(&world)]),
        (2, 0, Vec::new()),
        (3, 1, vec![queued(&world)]),
        (4, 2, two()),
        (5, 0, Vec::new()),
    ] {
        let due = Some(world.now);
        rows.push(world.started_with(number, home, due, queued).await);
    }
    let last = |number: usize| Some(rows[number - 1].instance.id);
    let found = |number: usize| vec![as_found(&rows[number - 1])];
    let homes = [0, 2];
    assert_eq!(world.queued(&homes, None, 2).await, (found(1), last(2)));
    let second = world.queued(&homes, Some(&rows[1]), 2).await;
    assert_eq!(second, (found(4), last(4)));
    let third = world.queued(&homes, Some(&rows[3]), 2).await;
    assert_eq!(third, (Vec::new(), last(5)));
    let behind = world.queued(&homes, Some(&rows[4]), 2).await;
    assert_eq!(behind, (Vec::new(), None));
}

pub async fn a_command_that_is_no_longer_queued_is_not_found<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let command = vec![queued(&world)];
    let row = world.started_with(1, 0, None, Vec::new()).await;
    let mut later = world.later(&row, 1);
    later.queued = command;
    world.commit(updates(&[&later])).await.unwrap();
    let all = || world.queued(&[0], None, 10);
    assert_eq!(all().await.0, [as_found(&later)]);
    world
        .commit(updates(&[&world.later(&later, 2)]))
        .await
        .unwrap();
    assert_eq!(all().await, (Vec::new(), Some(row.instance.id)));
    world
        .commit(ends(&[&world.ended(&later, 3)]))
        .await
        .unwrap();
    assert_eq!(all().await, (Vec::new(), None));
}

pub async fn sagas_that_live_are_read_as_they_stand<B: SagaBench>(bench: &B) {
    let world = World::of(bench).await;
    let (first, second) = (world.started(1).await, world.started(2).await);
    let later = world.later(&first, 1);
    world.commit(updates(&[&later])).await.unwrap();
    world
        .commit(ends(&[&world.ended(&second, 1)]))
        .await
        .unwrap();
    let ids = [first.instance.id, second.instance.id];
    let read = world.store.live(&ids).await.expect("sagas are read");
    assert_eq!(read, [later.instance]);
}
