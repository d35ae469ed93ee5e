//! The table of actions. Two things decide: where the saga is heading, and the state of the step concerned.
//!
//! | action | on | legal when | does |
//! |---|---|---|---|
//! | cancel, compensate | the saga | it goes forward and its pivot is not done | turns it round; with the pivot in flight or unknown its outcome decides |
//! | retry | the saga, or a step | a command is used up | sends its next attempt, perhaps with a corrected payload |
//! | complete | a step | it is under way, and the saga goes forward | counts it as done, with the operator's result |
//! | skip | a step, not the pivot | it is under way or not begun, and the saga goes forward | goes on without it |
//! | skip compensation | a step | its compensation is owed or under way | lets it be; the saga ends abandoned |
//! | abandon | the saga | it is live | ends it as it stands |
//!
//! A step under way may have run, so it is resolved first; one that has not begun is skipped at once. It cannot be
//! completed: what comes before it may still fail, and then nothing may be done that no compensation undoes.

use super::{CANCELLED, OPERATOR};
use crate::{
    definition::{SagaDefinition, StepKind},
    instance::{Phase, SagaInstance, StepState},
    message::{ActionKind, ActionName, Direction},
    transition::timer::{Turning, turning},
};
use serde_json::Value;
use std::fmt;

/// Turns that can wait for one pivot's outcome; more than a row should carry along is asked by a machine.
const MAX_PENDING_TURNS: usize = 8;

/// What a legal action does.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// It has happened already.
    Nothing,
    TurnBack,
    /// Asks for the pivot's outcome, which decides.
    AskPivot(usize),
    /// It is being asked for already.
    AwaitPivot,
    TryAgain(Vec<UsedUp>),
    /// Skips a step that was never sent.
    SkipAhead(usize),
    /// Completes or skips a step once it is known not to have run.
    ResolveFirst(usize),
    SkipCompensation(usize),
    Abandon,
}

impl Effect {
    /// Whether it is decided only when an outcome is known.
    fn is_pending(&self) -> bool {
        match self {
            Self::AskPivot(_) | Self::AwaitPivot | Self::ResolveFirst(_) => true,
            Self::Nothing
            | Self::TurnBack
            | Self::TryAgain(_)
            | Self::SkipAhead(_)
            | Self::SkipCompensation(_)
            | Self::Abandon => false,
        }
    }
}

/// A command that waits for a person.
#[derive(Debug, PartialEq, Eq)]
pub struct UsedUp {
    pub index: usize,
    pub direction: Direction,
    pub attempt: u32,
}

/// Why an action is not legal.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }
}

/// An action that would not be refused now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegalAction {
    pub action: ActionName,
    pub step: Option<String>,
    /// Of a skip: it is the step's compensation that is skipped.
    pub compensation: bool,
    /// It is decided only once an outcome is known, which is asked for first.
    pub pending: bool,
}

impl fmt::Display for LegalAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.as_str())?;
        if self.compensation {
            f.write_str(" the compensation of")?;
        }
        match &self.step {
            Some(step) => write!(f, " {step}"),
            None => Ok(()),
        }
    }
}

/// Everything that may be asked of a saga as it stands, the mildest first.
pub fn legal_actions(definition: &SagaDefinition, saga: &SagaInstance) -> Vec<LegalAction> {
    if saga.status.is_ended() || saga.steps.len() != definition.steps.len() {
        return Vec::new();
    }
    ActionName::ALL
        .into_iter()
        .flat_map(|action| every(definition, action))
        .filter_map(|kind| match judge(definition, saga, &kind) {
            Ok(Effect::Nothing) | Err(_) => None,
            Ok(effect) => Some(LegalAction {
                action: kind.name(),
                step: kind.step().map(str::to_owned),
                compensation: matches!(
                    kind,
                    ActionKind::Skip {
                        compensation: true,
                        ..
                    }
                ),
                pending: effect.is_pending(),
            }),
        })
        .collect()
}

/// An action in all its forms, one for each step if it is about one.
fn every(definition: &SagaDefinition, action: ActionName) -> Vec<ActionKind> {
    let steps = || definition.steps.iter().map(|step| step.name.clone());
    match action {
        ActionName::Retry => vec![ActionKind::retry()],
        ActionName::Cancel => vec![ActionKind::Cancel],
        ActionName::Compensate => vec![ActionKind::Compensate],
        ActionName::Complete => steps()
            .map(|step| ActionKind::Complete {
                step,
                result: Value::Null,
            })
            .collect(),
        ActionName::Skip => [false, true]
            .into_iter()
            .flat_map(|compensation| {
                steps().map(move |step| ActionKind::Skip { step, compensation })
            })
            .collect(),
        ActionName::Abandon => vec![ActionKind::Abandon],
    }
}

/// What an action would do to a live saga, or why it may not.
pub fn judge(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    kind: &ActionKind,
) -> Result<Effect, Refusal> {
    match kind {
        ActionKind::Cancel => turn_round(definition, saga, CANCELLED),
        ActionKind::Compensate => turn_round(definition, saga, OPERATOR),
        ActionKind::Retry { step, input } => {
            let index = match step {
                Some(name) => Some(find(definition, name)?),
                None => None,
            };
            try_again(saga, index, input.is_some())
        }
        ActionKind::Complete { step, .. } => {
            let index = find(definition, step)?;
            complete(definition, saga, index)
        }
        ActionKind::Skip {
            step,
            compensation: false,
        } => {
            let index = find(definition, step)?;
            skip(definition, saga, index)
        }
        ActionKind::Skip {
            step,
            compensation: true,
        } => {
            let index = find(definition, step)?;
            skip_compensation(definition, saga, index)
        }
        ActionKind::Abandon => Ok(Effect::Abandon),
    }
}

