//! Tables: rows, partitions, home partitions and definitions.

use crate::fixture::{Database, commands, saga_at};
use chrono::TimeDelta;
use orchestrator::{
    engine::{saga_store::DefinitionStore, settings::Participants, timer_driver::TimerStore},
    registry::{self, RegistryError},
    store::{
        definition, history,
        listing::{self, LiveCount},
    },
};
use saga_core::definition::DefinitionHash;
use saga_messaging::consumer::{BatchError, Processor};

#[tokio::test]
async fn the_columns_of_a_live_saga_show_its_wait() {
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
async fn an_ended_saga_is_only_in_history_and_its_events_are_repeated_on_redelivery() {
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

/// The batch is retried without end; `retention` tests the recovery.
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
    let nobody = Participants::default();
    definition::register(pool, &sources, &nobody).await.unwrap();
    sources[0].definition.name = "new-one".to_owned();
    sources[0].definition.hash = DefinitionHash("new".to_owned());
    sources[1].definition.hash = DefinitionHash("other".to_owned());
    let refused = definition::register(pool, &sources, &nobody)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, RegistryError::Changed { version: 1, .. }),
        "{refused}"
    );
    let catalog = definition::catalog(pool).await.unwrap();
    assert!(!catalog.by_name().contains_key("new-one"));
    assert_eq!(catalog.definitions.len(), 2);
}

#[tokio::test]
async fn registered_definitions_are_read_with_their_hash_and_the_addresses_of_participants() {
    let database = Database::new().await;
    let definition = registry::read(true, None).unwrap().remove(0).definition;
    let catalog = database.store.catalog().await.unwrap();
    assert_eq!(catalog.generation, 1);
    let stored = &catalog.by_name()["place-order"][0];
    assert_eq!(stored.hash, definition.hash);
    let read = stored.definition.as_ref().unwrap();
    assert_eq!(
        (&read.name, &read.document, &read.hash),
        (&definition.name, &definition.document, &definition.hash)
    );
    assert_eq!(catalog.participants["payment"].group, "payment-svc");
    // A later release may write fields that this one does not know. The other definitions can still be read.
    sqlx::query(
        "UPDATE definition SET document = document || '{\"later\": 1}' WHERE name = 'place-order'",
    )
    .execute(database.store.pool())
    .await
    .unwrap();
    let catalog = database.store.catalog().await.unwrap();
    let names = catalog.by_name();
    let why = names["place-order"][0].definition.as_ref().unwrap_err();
    assert!(why.contains("later"), "{why}");
    assert!(names["place-order-payment-first"][0].definition.is_ok());
}
