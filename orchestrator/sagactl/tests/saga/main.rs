//! Runs the command line against a running orchestrator, and checks its output, its effects and its exit status.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dlq;
#[expect(dead_code, reason = "the orchestrator's own tests need more of it")]
#[path = "../../../tests/servers/system.rs"]
mod system;

use saga_core::message::{Command as SagaCommand, Direction, Outcome};
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use system::{System, UNSURE, errs};
use tokio::process::{Child, Command};

/// A finished run of the program.
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit status, and that each of these texts was printed.
    #[track_caller]
    fn expect(&self, status: i32, words: &[&str]) -> &Self {
        let Self { stdout, stderr, .. } = self;
        let everything = format!("status {}\n{stdout}\n{stderr}", self.status);
        assert_eq!(self.status, status, "{everything}");
        for word in words {
            assert!(everything.contains(word), "no '{word}' in {everything}");
        }
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("not JSON: {}", self.stdout))
    }
}

fn spawn(url: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sagactl"))
        .env("SAGACTL_URL", url)
        .env_remove("SAGACTL_TOKEN")
        .env("USER", "ann")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn sagactl(system: &System, arguments: &[&str]) -> Run {
    finished(spawn(&system.url(""), arguments)).await
}

async fn finished(child: Child) -> Run {
    Run::of(&child.wait_with_output().await.unwrap())
}

fn yes(_command: &SagaCommand) -> Outcome {
    Outcome::Success
}

fn fail(command: &SagaCommand) -> Outcome {
    match command.direction {
        Direction::Forward => Outcome::Failure,
        Direction::Compensation | Direction::Resolve => Outcome::Success,
    }
}

fn break_compensation(command: &SagaCommand) -> Outcome {
    match command.direction {
        Direction::Compensation => Outcome::Error,
        Direction::Forward | Direction::Resolve => Outcome::Success,
    }
}

/// Answers as a participant whose handler fails and whose barrier has no record of the step.
fn never_done(command: &SagaCommand) -> Outcome {
    match command.direction {
        Direction::Resolve => Outcome::NotDone,
        Direction::Forward | Direction::Compensation => Outcome::Error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_saga_is_found_shown_and_ended_by_skipping_its_compensation() {
    let mut system = System::start().await;
    let packer = system.participant("packer", break_compensation);
    let sender = system.participant("sender", fail);
    let id = system.start_parcel("p-1").await;
    system.saga_is(&id, "parked").await;

    let list = [
        "saga",
        "list",
        "--status",
        "parked",
        "--business-key",
        "p-1",
    ];
    let listed = sagactl(&system, &list).await;
    listed.expect(0, &[&id, "parcel", "p-1", "needs a person"]);
    let none = ["saga", "list", "--definition", "nothing-like-it"];
    sagactl(&system, &none).await.expect(0, &["no such saga"]);

    let shown = sagactl(&system, &["saga", "show", &id]).await;
    let words = [
        "needs a person: the compensation of 'pack'",
        "waiting since",
        "parcel.unpack #1",
        "legal now:",
        "skip --step pack --compensation",
    ];
    shown.expect(0, &words);

    let reason = ["--reason", "the parcel is lost", "--yes"];
    let of = |action: &'static str, more: &[&'static str]| -> Vec<String> {
        let words = ["saga", action, &id];
        let all = words.iter().chain(&reason).chain(more);
        all.map(|word| (*word).to_owned()).collect()
    };
    let ask = async |action: &'static str, more: &[&'static str]| {
        let arguments = of(action, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        sagactl(&system, &arguments).await
    };
    let refused = ask("complete", &["--step", "send"]).await;
    refused.expect(
        1,
        &["legal now: retry, skip the compensation of pack, abandon"],
    );
    let refused = ask("retry", &["--if-version", "1", "--output", "json"]).await;
    let problem = refused.expect(1, &[]).json();
    assert_eq!(problem["type"], "/problems/version-changed");
    assert_eq!(problem["legal"][0], "retry");

    let skipped = ask("skip", &["--step", "pack", "--compensation"]).await;
    skipped.expect(0, &["skip pack: accepted (the saga: parked → abandoned)"]);
    let shown = sagactl(&system, &["saga", "show", &id]).await;
    shown.expect(
        0,
        &[
            "abandoned: the parcel is lost",
            "pack: compensation_skipped",
        ],
    );
    ask("retry", &[])
        .await
        .expect(1, &["the saga has ended: abandoned"]);
    let audit = sagactl(&system, &["saga", "actions", &id]).await;
    audit.expect(
        0,
        &[
            "ann asked for skip pack",
            "ann asked for complete send: refused",
        ],
    );
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completing_a_step_by_hand_waits_for_its_participants_answer() {
    let mut system = System::start().await;
    let packer = system.participant("packer", yes);
    let id = system.start_parcel("p-2").await;
    let charging = |saga: &Value| saga["steps"][1]["state"] == "running";
    system.saga_until(&id, "it is being sent", charging).await;
    let result = r#"{"tracking": "by hand"}"#;
    let arguments = [
        "saga",
        "complete",
        &id,
        "--step",
        "send",
        "--result",
        result,
        "--reason",
        "sent by mail",
        "--yes",
        "--output",
        "json",
    ];
    // No participant runs yet that could answer the resolve, so the command waits.
    let waiting = spawn(&system.url(""), &arguments);
    system
        .saga_until(&id, "it is being asked for", |saga| {
            saga["waitingOn"]["text"]
                .to_string()
                .contains("not picked up by sender")
                && saga["steps"][1]["state"] == "resolving"
        })
        .await;
    let sender = system.participant("sender", never_done);
    let decided = finished(waiting).await;
    let action = decided.expect(0, &[]).json();
    assert_eq!(action["decision"], "accepted");
    assert_eq!(action["given"], json!({"tracking": "by hand"}));
    let saga = system.saga_is(&id, "completed").await;
    assert_eq!(saga["steps"][1]["result"], json!({"tracking": "by hand"}));
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_compensate_and_abandon_have_their_effects() {
    let mut system = System::start().await;
    let packer = system.participant("packer", yes);
    let mut ids = Vec::new();
    for name in ["cancel", "compensate", "abandon"] {
        let id = system.start_parcel(name).await;
        let sending = |saga: &Value| saga["steps"][1]["state"] == "running";
        system.saga_until(&id, "it is being sent", sending).await;
        let arguments = [
            "saga",
            name,
            &id,
            "--reason",
            "not wanted",
            "--yes",
            "--wait",
            "0",
            "--output",
            "json",
        ];
        let run = sagactl(&system, &arguments).await;
        let decision = run.expect(0, &[]).json()["decision"].clone();
        assert_eq!(
            decision,
            if name == "abandon" {
                "accepted"
            } else {
                "pending"
            }
        );
        ids.push(id);
    }
    let sender = system.participant("sender", never_done);
    for (id, cause) in ids.iter().zip(["cancelled", "operator"]) {
        let saga = system.saga_is(id, "compensated").await;
        assert_eq!(saga["cause"]["code"], cause);
        let audit = sagactl(&system, &["saga", "actions", id, "--output", "json"]).await;
        assert_eq!(audit.json()["actions"][0]["decision"], "accepted");
    }
    let abandoned = system.saga_is(&ids[2], "abandoned").await;
    assert_eq!(abandoned["abandoned"], "not wanted");
    assert_eq!(abandoned["legalActions"], json!([]));
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_withdrawn_and_restored_with_a_reason_that_everybody_can_read() {
    let mut system = System::start().await;
    let list = ["definition", "list"];
    sagactl(&system, &list).await.expect(
        0,
        &[
            "parcel: new sagas take version 1",
            "version 1  registered 20",
        ],
    );
    let ask = async |action: &str, more: &[&str]| {
        let mut arguments = vec!["definition", action, "parcel"];
        arguments.extend(more);
        sagactl(&system, &arguments).await
    };
    ask("withdraw", &[]).await.expect(2, &["--reason"]);
    ask("withdraw", &["--version", "3", "--reason", "x"])
        .await
        .expect(1, &["no definition 'parcel' version 3 is registered"]);
    let refused = "parcel: starts are refused, every version is withdrawn";
    ask(
        "withdraw",
        &["--version", "1", "--reason", "it packs twice"],
    )
    .await
    .expect(0, &[refused, "by ann: it packs twice"]);
    sagactl(&system, &list).await.expect(0, &[refused]);
    ask("restore", &["--reason", "mended"])
        .await
        .expect(0, &["parcel: new sagas take version 1"]);
    ask("actions", &[]).await.expect(
        0,
        &[
            "version 1 restored by ann: mended",
            "version 1 withdrawn by ann: it packs twice",
        ],
    );
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_wrong_usage_and_absence_have_different_exit_statuses() {
    let mut system = System::start().await;
    let unknown = "01990000-0000-7000-8000-000000000001";
    let abandon = ["saga", "abandon", unknown, "--reason", "x"];
    sagactl(&system, &["saga", "show", unknown])
        .await
        .expect(1, &["no saga"]);
    sagactl(&system, &abandon)
        .await
        .expect(2, &["there is no terminal to confirm it"]);
    sagactl(&system, &["saga", "abandon", unknown, "--yes"])
        .await
        .expect(2, &["--reason"]);
    sagactl(&system, &["saga", "list", "--status", "lost"])
        .await
        .expect(2, &["must be one of running"]);
    system.stop_orchestrator().await;
    let nobody = ["saga", "list", "--output", "json"];
    let run = finished(spawn("http://127.0.0.1:1", &nobody)).await;
    let problem = run.expect(2, &["cannot be reached"]).json();
    assert_eq!(problem["type"], "/problems/unreachable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_requests_need_the_token_and_reading_requests_do_not() {
    let mut system = System::start_with("[access]\ntoken = 'secret'\n").await;
    let unknown = "01990000-0000-7000-8000-000000000001";
    let bodies = [
        ("retry", json!({"reason": "x"})),
        ("cancel", json!({"reason": "x"})),
        ("compensate", json!({"reason": "x"})),
        ("complete", json!({"reason": "x", "step": "send"})),
        ("skip", json!({"reason": "x", "step": "send"})),
        ("abandon", json!({"reason": "x"})),
    ];
    let right = [("authorization", "Bearer secret")];
    for (action, body) in bodies {
        let path = format!("/sagas/{unknown}/{action}");
        assert_eq!(system.post(&path, &[], &body).await.0, 401, "{action}");
        assert_eq!(system.post(&path, &right, &body).await.0, 404, "{action}");
    }
    for action in ["withdraw", "restore"] {
        let path = format!("/definitions/none/{action}");
        let body = json!({"reason": "x"});
        assert_eq!(system.post(&path, &[], &body).await.0, 401, "{action}");
        assert_eq!(system.post(&path, &right, &body).await.0, 404, "{action}");
    }
    sagactl(&system, &["saga", "list"]).await.expect(0, &[]);
    let abandon = ["saga", "abandon", unknown, "--reason", "x", "--yes"];
    let with = async |more: &[&str]| {
        let arguments: Vec<&str> = abandon.iter().chain(more).copied().collect();
        sagactl(&system, &arguments).await
    };
    with(&[]).await.expect(2, &["needs the header", "--token"]);
    with(&["--token", "wrong"])
        .await
        .expect(2, &["not the right one"]);
    let file = std::env::temp_dir().join(format!("sagactl-token-{}", std::process::id()));
    std::fs::write(&file, "secret\n").unwrap();
    let path = file.to_str().unwrap();
    with(&["--token-file", path]).await.expect(1, &["no saga"]);
    std::fs::remove_file(&file).unwrap();
    with(&["--token-file", path])
        .await
        .expect(2, &["the token file"]);
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresolved_pivot_is_decided_by_hand_with_a_warning() {
    let mut system = System::start().await;
    system
        .bring("unsure.yaml", UNSURE, "", "packer.commands")
        .await;
    system.stop_orchestrator().await;
    system.start_orchestrator().await;
    let packer = system.participant("packer", yes);
    let sender = system.participant("sender", errs);
    for (action, more, end, risk) in [
        (
            "complete",
            &["--result", "{}"][..],
            "completed",
            "if it was not done",
        ),
        ("not-done", &[], "compensated", "if it was done"),
    ] {
        let start = json!({"definition": "unsure", "input": {}});
        let (status, accepted) = system.post("/sagas", &[], &start).await;
        assert_eq!(status, 202, "{accepted:#}");
        let id = accepted["id"].as_str().unwrap();
        system.saga_is(id, "parked").await;
        let by_hand = ["saga", action, id, "--step", "send", "--yes"];
        let reason = ["--reason", "the sender looked it up"];
        let asked = sagactl(&system, &[&by_hand[..], &reason, more].concat()).await;
        asked.expect(0, &["accepted", risk]);
        system.saga_is(id, end).await;
        let audit = sagactl(&system, &["saga", "actions", id]).await;
        audit.expect(0, &["the sender looked it up", risk]);
    }
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}
