//! A participant of one's own, whole: `shipping` books parcels in its own database and hands them over.
//!
//! ```text
//! SHIPPING_DATABASE_URL=postgres://shipping:secret@127.0.0.1/shipping \
//! SHIPPING_KAFKA_BROKERS=127.0.0.1:9092 \
//! cargo run -p saga-messaging --example shipping
//! ```
//!
//! What stands here is business: the handler, its table, its names. The barrier's tables, their partitions,
//! duplicates, empty compensations, `resolve`, dead letters, metrics and logs come from the library. A saga definition
//! uses it by the command types below, and the orchestrator's configuration names its topic and group:
//!
//! ```yaml
//! name: ship-parcel
//! version: 1
//! deadline: 24h
//! steps:
//!   - name: book
//!     kind: compensatable
//!     participant: shipping
//!     command: shipping.book
//!     compensation: { command: shipping.unbook }
//!   - name: hand-over
//!     kind: pivot
//!     participant: shipping
//!     command: shipping.hand-over
//! ```

use anyhow::Context;
use async_trait::async_trait;
use saga_core::message::{Command, Fault};
use saga_messaging::{
    kafka::{
        KafkaConfig,
        admin::{TopicSpec, ensure_topics},
    },
    migrations,
    participant::{self, Answer, CommandHandler, HandlerError, ParticipantConfig},
};
use saga_service::{
    config::Secret,
    lifecycle::Shutdown,
    postgres::{PostgresConfig, store_pool},
    telemetry::{self, LogConfig, LogFormat},
};
use serde_json::json;
use sqlx::PgConnection;
use std::{env, sync::Arc};

const TOPIC: &str = "shipping.commands";
const GROUP: &str = "shipping-svc";
/// As many partitions as the parallelism needs, and no more: Kafka's cost goes with requests.
const PARTITIONS: i32 = 2;

/// One parcel a saga. The key makes a second booking impossible; that it never comes to that is the barrier's work.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS booking (
        saga_id     uuid PRIMARY KEY,
        parcel      bigint NOT NULL,
        handed_over boolean NOT NULL DEFAULT false
    )";

struct Shipping;

#[async_trait]
impl CommandHandler for Shipping {
    async fn handle(
        &self,
        tx: &mut PgConnection,
        command: &Command,
    ) -> Result<Answer, HandlerError> {
        match command.command_type.as_str() {
            "shipping.book" => book(tx, command).await,
            "shipping.unbook" => unbook(tx, command).await,
            "shipping.hand-over" => hand_over(tx, command).await,
            // Perhaps for a newer version of this program: the step's policy retries.
            other => Ok(Answer::Error {
                fault: Fault::new(
                    "unknown_command",
                    format!("shipping does not know '{other}'"),
                ),
            }),
        }
    }
}

async fn book(tx: &mut PgConnection, command: &Command) -> Result<Answer, HandlerError> {
    let Some(parcel) = command.payload["parcel"].as_i64() else {
        // A business answer: the saga compensates. It is saved, so asking again does not change it.
        return Ok(Answer::Failure {
            reply_type: "shipping.refused".to_owned(),
            fault: Fault::new("no_parcel", "the payload names no parcel"),
        });
    };
    sqlx::query("INSERT INTO booking (saga_id, parcel) VALUES ($1, $2)")
        .bind(command.saga_id.0)
        .bind(parcel)
        .execute(tx)
        .await?;
    Ok(Answer::Success {
        reply_type: "shipping.booked".to_owned(),
        result: json!({"booking": command.saga_id}),
    })
}

/// Only ever called after a booking that succeeded: what was never booked is compensated by the library.
async fn unbook(tx: &mut PgConnection, command: &Command) -> Result<Answer, HandlerError> {
    sqlx::query("DELETE FROM booking WHERE saga_id = $1")
        .bind(command.saga_id.0)
        .execute(tx)
        .await?;
    Ok(Answer::Success {
        reply_type: "shipping.unbooked".to_owned(),
        result: json!({}),
    })
}

async fn hand_over(tx: &mut PgConnection, command: &Command) -> Result<Answer, HandlerError> {
    let found = sqlx::query("UPDATE booking SET handed_over = true WHERE saga_id = $1")
        .bind(command.saga_id.0)
        .execute(tx)
        .await?;
    if found.rows_affected() == 0 {
        return Ok(Answer::Failure {
            reply_type: "shipping.refused".to_owned(),
            fault: Fault::new("not_booked", "there is no booking to hand over"),
        });
    }
    Ok(Answer::Success {
        reply_type: "shipping.handed-over".to_owned(),
        result: json!({}),
    })
}

fn setting(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("set {name}, as this file's head says"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    telemetry::init(&LogConfig {
        format: LogFormat::Human,
        filter: "info".to_owned(),
    })?;
    let postgres = PostgresConfig {
        url: Secret::new(setting("SHIPPING_DATABASE_URL")?),
        max_connections: 4,
        connect_timeout_ms: 5_000,
    };
    let pool = store_pool(&postgres, "shipping").await?;
    migrations::apply(&pool).await?;
    sqlx::query(SCHEMA).execute(&pool).await?;

    let kafka = KafkaConfig::plaintext(setting("SHIPPING_KAFKA_BROKERS")?);
    let letters = format!("{TOPIC}.dlq");
    ensure_topics(
        &kafka,
        &[
            TopicSpec::new(TOPIC, PARTITIONS),
            TopicSpec::new(letters, 1),
        ],
    )
    .await?;
    let config = ParticipantConfig::new("shipping", TOPIC, GROUP)
        .compensation_reply("shipping.unbook", "shipping.unbooked");
    participant::run_commands(config, Arc::new(Shipping), pool, kafka, shutdown.soft).await?;
    Ok(())
}
