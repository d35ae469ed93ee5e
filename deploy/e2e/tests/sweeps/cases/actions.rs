//! Cases for every action that a person can ask for, at each step: with the step's command in flight or the step
//! parked, with its compensation in flight or parked, and while the pivot's outcome is being resolved.
//!
//! The expected result comes from the decisions themselves, brought into the same situation without any server
//! (`SagaTest`). `orchestrator/tests/sentences/operator.txt` lists the results in each situation for people to read.

use super::{actions, pivot};
use crate::{
    run::may_leave,
    script::{Act, Case, End, RequestedAction, Script},
    stage::order,
};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    instance::ActionVerdict,
    message::{ActionKind, Direction, Outcome},
};
use saga_testkit::{SagaTest, command, failure, given, success};
use serde_json::{Value, json};
use std::sync::Arc;

/// A saga in a situation in which it makes no progress.
struct Situation {
    name: String,
    script: Script,
    /// The acts that bring the saga into the situation.
    acts: Vec<Act>,
    /// The step whose command is held, or whose attempts are used up.
    at: String,
    /// The saga's end if no further action is asked for.
    end: End,
    parked: usize,
    decided: SagaTest,
}

pub fn cases(definition: &Arc<SagaDefinition>) -> Vec<Case> {
    let situations = situations(definition);
    let cases = situations
        .iter()
        .flat_map(|situation| situation.cases(definition));
    cases.collect()
}

fn situations(definition: &SagaDefinition) -> Vec<Situation> {
    let mut situations = vec![asked_for(definition)];
    for step in actions(definition) {
        situations.push(in_flight(definition, step));
        if step.kind == StepKind::Retriable {
            situations.push(parked(definition, step));
        }
    }
    for step in &definition.steps {
        if step.kind == StepKind::Compensatable {
            situations.push(compensating(definition, step));
            situations.push(compensation_parked(definition, step));
        }
    }
    situations
}

impl Situation {
    /// Returns the situation's cases. One saga takes all refused actions, since they leave no trace; each granted
    /// action has its own saga.
    fn cases(&self, definition: &Arc<SagaDefinition>) -> Vec<Case> {
        let (refused, granted): (Vec<RequestedAction>, Vec<RequestedAction>) =
            requested_actions(definition)
                .into_iter()
                .map(|kind| self.requested(kind))
                .partition(|requested| matches!(requested.verdict, ActionVerdict::Refused { .. }));
        let mut cases = vec![self.case(definition, "refusals", refused, self.end, true)];
        for requested in granted {
            let (kind, end) = (&requested.kind, self.end_of(&requested.kind));
            // Otherwise the saga no longer waits for the held command of the step that the situation is about.
            let goes_on = kind.step().is_some_and(|step| step != self.at) || self.is_asked_for();
            let name = serde_json::to_string(kind).unwrap_or_default();
            cases.push(self.case(definition, &name, vec![requested], end, goes_on));
        }
        cases
    }

    fn case(
        &self,
        definition: &Arc<SagaDefinition>,
        name: &str,
        requested_actions: Vec<RequestedAction>,
        end: End,
        lets_go: bool,
    ) -> Case {
        let mut acts = self.acts.clone();
        acts.push(Act::Ask(requested_actions));
        acts.extend(lets_go.then_some(Act::LetGo));
        let name = format!("{}; {name}", self.name);
        let mut case = Case::new(definition, &name, self.script.clone(), end).acting(acts);
        case.parked = crate::script::Parked::AtMost(self.parked);
        case
    }

    fn requested(&self, kind: ActionKind) -> RequestedAction {
        let decided = self.decided.clone().ask(kind.clone());
        let verdict = decided.verdict().cloned();
        RequestedAction {
            kind,
            verdict: verdict.expect("every action of a live saga is decided"),
        }
    }

    /// Returns the saga's end after a granted action.
    fn end_of(&self, kind: &ActionKind) -> End {
        match kind {
            kind if may_leave(kind) => End::Abandoned,
            ActionKind::Cancel | ActionKind::Compensate | ActionKind::NotDone { .. } => {
                End::Compensated
            }
            ActionKind::Retry { .. }
            | ActionKind::Complete { .. }
            | ActionKind::Skip { .. }
            | ActionKind::Abandon => self.end,
        }
    }

    fn is_asked_for(&self) -> bool {
        matches!(&self.script.held, Some((_, Direction::Resolve)))
    }
}

/// Returns every action in every form.
fn requested_actions(definition: &SagaDefinition) -> Vec<ActionKind> {
    let on_step = |step: &Step| {
        let step = step.name.clone();
        [
            ActionKind::Retry {
                step: Some(step.clone()),
                input: None,
            },
            ActionKind::Complete {
                step: step.clone(),
                result: json!({"by": "hand"}),
            },
            ActionKind::NotDone { step: step.clone() },
            ActionKind::Skip {
                step: step.clone(),
                compensation: false,
            },
            ActionKind::Skip {
                step,
                compensation: true,
            },
        ]
    };
    [
        ActionKind::retry(),
        ActionKind::Cancel,
        ActionKind::Compensate,
        ActionKind::Abandon,
    ]
    .into_iter()
    .chain(definition.steps.iter().flat_map(on_step))
    .collect()
}

