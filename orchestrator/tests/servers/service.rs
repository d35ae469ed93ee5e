//! Tests of the whole service.

use crate::system::{PATIENCE, System, UNSURE, errs};
use saga_core::message::{Command, Direction, Outcome};
use saga_test_support::environment::until;
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
async fn an_unavailable_participant_costs_no_attempt_even_across_a_restart() {
    let mut system = System::start().await;
    let id = system.start_parcel("p-2").await;
    let words = |saga: &Value| {
        saga["waitingOn"]["text"]
            .to_string()
            .contains("not picked up by packer, since ")
    };
    system.saga_until(&id, "it is said at once", words).await;
    // This takes longer than the step's timeout: the row knows that the command is queued, and nothing was retried.
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

/// The topic was recreated with fewer partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_with_a_missing_home_partition_is_assigned_another_one_at_startup() {
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
    let large = "123456789012345678901234";
    for (bad, field) in [
        (r#"{"definition": "none", "input": {}}"#, "/definition"),
        (r#"{"definition": "parcel", "input": 7}"#, "/input"),
        (
            r#"{"definition": "parcel", "input": {}, "more": 1}"#,
            "/more",
        ),
        (
            r#"{"definition": "parcel", "input": {"a": "\u0000"}}"#,
            "/input/a",
        ),
        (
            r#"{"definition": "parcel", "input": {}, "businessKey": ""}"#,
            "/businessKey",
        ),
        (r#"["parcel", null, {}]"#, ""),
        (
            &format!(r#"{{"definition": "parcel", "input": {{"parcel": {large}}}}}"#),
            "/input/parcel",
        ),
        (
            r#"{"definition": "parcel", "input": {"parcel": "seven"}}"#,
            "/input/parcel",
        ),
    ] {
        let (status, problem) = system.post_text("/sagas", bad).await;
        assert_eq!(status, 422, "{bad}: {problem:#}");
        assert_eq!(problem["errors"][0]["field"], field, "{bad}: {problem:#}");
    }
    let saga = format!("/sagas/{}", first["id"].as_str().unwrap());
    for (action, given) in [("retry", "input"), ("complete", "result")] {
        let body =
            format!(r#"{{"step": "pack", "reason": "x", "{given}": {{"parcel": [{large}]}}}}"#);
        let (status, problem) = system.post_text(&format!("{saga}/{action}"), &body).await;
        assert_eq!(status, 422, "{body}: {problem:#}");
        assert_eq!(problem["errors"][0]["field"], format!("/{given}/parcel/0"));
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
async fn a_cancel_before_the_pivot_compensates_steps_that_may_have_run() {
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

/// The promised time after a SIGKILL within which every saga continues.
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

const CARRIED: &str = "name: carried
version: 1
deadline: 1h
steps:
  - name: carry
    kind: compensatable
    participant: courier
    command: courier.carry
    timeout: 1s
    compensation:
      command: courier.return
";

/// During a rollout, the first starts reach the older process, which has neither the file nor the participant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_only_a_newer_orchestrator_brings_runs_in_the_older_one_too() {
    const SAGAS: usize = 10;
    let mut system = System::start().await;
    let configured = "[participants.courier]\ntopic = 'courier.requests'\ngroup = 'courier'\n";
    system
        .bring("carried.yaml", CARRIED, configured, "courier.requests")
        .await;
    system.start_orchestrator().await;
    let mut ids = Vec::new();
    for _ in 0..SAGAS {
        let body = json!({"definition": "carried", "input": {"parcel": 7}});
        let (status, accepted) = system.post("/sagas", &[], &body).await;
        assert_eq!(status, 202, "{accepted:#}");
        ids.push(accepted["id"].as_str().unwrap().to_owned());
    }
    // Both processes read the offsets of the participant's group.
    for id in &ids {
        system
            .saga_until(id, "it is known to be queued", |saga| {
                saga["steps"][0]["attempts"][0]["queuedAt"].is_string()
            })
            .await;
    }
    let courier = system.participant_of("courier", "courier.requests", yes);
    for id in &ids {
        let saga = system.saga_is(id, "completed").await;
        assert_eq!(
            attempts(&saga, 0),
            [("forward".to_owned(), 1, "success".to_owned())]
        );
    }
    courier.stop().await;
    system.stop_orchestrator().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_definition_starts_nothing_until_it_is_restored_and_running_sagas_continue() {
    let mut system = System::start().await;
    let body = json!({"definition": "parcel", "businessKey": "w-1", "input": {"parcel": 7}});
    let key = [("idempotency-key", "w-1")];
    let (_, under_way) = system.post("/sagas", &key, &body).await;
    // The test waits until the saga is live: a start still in the log would be dead-lettered when its definition is
    // withdrawn.
    system
        .saga_is(under_way["id"].as_str().unwrap(), "running")
        .await;
    let withdraw = "/definitions/parcel/withdraw";
    let wanted = json!({"reason": "it packs twice", "actor": "eve"});
    for (path, wrong, status) in [
        (withdraw, json!({"reason": " "}), 422),
        (withdraw, json!({"reason": "x", "version": 7}), 404),
        ("/definitions/none/withdraw", wanted.clone(), 404),
    ] {
        assert_eq!(system.post(path, &[], &wrong).await.0, status, "{path}");
    }
    let (status, view) = system.post(withdraw, &[], &wanted).await;
    assert_eq!((status, &view["runs"]), (200, &Value::Null), "{view:#}");
    assert_eq!(view["versions"][0]["withdrawn"]["actor"], "eve");
    let (status, refused) = system.post("/sagas", &[], &body).await;
    assert_eq!(
        (status, &refused["type"]),
        (409, &json!("/problems/definition-withdrawn"))
    );
    assert!(refused["detail"].to_string().contains("it packs twice"));
    // A start that was accepted under its key before gets the same answer.
    let (status, again) = system.post("/sagas", &key, &body).await;
    assert_eq!((status, &again["id"]), (202, &under_way["id"]));
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    system
        .saga_is(under_way["id"].as_str().unwrap(), "completed")
        .await;
    // A restart does not change the withdrawal: the version is registered already, and stays withdrawn.
    system.stop_orchestrator().await;
    system.start_orchestrator().await;
    assert_eq!(system.post("/sagas", &[], &body).await.0, 409);
    let restore = json!({"reason": "mended", "version": 1});
    let (_, view) = system
        .post("/definitions/parcel/restore", &[], &restore)
        .await;
    assert_eq!(view["runs"], 1, "{view:#}");
    let id = system.start_parcel("w-2").await;
    system.saga_is(&id, "completed").await;
    let (_, told) = system.get("/definitions/parcel/actions").await;
    let actions: Vec<&Value> = told["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["action"])
        .collect();
    assert_eq!(actions, ["restored", "withdrawn"]);
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_business_key_that_a_live_saga_has_to_itself_is_refused_with_that_sagas_id() {
    let mut system = System::start().await;
    let item = "a0000000-0000-4000-8000-000000000001";
    let body = json!({"definition": "place-order", "businessKey": "mine", "input": {
        "orderId": item, "customerId": item, "amountMinor": 100, "currency": "EUR",
        "items": [{"productId": item, "quantity": 1, "unitPriceMinor": 100}]
    }});
    // Both are requested concurrently, before either is live.
    let (one, other) = tokio::join!(
        system.post("/sagas", &[], &body),
        system.post("/sagas", &[], &body)
    );
    let (accepted, refused) = if one.0 == 202 {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!((accepted.0, refused.0), (202, 409), "{refused:?}");
    let id = accepted.1["id"].as_str().unwrap().to_owned();
    system.saga_is(&id, "running").await;
    for (_, problem) in [refused, system.post("/sagas", &[], &body).await] {
        assert_eq!(problem["type"], "/problems/business-key-taken");
        assert!(problem["detail"].to_string().contains(&id), "{problem:#}");
    }
    let mut free = body.clone();
    free["businessKey"] = json!("another");
    assert_eq!(system.post("/sagas", &[], &free).await.0, 202);
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresolved_pivot_parks_and_not_done_leaves_its_warning_in_the_audit() {
    let mut system = System::start().await;
    system
        .bring("unsure.yaml", UNSURE, "", "packer.commands")
        .await;
    system.stop_orchestrator().await;
    system.start_orchestrator().await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", errs),
    );
    let mut parked = Vec::new();
    for _ in 0..2 {
        let body = json!({"definition": "unsure", "input": {}});
        let (status, accepted) = system.post("/sagas", &[], &body).await;
        assert_eq!(status, 202, "{accepted:#}");
        let id = accepted["id"].as_str().unwrap();
        parked.push(system.saga_is(id, "parked").await);
    }
    let saga = &parked[0];
    let text = saga["waitingOn"]["text"].as_str().unwrap();
    assert!(
        text.contains("sender was asked 2 times whether parcel.send was done"),
        "{text}"
    );
    // The older of the two has waited for longest.
    let waiting = until("the overview shows both", PATIENCE, async || {
        let (_, overview) = system.get("/overview").await;
        let waiting = overview["waiting"].as_array()?.clone();
        let for_people = waiting.into_iter().find(|one| one["kind"] == "person")?;
        (for_people["count"] == 2).then_some(for_people)
    })
    .await;
    assert_eq!(waiting["longestSince"], saga["waitingOn"]["since"]);

    let id = saga["id"].as_str().unwrap();
    let by_hand = json!({"step": "send", "reason": "the sender has no such parcel"});
    let (status, accepted) = system
        .post(&format!("/sagas/{id}/not-done"), &[], &by_hand)
        .await;
    assert_eq!(
        (status, &accepted["decision"]),
        (202, &json!("accepted")),
        "{accepted:#}"
    );
    system.saga_is(id, "compensated").await;
    let (_, audit) = system.get(&format!("/sagas/{id}/actions")).await;
    let row = &audit["actions"][0];
    assert_eq!(
        (&row["action"], &row["decision"], &row["reason"]),
        (&json!("not_done"), &json!("accepted"), &by_hand["reason"])
    );
    let warning = row["message"].as_str().unwrap();
    assert!(warning.contains("if it was done"), "{warning}");
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}
