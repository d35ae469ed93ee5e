//! Plays every case with every command of a participant.

use crate::{
    Ask, CASES, Case, CaseOutcome, CaseResult, Command, Description, Report, Stop, Wire, World,
    scene::Scene,
};
use anyhow::{Context, Result};
use std::time::Duration;
use tokio::time::Instant;

/// The time limits of the kit.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Limit for the very first reply: the participant may still be joining its group.
    pub first_answer: Duration,
    /// Limit for every other reply. A case that gets no reply takes this long to fail.
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

/// The kit, with everything that it needs for a run.
pub struct Kit<'a> {
    pub description: &'a Description,
    pub wire: &'a mut dyn Wire,
    pub world: &'a dyn World,
    pub patience: Patience,
}

impl Kit<'_> {
    /// Plays all cases. `progress` is called with every result. Returns an error if the participant could not be tested
    /// at all.
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
        let outcome = match (case.play)(&mut scene).await {
            Ok(()) => CaseOutcome::Passed,
            Err(Stop::Failed(why)) => CaseOutcome::Failed { why },
            Err(Stop::Skipped(why)) => CaseOutcome::Skipped { why },
            Err(Stop::Broken(error)) => return Err(error),
        };
        Ok(CaseResult {
            command: command.command_type.clone(),
            case: case.name.to_owned(),
            why_it_matters: case.why.to_owned(),
            outcome,
            exchanges: scene.into_exchanges(),
            duration_ms: began.elapsed().as_millis() as u64,
        })
    }

    /// Checks that the participant replies at all, because a participant that does not run breaks no rule.
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
        match scene.exchange(Ask::resolve(1)).await {
            Ok(_) => Ok(()),
            Err(Stop::Failed(_)) => anyhow::bail!(
                "no participant answers commands in {} within {} s: does the participant run?",
                self.description.topic,
                limit.as_secs()
            ),
            Err(Stop::Skipped(why)) => anyhow::bail!(why),
            Err(Stop::Broken(error)) => Err(error),
        }
    }
}
