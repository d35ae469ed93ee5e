//! Tests the handlers of single commands that a participant's author writes.

use crate::world::{STEP, World, compensation, forward, records, replies};
use saga_core::message::{self, Outcome, Reply};
use saga_messaging::consumer::Processor;
use saga_participant::{Command, Failure, HandlerError, Participant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;

#[derive(Deserialize)]
struct Book {
    parcel: i64,
}

#[derive(Serialize)]
struct Booked {
    booking: String,
}

struct Depot {
    parcels_max: i64,
}

async fn write(tx: &mut PgConnection, command: &Command<impl Sized>) -> Result<(), Failure> {
    sqlx::query("INSERT INTO effect (saga_id, what) VALUES ($1, $2)")
        .bind(command.saga_id.0)
        .bind(&command.command_type)
        .execute(tx)
        .await?;
    Ok(())
}

async fn book(
    depot: &Depot,
    tx: &mut PgConnection,
    command: Command<Book>,
) -> Result<Booked, Failure> {
    write(tx, &command).await?;
    let parcel = command.payload.parcel;
    if parcel > depot.parcels_max {
        return Err(Failure::business("no_parcel", "no parcel has this number"));
    }
    Ok(Booked {
        booking: format!("{}-{parcel}", command.step),
    })
}

async fn unbook(tx: &mut PgConnection, command: Command) -> Result<(), Failure> {
    write(tx, &command).await
}

async fn break_down(_: &mut PgConnection, _: Command) -> Result<(), Failure> {
    Err(HandlerError::Broken("it is out of order".to_owned()).into())
}

async fn answers(world: &World, commands: &[message::Command]) -> Vec<Reply> {
    let (mut processor, _) = Participant::with_state("test", Depot { parcels_max: 7 })
        .on("test.do", "test.booked", book)
        .on("test.undo", "test.unbooked", unbook)
        .on("test.break", "test.broken", break_down)
        .into_processor(world.pool.clone());
    replies(&processor.process(&records(commands)).await.unwrap())
}

fn ask(world: &World, command_type: &str, payload: Value) -> message::Command {
    message::Command {
        command_type: command_type.to_owned(),
        payload,
        ..forward(world.saga(), 1, "")
    }
}

#[tokio::test]
async fn a_handler_gets_its_payload_and_its_result_is_the_reply() {
    let world = World::new().await;
    let booked = ask(&world, "test.do", json!({"parcel": 7}));
    let unbooked = compensation(booked.saga_id, 1, "");
    let replies = answers(&world, &[booked.clone(), unbooked]).await;
    assert_eq!(replies[0].reply_type, "test.booked");
    assert_eq!(replies[0].payload, json!({"booking": format!("{STEP}-7")}));
    assert_eq!(replies[1].reply_type, "test.unbooked");
    assert_eq!(replies[1].payload, json!({}));
    assert_eq!(
        world.effects(booked.saga_id).await,
        ["test.do", "test.undo"]
    );
}

#[tokio::test]
async fn a_failed_handler_is_answered_by_its_kind_of_error_and_leaves_no_effect() {
    let world = World::new().await;
    let check = async |command_type: &str, payload, outcome, reply_type: &str, code: &str| {
        let command = ask(&world, command_type, payload);
        let reply = answers(&world, std::slice::from_ref(&command))
            .await
            .remove(0);
        assert_eq!(reply.outcome, outcome, "{reply:?}");
        assert_eq!(reply.reply_type, reply_type);
        assert_eq!(reply.payload["code"], code, "{reply:?}");
        assert!(world.effects(command.saga_id).await.is_empty());
    };
    let (failure, error) = (Outcome::Failure, Outcome::Error);
    check(
        "test.do",
        json!({"parcel": 8}),
        failure,
        "test.failed",
        "no_parcel",
    )
    .await;
    check(
        "test.do",
        json!({"parcel": "8"}),
        failure,
        "test.failed",
        "invalid_payload",
    )
    .await;
    check(
        "test.do",
        json!([8]),
        failure,
        "test.failed",
        "invalid_payload",
    )
    .await;
    check(
        "test.paint",
        json!({}),
        error,
        "test.paint.error",
        "unknown_command",
    )
    .await;
    check(
        "test.break",
        json!({}),
        error,
        "test.break.error",
        "handler_broken",
    )
    .await;
}

#[test]
#[should_panic(expected = "'test.do' has two handlers")]
fn a_command_has_one_handler() {
    drop(
        Participant::new("test")
            .on("test.do", "test.done", unbook)
            .on("test.do", "test.done", unbook),
    );
}
