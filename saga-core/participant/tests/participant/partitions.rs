//! Tests the barrier's partitions.

use crate::world::{World, forward, records, take, told};
use saga_messaging::consumer::{BatchError, Processor};
use saga_participant::inbox;
use std::time::Duration;

async fn partitions(world: &World) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'inbox'::regclass \
         ORDER BY 1",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn concurrent_creation_makes_each_partition_once() {
    let world = World::new().await;
    let before = partitions(&world).await;
    // There are partitions for the oldest sagas, two days back, today, and three days ahead.
    assert_eq!(before.len(), 7, "{before:?}");
    let (one, other) = tokio::join!(
        inbox::ensure_partitions(&world.pool, 5),
        inbox::ensure_partitions(&world.pool, 5)
    );
    one.unwrap();
    other.unwrap();
    assert_eq!(partitions(&world).await.len(), 9);
    inbox::ensure_partitions(&world.pool, 2).await.unwrap();
    assert_eq!(partitions(&world).await.len(), 9);
}

#[tokio::test]
async fn partitions_are_made_beside_an_open_batch() {
    let world = World::new().await;
    let mut batch = world.pool.begin().await.unwrap();
    inbox::record_started(&mut batch, &[world.saga()], "a")
        .await
        .unwrap();
    let made = inbox::ensure_partitions(&world.pool, 6);
    tokio::time::timeout(Duration::from_secs(10), made)
        .await
        .expect("nothing waits for the batch")
        .unwrap();
    batch.commit().await.unwrap();
}

#[tokio::test]
async fn sagas_of_every_age_have_a_place() {
    let world = World::new().await;
    let mut frame = world.frame();
    for age_hours in [0, 30, 24 * 40, 24 * 400] {
        let saga = World::saga_at(world.now - Duration::from_hours(age_hours));
        let reply = take(&mut frame, &[forward(saga, 1, "")]).await.remove(0);
        assert_eq!(told(&reply), "test.done success forward 1");
        assert_eq!(world.rows(saga).await, "F=D");
    }
}

#[tokio::test]
async fn reading_touches_the_partitions_of_its_ids_only() {
    let world = World::new().await;
    let ids = vec![world.saga().0];
    let mut connection = world.pool.acquire().await.unwrap();
    let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {}", inbox::READ);
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
        .bind(&ids)
        .bind(ids.first())
        .bind(ids.last())
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let plan = plan.join("\n");
    // The plan scans the floors' row and one partition.
    assert_eq!(plan.matches(" Scan").count(), 2, "{plan}");
    assert_eq!(plan.matches("Index Scan").count(), 2, "{plan}");
}

#[tokio::test]
async fn a_missing_partition_is_waited_for() {
    let world = World::new().await;
    let today = world.now.date_naive();
    // Without the partitions after today, it is as if upkeep had not run for days.
    for days in 1..=3 {
        let name = (today + chrono::Days::new(days)).format("inbox_%Y%m%d");
        let statement = format!("DROP TABLE {name}");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&world.pool)
            .await
            .unwrap();
    }
    let tomorrow = World::saga_at(world.now + Duration::from_secs(86_390));
    let batch = records(&[forward(tomorrow, 1, "")]);
    let error = world.frame().process(&batch).await.unwrap_err();
    assert!(matches!(error, BatchError::Retry(_)), "{error:?}");
    inbox::ensure_partitions(&world.pool, 3).await.unwrap();
    assert_eq!(
        take(&mut world.frame(), &[forward(tomorrow, 1, "")])
            .await
            .len(),
        1
    );
}
