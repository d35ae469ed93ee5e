//! Shared set-up for tests of a participant: commands as the orchestrator sends them, the transaction around a batch of
//! commands, and a conversation over a real broker.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use saga_core::{
    ids::SagaId,
    message::{Command, Direction, Fault, Input, Reply, ReplyTo, Trace},
};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaWriter, Tail},
    log::LogWriter,
};
use saga_participant::{
    Answer, Failure,
    batch::BatchHandler,
    internal::{Batch, RawBatchHandler},
};
use saga_service::clock;
use serde_json::Value;
use sqlx::PgPool;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

const REPLY_TOPIC: &str = "saga.inputs";

/// Limit for a reply, far above the time that a participant takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// Returns the first attempt of a step's command.
pub fn command(
    saga_id: SagaId,
    command_type: &str,
    direction: Direction,
    payload: Value,
) -> Command {
    Command {
        saga_id,
        step: "a-step".to_owned(),
        direction,
        attempt: 1,
        command_type: command_type.to_owned(),
        payload,
        save_failure: true,
        reply_to: ReplyTo {
            topic: REPLY_TOPIC.to_owned(),
            partition: 0,
        },
        floor: None,
        trace: Trace::default(),
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Reaction {
    Success { reply_type: String, result: Value },
    Failure { fault: Fault },
    Error { fault: Fault },
    CallOutside,
}

/// Runs one batch as the library does, without its barrier.
pub async fn run_batch<H: BatchHandler>(
    handler: H,
    pool: &PgPool,
    commands: &[Command],
) -> Result<Vec<Reaction>> {
    let reply_types: BTreeMap<_, _> = H::commands().reply_types().collect();
    let handler = Batch::new(handler);
    let mut tx = pool.begin().await?;
    let all: Vec<&Command> = commands.iter().collect();
    let mut rows = handler.load(&mut tx, &all).await?;
    let mut reactions = Vec::new();
    for command in commands {
        let result = handler.handle(&mut tx, &mut rows, command).await;
        reactions.push(match result {
            Ok(Answer::Success(result)) => Reaction::Success {
                reply_type: reply_types[command.command_type.as_str()].to_owned(),
                result,
            },
            Ok(Answer::CallOutside) => Reaction::CallOutside,
            Err(Failure::Business(fault)) => Reaction::Failure { fault },
            Err(Failure::Technical(fault)) => Reaction::Error { fault },
            Err(Failure::Handler(error)) => return Err(error.into()),
        });
    }
    handler.store(&mut tx, rows).await?;
    tx.commit().await?;
    Ok(reactions)
}

/// Sends commands to a running participant, and receives its replies.
pub struct Conversation {
    commands_to: String,
    writer: KafkaWriter,
    replies: Tail,
}

impl Conversation {
    /// Opens a conversation that receives the replies from now on.
    pub async fn open(brokers: &str, commands_to: &str) -> Result<Self> {
        let kafka = KafkaConfig::plaintext(brokers);
        Ok(Self {
            commands_to: commands_to.to_owned(),
            writer: KafkaWriter::connect(&kafka)?,
            replies: Tail::open(&kafka, REPLY_TOPIC).await?,
        })
    }

    pub async fn send(&self, commands: &[Command]) -> Result<()> {
        let records: Vec<_> = commands
            .iter()
            .map(|command| command.encode(&self.commands_to, "/test", clock::now()))
            .collect();
        self.writer.publish(&records).await?;
        Ok(())
    }

    /// Returns the next reply, whatever its saga.
    pub async fn reply(&mut self) -> Result<Reply> {
        loop {
            let record = timeout(PATIENCE, self.replies.next())
                .await
                .context("no reply came")?
                .context("the tail ended")?;
            match Input::decode(&record)? {
                Input::Reply(reply) => return Ok(reply),
                Input::Start(_) | Input::Timer(_) | Input::Operator(_) => {}
            }
        }
    }

    /// Returns the next reply to the saga of `command`.
    pub async fn reply_to(&mut self, command: &Command) -> Result<Reply> {
        loop {
            let reply = self
                .reply()
                .await
                .with_context(|| format!("waiting for the reply to {}", command.id()))?;
            if reply.saga_id == command.saga_id {
                return Ok(reply);
            }
        }
    }

    /// Sends one command and waits for the reply to it.
    pub async fn ask(&mut self, command: &Command) -> Result<Reply> {
        self.send(std::slice::from_ref(command)).await?;
        self.reply_to(command).await
    }
}
