//! Two orchestrators on one saga: the row's version decides, regardless of what each process owns or has cached.

use crate::fixture::{Database, commands, new_saga, settings, text};
use orchestrator::{
    engine::{
        Engine,
        decode::decode,
        fold::fold,
        outcome::{BatchOutcome, Context},
        saga_store::{LiveRow, Loaded, Plan, SagaBatch, SagaStore},
    },
    registry::{self, Catalog, Source},
    store::{
        PgBatch, PgStore,
        definition::{self, DefinitionAction},
    },
};
use saga_core::{
    definition::SagaDefinition,
    ids::SagaId,
    message::{IncomingRecord, OutgoingRecord, PayloadLimit},
    transition::CommandContext,
};
use saga_messaging::consumer::{BatchError, Processor};
use saga_test_support::environment::until;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Barrier;

/// Returns an orchestrator's decisions on a record, from the rows that it loaded.
fn decide(record: &IncomingRecord, loaded: Loaded) -> BatchOutcome {
    let shared = Database::shared();
    let generation = loaded.generation.unwrap_or_default();
    let sources = registry::read(true, None).unwrap().into_iter();
    let shipped = sources.map(|source| source.definition);
    let current = shared.learn(Catalog::of(generation, shipped));
    let command_context = CommandContext {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
        payload_limit: PayloadLimit::NONE,
    };
    let context = Context {
        registry: &shared.registry,
        current: &current,
        settings: &shared.settings,
        command_context: &command_context,
        committed: &BTreeMap::new(),
    };
    let (arrived, rejected) = decode(std::slice::from_ref(record));
    assert_eq!(rejected, []);
    fold(context, arrived, loaded).unwrap()
}

/// Asserts that the statement itself has reported the conflict.
fn conflict(result: Result<(), BatchError>, doing: &str) {
    let Err(BatchError::Retry(source)) = result else {
        panic!("expected a conflict, got {result:?}");
    };
    let said = source.to_string();
    assert!(
        said.contains(&format!("a rival was first: {doing} came to")),
        "{said}"
    );
}

#[tokio::test]
async fn a_decision_made_from_an_older_version_writes_nothing() {
    let database = Database::new().await;
    let (saga, reserve) = database.started().await;
    let reply = database.reply(&reserve);
    let stale = decide(&reply, database.load(saga).await);
    database
        .engine()
        .process(std::slice::from_ref(&reply))
        .await
        .unwrap();
    let zombie = database.store.begin().await.unwrap();
    conflict(zombie.commit(&stale.plan).await, "advancing sagas");
    let loaded = database.load(saga).await;
    assert_eq!(loaded.live[0].version, 2);
}

#[tokio::test]
async fn an_end_decided_from_an_older_version_leaves_history_alone() {
    let database = Database::new().await;
    let (saga, reserve) = database.started().await;
    let loaded = database.load(saga).await;
    let mut plan = decide(&database.reply(&reserve), loaded).plan;
    plan.ends.append(&mut plan.updates);
    database
        .engine()
        .process(&[database.reply(&reserve)])
        .await
        .unwrap();
    let zombie = database.store.begin().await.unwrap();
    conflict(zombie.commit(&plan).await, "ending sagas");
    assert_eq!(
        (
            database.count("saga").await,
            database.count("saga_history").await
        ),
        (1, 0)
    );
}

/// Starts a saga, and returns it with the store that has it cached.
async fn started_here(database: &Database) -> (SagaId, OutgoingRecord, PgStore) {
    let store = database.another_store();
    let saga = new_saga();
    let mut engine = Engine::new(store.clone(), Database::shared());
    let outputs = engine.process(&[database.start(saga)]).await.unwrap();
    (saga, commands(&outputs).remove(0), store)
}

async fn loaded_by(store: &PgStore, saga: SagaId) -> LiveRow {
    let mut batch = store.begin().await.unwrap();
    let loaded = batch.load(&[saga], &[], &BTreeSet::new()).await;
    loaded.unwrap().live.remove(0)
}

