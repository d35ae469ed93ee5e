//! Floors, and the partitions that are dropped below them. Old sagas are made with old ids: a test cannot wait for
//! weeks.

use crate::{
    fixture::{Database, INPUTS, commands, saga_at, text, trace},
    system::{PATIENCE, System},
};
use chrono::TimeDelta;
use orchestrator::{
    config::RetentionDays,
    engine::Engine,
    store::{floor, history::HISTORY},
    upkeep::retention::Retention,
};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{
        ActionKind, Command, Direction, IncomingRecord, OperatorAction, Outcome, OutgoingRecord,
        header,
    },
};
use saga_messaging::{
    consumer::{BatchError, Processor},
    partition::{Span, reach_of},
};
use saga_test_support::environment::until;
use sqlx::{AssertSqlSafe, Connection, Postgres, Transaction};
use std::time::Duration;
use uuid::Uuid;

const AGES_AGO: TimeDelta = TimeDelta::days(45);

/// Returns an id of a saga that began so long ago that a shorter retention forgets it.
fn old_saga() -> SagaId {
    saga_at(saga_service::clock::now() - AGES_AGO)
}

fn retention(database: &Database, days: u32) -> Retention {
    Retention::new(
        database.store.clone(),
        Database::shared(),
        RetentionDays::Days(days),
        TimeDelta::days(14),
    )
}

/// Returns a database with a retention of two months.
async fn long_memory() -> Database {
    let database = Database::new().await;
    retention(&database, 60).make_room().await.unwrap();
    database
}

async fn round(retention: &mut Retention) {
    retention.make_room().await.unwrap();
    retention.forget().await.unwrap();
}

async fn floor_of(database: &Database) -> Timestamp {
    let (floors, _) = floor::current(database.store.reporting()).await.unwrap();
    Timestamp::from_timestamp_millis(floors.floor_ms).unwrap()
}

async fn run(database: &Database, saga: SagaId) -> (IncomingRecord, IncomingRecord) {
    let start = database.start(saga);
    let first = database
        .engine()
        .process(std::slice::from_ref(&start))
        .await
        .unwrap();
    let reply = database.reply(&commands(&first)[0]);
    database.run_to_end(first).await;
    (start, reply)
}

fn reasons(outputs: &[OutgoingRecord]) -> Vec<String> {
    outputs
        .iter()
        .filter(|record| record.topic.strip_suffix(".dlq").is_some())
        .map(|record| text(record, header::DEAD_LETTER_REASON))
        .collect()
}

async fn age_of(database: &Database, floor: Timestamp) -> TimeDelta {
    let now: Timestamp = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(database.store.reporting())
        .await
        .unwrap();
    now - floor
}

#[tokio::test]
async fn sagas_below_the_floor_are_dropped_and_replays_of_their_inputs_have_no_effect() {
    let database = long_memory().await;
    let saga = old_saga();
    let (start, reply) = run(&database, saga).await;
    let cancel = OperatorAction {
        saga_id: saga,
        action_id: Uuid::new_v4(),
        kind: ActionKind::Cancel,
        actor: "test".to_owned(),
        reason: "replayed".to_owned(),
        if_version: None,
        trace: trace(),
    };
    let cancel = database.append(cancel.encode(INPUTS, Some(0), "/test", Timestamp::UNIX_EPOCH));
    run(&database, crate::fixture::new_saga()).await;
    let mut shorter = retention(&database, 30);
    round(&mut shorter).await;
    // The floor of starts is announced, but nothing is dropped yet: another process may still use the old floor.
    assert_eq!(database.count("saga_history").await, 2);
    let remembered = database
        .engine()
        .process(std::slice::from_ref(&start))
        .await
        .unwrap();
    assert_eq!(reasons(&remembered), [""; 0]);
    round(&mut shorter).await;
    assert_eq!(database.count("saga_history").await, 1);
    let floor = floor_of(&database).await;
    assert!(age_of(&database, floor).await >= TimeDelta::days(30));
    let stand = HISTORY
        .partitions(database.store.reporting())
        .await
        .unwrap();
    assert!(stand[0].span.to_ms > floor.timestamp_millis(), "{stand:?}");
    let outputs = database
        .engine()
        .process(&[start, reply, cancel])
        .await
        .unwrap();
    assert_eq!(reasons(&outputs), ["below_floor"]);
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    assert_eq!(database.count("saga").await, 0);
    assert_eq!(database.count("saga_history").await, 1);
}

