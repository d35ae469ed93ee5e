//! A participant with one step, as the barrier makes it: nothing but the two rows, an open external call, and a count
//! of what really happened.

use saga_core::{
    barrier::{Admission, Mark, admit},
    message::{Command, Direction, Outcome, Reply, Trace},
};
use serde_json::{Value, json};

/// What a handler would come to, if the barrier lets the command run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Succeeds,
    Fails,
    Errs,
    /// Calls the outside world: answered on settlement.
    Pends,
}

#[derive(Clone, Debug, Default)]
pub struct Participant {
    forward: Option<Mark>,
    compensation: Option<Mark>,
    /// The command whose external call is open, and those that wait for its settlement.
    open: Option<Command>,
    waiting: Vec<Command>,
    /// How often the action, and its compensation, really happened.
    pub done: u32,
    pub undone: u32,
}

impl Participant {
    /// The starter writes the barrier record of its own first step.
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

    /// The open external call comes to its outcome; then everything that waited is looked at again.
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