fn in_flight(definition: &SagaDefinition, step: &Step) -> Situation {
    Situation {
        name: format!("{} in flight", step.name),
        script: Script::default().and_holding(&step.name, Direction::Forward),
        acts: vec![Act::Await {
            sent: (step.name.clone(), Direction::Forward),
            done: done_beside(definition, step),
            undone: Vec::new(),
        }],
        at: step.name.clone(),
        end: End::Completed,
        parked: 0,
        decided: forward_to(definition, step),
    }
}

/// A retriable step violates its contract with a failure, which parks the saga.
fn parked(definition: &SagaDefinition, step: &Step) -> Situation {
    Situation {
        name: format!("{} parked", step.name),
        script: Script::answering(&step.name, Direction::Forward, Outcome::Failure, 1),
        acts: vec![Act::AwaitParked {
            done: done_beside(definition, step),
        }],
        at: step.name.clone(),
        end: End::Completed,
        parked: 1,
        decided: forward_to(definition, step).reply(failure("refused", "the script says so")),
    }
}

fn compensating(definition: &SagaDefinition, step: &Step) -> Situation {
    let pivot = pivot(definition);
    Situation {
        name: format!("compensation of {} in flight", step.name),
        script: Script::answering(&pivot.name, Direction::Forward, Outcome::Failure, 1)
            .and_holding(&step.name, Direction::Compensation),
        acts: vec![Act::Await {
            sent: (step.name.clone(), Direction::Compensation),
            done: Vec::new(),
            undone: Vec::new(),
        }],
        at: step.name.clone(),
        end: End::Compensated,
        parked: 0,
        decided: back_to(definition, step),
    }
}

fn compensation_parked(definition: &SagaDefinition, step: &Step) -> Situation {
    let pivot = pivot(definition);
    let script = Script::answering(&pivot.name, Direction::Forward, Outcome::Failure, 1);
    Situation {
        name: format!("compensation of {} parked", step.name),
        script: script.and_answering(&step.name, Direction::Compensation, Outcome::Failure, 1),
        acts: vec![Act::AwaitParked { done: Vec::new() }],
        at: step.name.clone(),
        end: End::Compensated,
        parked: 1,
        decided: back_to(definition, step).reply(failure("refused", "the script says so")),
    }
}

/// The pivot does not answer, and a person has cancelled the saga, so the pivot's outcome is being resolved.
fn asked_for(definition: &SagaDefinition) -> Situation {
    let pivot = pivot(definition);
    let sent = |direction| Act::Await {
        sent: (pivot.name.clone(), direction),
        done: Vec::new(),
        undone: Vec::new(),
    };
    let cancel = RequestedAction {
        kind: ActionKind::Cancel,
        verdict: ActionVerdict::Pending,
    };
    Situation {
        name: format!("{} asked for", pivot.name),
        script: Script::default()
            .and_silent(&pivot.name, Direction::Forward, u32::MAX, false)
            .and_holding(&pivot.name, Direction::Resolve),
        acts: vec![
            sent(Direction::Forward),
            Act::Ask(vec![cancel]),
            sent(Direction::Resolve),
        ],
        at: pivot.name.clone(),
        end: End::Compensated,
        parked: 0,
        decided: forward_to(definition, pivot).cancel(),
    }
}

/// Returns the steps that can be done while `step` is not.
fn beside<'a>(definition: &'a SagaDefinition, step: &Step) -> impl Iterator<Item = &'a Step> {
    let at = definition.step(&step.name).map(|(at, _)| at);
    actions(definition).filter(move |other| {
        let is_itself = definition.step(&other.name).map(|(at, _)| at) == at;
        !is_itself && at.is_some_and(|at| !other.ancestors.contains(&at))
    })
}

fn done_beside(definition: &SagaDefinition, step: &Step) -> Vec<String> {
    beside(definition, step)
        .map(|other| other.name.clone())
        .collect()
}

/// Returns a saga in which the step's command is in flight and every step that does not wait for it is done.
fn forward_to(definition: &SagaDefinition, step: &Step) -> SagaTest {
    let beside: Vec<&str> = beside(definition, step)
        .map(|other| other.name.as_str())
        .collect();
    let mut saga = given(definition).input(order());
    for other in actions(definition) {
        let command_type = type_of(other.action.as_ref());
        if other.name == step.name {
            saga = saga.expect(command(command_type));
        } else if beside.contains(&other.name.as_str()) {
            saga = saga
                .expect(command(command_type))
                .reply(success(Value::Null));
        }
    }
    saga.of(type_of(step.action.as_ref()))
}

/// Returns a saga in which the pivot has failed and the step's compensation is in flight.
fn back_to(definition: &SagaDefinition, step: &Step) -> SagaTest {
    let mut saga =
        forward_to(definition, pivot(definition)).reply(failure("refused", "the script says so"));
    let compensated = definition.steps.iter().rev();
    for other in compensated.filter(|other| other.kind == StepKind::Compensatable) {
        saga = saga.expect(command(type_of(other.compensation.as_ref())));
        if other.name == step.name {
            break;
        }
        saga = saga.reply(success(Value::Null));
    }
    saga
}

fn type_of(spec: Option<&saga_core::definition::CommandSpec>) -> &str {
    &spec.expect("the step has such a command").command_type
}
