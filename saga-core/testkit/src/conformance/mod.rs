//! Is a participant, in whatever language, one that a saga can rely on? The kit talks to it over Kafka as the
//! orchestrator would, case by case, and says which rules of the contract (`saga-core/PARTICIPANTS.md`) it breaks.
//!
//! ```text
//!  Description ──▶ Kit ──▶ Case ──▶ Scene ──▶ Wire ──▶ <participant>.commands ──▶ the participant
//!  (a YAML file)            │         ▲         ▲                                      │
//!                           │         │         └────────── saga.inputs, *.dlq ◀───────┘
//!                           ▼         └── World: prepares (HTTP), looks at effects (HTTP, SQL)
//!                         Report
//! ```
//!
//! - A **case** is one rule: its name, why it matters, and how it is tried. It judges only that rule, so that a
//!   participant which breaks one rule fails one case.
//! - A **scene** is one saga of its own in which a case is played; it keeps what was sent, expected and heard.
//! - The **wire** is Kafka, or a participant in memory (the kit's own tests).
//! - A **look** is any JSON that shows the participant's effects. The kit never interprets it: it compares what it sees
//!   before and after. Without a look, rules about effects are judged by the answers alone, or skipped.
//!
//! The kit sends only what an orchestrator may send, and sagas of its own; an orchestrator that runs beside it ignores
//! their replies. It leaves its effects behind, so it is for test environments.
//!
//! `sagactl conformance --participant payment` runs it from the command line.

mod ask;
mod cases;
mod description;
mod kafka;
mod names;
mod report;
mod scene;
mod wire;
mod world;

pub use ask::{Ask, Heard, Input};
pub use cases::{CASES, Case};
pub use description::{
    Command, Compensation, Description, DescriptionError, Example, Look, Request, Started, shipped,
};
pub use kafka::KafkaWire;
pub use names::{Names, Unset};
pub use report::{CaseResult, Exchange, Report, Verdict};
pub use scene::Stop;
pub use wire::Wire;
pub use world::{Described, World};

use anyhow::{Context, Result};
use scene::Scene;
use std::time::Duration;
use tokio::time::Instant;

/// How patient the kit is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the first answer of all: the participant may still be joining its group.
    pub first_answer: Duration,
    /// For every other one. A case that hears nothing takes this long to fail.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_answer: Duration::from_mins(1),
            answer: Duration::from_secs(10),
        }
    }
}

/// Plays every case with every command of a participant.
pub struct Kit<'a> {
    pub description: &'a Description,
    pub wire: &'a mut dyn Wire,
    pub world: &'a dyn World,
    pub patience: Patience,
}

impl Kit<'_> {
    /// `progress` hears every result as it comes. `Err`: the participant could not be tried at all.
    pub async fn run(mut self, mut progress: impl FnMut(&CaseResult)) -> Result<Report> {
        self.somebody_answers().await?;
        let description = self.description;
        let mut results = Vec::new();
        for command in &description.commands {
            for case in CASES {
                let result = self
                    .play(command, case)
                    .await
                    .with_context(|| format!("{}, {}", command.command_type, case.name))?;
                progress(&result);
                results.push(result);
            }
        }
        Ok(Report {
            participant: description.participant.clone(),
            topic: description.topic.clone(),
            results,
        })
    }

    async fn play(&mut self, command: &Command, case: &Case) -> Result<CaseResult> {
        let began = Instant::now();
        let mut scene = Scene::new(
            self.description,
            command,
            &mut *self.wire,
            self.world,
            self.patience.answer,
        );
        let verdict = match (case.play)(&mut scene).await {
            Ok(()) => Verdict::Passed,
            Err(Stop::Failed(why)) => Verdict::Failed { why },
            Err(Stop::Skipped(why)) => Verdict::Skipped { why },
            Err(Stop::Broken(error)) => return Err(error),
        };
        Ok(CaseResult {
            command: command.command_type.clone(),
            case: case.name.to_owned(),
            why_it_matters: case.why.to_owned(),
            verdict,
            exchanges: scene.into_exchanges(),
            duration_ms: began.elapsed().as_millis() as u64,
        })
    }

    /// Before anything is judged: a participant that does not run breaks no rule.
    async fn somebody_answers(&mut self) -> Result<()> {
        let first = self.description.commands.first();
        let command = first.context("the description names no command")?;
        let limit = self.patience.first_answer;
        let mut scene = Scene::new(
            self.description,
            command,
            &mut *self.wire,
            self.world,
            limit,
        );
        match scene.tell(Ask::resolve(1)).await {
            Ok(_) => Ok(()),
            Err(Stop::Failed(_)) => anyhow::bail!(
                "nobody answers commands in {} within {} s: does the participant run?",
                self.description.topic,
                limit.as_secs()
            ),
            Err(Stop::Skipped(why)) => anyhow::bail!(why),
            Err(Stop::Broken(error)) => Err(error),
        }
    }
}