#[tokio::test]
async fn a_transaction_that_may_use_the_old_floor_keeps_it_from_rising() {
    let database = long_memory().await;
    let before = floor_of(&database).await;
    let mut batch = database.store.pool().begin().await.unwrap();
    sqlx::query("SELECT starts_from_ms FROM floor")
        .execute(&mut *batch)
        .await
        .unwrap();
    let mut shorter = retention(&database, 30);
    round(&mut shorter).await;
    round(&mut shorter).await;
    assert_eq!(floor_of(&database).await, before);
    batch.rollback().await.unwrap();
    round(&mut shorter).await;
    assert!(floor_of(&database).await > before + TimeDelta::days(29));
}

#[tokio::test]
async fn a_live_saga_holds_the_floor_and_is_named() {
    let database = long_memory().await;
    let (saga, forgotten) = (
        old_saga(),
        saga_at(saga_service::clock::now() - TimeDelta::days(59)),
    );
    run(&database, forgotten).await;
    let first = database.engine().process(&[database.start(saga)]).await;
    let mut shorter = retention(&database, 30);
    for _ in 0..3 {
        round(&mut shorter).await;
    }
    assert_eq!(
        floor_of(&database).await.timestamp_millis(),
        saga.created_at_ms().unwrap()
    );
    // Older history is dropped all the same.
    assert_eq!(database.count("saga_history").await, 0);
    let (_, overaged) = floor::current(database.store.reporting()).await.unwrap();
    assert_eq!((overaged.count, overaged.ids), (1, vec![saga.0]));
    database.run_to_end(first.unwrap()).await;
    assert_eq!(database.count("saga_history").await, 1);
    for _ in 0..2 {
        round(&mut shorter).await;
    }
    assert_eq!(database.count("saga_history").await, 0);
    let (_, overaged) = floor::current(database.store.reporting()).await.unwrap();
    assert_eq!(overaged.count, 0);
}

#[tokio::test]
async fn without_retention_nothing_is_forgotten() {
    let database = Database::new().await;
    let mut keeper = Retention::new(
        database.store.clone(),
        Database::shared(),
        RetentionDays::Off,
        TimeDelta::days(14),
    );
    round(&mut keeper).await;
    run(
        &database,
        saga_at(saga_service::clock::now() - TimeDelta::days(20)),
    )
    .await;
    let before = floor_of(&database).await;
    for _ in 0..3 {
        round(&mut keeper).await;
    }
    assert_eq!(floor_of(&database).await, before);
    assert_eq!(database.count("saga_history").await, 1);
}

#[tokio::test]
async fn operator_actions_are_dropped_with_their_sagas() {
    let database = long_memory().await;
    let insert = "INSERT INTO operator_action
      (id, saga_id, action, actor, reason, decided_at, decision, code, correlation_id)
      VALUES (gen_random_uuid(), $1, 'cancel', 'a', 'r', $2, 'refused', $3, 'c')";
    let now = saga_service::clock::now();
    let rows = [
        (old_saga().0, now, "ended"),
        (crate::fixture::new_saga().0, now, "ended"),
        (Uuid::max(), now - AGES_AGO, "unknown_saga"),
        (Uuid::max(), now, "unknown_saga"),
    ];
    for (saga, decided_at, code) in rows {
        sqlx::query(insert)
            .bind(saga)
            .bind(decided_at)
            .bind(code)
            .execute(database.store.reporting())
            .await
            .unwrap();
    }
    let letter = "INSERT INTO dead_letter
      (topic, partition, letter_offset, written_at, decision, actor, reason, decided_at, correlation_id)
      VALUES ('saga.inputs.dlq', 0, $1, $2, 'discarded', 'a', 'r', $3, 'c')";
    for (offset, written_at, decided_at) in [
        (1_i64, AGES_AGO, AGES_AGO),
        (2, AGES_AGO, TimeDelta::zero()),
    ] {
        sqlx::query(letter)
            .bind(offset)
            .bind(now - written_at)
            .bind(now - decided_at)
            .execute(database.store.reporting())
            .await
            .unwrap();
    }
    let mut shorter = retention(&database, 30);
    round(&mut shorter).await;
    round(&mut shorter).await;
    let letters: Vec<i64> = sqlx::query_scalar("SELECT letter_offset FROM dead_letter")
        .fetch_all(database.store.reporting())
        .await
        .unwrap();
    assert_eq!(letters, [2]);
    let left: Vec<Uuid> =
        sqlx::query_scalar("SELECT saga_id FROM operator_action ORDER BY saga_id")
            .fetch_all(database.store.reporting())
            .await
            .unwrap();
    assert_eq!(left, [rows[1].0, rows[3].0]);
}

