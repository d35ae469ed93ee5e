//! One's own saga and one's own participant, without rebuilding anything of ours.

use crate::{alone, e2e};
use async_trait::async_trait;
use saga_core::message::{Command, Fault};
use saga_e2e::{
    Service,
    system::{SHIPPING_GROUP, SHIPPING_TOPIC},
};
use saga_messaging::{
    kafka::KafkaConfig,
    participant::{Answer, CommandHandler, HandlerError, ParticipantConfig},
};
use serde_json::json;
use sqlx::PgConnection;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

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

/// Books any parcel, hands over only to a known address.
struct Shipping;

#[async_trait]
impl CommandHandler for Shipping {
    async fn handle(
        &self,
        tx: &mut PgConnection,
        command: &Command,
    ) -> Result<Answer, HandlerError> {
        let log = |text: &'static str| {
            sqlx::query("INSERT INTO shipped (saga_id, what) VALUES ($1, $2)")
                .bind(command.saga_id.0)
                .bind(text)
        };
        match command.command_type.as_str() {
            "shipping.book" => {
                log("booked").execute(tx).await?;
                Ok(Answer::Success {
                    reply_type: "shipping.booked".to_owned(),
                    result: json!({"booking": "B-1"}),
                })
            }
            "shipping.unbook" => {
                log("unbooked").execute(tx).await?;
                Ok(Answer::Success {
                    reply_type: "shipping.unbooked".to_owned(),
                    result: json!({}),
                })
            }
            "shipping.hand-over" if command.payload["address"] == "nowhere" => {
                Ok(Answer::Failure {
                    reply_type: "shipping.refused".to_owned(),
                    fault: Fault::new("unknown_address", "nobody lives there"),
                })
            }
            "shipping.hand-over" => {
                assert_eq!(command.payload["booking"], "B-1");
                log("handed over").execute(tx).await?;
                Ok(Answer::Success {
                    reply_type: "shipping.done".to_owned(),
                    result: json!({}),
                })
            }
            other => Err(HandlerError::Broken(format!("unknown command {other}"))),
        }
    }
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
    saga_messaging::migrations::apply(&pool).await?;
    let stop = CancellationToken::new();
    let participant = tokio::spawn(saga_messaging::participant::run_commands(
        ParticipantConfig::new("shipping", SHIPPING_TOPIC, SHIPPING_GROUP),
        Arc::new(Shipping),
        pool.clone(),
        KafkaConfig::plaintext(system.env.brokers()),
        stop.clone(),
    ));

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
