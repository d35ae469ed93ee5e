//! Rows, partitions, homes and definitions.

use crate::fixture::{Database, commands, saga_at};
use chrono::TimeDelta;
use orchestrator::{
    engine::timers::driver::TimerStore,
    registry::{self, RegistryError},
    store::{
        definition, history,
        listing::{self, LiveCount},
    },
};
use saga_core::definition::DefinitionHash;
use saga_messaging::rule::{BatchError, Processor};

#[tokio::test]
async fn a_live_saga_says_in_columns_what_it_waits_for() {
    let database = Database::new().await;
    let (saga, _) = database.started().await;
    let row: (String, String, Option<String>, Option<i32>, bool) = sqlx::query_as(
        "SELECT status, waiting_kind, waiting_on, attempt, next_due > clock_timestamp() FROM saga WHERE id = $1",
    )
    .bind(saga.0)
    .fetch_one(database.store.reporting())
    .await
    .unwrap();
    let expected = (
        "running".to_owned(),
        "reply".to_owned(),
        Some("inventory".to_owned()),
        Some(1),
        true,
    );
    assert_eq!(row, expected);
}

#[tokio::test]
async fn an_ended_saga_stands_in_history_alone_and_is_told_again_on_redelivery() {
    let database = Database::new().await;
    let saga = crate::fixture::new_saga();
    let start = database.start(saga);
    let first = database
        .engine()
        .process(std::slice::from_ref(&start))
        .await
        .unwrap();
    database.run_to_end(first).await;
    let loaded = database.load(saga).await;
    assert_eq!((loaded.live.len(), loaded.ended.len()), (0, 1));
    let again = database.engine().process(&[start]).await.unwrap();
    assert_eq!(commands(&again), []);
    assert!(!again.is_empty(), "its events are sent again");
}

/// Made and never given up: see `retention` for how it is cured.
#[tokio::test]
async fn a_missing_partition_is_infrastructure_and_not_the_records_fault() {
    let database = Database::new().await;
    let saga = saga_at(saga_service::clock::now() - TimeDelta::days(200));
    let mut start = database.start(saga);
    start.timestamp_ms = saga.created_at_ms().unwrap();
    let mut engine = database.engine();
    let mut waiting = commands(&engine.process(&[start]).await.unwrap());
    let failed = loop {
        let command = waiting.pop().expect("the saga cannot end");
        match engine.process(&[database.reply(&command)]).await {
            Ok(outputs) => waiting.extend(commands(&outputs)),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, BatchError::Retry(_)), "{failed:?}");
}

#[tokio::test]
async fn sagas_without_a_home_get_one_in_column_and_state() {
    let database = Database::new().await;
    let (saga, _) = database.started().await;
    sqlx::query(
        "UPDATE saga SET home_partition = 9, state = jsonb_set(state::jsonb, '{home_partition}', '9')::json",
    )
    .execute(database.store.pool())
    .await
    .unwrap();
    let count = |partitions| listing::count_live(database.store.reporting(), partitions);
    for (partitions, homeless) in [(Some(9), 1), (Some(10), 0), (None, 0)] {
        let expected = LiveCount {
            by_status: vec![("running".to_owned(), 1)],
            homeless,
        };
        assert_eq!(count(partitions).await.unwrap(), expected);
    }
    assert_eq!(
        history::rehome(database.store.reporting(), 4)
            .await
            .unwrap(),
        1
    );
    assert_eq!(count(Some(4)).await.unwrap().homeless, 0);
    assert_eq!(
        history::rehome(database.store.reporting(), 4)
            .await
            .unwrap(),
        0
    );
    let row = database.load(saga).await.live.remove(0);
    assert_eq!((row.instance.home_partition, row.version), (1, 2));
    let (_, due) = database
        .store
        .due_rows(&[1], TimeDelta::days(2))
        .await
        .unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(
        database.store.live(&[saga]).await.unwrap()[0].home_partition,
        1
    );
}

#[tokio::test]
async fn a_version_with_other_content_is_refused_and_nothing_of_its_start_is_registered() {
    let database = Database::new().await;
    let pool = database.store.pool();
    let mut sources = registry::read(true, None).unwrap();
    definition::register(pool, &sources).await.unwrap();
    sources[0].definition.name = "new-one".to_owned();
    sources[0].definition.hash = DefinitionHash("new".to_owned());
    sources[1].definition.hash = DefinitionHash("other".to_owned());
    let refused = definition::register(pool, &sources).await.unwrap_err();
    assert!(
        matches!(refused, RegistryError::Changed { version: 1, .. }),
        "{refused}"
    );
    assert_eq!(definition::versions(pool, "new-one").await.unwrap(), []);
    assert_eq!(definition::all(pool).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_stored_definition_comes_back_under_its_hash() {
    let database = Database::new().await;
    let definition = registry::read(true, None).unwrap().remove(0).definition;
    let mut connection = database.store.pool().acquire().await.unwrap();
    let stored = definition::by_hash(&mut connection, &definition.hash)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (&stored.name, &stored.document),
        (&definition.name, &definition.document)
    );
    let unknown = DefinitionHash("unknown".to_owned());
    assert!(
        definition::by_hash(&mut connection, &unknown)
            .await
            .unwrap()
            .is_none()
    );
}
