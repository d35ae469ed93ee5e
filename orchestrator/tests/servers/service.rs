//! The whole service.

use crate::system::System;
use saga_core::message::{Command, Direction, Outcome};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn yes(_command: &Command) -> Outcome {
    Outcome::Success
}

fn fail(command: &Command) -> Outcome {
    match command.direction {
        Direction::Forward => Outcome::Failure,
        Direction::Compensation | Direction::Resolve => Outcome::Success,
    }
}

fn break_compensation(command: &Command) -> Outcome {
    match command.direction {
        Direction::Compensation => Outcome::Error,
        Direction::Forward | Direction::Resolve => Outcome::Success,
    }
}

fn attempts(saga: &Value, step: usize) -> Vec<(String, u64, String)> {
    let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    saga["steps"][step]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| {
            let number = attempt["attempt"].as_u64().unwrap();
            (
                word(&attempt["direction"]),
                number,
                word(&attempt["outcome"]),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_started_over_http_runs_to_its_end_and_everybody_can_see_it() {
    let mut system = System::start().await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    let heard = system.listen("\"type\":\"completed\"").await;
    let id = system.start_parcel("p-1").await;
    let saga = system.saga_is(&id, "completed").await;
    assert_eq!(
        attempts(&saga, 0),
        [("forward".to_owned(), 1, "success".to_owned())]
    );
    assert_eq!(
        (&saga["definition"], &saga["definitionVersion"]),
        (&json!("parcel"), &json!(1))
    );
    assert!(saga["endedAt"].is_string());
    let heard = heard.await.unwrap();
    assert!(
        heard.contains(&id) && heard.contains("\"type\":\"started\""),
        "{heard}"
    );

    let (_, timeline) = system.get(&format!("/sagas/{id}/events")).await;
    let types: Vec<&str> = timeline["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let expected = [
        "started",
        "command_sent",
        "step_succeeded",
        "command_sent",
        "step_succeeded",
        "completed",
    ];
    assert_eq!(types, expected);
    let (_, found) = system.get("/sagas?businessKey=p-1&status=completed").await;
    assert_eq!(found["sagas"][0]["id"], id.as_str());
    let (_, overview) = system.get("/overview").await;
    assert_eq!(
        overview["ended"],
        json!([{"status": "completed", "count": 1}])
    );
    let (_, definition) = system.get("/definitions/parcel?version=1").await;
    assert_eq!(definition["steps"][1]["name"], "send");
    assert_eq!(system.get("/definitions/none").await.0, 404);
    let (_, openapi) = system.get("/api/openapi.json").await;
    assert!(openapi["paths"]["/sagas/{id}/cancel"]["post"].is_object());

    let cancel = format!("/sagas/{id}/cancel");
    let (status, refused) = system
        .post(&cancel, &[], &json!({"reason": "too late"}))
        .await;
    assert_eq!(
        (status, &refused["type"]),
        (409, &json!("/problems/ended")),
        "{refused:#}"
    );
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_that_is_away_costs_no_attempt_also_over_a_restart() {
    let mut system = System::start().await;
    let id = system.start_parcel("p-2").await;
    let words = |saga: &Value| {
        saga["waitingOn"]["text"]
            .to_string()
            .contains("not picked up by packer, since ")
    };
    system.saga_until(&id, "it is said at once", words).await;
    // Longer than the timeout: the row knows it too, and nothing was retried.
    system
        .saga_until(&id, "the row knows", |saga| {
            saga["steps"][0]["attempts"][0]["queuedAt"].is_string()
        })
        .await;
    let (_, listed) = system.get("/sagas?waitingOn=packer").await;
    assert_eq!(listed["sagas"][0]["waitingOn"]["kind"], "queued");
    system.stop_orchestrator().await;
    system.start_orchestrator().await;
    system.saga_until(&id, "it still waits", words).await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    let saga = system.saga_is(&id, "completed").await;
    for step in 0..2 {
        assert_eq!(
            attempts(&saga, step),
            [("forward".to_owned(), 1, "success".to_owned())]
        );
    }
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

/// The topic was made anew with fewer partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_whose_home_partition_is_gone_gets_another_one_at_the_start() {
    let mut system = System::start().await;
    let id = system.start_parcel("p-9").await;
    system
        .saga_until(&id, "it waits", |saga| {
            saga["waitingOn"]["text"].is_string()
        })
        .await;
    system.stop_orchestrator().await;
    sqlx::raw_sql(
        "UPDATE saga SET home_partition = 9, state = jsonb_set(state::jsonb, '{home_partition}', '9')::json",
    )
    .execute(&mut system.connect().await)
    .await
    .unwrap();
    system.start_orchestrator().await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    system.saga_is(&id, "completed").await;
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_pivot_compensates_and_a_used_up_compensation_parks_until_a_retry() {
    let mut system = System::start().await;
    let broken = system.participant("packer", break_compensation);
    let sender = system.participant("sender", fail);
    let id = system.start_parcel("p-3").await;
    let parked = system.saga_is(&id, "parked").await;
    assert_eq!(parked["cause"]["code"], "refused");
    assert!(
        parked["waitingOn"]["text"]
            .to_string()
            .contains("needs a person"),
        "{parked:#}"
    );
    broken.stop().await;
    let packer = system.participant("packer", yes);
    let retry = format!("/sagas/{id}/retry");
    let stale = [("if-match", "\"1\"")];
    let (status, refused) = system
        .post(&retry, &stale, &json!({"reason": "mended"}))
        .await;
    assert_eq!(
        (status, &refused["type"]),
        (409, &json!("/problems/version-changed"))
    );
    let (status, accepted) = system.post(&retry, &[], &json!({"reason": "mended"})).await;
    assert_eq!(
        (status, &accepted["decision"]),
        (202, &json!("accepted")),
        "{accepted:#}"
    );
    let saga = system.saga_is(&id, "compensated").await;
    let expected = [
        ("forward".to_owned(), 1, "success".to_owned()),
        ("compensation".to_owned(), 1, "error".to_owned()),
        ("compensation".to_owned(), 2, "success".to_owned()),
    ];
    assert_eq!(attempts(&saga, 0), expected);
    let (_, actions) = system.get(&format!("/sagas/{id}/actions")).await;
    assert_eq!(actions["actions"].as_array().unwrap().len(), 2);
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_keys_are_one_saga_and_bad_requests_leave_nothing() {
    let mut system = System::start().await;
    let body = json!({"definition": "parcel", "input": {"parcel": 7}});
    let key = [("idempotency-key", "k-1")];
    let (status, first) = system.post("/sagas", &key, &body).await;
    assert_eq!(status, 202);
    assert_eq!(
        system.post("/sagas", &key, &body).await.1["id"],
        first["id"]
    );
    let other = json!({"definition": "parcel", "input": {"parcel": 8}});
    assert_eq!(system.post("/sagas", &key, &other).await.0, 422);
    system
        .saga_is(first["id"].as_str().unwrap(), "running")
        .await;
    for (bad, status) in [
        (json!({"definition": "none", "input": {}}), 422),
        (json!({"definition": "parcel", "input": 7}), 422),
        (json!({"definition": "parcel", "input": {}, "more": 1}), 422),
        (json!({"definition": "parcel", "input": {"a": "\0"}}), 422),
        (
            json!({"definition": "parcel", "input": {}, "businessKey": ""}),
            422,
        ),
    ] {
        let (found, problem) = system.post("/sagas", &[], &bad).await;
        assert_eq!(found, status, "{bad}: {problem:#}");
        assert!(problem["errors"][0]["field"].is_string(), "{problem:#}");
    }
    let (_, all) = system.get("/sagas").await;
    assert_eq!(all["sagas"].as_array().unwrap().len(), 1);
    assert_eq!(system.get("/sagas?status=lost").await.0, 400);
    let unknown = "/sagas/01990000-0000-7000-8000-000000000001";
    assert_eq!(system.get(unknown).await.0, 404);
    let cancel = system
        .post(&format!("{unknown}/cancel"), &[], &json!({"reason": "x"}))
        .await;
    assert_eq!(cancel.0, 404);
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_before_the_pivot_compensates_what_may_have_run() {
    let mut system = System::start().await;
    let id = system.start_parcel("p-4").await;
    system.saga_is(&id, "running").await;
    let cancel = format!("/sagas/{id}/cancel");
    let (status, accepted) = system
        .post(&cancel, &[], &json!({"reason": "not wanted"}))
        .await;
    assert_eq!(
        (status, &accepted["decision"]),
        (202, &json!("accepted")),
        "{accepted:#}"
    );
    let packer = system.participant("packer", yes);
    let saga = system.saga_is(&id, "compensated").await;
    assert_eq!(saga["cause"]["message"], "not wanted");
    packer.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_orchestrator_shares_the_work_and_takes_it_over() {
    const SAGAS: usize = 30;
    let mut system = System::start().await;
    let sender = system.participant("sender", yes);
    let mut ids = Vec::new();
    for number in 0..SAGAS {
        ids.push(system.start_parcel(&format!("shared-{number}")).await);
        if number == SAGAS / 3 {
            system.start_orchestrator().await;
        }
    }
    for id in &ids {
        system.saga_is(id, "running").await;
    }
    system.stop_orchestrator().await;
    let packer = system.participant("packer", yes);
    for id in &ids {
        let saga = system.saga_is(id, "completed").await;
        for step in 0..2 {
            assert_eq!(
                attempts(&saga, step),
                [("forward".to_owned(), 1, "success".to_owned())],
                "no needless retry"
            );
        }
    }
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

/// What is promised of a SIGKILL: every saga moves again within this.
const TAKEOVER: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_orchestrators_sagas_move_again_within_ten_seconds() {
    let mut system = System::start().await;
    let mut other = system
        .spawn_process(env!("CARGO_BIN_EXE_orchestrator"))
        .await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    let before = system.start_parcel("before-the-kill").await;
    system.saga_is(&before, "completed").await;
    other.start_kill().unwrap();
    let killed = Instant::now();
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(system.start_parcel(&format!("killed-{number}")).await);
    }
    for id in &ids {
        system.saga_is(id, "completed").await;
    }
    let took = killed.elapsed();
    assert!(took < TAKEOVER, "{took:?}");
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}
