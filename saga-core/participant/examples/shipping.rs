//! A complete participant of your own: `shipping` books parcels in its own database and hands them over.
//!
//! ```text
//! SHIPPING_DATABASE_URL=postgres://shipping:secret@127.0.0.1/shipping \
//! SHIPPING_KAFKA_BROKERS=127.0.0.1:9092 \
//! cargo run -p saga-participant --example shipping
//! ```
//!
//! This file contains only the business logic: the handler, its table and its names. The barrier's tables, their
//! partitions, duplicates, empty compensations, `resolve`, dead letters, metrics and logs come from the library. A saga
//! definition uses the participant by the command types below, and the orchestrator's configuration names its topic and
//! group:
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
use saga_core::secret::Secret;
use saga_messaging::kafka::admin::{TopicSpec, ensure_topics};
use saga_participant::{Command, Failure, KafkaConfig, Participant, SagaId, migrations};
use saga_postgres::{PostgresConfig, store_pool};
use saga_service::{
    lifecycle::Shutdown,
    telemetry::{self, LogConfig, LogFormat},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::env;

const TOPIC: &str = "shipping.commands";
/// Number of partitions: as many as the parallelism needs, and no more, because Kafka's cost grows with the requests.
const PARTITIONS: i32 = 2;

/// A saga has one parcel. The primary key makes a second booking impossible, although the barrier prevents it already.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS booking (
        saga_id     uuid PRIMARY KEY,
        parcel      bigint NOT NULL,
        handed_over boolean NOT NULL DEFAULT false
    )";

#[derive(Deserialize)]
struct Book {
    parcel: i64,
}

#[derive(Serialize)]
struct Booked {
    booking: SagaId,
}

async fn book(tx: &mut PgConnection, command: Command<Book>) -> Result<Booked, Failure> {
    if command.payload.parcel < 0 {
        // This is a business failure: the saga compensates. It is saved, so a repeated command gets the same answer.
        return Err(Failure::business("no_parcel", "no parcel has this number"));
    }
    sqlx::query("INSERT INTO booking (saga_id, parcel) VALUES ($1, $2)")
        .bind(command.saga_id.0)
        .bind(command.payload.parcel)
        .execute(tx)
        .await?;
    Ok(Booked {
        booking: command.saga_id,
    })
}

/// Removes a booking. It is called only after a booking that succeeded: the library compensates steps that were never
/// done.
async fn unbook(tx: &mut PgConnection, command: Command) -> Result<(), Failure> {
    sqlx::query("DELETE FROM booking WHERE saga_id = $1")
        .bind(command.saga_id.0)
        .execute(tx)
        .await?;
    Ok(())
}

async fn hand_over(tx: &mut PgConnection, command: Command) -> Result<(), Failure> {
    let found = sqlx::query("UPDATE booking SET handed_over = true WHERE saga_id = $1")
        .bind(command.saga_id.0)
        .execute(tx)
        .await?;
    if found.rows_affected() == 0 {
        return Err(Failure::business(
            "not_booked",
            "there is no booking to hand over",
        ));
    }
    Ok(())
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
    Participant::new("shipping")
        .on("shipping.book", "shipping.booked", book)
        .on("shipping.unbook", "shipping.unbooked", unbook)
        .on("shipping.hand-over", "shipping.handed-over", hand_over)
        .run(pool, kafka, shutdown.soft)
        .await?;
    Ok(())
}
