//! Tests that accepting an order raises the alarm if the barrier's partition is missing.

use crate::harness::{TestService, order};
use saga_participant::{inbox, internal::BarrierUpkeep};
use sqlx::AssertSqlSafe;

const AHEAD_DAYS: u32 = 2;

#[tokio::test]
async fn without_a_partition_an_order_is_not_accepted_until_upkeep_has_made_it() {
    let service = TestService::start().await;
    inbox::ensure_partitions(&service.pool, AHEAD_DAYS)
        .await
        .expect("partitions");
    let today = saga_service::clock::now().date_naive();
    // Tomorrow's partition too, because the day may change before the order arrives.
    for day in [today, today + chrono::Days::new(1)] {
        let statement = format!("DROP TABLE {}", day.format("inbox_%Y%m%d"));
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&service.pool)
            .await
            .expect("dropped");
    }
    let refused = service.post("/orders", &[], &order()).await;
    assert_eq!(refused.status, 503, "{}", refused.json());
    assert_eq!(service.count("orders").await, 0);
    let alarm = &service.intake.partition_alarm;
    let told = alarm.health().expect_err("the alarm is raised");
    assert!(told.contains("inbox"), "{told}");
    // The alarm wakes this task.
    BarrierUpkeep::new(service.pool.clone(), AHEAD_DAYS, alarm.clone())
        .round()
        .await;
    assert_eq!(alarm.health(), Ok(()));
    assert_eq!(service.post("/orders", &[], &order()).await.status, 201);
}
