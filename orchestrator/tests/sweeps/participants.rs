//! Participants with the barrier's decision table, and a ledger of how often each step was done and compensated.

use super::script::{Answers, Script};
use saga_core::{
    barrier::{Admission, Mark, admit},
    definition::SagaDefinition,
    message::{Command, Direction, Outcome, Reply},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Rows and counts of one step's participant.
#[derive(Debug, Default)]
pub struct Ledger {
    forward: Option<Row>,
    compensation: Option<Row>,
    pub done: u32,
    pub undone: u32,
}

#[derive(Clone, Debug)]
struct Row {
    mark: Mark,
    outcome: Outcome,
    payload: Value,
}

#[derive(Debug)]
pub struct Participants {
    steps: BTreeMap<String, Ledger>,
    answers: Vec<Answers>,
}

impl Participants {
    /// Makes the participants of a new saga. The starter has already done its own step and written its row.
    pub fn new(definition: &SagaDefinition, script: &Script) -> Self {
        let ledger = |by_starter: bool| Ledger {
            forward: by_starter.then(|| row(Mark::Done, Outcome::Success)),
            done: u32::from(by_starter),
            ..Ledger::default()
        };
        Self {
            steps: definition
                .steps
                .iter()
                .map(|step| (step.name.clone(), ledger(step.action.is_none())))
                .collect(),
            answers: script.answers.clone(),
        }
    }

    pub fn ledger(&self, step: &str) -> &Ledger {
        &self.steps[step]
    }

    pub fn handle(&mut self, command: &Command) -> Reply {
        let ledger = &self.steps[&command.step];
        let mark = |row: &Option<Row>| row.as_ref().map(|row| row.mark);
        let admission = admit(
            mark(&ledger.forward),
            mark(&ledger.compensation),
            command.direction,
        );
        match admission {
            Admission::Run => self.run(command),
            Admission::SavedForward => {
                let row = ledger.forward.clone();
                reply(command, Direction::Forward, row.expect("it was just found"))
            }
            Admission::SavedCompensation => {
                let row = ledger.compensation.clone();
                reply(
                    command,
                    Direction::Compensation,
                    row.expect("it was just found"),
                )
            }
            Admission::RefuseAndCompensateEmpty | Admission::CompensateEmpty => {
                self.refuse_if(admission == Admission::RefuseAndCompensateEmpty, command);
                let row = row(Mark::Done, Outcome::Success);
                self.of(command).compensation = Some(row.clone());
                reply(command, Direction::Compensation, row)
            }
            Admission::RefuseAndAnswerNotDone | Admission::AnswerNotDone => {
                self.refuse_if(admission == Admission::RefuseAndAnswerNotDone, command);
                reply(
                    command,
                    command.direction,
                    row(Mark::Refused, Outcome::NotDone),
                )
            }
            Admission::AnswerOnSettlement => unreachable!("nobody here calls outside"),
        }
    }

    fn of(&mut self, command: &Command) -> &mut Ledger {
        self.steps.entry(command.step.clone()).or_default()
    }

    fn refuse_if(&mut self, refuses: bool, command: &Command) {
        if refuses {
            self.of(command).forward = Some(row(Mark::Refused, Outcome::NotDone));
        }
    }

    fn run(&mut self, command: &Command) -> Reply {
        let outcome = self.next_outcome(command);
        let ledger = self.of(command);
        let (place, effect) = match command.direction {
            Direction::Forward | Direction::Resolve => (&mut ledger.forward, &mut ledger.done),
            Direction::Compensation => (&mut ledger.compensation, &mut ledger.undone),
        };
        let mark = match outcome {
            Outcome::Success => {
                *effect += 1;
                Some(Mark::Done)
            }
            Outcome::Failure if command.save_failure => Some(Mark::Failed),
            Outcome::Failure | Outcome::Error | Outcome::NotDone => None,
        };
        *place = mark.map(|mark| row(mark, outcome));
        reply(command, command.direction, row(Mark::Done, outcome))
    }

    fn next_outcome(&mut self, command: &Command) -> Outcome {
        let scripted = self.answers.iter_mut().find(|answers| {
            answers.times > 0
                && answers.step == command.step
                && answers.direction == command.direction
        });
        scripted.map_or(Outcome::Success, |answers| {
            answers.times -= 1;
            answers.outcome
        })
    }
}

fn row(mark: Mark, outcome: Outcome) -> Row {
    let payload = match outcome {
        Outcome::Success => json!({"done": true}),
        Outcome::Failure => json!({"code": "refused", "message": "the script says so"}),
        Outcome::Error => json!({"code": "broken", "message": "the script says so"}),
        Outcome::NotDone => json!({}),
    };
    Row {
        mark,
        outcome,
        payload,
    }
}

fn reply(command: &Command, direction: Direction, row: Row) -> Reply {
    Reply {
        saga_id: command.saga_id,
        step: command.step.clone(),
        direction,
        attempt: command.attempt,
        reply_type: format!("{}.{}", command.command_type, row.outcome.as_str()),
        outcome: row.outcome,
        payload: row.payload,
        trace: command.trace.clone(),
    }
}
