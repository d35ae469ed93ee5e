//! Participants that do what the saga's script says: the library that shipped participants use, on a database of their
//! own each, with a table of effects. The payment's effects come of calls to an outside, as those of the shipped one.

use super::relay::{self, REPLIES, Relay};
use anyhow::{Result, ensure};
use async_trait::async_trait;
use saga_core::{
    definition::SagaDefinition,
    ids::SagaId,
    message::{Command, Fault, Outcome},
};
use saga_messaging::{
    kafka::KafkaConfig,
    log::LogError,
    migrations,
    participant::{
        Answer, CallLimits, CallOutcome, CommandHandler, ExternalCalls, HandlerError,
        ParticipantConfig, PerCommand, Settlement, inbox, run,
    },
};
use serde_json::json;
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The participant whose effects come of calls to an outside.
const CALLS_OUTSIDE: &str = "payment";
/// The batch in hand, the settlements, the calls under way, and the checks.
const CONNECTIONS: u32 = 12;
/// Only numbers of effects count: one that is done twice is two rows.
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
        let calls = calls_outside.then(|| Arc::new(outside) as Arc<dyn ExternalCalls>);
        let running = tokio::spawn(run(config, handler, calls, pool.clone(), kafka, stop));
        Ok(Self {
            name: name.to_owned(),
            pool,
            running,
        })
    }

    /// Fails while a call is under way, for which no offset stands any more.
    pub async fn has_settled(&self) -> Result<()> {
        let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM inbox WHERE mark = 'P'")
            .fetch_one(&self.pool)
            .await?;
        ensure!(pending == 0, "{} has {pending} calls under way", self.name);
        Ok(())
    }

    /// After it was told to stop: how it ended.
    pub async fn ended(self) -> Result<()> {
        Ok(self.running.await??)
    }

    /// What the starter of a saga does before it sends the start, here at the participant of its step, as order-svc does:
    /// the effect, and its barrier record.
    pub async fn start_sagas(&self, definition: &SagaDefinition, sagas: &[SagaId]) -> Result<()> {
        let first = &definition.steps[0];
        assert!(first.action.is_none() && first.participant == self.name);
        let mut tx = self.pool.begin().await?;
        write_effects(&mut tx, sagas, &first.name, "forward").await?;
        inbox::record_started(&mut tx, sagas, &first.name).await?;
        Ok(tx.commit().await?)
    }
}

/// Its consumer group.
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

fn reply_type(command: &Command, outcome: Outcome) -> String {
    format!("{}.{}", command.command_type, outcome.as_str())
}

struct Scripted {
    relay: Arc<Relay>,
    calls_outside: bool,
}

#[async_trait]
impl CommandHandler for Scripted {
    /// The effect is written whatever comes of it: what does not succeed must be undone by the library.
    async fn handle(
        &self,
        tx: &mut PgConnection,
        command: &Command,
    ) -> Result<Answer, HandlerError> {
        if self.calls_outside {
            return Ok(Answer::CallOutside);
        }
        write_effect(tx, command).await?;
        let outcome = outcome(&self.relay, command);
        let reply_type = reply_type(command, outcome);
        match outcome {
            Outcome::Success => Ok(Answer::Success {
                reply_type,
                result: json!({"done": command.command_type}),
            }),
            Outcome::Failure => Ok(Answer::Failure {
                reply_type,
                fault: fault(),
            }),
            Outcome::Error => Ok(Answer::Error { fault: fault() }),
            Outcome::NotDone => Err(HandlerError::Broken("no handler answers that".to_owned())),
        }
    }
}

/// Another company's database: what was asked for with a key is done once.
struct Outside {
    relay: Arc<Relay>,
    pool: PgPool,
}

#[async_trait]
impl ExternalCalls for Outside {
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
        let reply_type = reply_type(command, outcome);
        match outcome {
            Outcome::Success => {
                let known = "INSERT INTO outside (key) VALUES ($1) ON CONFLICT DO NOTHING";
                match sqlx::query(known).bind(key).execute(&self.pool).await {
                    Ok(_) => CallOutcome::Success {
                        reply_type,
                        result: json!({"done": command.command_type}),
                    },
                    Err(error) => CallOutcome::Indeterminate {
                        why: error.to_string(),
                    },
                }
            }
            Outcome::Failure => CallOutcome::Failure {
                reply_type,
                fault: fault(),
            },
            Outcome::Error | Outcome::NotDone => CallOutcome::Error { fault: fault() },
        }
    }

    async fn settle(
        &self,
        tx: &mut PgConnection,
        settled: &[Settlement],
    ) -> Result<(), HandlerError> {
        for settlement in settled {
            if matches!(settlement.outcome, CallOutcome::Success { .. }) {
                write_effect(tx, &settlement.command).await?;
            }
        }
        Ok(())
    }
}
