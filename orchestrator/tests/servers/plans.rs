//! Plans of statements. Generic plans that were made on fresh tables used sequential scans; these must not, on empty
//! tables or on full ones.

use crate::fixture::Database;
use orchestrator::store::{batch, timer};
use sqlx::{AssertSqlSafe, PgPool};

async fn plan(pool: &PgPool, statement: &str, arguments: &str) -> String {
    let mut connection = pool.acquire().await.unwrap();
    let prepare = format!("PREPARE looked_at AS {statement}");
    sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
        .unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE looked_at({arguments})");
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    sqlx::raw_sql("DEALLOCATE looked_at")
        .execute(&mut *connection)
        .await
        .unwrap();
    lines.join("\n")
}

const IDS: &str = "ARRAY['01990000-0000-7000-8000-000000000001']::uuid[]";
const BOUNDS: &str =
    "'01990000-0000-7000-8000-000000000001', '01990000-0000-7000-8000-000000000001'";

async fn check(database: &Database) {
    let pool = database.store.pool();
    let keys = "ARRAY['place-order'], ARRAY['key']";
    let read = plan(pool, batch::READ, &format!("{IDS}, {BOUNDS}, {keys}")).await;
    assert!(read.contains("floor_pkey"), "{read}");
    // Each key is looked up. No row is compared with all keys.
    assert!(read.contains("saga_unique_key"), "{read}");
    let key = "Index Cond: (((definition || '/'::text) || business_key) = ANY (ARRAY[";
    assert!(read.contains(key), "{read}");
    let nothing = ", '{}'";
    let changes = format!("{IDS}{}", nothing.repeat(17));
    let change = plan(pool, batch::CHANGE, &changes).await;
    let behind_starts = plan(
        pool,
        batch::CHANGE_BEHIND_STARTS,
        &format!("{changes}, {IDS}, {BOUNDS}"),
    )
    .await;
    let start = plan(
        pool,
        batch::START,
        &format!("{IDS}{}, 0, 0", nothing.repeat(18)),
    )
    .await;
    assert!(start.contains("floor_pkey"), "{start}");
    let after = "'01990000-0000-7000-8000-000000000001'";
    let queued = plan(
        pool,
        timer::QUEUED_ROWS,
        &format!("{after}, 20000, '{{0}}'"),
    )
    .await;
    assert!(
        queued.contains("Index Scan using saga_pkey on saga"),
        "{queued}"
    );
    assert!(queued.contains("Index Cond: (id > $1)"), "{queued}");
    assert!(read.contains("saga_pkey"), "{read}");
    for text in [&read, &behind_starts] {
        assert!(text.contains("Subplans Removed"), "{text}");
    }
    for text in [&change, &behind_starts] {
        // Each key is looked up for the sagas that advance, for those that end, and for those that are unmodified. No
        // row is compared with all keys.
        let looked_up = "Index Scan using saga_pkey on saga s";
        let scans = text.matches(looked_up).count();
        assert_eq!(
            (scans, text.matches("Index Cond: (id = ANY (ARRAY[").count()),
            (3, 3),
            "{text}"
        );
    }
    for text in [read, change, behind_starts, start, queued] {
        assert!(!text.contains("Seq Scan"), "{text}");
        assert!(!text.contains("Join Filter: (s.id"), "{text}");
    }
}

#[tokio::test]
async fn batch_statements_use_the_key_and_prune_partitions_on_empty_and_on_full_tables() {
    let database = Database::new().await;
    check(&database).await;
    // The statistics are those that autovacuum collects while the tables are almost empty.
    database.started().await;
    analyze(&database).await;
    check(&database).await;
    for _ in 0..3 {
        database.started().await;
    }
    sqlx::raw_sql(
        "INSERT INTO saga (id, version, home_partition, definition, definition_version, definition_hash, status,
           waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error, business_key, correlation_id,
           start_hash, started_at, state, unique_key)
         SELECT gen_random_uuid(), version, home_partition, definition, definition_version,
           definition_hash, status, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error,
           business_key || number, correlation_id, start_hash, started_at, state, unique_key
         FROM saga, generate_series(1, 2000) AS number",
    )
    .execute(database.store.pool())
    .await
    .unwrap();
    analyze(&database).await;
    check(&database).await;
}

async fn analyze(database: &Database) {
    sqlx::raw_sql("ANALYZE saga")
        .execute(database.store.pool())
        .await
        .unwrap();
}
