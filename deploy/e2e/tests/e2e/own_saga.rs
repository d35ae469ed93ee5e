//! A user's own saga and own participant, without rebuilding any part of the system.

use crate::{alone, e2e};
use saga_harness::{
    Service,
    system::{SHIPPING_GROUP, SHIPPING_TOPIC},
};
use saga_participant::{
    CancellationToken, Command, Failure, KafkaConfig, Participant, SagaId, migrations,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

const DEFINITION: &str = r"
name: ship-parcel
version: 1
deadline: 1h
steps:
  - name: book
    kind: compensatable
    participant: shipping
    command: shipping.book
    compensation:
      command: shipping.unbook
      input: { parcel: $.input.parcel, booking: $.steps.book.booking }
  - name: hand-over
    kind: pivot
    participant: shipping
    command: shipping.hand-over
    input: { booking: $.steps.book.booking, address: $.input.address }
";

async fn log(tx: &mut PgConnection, saga: SagaId, what: &str) -> Result<(), Failure> {
    sqlx::query("INSERT INTO shipped (saga_id, what) VALUES ($1, $2)")
        .bind(saga.0)
        .bind(what)
        .execute(tx)
        .await?;
    Ok(())
}

async fn book(tx: &mut PgConnection, command: Command) -> Result<Value, Failure> {
    log(tx, command.saga_id, "booked").await?;
    Ok(json!({"booking": "B-1"}))
}

async fn unbook(tx: &mut PgConnection, command: Command) -> Result<(), Failure> {
    log(tx, command.saga_id, "unbooked").await
}

#[derive(Deserialize)]
struct HandOver {
    booking: String,
    address: String,
}

/// Hands a parcel over only to a known address.
async fn hand_over(tx: &mut PgConnection, command: Command<HandOver>) -> Result<(), Failure> {
    let HandOver { booking, address } = command.payload;
    if address == "nowhere" {
        return Err(Failure::business("unknown_address", "nobody lives there"));
    }
    assert_eq!(booking, "B-1");
    log(tx, command.saga_id, "handed over").await
}

e2e! {
async fn a_saga_of_ones_own_runs_with_a_participant_of_ones_own() {
    let (system, _guard) = alone().await;
    let file = system.definitions().join("ship-parcel.yaml");
    std::fs::write(&file, DEFINITION)?;
    system.stop(Service::Orchestrator)?;
    system.restart(Service::Orchestrator).await?;

    let pool = sqlx::PgPool::connect(&system.env.create_database("shipping").await).await?;
    sqlx::raw_sql("CREATE TABLE shipped (saga_id uuid, what text)").execute(&pool).await?;
    migrations::apply(&pool).await?;
    let stop = CancellationToken::new();
    let participant = Participant::new("shipping")
        .topic(SHIPPING_TOPIC)
        .group(SHIPPING_GROUP)
        .on("shipping.book", "shipping.booked", book)
        .on("shipping.unbook", "shipping.unbooked", unbook)
        .on("shipping.hand-over", "shipping.handed-over", hand_over);
    let kafka = KafkaConfig::plaintext(system.env.brokers());
    let participant = tokio::spawn(participant.run(pool.clone(), kafka, stop.clone()));

    for (address, status, effects) in [
        ("somewhere", "completed", vec!["booked", "handed over"]),
        ("nowhere", "compensated", vec!["booked", "unbooked"]),
    ] {
        let request = json!({
            "definition": "ship-parcel",
            "businessKey": address,
            "input": {"parcel": 7, "address": address},
        });
        let post = || {
            system
                .http
                .post(system.url(Service::Orchestrator, "/sagas"))
                .header("idempotency-key", format!("ship-{address}"))
                .json(&request)
                .send()
        };
        let first = post().await?;
        assert_eq!(first.status(), 202);
        let first: serde_json::Value = first.json().await?;
        let again: serde_json::Value = post().await?.json().await?;
        assert_eq!(first["id"], again["id"]);
        let id: uuid::Uuid = first["id"].as_str().unwrap_or_default().parse()?;
        system.saga_is(id, status).await?;
        let done: Vec<String> = sqlx::query_scalar("SELECT what FROM shipped WHERE saga_id = $1")
            .bind(id)
            .fetch_all(&pool)
            .await?;
        assert_eq!(done, effects);
        let found =
            system.get(Service::Orchestrator, &format!("/sagas?businessKey={address}")).await?;
        assert!(found.to_string().contains(&id.to_string()), "{found:#}");
    }
    stop.cancel();
    participant.await??;
    std::fs::remove_file(&file)?;
    Ok(())
}
}