fn find(definition: &SagaDefinition, name: &str) -> Result<usize, Refusal> {
    let found = definition.step(name).map(|(index, _)| index);
    found.ok_or_else(|| {
        let message = format!("'{}' has no step '{name}'", definition.name);
        Refusal::new("unknown_step", message)
    })
}

/// `code` is the cause's if the action turns the saga round.
fn turn_round(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    code: &str,
) -> Result<Effect, Refusal> {
    match (turning(definition, saga), saga.status.phase()) {
        (Turning::Back, _) => Ok(Effect::TurnBack),
        (Turning::Ask(pivot), _) => Ok(Effect::AskPivot(pivot)),
        (Turning::Asking, _) if saga.pending_turns.len() >= MAX_PENDING_TURNS => {
            let message = "enough actions wait for the pivot's outcome already".to_owned();
            Err(Refusal::new("already_pending", message))
        }
        (Turning::Asking, _) => Ok(Effect::AwaitPivot),
        (Turning::No, Phase::Compensating) => match &saga.cause {
            Some(cause) if cause.step.is_none() && cause.code == code => Ok(Effect::Nothing),
            cause => {
                let why = cause.as_ref().map_or("", |cause| cause.code.as_str());
                let message = format!("the saga is being compensated already: {why}");
                Err(Refusal::new("already_compensating", message))
            }
        },
        (Turning::No, Phase::Running) => {
            let message = "the saga's pivot is done, so it can only go forward".to_owned();
            Err(Refusal::new("past_pivot", message))
        }
    }
}

fn try_again(
    saga: &SagaInstance,
    index: Option<usize>,
    corrected: bool,
) -> Result<Effect, Refusal> {
    if corrected && index.is_none() {
        let message = "a corrected input is one step's: name it".to_owned();
        return Err(Refusal::new("no_step", message));
    }
    let used_up: Vec<UsedUp> = saga
        .steps
        .iter()
        .enumerate()
        .filter(|(place, _)| index.is_none_or(|index| index == *place))
        .filter_map(|(index, step)| {
            let (direction, delivery) = step.state.delivery()?;
            delivery.used_up().map(|_| UsedUp {
                index,
                direction,
                attempt: delivery.attempt(),
            })
        })
        .collect();
    if used_up.is_empty() {
        let what = if index.is_some() {
            "the step"
        } else {
            "the saga"
        };
        let message = format!("nothing of {what} waits for a person");
        return Err(Refusal::new("not_parked", message));
    }
    Ok(Effect::TryAgain(used_up))
}

fn complete(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    index: usize,
) -> Result<Effect, Refusal> {
    match progress(definition, saga, index)? {
        Progress::NotBegun => {
            let name = &definition.steps[index].name;
            let message = format!("'{name}' has not begun: what comes before it may still fail");
            Err(Refusal::new("not_begun", message))
        }
        Progress::UnderWay => Ok(Effect::ResolveFirst(index)),
    }
}

fn skip(definition: &SagaDefinition, saga: &SagaInstance, index: usize) -> Result<Effect, Refusal> {
    let step = &definition.steps[index];
    if step.kind == StepKind::Pivot {
        let message = format!(
            "'{}' is the pivot, without which nothing is decided",
            step.name
        );
        return Err(Refusal::new("is_pivot", message));
    }
    match progress(definition, saga, index)? {
        Progress::NotBegun => Ok(Effect::SkipAhead(index)),
        Progress::UnderWay => Ok(Effect::ResolveFirst(index)),
    }
}

/// How far a step is that can still be completed or skipped.
enum Progress {
    NotBegun,
    /// It may have run.
    UnderWay,
}

/// What both ask: whether the step is still open, and whether it may have run.
fn progress(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    index: usize,
) -> Result<Progress, Refusal> {
    let name = &definition.steps[index].name;
    match saga.status.phase() {
        Phase::Compensating => {
            let message = "the saga goes back, so no step of it is done any more".to_owned();
            return Err(Refusal::new("compensating", message));
        }
        Phase::Running => {}
    }
    match &saga.steps[index].state {
        StepState::Waiting => Ok(Progress::NotBegun),
        StepState::Running(_) => Ok(Progress::UnderWay),
        StepState::Resolving(_) => {
            let message = format!("the outcome of '{name}' is being asked for, and will decide");
            Err(Refusal::new("resolving", message))
        }
        StepState::Succeeded => {
            let message = format!("'{name}' is done");
            Err(Refusal::new("already_done", message))
        }
        StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Compensating(_)
        | StepState::Compensated
        | StepState::CompensationSkipped { .. }
        | StepState::Skipped => {
            let message = format!("nothing of '{name}' is left to do");
            Err(Refusal::new("already_settled", message))
        }
    }
}

fn skip_compensation(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    index: usize,
) -> Result<Effect, Refusal> {
    let step = &definition.steps[index];
    match saga.status.phase() {
        Phase::Running => {
            let message = "the saga goes forward, so nothing is being compensated".to_owned();
            return Err(Refusal::new("not_compensating", message));
        }
        Phase::Compensating => {}
    }
    match (&saga.steps[index].state, step.kind) {
        (StepState::Compensating(_), _)
        | (StepState::Succeeded | StepState::Unknown, StepKind::Compensatable) => {
            Ok(Effect::SkipCompensation(index))
        }
        (
            StepState::Waiting
            | StepState::Running(_)
            | StepState::Resolving(_)
            | StepState::Succeeded
            | StepState::Failed { .. }
            | StepState::NotDone
            | StepState::Unknown
            | StepState::Compensated
            | StepState::CompensationSkipped { .. }
            | StepState::Skipped,
            _,
        ) => {
            let message = format!("no compensation of '{}' is owed", step.name);
            Err(Refusal::new("nothing_owed", message))
        }
    }
}
