//! A participant with one step, as the barrier makes it: only the two rows, an open external call, and a count of the
//! real effects.

use saga_core::{
    barrier::{Admission, Mark, admit},
    message::{Command, Direction, Outcome, Reply, Trace},
};
use serde_json::{Value, json};

/// The outcome of the handler, if the barrier lets the command run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Succeeds,
    Fails,
    Errs,
    /// The handler calls an external system: the command is answered on settlement.
    Pends,
}

#[derive(Clone, Debug, Default)]
pub struct Participant {
    forward: Option<Mark>,
    compensation: Option<Mark>,
    /// The command whose external call is open; `waiting` holds the commands that wait for its settlement.
    open: Option<Command>,
    waiting: Vec<Command>,
    /// How often the action really happened; `undone` counts its compensation.
    pub done: u32,
    pub undone: u32,
}

impl Participant {
    /// Returns a participant whose barrier has the starter's record of its own first step.
    pub fn starter() -> Self {
        Self {
            forward: Some(Mark::Done),
            done: 1,
            ..Self::default()
        }
    }

    pub fn is_pending(&self) -> bool {
        self.open.is_some()
    }

    /// Returns true if the step failed for ever: every attempt is answered with the saved failure.
    pub fn has_failed(&self) -> bool {
        self.forward == Some(Mark::Failed)
    }

    pub fn handle(&mut self, command: Command, fate: Fate) -> Vec<Reply> {
        let answer = match admit(self.forward, self.compensation, command.direction) {
            Admission::Run => return self.run(command, fate),
            Admission::SavedForward => self.saved(&command),
            Admission::SavedCompensation => success(&command, Direction::Compensation),
            Admission::RefuseAndCompensateEmpty => {
                self.forward = Some(Mark::Refused);
                self.compensation = Some(Mark::Done);
                success(&command, Direction::Compensation)
            }
            Admission::CompensateEmpty => {
                self.compensation = Some(Mark::Done);
                success(&command, Direction::Compensation)
            }
            Admission::RefuseAndAnswerNotDone => {
                self.forward = Some(Mark::Refused);
                not_done(&command)
            }
            Admission::AnswerNotDone => not_done(&command),
            Admission::AnswerOnSettlement => {
                self.waiting.push(command);
                return Vec::new();
            }
        };
        vec![answer]
    }

    fn run(&mut self, command: Command, fate: Fate) -> Vec<Reply> {
        let direction = command.direction;
        let reply = match (fate, direction) {
            (Fate::Pends, Direction::Forward) => {
                self.forward = Some(Mark::Pending);
                self.open = Some(command);
                return Vec::new();
            }
            (Fate::Succeeds | Fate::Pends, Direction::Compensation) => {
                self.compensation = Some(Mark::Done);
                self.undone += 1;
                success(&command, direction)
            }
            (Fate::Succeeds, _) => {
                self.forward = Some(Mark::Done);
                self.done += 1;
                success(&command, direction)
            }
            (Fate::Fails, _) => {
                if command.save_failure {
                    self.forward = Some(Mark::Failed);
                }
                reply(&command, direction, Outcome::Failure, fault("failed"))
            }
            (Fate::Errs | Fate::Pends, _) => {
                reply(&command, direction, Outcome::Error, fault("errored"))
            }
        };
        vec![reply]
    }

    /// Settles the open external call, and then handles every command that waited for it.
    pub fn settle(&mut self, fate: Fate) -> Vec<Reply> {
        let Some(command) = self.open.take() else {
            return Vec::new();
        };
        self.forward = None;
        let mut replies = self.run(command, fate);
        for waiting in std::mem::take(&mut self.waiting) {
            replies.extend(self.handle(waiting, Fate::Succeeds));
        }
        replies
    }

    fn saved(&self, command: &Command) -> Reply {
        if self.forward == Some(Mark::Failed) {
            reply(
                command,
                Direction::Forward,
                Outcome::Failure,
                fault("failed"),
            )
        } else {
            success(command, Direction::Forward)
        }
    }
}

fn success(command: &Command, direction: Direction) -> Reply {
    let result = json!({"of": command.step});
    reply(command, direction, Outcome::Success, result)
}

fn not_done(command: &Command) -> Reply {
    reply(command, command.direction, Outcome::NotDone, Value::Null)
}

fn fault(code: &str) -> Value {
    json!({"code": code, "message": "as the test wants it"})
}

fn reply(command: &Command, direction: Direction, outcome: Outcome, payload: Value) -> Reply {
    Reply {
        saga_id: command.saga_id,
        step: command.step.clone(),
        direction,
        attempt: command.attempt,
        reply_type: "test.answered".to_owned(),
        outcome,
        payload,
        trace: Trace::default(),
    }
}
