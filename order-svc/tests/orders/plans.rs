//! Tests that every statement of the store finds its rows by an index, even on tables without statistics.

use crate::harness::{PATIENCE, TestService, order};
use order_svc::store;
use saga_test_support::environment::until;
use serde_json::json;

/// The number of rounds is large enough that the scans of one statement exceed those of the migrations.
const ROUNDS: i64 = 40;

#[tokio::test]
async fn no_statement_scans_a_table() {
    let service = TestService::start().await;
    let headers = [("idempotency-key", "once"), ("prefer", "wait=1")];
    for _ in 0..ROUNDS {
        let body = order();
        let ending = async {
            let id = service.place(&body).await;
            service
                .post(&format!("/orders/{id}/cancel"), &[], &json!({}))
                .await;
            service.get(&format!("/orders/{id}")).await;
            service.get(&format!("/orders/{id}/events")).await;
            service.confirm(id).await;
        };
        let quick = [("idempotency-key", "another")];
        let placing = async {
            service.post("/orders", &quick, &body).await;
            service.post("/orders", &quick, &body).await;
        };
        tokio::join!(ending, placing);
    }
    // One wait polls many times.
    service.post("/orders", &headers, &order()).await;
    let mut connection = service.pool.acquire().await.expect("connection");
    for _ in 0..ROUNDS {
        store::idempotency::forget(&mut connection, 10)
            .await
            .expect("forgotten");
        store::order::count_pending(&mut connection, 10)
            .await
            .expect("counted");
    }
    drop(connection);
    let scans: Vec<(String, i64)> = until("statistics are flushed", PATIENCE, async || {
        sqlx::query("SELECT pg_stat_force_next_flush()")
            .execute(&service.pool)
            .await?;
        let scanned: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT relname::text, seq_scan, idx_scan FROM pg_stat_user_tables
             WHERE relname IN ('orders', 'order_event', 'idempotency')",
        )
        .fetch_all(&service.pool)
        .await?;
        let flushed = scanned.len() == 3 && scanned.iter().all(|(_, _, used)| *used >= ROUNDS);
        let scans = scanned
            .into_iter()
            .map(|(name, scans, _)| (name, scans))
            .collect();
        if flushed {
            Ok(scans)
        } else {
            Err(sqlx::Error::RowNotFound)
        }
    })
    .await;
    assert!(
        scans.iter().all(|(_, scans)| *scans < ROUNDS / 2),
        "{scans:?}"
    );
}
