//! What goes wrong in a run.

use saga_core::message::{ActionKind, Direction, Outcome};

/// A handler's first runs end like this; the later ones succeed.
#[derive(Clone, Debug)]
pub struct Answers {
    pub step: String,
    pub direction: Direction,
    pub outcome: Outcome,
    pub times: u32,
}

/// The first commands of a step are handled late, or their replies come late: when all is over.
#[derive(Clone, Debug)]
pub struct Silence {
    pub step: String,
    pub direction: Direction,
    pub times: u32,
    /// The work is done, only its reply is missing.
    pub is_done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    Duplicated,
    Dropped,
    /// Until nothing else moves.
    Late,
}

impl Mishap {
    pub const ALL: [Self; 3] = [Self::Duplicated, Self::Dropped, Self::Late];
}

/// Everything that goes wrong in one run, and what a person does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub answers: Vec<Answers>,
    pub silence: Option<Silence>,
    /// Which of the run's messages, commands and replies counted together.
    pub mishap: Option<(usize, Mishap)>,
    /// Behind how many inputs.
    pub action: Option<(usize, ActionKind)>,
}

impl Script {
    pub fn answering(step: &str, direction: Direction, outcome: Outcome, times: u32) -> Self {
        Self::default().and_answering(step, direction, outcome, times)
    }

    pub fn and_answering(
        mut self,
        step: &str,
        direction: Direction,
        outcome: Outcome,
        times: u32,
    ) -> Self {
        self.answers.push(Answers {
            step: step.to_owned(),
            direction,
            outcome,
            times,
        });
        self
    }

    pub fn silent(step: &str, direction: Direction, times: u32, is_done: bool) -> Self {
        Self {
            silence: Some(Silence {
                step: step.to_owned(),
                direction,
                times,
                is_done,
            }),
            ..Self::default()
        }
    }

    pub fn with_mishap(&self, message: usize, mishap: Mishap) -> Self {
        Self {
            mishap: Some((message, mishap)),
            ..self.clone()
        }
    }

    pub fn with_action(&self, inputs: usize, kind: ActionKind) -> Self {
        Self {
            action: Some((inputs, kind)),
            ..self.clone()
        }
    }
}
