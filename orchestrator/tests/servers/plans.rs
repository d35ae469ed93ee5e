//! Generic plans made on fresh tables fell to sequential scans. These must not, on empty tables or on full ones.

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
    let ids_and_bounds = format!("{IDS}, {BOUNDS}");
    let load = plan(
        pool,
        batch::LOAD_LIVE,
        &format!("{IDS}, ARRAY[7]::bigint[]"),
    )
    .await;
    assert!(
        load.contains("LockRows") && load.contains("saga_pkey"),
        "{load}"
    );
    assert!(load.contains("floor_pkey"), "{load}");
    let advance_arguments = format!("{IDS}{}", ", '{}'".repeat(10));
    let advance = plan(pool, batch::ADVANCE, &advance_arguments).await;
    assert!(
        advance.contains("Index Scan using saga_pkey on saga s"),
        "{advance}"
    );
    let end = plan(
        pool,
        batch::END,
        &format!("{IDS}, '{{}}', '{{}}', '{{}}', '{{}}'"),
    )
    .await;
    assert!(
        end.contains("Index Scan using saga_pkey on saga s"),
        "{end}"
    );
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
    for statement in [batch::LOAD_ENDED, batch::REMOVE_ENDED] {
        let pruned = plan(pool, statement, &ids_and_bounds).await;
        assert!(pruned.contains("Subplans Removed"), "{pruned}");
        assert!(!pruned.contains("Seq Scan"), "{pruned}");
    }
    assert!(!queued.contains("Seq Scan on saga"), "{queued}");
    for text in [load, advance, end] {
        assert!(!text.contains("Seq Scan on saga"), "{text}");
        // Each key is looked up: no row is compared with all keys.
        assert!(text.contains("Index Cond: (id = ANY (ARRAY["), "{text}");
        assert!(!text.contains("Join Filter: (s.id"), "{text}");
    }
}

#[tokio::test]
async fn batch_statements_use_the_key_and_prune_partitions_on_empty_and_on_full_tables() {
    let database = Database::new().await;
    check(&database).await;
    // As autovacuum finds it at night.
    database.started().await;
    analyze(&database).await;
    check(&database).await;
    for _ in 0..3 {
        database.started().await;
    }
    sqlx::raw_sql(
        "INSERT INTO saga (id, version, home_partition, definition, definition_version, definition_hash, status,
           waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error, business_key, correlation_id,
           start_hash, started_at, state)
         SELECT gen_random_uuid(), version, home_partition, definition, definition_version,
           definition_hash, status, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error,
           business_key, correlation_id, start_hash, started_at, state
         FROM saga, generate_series(1, 2000)",
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