async fn process(
    engine: &mut Engine<PgStore>,
    record: &IncomingRecord,
) -> Result<Vec<OutgoingRecord>, BatchError> {
    engine.process(std::slice::from_ref(record)).await
}

#[tokio::test]
async fn a_saga_changed_by_a_rival_is_read_again_after_a_version_conflict() {
    let database = Database::new().await;
    let (saga, reserve, store) = started_here(&database).await;
    let reply = database.reply(&reserve);
    let first = process(&mut database.engine(), &reply).await.unwrap();
    let mut ours = Engine::new(store.clone(), Database::shared());
    let tried = process(&mut ours, &reply).await.map(|_| ());
    conflict(tried, "advancing sagas");
    assert_eq!(process(&mut ours, &reply).await.unwrap(), first);
    let known = loaded_by(&store, saga).await;
    let stored = loaded_by(&database.another_store(), saga).await;
    assert_eq!((known.version, known.instance), (2, stored.instance));
}

/// For a process that does not know of the rival's change, the awaited reply looks like one to a step that has not
/// begun.
#[tokio::test]
async fn an_input_that_seems_to_be_void_is_not_dropped_if_a_rival_has_moved_its_saga() {
    let database = Database::new().await;
    let (saga, reserve, store) = started_here(&database).await;
    let reply = database.reply(&reserve);
    let charge = commands(&process(&mut database.engine(), &reply).await.unwrap()).remove(0);
    let reply = database.reply(&charge);
    let mut ours = Engine::new(store.clone(), Database::shared());
    let tried = process(&mut ours, &reply).await.map(|_| ());
    conflict(tried, "leaving sagas alone");
    process(&mut ours, &reply).await.unwrap();
    assert_eq!(loaded_by(&database.another_store(), saga).await.version, 3);
}

/// The table and the cache differ, but the version is the same, so the row is not read.
#[tokio::test]
async fn an_unchanged_saga_is_read_only_after_an_uncommitted_batch() {
    let database = Database::new().await;
    let (saga, _, store) = started_here(&database).await;
    sqlx::query("UPDATE saga SET state = jsonb_set(state::jsonb, '{sequence}', '77')::json")
        .execute(store.pool())
        .await
        .unwrap();
    assert_eq!(loaded_by(&store, saga).await.instance.sequence, 2);
    assert_eq!(
        loaded_by(&store, saga).await.instance.sequence,
        77,
        "the batch before came to nothing"
    );
}

/// A start that is decided and not written yet.
struct Late {
    saga: SagaId,
    start: IncomingRecord,
    batch: PgBatch,
    plan: Plan,
}

async fn a_late_start(database: &Database) -> Late {
    let saga = new_saga();
    let start = database.start(saga);
    let mut batch = database.store.begin().await.unwrap();
    let loaded = batch.load(&[saga], &[], &BTreeSet::new()).await.unwrap();
    let plan = decide(&start, loaded).plan;
    Late {
        saga,
        start,
        batch,
        plan,
    }
}

fn created_ms(saga: SagaId) -> i64 {
    saga.created_at_ms().unwrap()
}

async fn raise_floor_of_starts(database: &Database, to_ms: i64) {
    sqlx::query("UPDATE floor SET starts_from_ms = $1")
        .bind(to_ms)
        .execute(database.store.pool())
        .await
        .unwrap();
}

/// The floor of starts rises all the time, which alone is not a conflict.
#[tokio::test]
async fn a_start_is_written_if_the_floor_of_starts_has_risen_no_higher_than_it() {
    let database = Database::new().await;
    let Late {
        saga, batch, plan, ..
    } = a_late_start(&database).await;
    raise_floor_of_starts(&database, created_ms(saga)).await;
    batch.commit(&plan).await.unwrap();
    assert_eq!(database.count("saga").await, 1);
}

