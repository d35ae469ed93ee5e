//! The messages: commands, replies, timers and people's actions, without payloads.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    Forward,
    Compensation,
    /// Asks if the pivot was done, and refuses it for ever if it was not.
    Resolve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Success,
    Failure,
    Error,
    NotDone,
}

/// A command to the participant of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Command {
    pub step: u8,
    pub direction: Direction,
    pub attempt: u8,
}

impl Command {
    pub fn new(step: usize, direction: Direction, attempt: u8) -> Self {
        let step = u8::try_from(step).expect("a definition has a handful of steps");
        Self {
            step,
            direction,
            attempt,
        }
    }

    pub fn step(self) -> usize {
        usize::from(self.step)
    }

    /// Returns the reply to this command. A resolve that finds the action done or failed gets the action's own reply.
    pub fn answered(self, direction: Direction, outcome: Outcome) -> Input {
        Input::Reply {
            command: Self { direction, ..self },
            outcome,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKind {
    /// The command was picked up, and its reply is overdue.
    Timeout,
    Backoff,
}

/// A person's action. Compensating is the same as cancelling, for another reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperatorRequest {
    Cancel,
    Retry,
    /// Counts a step as done that was done by hand.
    Complete {
        step: u8,
    },
    /// Goes on without a step.
    Skip {
        step: u8,
    },
    /// Counts a pivot that was asked for in vain as not done.
    NotDone {
        step: u8,
    },
    SkipCompensation {
        step: u8,
    },
    Abandon,
}

/// A record of `saga.inputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    Start,
    /// `command` is the command that is answered, with the direction that the reply has.
    Reply {
        command: Command,
        outcome: Outcome,
    },
    Timer {
        kind: TimerKind,
        command: Command,
    },
    Deadline,
    /// `id` distinguishes the actions: an action is decided once.
    Action {
        id: u8,
        request: OperatorRequest,
    },
}
