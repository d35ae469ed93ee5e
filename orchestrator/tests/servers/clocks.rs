//! An orchestrator whose machine and database have different clocks. The database's clock is changed for processes of
//! their own: this process has one clock for all its tests.

use crate::system::{PATIENCE, System, free_port};
use saga_core::message::{Command, Outcome};
use saga_test_support::{environment::until, http_client};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use std::process::Stdio;
use tokio::process::Child;

fn yes(_command: &Command) -> Outcome {
    Outcome::Success
}

/// An orchestrator in a process of its own.
struct Other {
    process: Child,
    base: String,
}

impl Other {
    /// Starts an orchestrator whose database's clock differs by `skew`, an interval of Postgres.
    async fn with_skew(system: &System, skew: &str) -> Self {
        let name = system.database().rsplit_once('/').unwrap().1;
        let shifted = format!(
            "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
               AS $$SELECT pg_catalog.clock_timestamp() + interval '{skew}'$$;
             ALTER DATABASE \"{name}\" SET search_path = public, pg_catalog"
        );
        sqlx::raw_sql(AssertSqlSafe(shifted))
            .execute(&mut system.connect().await)
            .await
            .unwrap();
        let port = free_port().await;
        let mut command =
            system.command(env!("CARGO_BIN_EXE_orchestrator"), port, system.database());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let other = Self {
            process: process.unwrap(),
            base: format!("http://127.0.0.1:{port}"),
        };
        until("it is ready", PATIENCE, async || {
            let ready = other.get("/health/ready").await;
            ready.is_some_and(|(status, _)| status == 200)
        })
        .await;
        other
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let request = http_client().get(format!("{}{path}", self.base));
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    async fn start_parcel(&self) -> (u16, Value) {
        let body = json!({"definition": "parcel", "input": {"parcel": 7}});
        let request = http_client().post(format!("{}/sagas", self.base));
        let answer = request.json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Asserts that `/health` is down for the clock, and says on which side of the database's clock the machine's is.
    async fn clock_is(&self, side: &str) {
        let (status, body) = self.get("/health").await.unwrap();
        let health: Value = serde_json::from_str(&body).unwrap();
        let found = health["dependencies"].as_array().unwrap();
        let clock = found.iter().find(|one| one["name"] == "clock").unwrap();
        assert_eq!(
            (status, &clock["status"]),
            (503, &json!("down")),
            "{health:#}"
        );
        assert!(clock["detail"].as_str().unwrap().ends_with(side), "{clock}");
    }

    async fn stop(mut self) {
        self.process.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differing_clocks_are_reported_by_every_observer_and_large_skews_block_new_sagas() {
    let mut system = System::start().await;
    system.stop_orchestrator().await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    // Participants have the right time, which is two hours in the future of this database.
    let other = Other::with_skew(&system, "-2 hours").await;
    other.clock_is("ahead of the database's").await;
    let (status, accepted) = other.start_parcel().await;
    assert_eq!(status, 202, "{accepted:#}");
    let saga = format!("/sagas/{}", accepted["id"].as_str().unwrap());
    until("the saga is completed", PATIENCE, async || {
        let (_, body) = other.get(&saga).await?;
        let saga: Value = serde_json::from_str(&body).ok()?;
        (saga["status"] == "completed").then_some(())
    })
    .await;
    let (_, metrics) = other.get("/metrics").await.unwrap();
    let heard = metrics.lines().find(|line| {
        line.starts_with("saga_records_from_the_future_total{") && line.contains("saga.inputs")
    });
    assert!(heard.is_some_and(|line| !line.ends_with(" 0")), "{heard:?}");
    other.stop().await;

    for (skew, side) in [
        ("-13 hours", "ahead of the database's"),
        ("13 hours", "behind the database's"),
    ] {
        let other = Other::with_skew(&system, skew).await;
        let (status, problem) = other.start_parcel().await;
        assert_eq!(
            (status, &problem["type"]),
            (503, &json!("/problems/clock-skew")),
            "{problem:#}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(side), "{detail}");
        other.clock_is(side).await;
        other.stop().await;
    }
    packer.stop().await;
    sender.stop().await;
}
