//! The table of actions. The direction of the saga and the state of the step concerned decide.
//!
//! | action | on | legal when | does |
//! |---|---|---|---|
//! | cancel, compensate | the saga | it goes forward and its pivot is not done | starts compensating; with the pivot in flight or unknown its outcome decides |
//! | retry | the saga, or a step | a command is used up | sends its next attempt, perhaps with a corrected payload |
//! | complete | a step | it is under way, and the saga goes forward | counts it as done, with the operator's result |
//! | not done | the pivot | its outcome was asked for in vain | counts it as not done, and starts compensating |
//! | skip | a step, not the pivot | it is under way or not begun, and the saga goes forward | goes on without it |
//! | skip compensation | a step | its compensation is owed or under way | does not wait for it; the saga ends abandoned |
//! | abandon | the saga | it is live | ends it in its current state |
//!
//! A step under way may have run, so it is resolved first. A step that has not begun is skipped at once. It cannot be
//! completed: a step before it may still fail, and then nothing may be done that no compensation undoes.
//!
//! A step's outcome was *asked for in vain* if the saga is parked on it, or if the saga's deadline has passed and the
//! participant does not consume the resolve. Such a step is decided by hand: complete, skip and not done take effect at
//! once, with a warning.

use crate::{
    definition::{SagaDefinition, StepKind},
    instance::{Delivery, Phase, PickUp, SagaInstance, StepState},
    message::{ActionKind, ActionName, Direction},
    transition::timer::{CompensationStart, compensation_start},
};
use serde_json::Value;
use std::fmt;

/// The cause's code of a saga that was cancelled because it is no longer wanted.
pub const CANCELLED: &str = "cancelled";
/// The cause's code of a saga that an operator compensates.
pub const OPERATOR: &str = "operator";
/// Limits the cancels and compensates that can wait for one pivot's outcome. Only a program asks more often, and a
/// saga's row should not carry more.
const MAX_PENDING_REVERSALS: usize = 8;

/// The effect of a legal action.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// The effect has happened already.
    Nothing,
    StartCompensation,
    /// Asks for the pivot's outcome, which decides.
    AskPivot(usize),
    /// The pivot's outcome is being asked for already.
    AwaitPivot,
    TryAgain(Vec<UsedUp>),
    /// Skips a step that was never sent.
    SkipAhead(usize),
    /// Completes or skips a step once it is known not to have run.
    ResolveFirst(usize),
    /// Decides about a step without its participant's answer.
    ByHand(usize),
    SkipCompensation(usize),
    Abandon,
}

impl Effect {
    /// Returns true if the action is decided only once an outcome is known.
    fn is_pending(&self) -> bool {
        matches!(
            self,
            Self::AskPivot(_) | Self::AwaitPivot | Self::ResolveFirst(_)
        )
    }
}

/// A command that waits for a person.
#[derive(Debug, PartialEq, Eq)]
pub struct UsedUp {
    pub index: usize,
    pub direction: Direction,
    pub attempt: u32,
}

/// Says why an action is not legal.
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
    /// True for a skip of the step's compensation.
    pub compensation: bool,
    /// True if the action is decided only once an outcome is known, which is asked for first.
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

/// Returns every action that is legal for a saga in its current state, the mildest first.
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

/// Returns all forms of an action: one for each step, if the action is about a step.
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
        ActionName::NotDone => steps().map(|step| ActionKind::NotDone { step }).collect(),
        ActionName::Skip => [false, true]
            .into_iter()
            .flat_map(|compensation| {
                steps().map(move |step| ActionKind::Skip { step, compensation })
            })
            .collect(),
        ActionName::Abandon => vec![ActionKind::Abandon],
    }
}

/// Returns the effect of an action on a live saga, or why the action is refused.
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
        ActionKind::NotDone { step } => {
            let index = find(definition, step)?;
            not_done(definition, saga, index)
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

/// Judges a cancel or compensate. `code` is the code of the cause that the action would give the saga.
fn turn_round(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    code: &str,
) -> Result<Effect, Refusal> {
    match (compensation_start(definition, saga), saga.status.phase()) {
        (CompensationStart::Now, _) => Ok(Effect::StartCompensation),
        (CompensationStart::Ask(pivot) | CompensationStart::AskAgain(pivot), _) => {
            Ok(Effect::AskPivot(pivot))
        }
        (CompensationStart::Asking, _) if saga.pending_reversals.len() >= MAX_PENDING_REVERSALS => {
            let message = "enough actions wait for the pivot's outcome already".to_owned();
            Err(Refusal::new("already_pending", message))
        }
        (CompensationStart::Asking, _) => Ok(Effect::AwaitPivot),
        (CompensationStart::No, Phase::Compensating) => match &saga.cause {
            Some(cause) if cause.step.is_none() && cause.code == code => Ok(Effect::Nothing),
            cause => {
                let why = cause.as_ref().map_or("", |cause| cause.code.as_str());
                let message = format!("the saga is being compensated already: {why}");
                Err(Refusal::new("already_compensating", message))
            }
        },
        (CompensationStart::No, Phase::Running) => {
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
        Progress::AskedInVain => Ok(Effect::ByHand(index)),
    }
}

fn not_done(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    index: usize,
) -> Result<Effect, Refusal> {
    let step = &definition.steps[index];
    let name = &step.name;
    if step.kind != StepKind::Pivot {
        let message = format!("'{name}' is not the pivot: skip it, or compensate the saga");
        return Err(Refusal::new("not_pivot", message));
    }
    match progress(definition, saga, index)? {
        Progress::NotBegun => {
            let message = format!("'{name}' has not begun: cancel the saga");
            Err(Refusal::new("not_begun", message))
        }
        Progress::UnderWay => {
            let message = format!("the outcome of '{name}' was not asked for: cancel asks for it");
            Err(Refusal::new("not_asked", message))
        }
        Progress::AskedInVain => Ok(Effect::ByHand(index)),
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
        Progress::AskedInVain => Ok(Effect::ByHand(index)),
    }
}

/// The progress of a step that can still be completed or skipped.
enum Progress {
    NotBegun,
    /// The step may have run.
    UnderWay,
    /// The step may have run, and its participant does not answer.
    AskedInVain,
}

/// Returns the progress of a step that is still open. Complete, skip and not done all need it.
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
        StepState::Waiting if saga.recovered => {
            let message = format!("'{name}' may have run before the saga was taken up again");
            Err(Refusal::new("recovered", message))
        }
        StepState::Waiting => Ok(Progress::NotBegun),
        StepState::Running(_) => Ok(Progress::UnderWay),
        StepState::Resolving(delivery) if is_in_vain(saga, delivery) => Ok(Progress::AskedInVain),
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

/// Returns true if a resolve was in vain: no attempt is left, or the saga's deadline has passed and the participant
/// does not consume the command, which no attempt ends.
fn is_in_vain(saga: &SagaInstance, resolve: &Delivery) -> bool {
    match resolve {
        Delivery::UsedUp { .. } => true,
        Delivery::InFlight { pick_up, .. } => {
            saga.overdue && matches!(pick_up, PickUp::Queued { .. })
        }
        Delivery::BackingOff { .. } => false,
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
    let state = &saga.steps[index].state;
    let is_owed = state.may_be_done() && step.kind == StepKind::Compensatable;
    if is_owed || matches!(state, StepState::Compensating(_)) {
        Ok(Effect::SkipCompensation(index))
    } else {
        let message = format!("no compensation of '{}' is owed", step.name);
        Err(Refusal::new("nothing_owed", message))
    }
}
