//! Scripts of failures and actions in a run.

use saga_core::message::{ActionKind, Direction, Outcome};

/// The outcome of the first `times` runs of a handler. Later runs succeed.
#[derive(Clone, Debug)]
pub struct Answers {
    pub step: String,
    pub direction: Direction,
    pub outcome: Outcome,
    pub times: u32,
}

/// Delays the first commands of a step, or their replies, until nothing else is left to do.
#[derive(Clone, Debug)]
pub struct Silence {
    pub step: String,
    pub direction: Direction,
    pub times: u32,
    /// True if the work is done and only its reply is late; false if the command itself is late.
    pub is_done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    Duplicated,
    Dropped,
    /// The message is delivered when nothing else is left to do.
    Late,
}

impl Mishap {
    pub const ALL: [Self; 3] = [Self::Duplicated, Self::Dropped, Self::Late];
}

/// All failures of one run, and a person's action.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub answers: Vec<Answers>,
    pub silence: Option<Silence>,
    /// The number of the disturbed message, with commands and replies counted together, and its mishap.
    pub mishap: Option<(usize, Mishap)>,
    /// The action, and the number of inputs after which it is asked for.
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
