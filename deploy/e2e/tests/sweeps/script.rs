//! The script of one saga: what goes wrong, what a person does about it, and how the saga must end.

use saga_core::{
    definition::SagaDefinition,
    instance::ActionVerdict,
    message::{ActionKind, Command, CommandRef, Direction, Outcome},
};
use std::sync::Arc;

/// A step's handler answers with `outcome` in the first `times` attempts; later attempts succeed.
#[derive(Clone, Debug)]
pub struct Answers {
    pub step: String,
    pub direction: Direction,
    pub outcome: Outcome,
    pub times: u32,
}

/// In the first attempts of a step, the command or its reply arrives late: after the saga has ended.
#[derive(Clone, Debug)]
pub struct Silence {
    pub step: String,
    pub direction: Direction,
    pub times: u32,
    /// The command is handled, and only its reply is late.
    pub is_done: bool,
}

/// A message between the orchestrator and a participant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub part: CommandRef,
    pub is_reply: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    Duplicated,
    Dropped,
    /// The message is delayed until the saga has ended.
    Late,
}

impl Mishap {
    pub const ALL: [Self; 3] = [Self::Duplicated, Self::Dropped, Self::Late];
}

/// How often the start message is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Starts {
    #[default]
    Once,
    Twice,
    /// The start message is sent again when the saga has ended.
    AgainAtTheEnd,
}

/// Everything that goes wrong in one saga.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub answers: Vec<Answers>,
    pub silence: Option<Silence>,
    pub mishap: Option<(Message, Mishap)>,
    /// Commands that are held until the case lets them go. The saga makes no progress until then.
    pub held: Option<(String, Direction)>,
    pub starts: Starts,
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

    pub fn and_silent(
        mut self,
        step: &str,
        direction: Direction,
        times: u32,
        is_done: bool,
    ) -> Self {
        self.silence = Some(Silence {
            step: step.to_owned(),
            direction,
            times,
            is_done,
        });
        self
    }

    pub fn and_holding(mut self, step: &str, direction: Direction) -> Self {
        self.held = Some((step.to_owned(), direction));
        self
    }

    /// Returns the outcome of a handler. It depends on the attempt only, so that a duplicate of a command has the same
    /// outcome.
    pub fn outcome(&self, command: &Command) -> Outcome {
        let scripted = self.answers.iter().find(|answers| {
            answers.step == command.step
                && answers.direction == command.direction
                && command.attempt <= answers.times
        });
        scripted.map_or(Outcome::Success, |answers| answers.outcome)
    }

    pub fn silences(&self, message: &Message) -> bool {
        self.silence.as_ref().is_some_and(|silence| {
            silence.is_done == message.is_reply
                && silence.step == message.part.step
                && silence.direction == message.part.direction
                && message.part.attempt <= silence.times
        })
    }

    pub fn holds(&self, message: &Message) -> bool {
        !message.is_reply
            && self.held.as_ref().is_some_and(|(step, direction)| {
                *step == message.part.step && *direction == message.part.direction
            })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Completed,
    Compensated,
    Abandoned,
}

impl End {
    /// Returns the saga's status in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Abandoned => "abandoned",
        }
    }
}

/// How often a person had to let a parked saga try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    Times(usize),
    /// At most this often: a mishap can suppress an answer that would park the saga.
    AtMost(usize),
}

impl Parked {
    pub fn allows(self, times: usize) -> bool {
        match self {
            Self::Times(expected) => times == expected,
            Self::AtMost(limit) => times <= limit,
        }
    }

    pub fn limit(self) -> usize {
        match self {
            Self::Times(limit) | Self::AtMost(limit) => limit,
        }
    }
}

/// An action that a person asks for, and the expected verdict.
#[derive(Clone, Debug)]
pub struct RequestedAction {
    pub kind: ActionKind,
    pub verdict: ActionVerdict,
}

/// An act of a person. Acts happen one after the other.
#[derive(Clone, Debug)]
pub enum Act {
    /// Waits until this command was sent, the steps `done` are done, and the steps `undone` are compensated.
    Await {
        sent: (String, Direction),
        done: Vec<String>,
        undone: Vec<String>,
    },
    AwaitParked {
        done: Vec<String>,
    },
    /// Asks for all these actions at once. Refusals leave no trace, so only the last action may be granted.
    Ask(Vec<RequestedAction>),
    /// Sends the held messages.
    LetGo,
}

/// One saga of the sweep: its definition, its script, the person's acts, and how it must end.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub definition: Arc<SagaDefinition>,
    pub script: Script,
    pub acts: Vec<Act>,
    pub end: End,
    pub parked: Parked,
}

impl Case {
    pub fn new(definition: &Arc<SagaDefinition>, name: &str, script: Script, end: End) -> Self {
        Self {
            name: format!("{}: {name}", definition.name),
            definition: Arc::clone(definition),
            script,
            acts: Vec::new(),
            end,
            parked: Parked::Times(0),
        }
    }

    pub fn parked(mut self, times: usize) -> Self {
        self.parked = Parked::Times(times);
        self
    }

    pub fn acting(mut self, acts: Vec<Act>) -> Self {
        self.acts = acts;
        self
    }

    /// Returns the case with one more thing going wrong.
    pub fn with(&self, name: &str, change: impl FnOnce(&mut Script)) -> Self {
        let mut case = self.clone();
        case.name = format!("{}; {name}", self.name);
        change(&mut case.script);
        case.parked = Parked::AtMost(self.parked.limit());
        case
    }
}
