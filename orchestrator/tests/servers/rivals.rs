//! Two orchestrators on one saga: the row's version decides, whatever each of them believes to own or to know.

use crate::fixture::{Database, commands, new_saga};
use orchestrator::{
    engine::{
        Engine,
        decode::decode,
        fold::{Context, Folded, fold},
        saga_store::{LiveRow, Loaded, Plan, SagaBatch, SagaStore},
    },
    registry,
    store::{PgBatch, PgStore, definition},
};
use saga_core::{
    ids::SagaId,
    message::{IncomingRecord, OutgoingRecord},
    transition::Outbound,
};
use saga_messaging::rule::{BatchError, Processor};
use saga_testkit::environment::until;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::Barrier;

/// What an orchestrator decides from what it loaded.
fn decide(record: &IncomingRecord, loaded: Loaded) -> Folded {
    let shared = Database::shared();
    let outbound = Outbound {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
    };
    let context = Context {
        registry: &shared.registry,
        settings: &shared.settings,
        outbound: &outbound,
        committed: &BTreeMap::new(),
    };
    let (arrived, rejected) = decode(std::slice::from_ref(record));
    assert_eq!(rejected, []);
    fold(context, arrived, loaded).unwrap()
}

/// The statement must have said so itself.
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

/// What an orchestrator knows of a saga that it has started.
async fn started_here(database: &Database) -> (SagaId, OutgoingRecord, PgStore) {
    let store = database.another_store();
    let saga = new_saga();
    let mut engine = Engine::new(store.clone(), Database::shared());
    let outputs = engine.process(&[database.start(saga)]).await.unwrap();
    (saga, commands(&outputs).remove(0), store)
}

async fn loaded_by(store: &PgStore, saga: SagaId) -> LiveRow {
    let mut batch = store.begin().await.unwrap();
    batch.load(&[saga], &[]).await.unwrap().live.remove(0)
}

async fn process(
    engine: &mut Engine<PgStore>,
    record: &IncomingRecord,
) -> Result<Vec<OutgoingRecord>, BatchError> {
    engine.process(std::slice::from_ref(record)).await
}

#[tokio::test]
async fn a_saga_that_a_rival_has_moved_is_read_anew_once_its_version_was_not_right() {
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

/// To whoever does not know of the rival, the reply that the saga waits for looks like one to a step that has not begun.
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

/// What stands in the table is not what is known, and nobody looks: the version has not moved.
#[tokio::test]
async fn a_saga_that_nobody_else_has_moved_is_read_only_if_its_last_batch_came_to_nothing() {
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

/// A start that was decided and is not written yet.
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
    let loaded = batch.load(&[saga], &[]).await.unwrap();
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

/// It rises all the time: that alone is no conflict.
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

/// Nothing is remembered of what is older, so whether it ran already cannot be told any more.
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

/// Both process the same records; the one that was second sends the same again.
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

/// Two orchestrators of a new release start at once: one waits for the other's row, which it must then see.
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
    let ours = async { definition::register(pool, &sources).await };
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
