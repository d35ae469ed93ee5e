//! Participants that do what a saga's script says. They use the same library as the shipped participants, each with its
//! own database and a table of effects. The payment participant's effects result from external calls, as those of
//! payment-svc do.

use super::relay::{self, REPLIES, Relay};
use anyhow::{Result, ensure};
use async_trait::async_trait;
use saga_core::{
    definition::SagaDefinition,
    ids::SagaId,
    message::{Command, Fault, Outcome},
};
use saga_messaging::{kafka::KafkaConfig, log::LogError, migrations};
use saga_participant::{
    Answer, Failure, HandlerError,
    external::{CallLimits, CallOutcome},
    inbox,
    internal::{self, ParticipantConfig, PerCommand, RawCalls, RawCommandHandler, RawSettlement},
};
use serde_json::json;
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The participant whose effects result from external calls.
const CALLS_OUTSIDE: &str = "payment";
/// Enough for the current batch, the settlements, the calls in flight, and the checks.
const CONNECTIONS: u32 = 12;
/// Only the number of effects counts: an effect that is done twice has two rows.
const TABLES: &str = "
    CREATE TABLE effect (
        number bigint GENERATED ALWAYS AS IDENTITY,
        saga_id uuid NOT NULL,
        step text NOT NULL,
        direction text NOT NULL
    );
    CREATE TABLE outside (key text PRIMARY KEY);
";
const WRITE_EFFECTS: &str = "
    INSERT INTO effect (saga_id, step, direction)
    SELECT saga_id, $2, $3 FROM UNNEST($1::uuid[]) AS started (saga_id)";

/// A participant and its database.
pub struct Participant {
    pub name: String,
    pub pool: PgPool,
    running: JoinHandle<Result<(), LogError>>,
}

impl Participant {
    pub async fn start(
        name: &str,
        database: &str,
        kafka: KafkaConfig,
        relay: &Arc<Relay>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let options = PgPoolOptions::new().max_connections(CONNECTIONS);
        let pool = options.connect(database).await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        migrations::apply(&pool).await?;
        inbox::ensure_partitions(&pool, 1).await?;
        let mut config = ParticipantConfig::new(name, relay::delivered_topic(name), group(name));
        config.reply_topics.insert(REPLIES.to_owned());
        let calls_outside = name == CALLS_OUTSIDE;
        let handler = Arc::new(PerCommand::new(Arc::new(Scripted {
            relay: Arc::clone(relay),
            calls_outside,
        })));
        let outside = Outside {
            relay: Arc::clone(relay),
            pool: pool.clone(),
        };
        let calls = calls_outside.then(|| Arc::new(outside) as Arc<dyn RawCalls<PgConnection>>);
        let running = tokio::spawn(internal::run(
            config,
            handler,
            calls,
            pool.clone(),
            kafka,
            stop,
        ));
        Ok(Self {
            name: name.to_owned(),
            pool,
            running,
        })
    }

    /// Fails while an external call is in flight. Its command's offset is committed already, so the group's offsets do
    /// not show it.
    pub async fn has_settled(&self) -> Result<()> {
        let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM inbox WHERE mark = 'P'")
            .fetch_one(&self.pool)
            .await?;
        ensure!(pending == 0, "{} has {pending} calls under way", self.name);
        Ok(())
    }

    /// Waits for the participant to end after it was asked to stop, and returns how it ended.
    pub async fn ended(self) -> Result<()> {
        Ok(self.running.await??)
    }

    /// Does what the starter of a saga does before it sends the start, at the participant of the starter's step: writes
    /// the effect and its barrier record, as order-svc does.
    pub async fn start_sagas(&self, definition: &SagaDefinition, sagas: &[SagaId]) -> Result<()> {
        let first = &definition.steps[0];
        assert!(first.action.is_none() && first.participant == self.name);
        let mut tx = self.pool.begin().await?;
        write_effects(&mut tx, sagas, &first.name, "forward").await?;
        inbox::record_started(&mut tx, sagas, &first.name).await?;
        Ok(tx.commit().await?)
    }
}

/// Returns the participant's consumer group.
pub fn group(participant: &str) -> String {
    format!("sweep-{participant}")
}

async fn write_effects(
    tx: &mut PgConnection,
    sagas: &[SagaId],
    step: &str,
    direction: &str,
) -> Result<(), sqlx::Error> {
    let sagas: Vec<Uuid> = sagas.iter().map(|saga| saga.0).collect();
    sqlx::query(WRITE_EFFECTS)
        .bind(sagas)
        .bind(step)
        .bind(direction)
        .execute(tx)
        .await?;
    Ok(())
}

async fn write_effect(tx: &mut PgConnection, command: &Command) -> Result<(), sqlx::Error> {
    let direction = command.direction.as_str();
    write_effects(tx, &[command.saga_id], &command.step, direction).await
}

fn outcome(relay: &Relay, command: &Command) -> Outcome {
    let script = relay.script(command.saga_id);
    script.map_or(Outcome::Success, |script| script.outcome(command))
}

fn fault() -> Fault {
    Fault::new("refused", "the script says so")
}

struct Scripted {
    relay: Arc<Relay>,
    calls_outside: bool,
}

#[async_trait]
impl RawCommandHandler<PgConnection> for Scripted {
    /// Writes the effect whatever the outcome is: the library must roll back an effect that does not succeed.
    async fn handle(&self, tx: &mut PgConnection, command: &Command) -> Result<Answer, Failure> {
        if self.calls_outside {
            return Ok(Answer::CallOutside);
        }
        write_effect(tx, command).await?;
        let outcome = outcome(&self.relay, command);
        match outcome {
            Outcome::Success => Answer::success(json!({"done": command.command_type})),
            Outcome::Failure => Err(Failure::Business(fault())),
            Outcome::Error => Err(Failure::Technical(fault())),
            Outcome::NotDone => {
                Err(HandlerError::Broken("no handler answers that".to_owned()).into())
            }
        }
    }
}

/// The database of an external company. A call with a known key is done only once.
struct Outside {
    relay: Arc<Relay>,
    pool: PgPool,
}

#[async_trait]
impl RawCalls<PgConnection> for Outside {
    fn limits(&self) -> CallLimits {
        CallLimits {
            concurrency: 8,
            per_second: None,
            timeout: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            retry_delay: Duration::from_millis(100),
            key_lifetime: Duration::from_hours(1),
        }
    }

    async fn call(&self, key: &str, command: &Command) -> CallOutcome {
        let outcome = outcome(&self.relay, command);
        match outcome {
            Outcome::Success => {
                let known = "INSERT INTO outside (key) VALUES ($1) ON CONFLICT DO NOTHING";
                match sqlx::query(known).bind(key).execute(&self.pool).await {
                    Ok(_) => CallOutcome::success(json!({"done": command.command_type})),
                    Err(error) => CallOutcome::Indeterminate {
                        why: error.to_string(),
                    },
                }
            }
            Outcome::Failure => CallOutcome::Failure(fault()),
            Outcome::Error | Outcome::NotDone => CallOutcome::Error(fault()),
        }
    }

    async fn settle(
        &self,
        tx: &mut PgConnection,
        settled: &[RawSettlement],
    ) -> Result<(), HandlerError> {
        for settlement in settled {
            if matches!(settlement.outcome, CallOutcome::Success(_)) {
                write_effect(tx, &settlement.command).await?;
            }
        }
        Ok(())
    }
}
