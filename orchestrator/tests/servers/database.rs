//! The orchestrator's consumer group belongs to its database.

use crate::system::{PATIENCE, System, free_port};
use saga_core::message::{Command, Outcome};
use saga_test_support::environment::until;
use std::process::Output;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_orchestrator");

fn yes(_command: &Command) -> Outcome {
    Outcome::Success
}

async fn ended(system: &System, database: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = system.command(EXECUTABLE, free_port().await, database);
    let output = tokio::time::timeout(PATIENCE, command.args(arguments).output());
    let Output {
        status,
        stdout,
        stderr,
    } = output.await.expect("it ends").unwrap();
    let text = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (status.code(), text.concat())
}

async fn identity(database: &str) -> String {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(database)
        .await
        .unwrap();
    sqlx::query_scalar("SELECT id::text FROM database_identity")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_with_another_database_does_not_start_until_the_group_is_given_to_it() {
    let mut system = System::start().await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    let before = system.start_parcel("before").await;
    system.saga_is(&before, "completed").await;
    let (ours, other) = (system.database().to_owned(), system.create_database().await);
    let (status, text) = ended(&system, &other, &[]).await;
    assert_eq!(status, Some(1), "{text}");
    let (our_id, other_id) = (identity(&ours).await, identity(&other).await);
    let said = [
        "consumer group 'orchestrator'",
        &our_id,
        &other_id,
        "adopt-group",
    ];
    assert_contains(&text, &said);
    // No saga was stranded in the meantime.
    for number in 0..4 {
        let id = system.start_parcel(&format!("beside-{number}")).await;
        system.saga_is(&id, "completed").await;
    }

    let (status, text) = ended(&system, &other, &["adopt-group", "--yes"]).await;
    assert_eq!(status, Some(1), "{text}");
    assert_contains(&text, &["has members"]);
    system.stop_orchestrator().await;
    let (status, text) = ended(&system, &other, &["adopt-group"]).await;
    assert_eq!(status, Some(1), "{text}");
    assert_contains(&text, &["--yes", &our_id, &other_id]);
    until("the group has no members", PATIENCE, async || {
        let (status, text) = ended(&system, &other, &["adopt-group", "--yes"]).await;
        if status == Some(0) {
            assert_contains(&text, &[&our_id, &other_id]);
            return Ok(());
        }
        Err(text)
    })
    .await;
    let (status, text) = ended(&system, &ours, &[]).await;
    assert_eq!(status, Some(1), "{text}");
    assert_contains(&text, &[&our_id, &other_id]);
    let mut process = system.spawn_process_on(EXECUTABLE, &other).await;
    process.start_kill().unwrap();
    packer.stop().await;
    sender.stop().await;
}
