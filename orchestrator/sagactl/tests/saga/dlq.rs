//! Dead letters from the command line: listed, corrected, replayed once, discarded.

use crate::{
    sagactl,
    system::{PATIENCE, System},
    yes,
};
use saga_core::{
    ids::SagaId,
    message::{OutgoingRecord, StartSaga, Trace},
};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaWriter, TopicReader},
    log::LogWriter,
};
use saga_test_support::environment::until;
use serde_json::{Value, json};
use uuid::Uuid;

fn start(saga: Uuid, definition: &str, payload: &str) -> OutgoingRecord {
    let start = StartSaga {
        saga_id: SagaId(saga),
        start_type: "parcel.wanted".to_owned(),
        definition: definition.to_owned(),
        business_key: None,
        input: Value::Null,
        trace: Trace::default(),
    };
    OutgoingRecord {
        payload: payload.into(),
        ..start.encode("saga.inputs", 1, "/test", saga_service::clock::now())
    }
}

async fn publish(system: &System, records: &[OutgoingRecord]) {
    let writer = KafkaWriter::connect(&KafkaConfig::plaintext(system.brokers())).unwrap();
    writer.publish(records).await.unwrap();
}

async fn end_of_inputs(system: &System) -> i64 {
    let scan = TopicReader::connect(&KafkaConfig::plaintext(system.brokers())).unwrap();
    let windows = scan.windows("saga.inputs").await.unwrap();
    windows.values().map(|window| window.end).sum()
}

