//! The clean slate: checks what the participants' databases contain of sagas that have ended.

use super::{
    participants::Participant,
    script::{Case, End},
    stories::Story,
};
use anyhow::{Result, bail, ensure};
use saga_core::ids::SagaId;
use std::collections::HashMap;
use uuid::Uuid;

/// The effects and barrier records of one step of one saga.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trace {
    done: usize,
    undone: usize,
    /// An effect was written after its compensation.
    done_behind: bool,
    forward: Option<String>,
    compensation: Option<String>,
}

/// The effects and barrier records of all sagas at one point in time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Slate {
    steps: HashMap<(Uuid, String), Trace>,
    /// The number of calls that had an effect at the external company.
    outside: usize,
    /// The number of effects in the databases of participants with external calls.
    called: usize,
}

impl Slate {
    pub async fn read(participants: &[Participant]) -> Result<Self> {
        let mut slate = Self::default();
        for participant in participants {
            slate.read_effects(participant).await?;
            slate.read_barrier(participant).await?;
        }
        Ok(slate)
    }

    async fn read_effects(&mut self, participant: &Participant) -> Result<()> {
        let effects: Vec<(Uuid, String, String)> =
            sqlx::query_as("SELECT saga_id, step, direction FROM effect ORDER BY number")
                .fetch_all(&participant.pool)
                .await?;
        let outside: i64 = sqlx::query_scalar("SELECT count(*) FROM outside")
            .fetch_one(&participant.pool)
            .await?;
        if outside > 0 {
            self.outside += outside as usize;
            self.called += effects.len();
        }
        for (saga, step, direction) in effects {
            let trace = self.steps.entry((saga, step)).or_default();
            match direction.as_str() {
                "forward" => {
                    trace.done += 1;
                    trace.done_behind |= trace.undone > 0;
                }
                "compensation" => trace.undone += 1,
                other => bail!("an effect of direction {other}"),
            }
        }
        Ok(())
    }

    async fn read_barrier(&mut self, participant: &Participant) -> Result<()> {
        let rows: Vec<(Uuid, String, String, String)> =
            sqlx::query_as("SELECT saga_id, step, direction::text, mark::text FROM inbox")
                .fetch_all(&participant.pool)
                .await?;
        for (saga, step, direction, mark) in rows {
            let trace = self.steps.entry((saga, step)).or_default();
            match direction.as_str() {
                "F" => trace.forward = Some(mark),
                _ => trace.compensation = Some(mark),
            }
        }
        Ok(())
    }

    /// Checks that every call that had an effect is settled, and that every such effect results from a call.
    pub fn check_outside(&self) -> Result<()> {
        ensure!(
            self.outside == self.called && self.outside > 0,
            "{} calls had an effect, {} effects came of calls",
            self.outside,
            self.called
        );
        Ok(())
    }

    /// Checks that every effect is done once, or that every effect that was done is undone once. A step that a person
    /// has completed or skipped has no effect.
    pub fn check(&self, case: &Case, saga: SagaId, story: &Story) -> Result<()> {
        for step in &case.definition.steps {
            let trace = self.steps.get(&(saga.0, step.name.clone()));
            let trace = trace.cloned().unwrap_or_default();
            let (done, undone) = (trace.done, trace.undone);
            let is_clean = match case.end {
                End::Completed => {
                    done == usize::from(!story.was_settled(&step.name)) && undone == 0
                }
                End::Compensated => done == undone && done <= 1,
                // Only a person's action may leave effects.
                End::Abandoned => done <= 1 && undone <= done,
            };
            ensure!(
                is_clean && !trace.done_behind && trace.has_its_records(),
                "'{}' stands as {trace:?}",
                step.name
            );
            ensure!(
                step.compensation.is_some() || undone == 0,
                "'{}' cannot be undone",
                step.name
            );
        }
        Ok(())
    }
}

impl Trace {
    /// Returns true if the barrier's records match the effects: a step marked as done has its effect, and a
    /// compensation of a step that was not done had no effect.
    fn has_its_records(&self) -> bool {
        let is_done = self.forward.as_deref() == Some("D");
        let is_undone = self.compensation.as_deref() == Some("D");
        let is_settled = self.forward.as_deref() != Some("P")
            && matches!(self.compensation.as_deref(), None | Some("D"));
        let is_closed = !is_undone || self.forward.is_some();
        is_settled
            && is_closed
            && is_done == (self.done == 1)
            && (is_undone && is_done) == (self.undone == 1)
    }
}