/// History below the floor is forgotten, so a start below it may have run before.
#[tokio::test]
async fn a_start_is_not_written_if_the_floor_of_starts_has_risen_above_it_meanwhile() {
    let database = Database::new().await;
    let Late {
        saga, batch, plan, ..
    } = a_late_start(&database).await;
    raise_floor_of_starts(&database, created_ms(saga) + 1).await;
    conflict(batch.commit(&plan).await, "starting sagas");
    assert_eq!(database.count("saga").await, 0);
}

#[tokio::test]
async fn a_zombies_start_of_a_saga_that_has_ended_meanwhile_leaves_nothing() {
    let database = Database::new().await;
    let Late {
        start, batch, plan, ..
    } = a_late_start(&database).await;
    let first = process(&mut database.engine(), &start).await.unwrap();
    database.run_to_end(first).await;
    assert_eq!(
        (
            database.count("saga").await,
            database.count("saga_history").await
        ),
        (0, 1)
    );
    conflict(batch.commit(&plan).await, "finding starts that have ended");
    assert_eq!(
        (
            database.count("saga").await,
            database.count("saga_history").await
        ),
        (0, 1)
    );
}

#[tokio::test]
async fn a_start_that_a_rival_has_written_meanwhile_is_run_again_as_a_duplicate() {
    let database = Database::new().await;
    let Late {
        start, batch, plan, ..
    } = a_late_start(&database).await;
    let first = process(&mut database.engine(), &start).await.unwrap();
    conflict(batch.commit(&plan).await, "starting sagas");
    let again = database.engine().process(&[start]).await.unwrap();
    assert_eq!(
        again, first,
        "the same commands and events, with the same ids"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_orchestrators_with_the_same_batch_advance_each_saga_once() {
    const SAGAS: usize = 50;
    let database = Arc::new(Database::new().await);
    let starts: Vec<IncomingRecord> = (0..SAGAS).map(|_| database.start(new_saga())).collect();
    let outputs = at_once(&database, &starts).await;
    let replies: Vec<IncomingRecord> = commands(&outputs)
        .iter()
        .map(|command| database.reply(command))
        .collect();
    assert_eq!(replies.len(), SAGAS);
    at_once(&database, &replies).await;
    let versions: Vec<i64> = sqlx::query_scalar("SELECT version FROM saga")
        .fetch_all(database.store.reporting())
        .await
        .unwrap();
    assert_eq!(versions, vec![2; SAGAS]);
}

/// Lets two engines process the same records concurrently. The second one sends the same messages again.
async fn at_once(
    database: &Arc<Database>,
    records: &[IncomingRecord],
) -> Vec<saga_core::message::OutgoingRecord> {
    let barrier = Arc::new(Barrier::new(2));
    let run = || {
        let (database, barrier, records) =
            (Arc::clone(database), Arc::clone(&barrier), records.to_vec());
        tokio::spawn(async move {
            let mut engine = database.engine();
            barrier.wait().await;
            for _ in 0..20 {
                match engine.process(&records).await {
                    Ok(outputs) => return outputs,
                    Err(BatchError::Retry(_)) => {}
                    Err(error @ BatchError::Data(_)) => panic!("{error:?}"),
                }
            }
            panic!("never came through");
        })
    };
    let (one, other) = (run(), run());
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    let payloads = |outputs: &[saga_core::message::OutgoingRecord]| -> Vec<Vec<u8>> {
        outputs
            .iter()
            .map(|record| record.payload.clone())
            .collect()
    };
    assert_eq!(payloads(&one), payloads(&other));
    one
}

/// Two orchestrators of a new release start concurrently: one waits for the other's row, and must then see it.
#[tokio::test]
async fn a_rival_that_registers_the_same_definitions_first_is_no_conflict() {
    let database = Database::new().await;
    let pool = database.store.pool();
    let sources = registry::read(true, None).unwrap();
    let source = &sources[0].definition;
    sqlx::query("DELETE FROM definition")
        .execute(pool)
        .await
        .unwrap();
    let mut rival = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO definition (hash, name, version, document) VALUES ($1, $2, $3, $4)")
        .bind(&source.hash.0)
        .bind(&source.name)
        .bind(source.version.cast_signed())
        .bind(&source.document)
        .execute(&mut *rival)
        .await
        .unwrap();
    let ours = async { definition::register(pool, &sources, &settings().participants).await };
    let commits = async {
        until(
            "ours waits for the rival",
            Duration::from_secs(10),
            || async {
                sqlx::query_scalar::<_, bool>(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock')",
                )
                .fetch_one(database.store.reporting())
                .await
                .unwrap()
            },
        )
        .await;
        rival.commit().await.unwrap();
    };
    let (registered, ()) = tokio::join!(ours, commits);
    registered.unwrap();
}

/// Returns a version of `place-order` that only one process has in its files.
fn another_version(version: u32) -> Source {
    let mut source = registry::read(true, None).unwrap().remove(0);
    let mut document = source.definition.document.clone();
    document["version"] = json!(version);
    source.definition = SagaDefinition::from_document(&document).unwrap();
    source
}

async fn version_of(database: &Database, saga: SagaId) -> u32 {
    database.load(saga).await.live[0]
        .instance
        .definition_version
}

#[tokio::test]
async fn a_version_that_another_process_registers_is_taken_by_all_from_the_next_start_on() {
    let database = Database::new().await;
    let (mut old, mut new) = (database.engine(), database.engine());
    let before = new_saga();
    old.process(&[database.start(before)]).await.unwrap();
    assert_eq!(version_of(&database, before).await, 1);
    let sources = [another_version(2)];
    definition::register(database.store.pool(), &sources, &settings().participants)
        .await
        .unwrap();
    for engine in [&mut old, &mut new] {
        let saga = new_saga();
        engine.process(&[database.start(saga)]).await.unwrap();
        assert_eq!(version_of(&database, saga).await, 2);
    }
    // A registration that changes nothing does not raise the generation, so no process reads the definitions again.
    let generation = definition::generation(database.store.pool()).await.unwrap();
    definition::register(database.store.pool(), &sources, &settings().participants)
        .await
        .unwrap();
    let again = definition::generation(database.store.pool()).await.unwrap();
    assert_eq!(generation, again);
}

#[tokio::test]
async fn a_start_is_decided_again_if_a_version_was_registered_or_withdrawn_meanwhile() {
    let database = Database::new().await;
    let Late {
        saga,
        start,
        batch,
        plan,
    } = a_late_start(&database).await;
    let sources = [another_version(2)];
    definition::register(database.store.pool(), &sources, &settings().participants)
        .await
        .unwrap();
    conflict(batch.commit(&plan).await, "starting sagas");
    database.engine().process(&[start]).await.unwrap();
    assert_eq!(version_of(&database, saga).await, 2);

    let Late {
        saga,
        start,
        batch,
        plan,
    } = a_late_start(&database).await;
    withdraw(&database, Some(2), true).await;
    conflict(batch.commit(&plan).await, "starting sagas");
    database.engine().process(&[start]).await.unwrap();
    assert_eq!(version_of(&database, saga).await, 1);
}

async fn withdraw(database: &Database, version: Option<u32>, withdraw: bool) -> Vec<u32> {
    let action = DefinitionAction {
        name: "place-order".to_owned(),
        version,
        withdraw,
        actor: "eve".to_owned(),
        reason: "it charges twice".to_owned(),
        correlation_id: "correlation".to_owned(),
    };
    let changed = definition::decide(database.store.pool(), &action).await;
    changed.unwrap().unwrap()
}

#[tokio::test]
async fn starts_of_a_withdrawn_definition_are_dead_lettered_everywhere_until_it_is_restored() {
    let database = Database::new().await;
    let (mut one, mut other) = (database.engine(), database.engine());
    let (under_way, reserve) = database.started().await;
    for engine in [&mut one, &mut other] {
        engine.process(&[database.start(new_saga())]).await.unwrap();
    }
    assert_eq!(withdraw(&database, None, true).await, [1]);
    assert_eq!(withdraw(&database, None, true).await, [] as [u32; 0]);
    let late = new_saga();
    let start = database.start(late);
    for engine in [&mut one, &mut other] {
        let outputs = engine.process(std::slice::from_ref(&start)).await.unwrap();
        assert_eq!(
            text(&outputs[0], "dead-letter-reason"),
            "definition_withdrawn"
        );
        assert!(text(&outputs[0], "dead-letter-detail").contains("by eve"));
    }
    // A live saga continues.
    let reply = database.reply(&reserve);
    other.process(&[reply]).await.unwrap();
    assert_eq!(database.load(under_way).await.live[0].version, 2);
    assert_eq!(withdraw(&database, Some(1), false).await, [1]);
    other.process(&[start]).await.unwrap();
    assert_eq!(version_of(&database, late).await, 1);
    let rows = definition::actions(database.store.pool(), "place-order")
        .await
        .unwrap();
    let told: Vec<(&str, &str)> = rows
        .iter()
        .map(|(_, action, actor, ..)| (action.as_str(), actor.as_str()))
        .collect();
    assert_eq!(told, [("restored", "eve"), ("withdrawn", "eve")]);
}

#[tokio::test]
async fn a_second_live_saga_with_the_same_business_key_is_dead_lettered_at_every_instance() {
    let database = Database::new().await;
    let (first, twin) = (new_saga(), new_saga());
    let started = database.engine().process(&[database.start(first)]).await;
    let copy = database.start_with_key(twin, &format!("key-{first}"));
    // One start of a process that does not know the first saga, and one in the same batch as the first start with its
    // key.
    let third = new_saga();
    let batch = [
        copy.clone(),
        database.start(third),
        database.start_with_key(new_saga(), &format!("key-{third}")),
    ];
    let outputs = database.engine().process(&batch).await.unwrap();
    let letters: Vec<String> = outputs
        .iter()
        .filter(|record| record.topic == "saga.inputs.dlq")
        .map(|letter| text(letter, "dead-letter-detail"))
        .collect();
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters[0].contains(&first.to_string()), "{letters:?}");
    assert!(letters[1].contains(&third.to_string()), "{letters:?}");
    // A redelivery of the first saga's own start is not a conflict.
    let again = database.engine().process(&[database.start(first)]).await;
    assert_eq!(commands(&again.unwrap()), []);
    // Once the first saga has ended, the dead letter can be replayed.
    database.run_to_end(started.unwrap()).await;
    database.engine().process(&[copy]).await.unwrap();
    assert_eq!(version_of(&database, twin).await, 1);
}

#[tokio::test]
async fn one_of_two_concurrent_starts_with_one_business_key_runs_and_the_other_is_dead_lettered() {
    let database = Arc::new(Database::new().await);
    let (one, other) = (new_saga(), new_saga());
    let starts = [
        database.start_with_key(one, "key"),
        database.start_with_key(other, "key"),
    ];
    let barrier = Arc::new(Barrier::new(2));
    let runs = starts.map(|start| {
        let (mut engine, barrier) = (database.engine(), Arc::clone(&barrier));
        tokio::spawn(async move {
            barrier.wait().await;
            for _ in 0..20 {
                match engine.process(std::slice::from_ref(&start)).await {
                    Ok(outputs) => return outputs,
                    Err(BatchError::Retry(_)) => {}
                    Err(error @ BatchError::Data(_)) => panic!("{error:?}"),
                }
            }
            panic!("never came through");
        })
    });
    let mut letters = 0;
    for run in runs {
        let outputs = run.await.unwrap();
        letters += outputs
            .iter()
            .filter(|record| record.topic == "saga.inputs.dlq")
            .count();
    }
    assert_eq!((letters, database.count("saga").await), (1, 1));
}