/// Waits until a saga has `count` open letters, and returns their ids.
async fn letters(system: &System, saga: Uuid, count: usize) -> Vec<String> {
    let id = saga.to_string();
    until("the letters are there", PATIENCE, || async {
        let list = ["dlq", "list", "--saga", &id, "--output", "json"];
        let page = sagactl(system, &list).await.expect(0, &[]).json();
        let letters = page["letters"].as_array().unwrap();
        let ids: Vec<String> = letters
            .iter()
            .map(|letter| letter["id"].as_str().unwrap().to_owned())
            .collect();
        if ids.len() == count {
            Ok(ids)
        } else {
            Err(format!("{page:#}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_put_right_and_replayed_once() {
    let mut system = System::start().await;
    let packer = system.participant("packer", yes);
    let sender = system.participant("sender", yes);
    let saga = saga_service::clock::new_id();
    publish(&system, &[start(saga, "parcel", r#"{"parcel": 7"#)]).await;
    let letter = letters(&system, saga, 1).await.remove(0);
    let shown = sagactl(&system, &["dlq", "show", &letter]).await;
    let words = [
        "bad_payload",
        "record: saga.inputs partition 1",
        "saga-definition",
        r#"{"parcel": 7"#,
    ];
    shown.expect(0, &words);

    let file = std::env::temp_dir().join(format!("{saga}.json"));
    std::fs::write(&file, r#"{"parcel": 7}"#).unwrap();
    let value = file.to_str().unwrap();
    let replay = [
        "dlq",
        "replay",
        &letter,
        "--value",
        value,
        "--why",
        "a brace was missing",
    ];
    for (bad, why) in [
        (r#""{\"parcel\": 7}""#, "an object was expected"),
        (r#"{"parcel": 123456789012345678901234}"#, "at /parcel: "),
        (
            r#"{"parcel": "seven"}"#,
            "does not fit its schema at /parcel",
        ),
    ] {
        std::fs::write(&file, bad).unwrap();
        sagactl(&system, &replay).await.expect(2, &["/value", why]);
    }
    std::fs::write(&file, r#"{"parcel": 7}"#).unwrap();
    letters(&system, saga, 1).await;
    let dry = [&replay[..], &["--dry-run"]].concat();
    sagactl(&system, &dry).await.expect(0, &["can be replayed"]);
    letters(&system, saga, 1).await;
    let replayed = sagactl(&system, &replay).await;
    replayed.expect(0, &["replayed by ann", "put right", "to partition 1"]);
    system.saga_is(&saga.to_string(), "completed").await;

    let end = end_of_inputs(&system).await;
    let again = sagactl(&system, &replay).await;
    again.expect(0, &["already replayed (replayed by ann"]);
    assert_eq!(end_of_inputs(&system).await, end, "nothing is sent again");
    letters(&system, saga, 0).await;
    let id = saga.to_string();
    let all = sagactl(&system, &["dlq", "list", "--saga", &id, "--all"]).await;
    all.expect(0, &[&letter, "replayed"]);
    let discard = ["dlq", "discard", &letter, "--why", "not needed"];
    let refused = sagactl(&system, &discard).await;
    refused.expect(
        1,
        &["the letter was replayed by ann", "a brace was missing"],
    );
    std::fs::remove_file(&file).unwrap();
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_replay_is_refused_with_its_reason() {
    let mut system = System::start().await;
    let month_ms = 40 * 24 * 3_600 * 1_000;
    let now_ms = saga_service::clock::now().timestamp_millis().unsigned_abs();
    let old = uuid::Builder::from_unix_timestamp_millis(now_ms - month_ms, &[7; 10]).into_uuid();
    let unwanted = saga_service::clock::new_id();
    let records = [
        start(old, "parcel", "{}"),
        start(unwanted, "no-such-thing", "{}"),
    ];
    publish(&system, &records).await;

    let letter = letters(&system, old, 1).await.remove(0);
    let replay = ["dlq", "replay", &letter, "--why", "try"];
    let refused = sagactl(&system, &[&replay[..], &["--output", "json"]].concat()).await;
    let problem = refused.expect(1, &["may be dropped already"]).json();
    assert_eq!(problem["type"], "/problems/below-floor");

    let letter = letters(&system, unwanted, 1).await.remove(0);
    let discard = ["dlq", "discard", &letter, "--why", "a mistake of a test"];
    sagactl(&system, &discard)
        .await
        .expect(0, &["discarded by ann"]);
    sagactl(&system, &discard)
        .await
        .expect(0, &["already discarded"]);
    let replay = ["dlq", "replay", &letter, "--why", "try"];
    let refused = sagactl(&system, &replay).await;
    refused.expect(1, &["was discarded by ann", "a mistake of a test"]);

    let far = ["dlq", "show", "saga.inputs.dlq/0/999999"];
    sagactl(&system, &far)
        .await
        .expect(1, &["there is no letter"]);
    let elsewhere = ["dlq", "list", "--topic", "nobody.knows"];
    sagactl(&system, &elsewhere)
        .await
        .expect(1, &["saga.inputs.dlq"]);
    let wrong = ["dlq", "show", "saga.inputs/0"];
    sagactl(&system, &wrong)
        .await
        .expect(2, &["is no letter's id"]);
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_letters_are_replayed_at_once_and_counted() {
    let mut system = System::start().await;
    let saga = saga_service::clock::new_id();
    let bad = start(saga, "not-yet-there", "{}");
    publish(&system, &[bad.clone(), bad.clone(), bad]).await;
    let first = letters(&system, saga, 3).await;
    until("they are counted", PATIENCE, || async {
        let metrics = system.metrics().await;
        let line = metrics.lines().find(|line| {
            line.starts_with("saga_dead_letters_open") && line.contains("\"unknown_definition\"")
        });
        match line {
            Some(line) if !line.ends_with(" 0") => Ok(()),
            Some(_) | None => Err(format!("{line:?}")),
        }
    })
    .await;

    let id = saga.to_string();
    let all = [
        "dlq",
        "replay",
        "--all",
        "--saga",
        &id,
        "--reason",
        "unknown_definition",
    ];
    let why = ["--why", "it is registered now"];
    let dry = [&all[..], &why, &["--dry-run"]].concat();
    sagactl(&system, &dry)
        .await
        .expect(0, &["can be replayed  3"]);
    let report = sagactl(&system, &[&all[..], &why, &["--output", "json"]].concat()).await;
    let report = report.expect(0, &[]).json();
    assert_eq!(report["outcomes"], json!({"replayed": 3}), "{report:#}");
    // The definition is not registered: each replayed record becomes a letter again, and the replayed letters are
    // closed.
    let second = letters(&system, saga, 3).await;
    assert!(second.iter().all(|letter| !first.contains(letter)));
    let none = [
        "dlq",
        "replay",
        "--all",
        "--reason",
        "nothing_like_it",
        "--why",
        "x",
    ];
    sagactl(&system, &none).await.expect(0, &["no such letter"]);
    system.stop_orchestrator().await;
}