#[tokio::test]
async fn a_reader_delays_a_drop_and_traffic_continues() {
    let database = long_memory().await;
    run(&database, old_saga()).await;
    let mut shorter = retention(&database, 30);
    shorter.make_room().await.unwrap();
    shorter.make_room().await.unwrap();
    let mut report = database.store.reporting().begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM saga_history")
        .execute(&mut *report)
        .await
        .unwrap();
    let floor_ms = floor_of(&database).await.timestamp_millis();
    let dropping = HISTORY.drop_below(database.store.reporting(), floor_ms);
    let beside = async {
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let began = std::time::Instant::now();
            run(&database, crate::fixture::new_saga()).await;
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let (dropped, longest) = tokio::join!(dropping, beside);
    let dropped = dropped.unwrap();
    assert!(
        dropped.partitions.is_empty() && dropped.left > 0,
        "{dropped:?}"
    );
    // A saga takes six batches, each of which may wait for one lock attempt: far less time than the report takes.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    report.rollback().await.unwrap();
    let dropped = HISTORY
        .drop_below(database.store.reporting(), floor_ms)
        .await
        .unwrap();
    assert_eq!(dropped.left, 0);
    assert_eq!(database.count("saga_history").await, 20);
}

/// Returns a database with a floor above some partitions.
async fn with_partitions_to_drop() -> Database {
    let database = long_memory().await;
    run(&database, old_saga()).await;
    let mut shorter = retention(&database, 30);
    shorter.make_room().await.unwrap();
    shorter.make_room().await.unwrap();
    database
}

/// Takes the lock that autovacuum holds on a partition for seconds. Autovacuum takes it again and again, and cannot be
/// interrupted in the first of these seconds.
async fn vacuum(database: &Database, partition: &str) -> Transaction<'static, Postgres> {
    let mut vacuum = database.store.pool().begin().await.unwrap();
    let statement = format!("LOCK TABLE ONLY {partition} IN SHARE UPDATE EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut *vacuum)
        .await
        .unwrap();
    vacuum
}

#[tokio::test]
async fn a_drop_does_not_wait_for_a_vacuum_of_another_partition() {
    let database = with_partitions_to_drop().await;
    let pool = database.store.reporting();
    let now_ms = saga_service::clock::now().timestamp_millis();
    let stand = HISTORY.partitions(pool).await.unwrap();
    let today = stand.iter().find(|one| one.span.to_ms > now_ms).unwrap();
    let vacuum = vacuum(&database, &today.name).await;
    let floor_ms = floor_of(&database).await.timestamp_millis();
    let dropped = HISTORY.drop_below(pool, floor_ms).await.unwrap();
    assert!(
        !dropped.partitions.is_empty() && dropped.left == 0,
        "{dropped:?}"
    );
    vacuum.rollback().await.unwrap();
}

#[tokio::test]
async fn a_partition_that_is_vacuumed_is_dropped_afterwards() {
    let database = with_partitions_to_drop().await;
    let pool = database.store.reporting();
    let floor_ms = floor_of(&database).await.timestamp_millis();
    let stand = HISTORY.partitions(pool).await.unwrap();
    let old = stand
        .iter()
        .rfind(|one| one.span.to_ms <= floor_ms)
        .unwrap();
    let vacuum = vacuum(&database, &old.name).await;
    let dropped = HISTORY.drop_below(pool, floor_ms).await.unwrap();
    assert!(dropped.left > 0, "{dropped:?}");
    // The last attempt waits for the table's lock for as long. If it waited for the partition's lock, all traffic would
    // wait, too.
    assert!(
        dropped.longest_lock < Duration::from_millis(800),
        "{dropped:?}"
    );
    vacuum.rollback().await.unwrap();
    let dropped = HISTORY.drop_below(pool, floor_ms).await.unwrap();
    assert_eq!(dropped.left, 0, "{dropped:?}");
}

#[tokio::test]
async fn partitions_are_made_once_also_by_two_at_a_time_and_gaps_are_filled() {
    let database = Database::new().await;
    let pool = database.store.pool();
    let now_ms = saga_service::clock::now().timestamp_millis();
    let ahead_ms = TimeDelta::days(100).num_milliseconds();
    let wanted = Span::covering(now_ms, now_ms + ahead_ms, HISTORY.width_ms);
    let (one, other) = tokio::join!(HISTORY.make(pool, wanted), HISTORY.make(pool, wanted));
    assert!(one.unwrap() + other.unwrap() > 10);
    let stand = HISTORY.partitions(pool).await.unwrap();
    assert!(reach_of(&stand, now_ms) >= now_ms + ahead_ms);
    let next = &stand[stand.len() - 5].name;
    // One partition is dropped, and one is detached and kept, so that its name is in use.
    for change in [
        format!("DROP TABLE {next}"),
        format!(
            "ALTER TABLE saga_history DETACH PARTITION {}",
            stand[stand.len() - 3].name
        ),
    ] {
        sqlx::raw_sql(AssertSqlSafe(change))
            .execute(pool)
            .await
            .unwrap();
    }
    let stand = HISTORY.partitions(pool).await.unwrap();
    assert!(reach_of(&stand, now_ms) < now_ms + ahead_ms);
    assert_eq!(HISTORY.make(pool, wanted).await.unwrap(), 2);
    let stand = HISTORY.partitions(pool).await.unwrap();
    assert!(reach_of(&stand, now_ms) >= now_ms + ahead_ms);
}

#[tokio::test]
async fn a_missing_partition_raises_an_alarm_and_is_made_and_nothing_is_lost() {
    let database = long_memory().await;
    let (saga, reserve) = database.started().await;
    drop_partition_of(&mut database.store.pool().acquire().await.unwrap(), saga.0).await;
    let mut waiting = vec![reserve];
    // The engine shares the alarm with its store.
    let mut engine = Engine::new(database.store.clone(), Database::shared());
    let (record, failed) = loop {
        let command = waiting.pop().expect("the saga cannot end");
        let record = database.reply(&command);
        match engine.process(std::slice::from_ref(&record)).await {
            Ok(outputs) => waiting.extend(commands(&outputs)),
            Err(error) => break (record, error),
        }
    };
    assert!(matches!(failed, BatchError::Retry(_)), "{failed:?}");
    let told = database.store.alarm().health().unwrap_err();
    assert!(told.contains("saga_history"), "{told}");
    let woken = tokio::time::timeout(PATIENCE, database.store.alarm().raised());
    woken.await.expect("upkeep is woken");
    retention(&database, 60).make_room().await.unwrap();
    assert_eq!(database.store.alarm().health(), Ok(()));
    let outputs = engine.process(&[record]).await.unwrap();
    assert!(!outputs.is_empty());
    let loaded = database.load(saga).await;
    assert_eq!((loaded.live.len(), loaded.ended.len()), (0, 1));
}

async fn drop_partition_of(connection: &mut sqlx::PgConnection, saga: Uuid) {
    // An inserted row shows its partition.
    let mut probe = connection.begin().await.unwrap();
    let partition: String = sqlx::query_scalar(
        "INSERT INTO saga_history SELECT $1, '', 1, '', '', NULL, '', '', now(), now(), '{}'
         RETURNING tableoid::regclass::text",
    )
    .bind(saga)
    .fetch_one(&mut *probe)
    .await
    .unwrap();
    probe.rollback().await.unwrap();
    let statement = format!("DROP TABLE {partition}");
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .unwrap();
}

fn yes(command: &Command) -> Outcome {
    assert_ne!(command.direction, Direction::Compensation);
    Outcome::Success
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_partition_is_created_again_by_a_running_orchestrator() {
    let mut system = System::start().await;
    let id = system.start_parcel("dropped").await;
    system.saga_is(&id, "running").await;
    drop_partition_of(&mut system.connect().await, id.parse().unwrap()).await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    // The saga cannot end until upkeep, woken by the alarm, has made the partition.
    system.saga_is(&id, "completed").await;
    until("health is well again", PATIENCE, || async {
        let (status, health) = system.get("/health").await;
        if status == 200 {
            Ok(())
        } else {
            Err(format!("{health:#}"))
        }
    })
    .await;
    let (_, overview) = system.get("/overview").await;
    assert_eq!(overview["retention"]["overaged"], 0, "{overview:#}");
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}
