//! What travels: commands, replies, timers and what people ask for, without payloads.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    Forward,
    Compensation,
    /// Asks whether the pivot was done, and refuses it for ever if it was not.
    Resolve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Success,
    Failure,
    Error,
    NotDone,
}

/// To the participant of a step.
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

    /// A resolve that found the action done or failed is answered with the action's own reply.
    pub fn answered(self, direction: Direction, outcome: Outcome) -> Input {
        Input::Reply {
            command: Self { direction, ..self },
            outcome,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKind {
    /// The command was picked up, and its answer is overdue.
    Timeout,
    Backoff,
}

/// What a person may ask for. To compensate is to cancel, for another reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wish {
    Cancel,
    Retry,
    /// Counts a step as done that somebody did by hand.
    Complete {
        step: u8,
    },
    /// Goes on without a step.
    Skip {
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
    /// `command` is the one that is answered, with the direction that the reply bears.
    Reply {
        command: Command,
        outcome: Outcome,
    },
    Timer {
        kind: TimerKind,
        command: Command,
    },
    Deadline,
    /// `id` tells one action from the next: an action is decided once.
    Action {
        id: u8,
        wish: Wish,
    },
}
