//! The operator, who decides about parked sagas.

use super::{cluster::Cluster, nemesis};
use saga_core::{
    definition::StepKind,
    instance::{Delivery, SagaInstance, SagaStatus, StepState},
    message::{ActionKind, Direction},
};

/// Seconds between two rounds of an operator over the parked sagas.
pub const ROUND_INTERVAL_SECS: u64 = 10;
/// In one of this many rounds, the operator decides an unknown outcome manually instead of retrying.
const PATIENT_LOOKS: u64 = 3;
/// More attempts than a patient operator lets pass.
const MANY_ATTEMPTS: u32 = 60;

/// Acts on every parked saga: retries it, corrects it, or decides its unknown outcome.
pub fn look_after_parked(cluster: &Cluster, second: u64) {
    let parked: Vec<SagaInstance> = {
        let tables = cluster.sagas.tables();
        let parked = tables
            .live
            .values()
            .map(|live| &live.row.instance)
            .filter(|instance| matches!(instance.status, SagaStatus::Parked { .. }));
        parked.cloned().collect()
    };
    let decides = second.is_multiple_of(PATIENT_LOOKS * ROUND_INTERVAL_SECS);
    for (index, instance) in (0..).zip(parked) {
        let kind = (decides || is_asked_for_often(&instance))
            .then(|| decided_by_hand(cluster, &instance))
            .flatten()
            .or_else(|| corrected(&instance))
            .unwrap_or_else(ActionKind::retry);
        let number = 1_000_000_000 + second * 1_000 + index;
        nemesis::act(cluster, instance.id, kind, number);
    }
}

/// Returns the retry of a command that was too large to be sent, with another payload.
fn corrected(instance: &SagaInstance) -> Option<ActionKind> {
    let (step, reason) = instance.status.parked()?;
    (reason.code == "payload_too_large").then(|| ActionKind::Retry {
        step: Some(step.to_owned()),
        input: Some(nemesis::by_hand()),
    })
}

/// Returns true if an outcome was asked for so often that an operator decides at once. Otherwise retries with the period
/// of the decisions would miss every one of them.
fn is_asked_for_often(instance: &SagaInstance) -> bool {
    instance.steps.iter().any(|step| {
        matches!(&step.state, StepState::Resolving(delivery) if delivery.attempt() >= MANY_ATTEMPTS)
    })
}

/// Returns the action of an operator who has found out the outcome that a step's participant does not tell.
fn decided_by_hand(cluster: &Cluster, instance: &SagaInstance) -> Option<ActionKind> {
    let history = cluster.world.history();
    let definition = &history.accepted.get(&instance.id)?.definition;
    let (step, _) = definition
        .steps
        .iter()
        .zip(&instance.steps)
        .find(|(_, step)| matches!(step.state, StepState::Resolving(Delivery::UsedUp { .. })))?;
    let is_done = history.effects.iter().any(|effect| {
        effect.saga == instance.id
            && effect.step == step.name
            && effect.direction == Direction::Forward
    });
    let name = step.name.clone();
    Some(match (is_done, step.kind) {
        (true, _) => ActionKind::Complete {
            step: name,
            result: nemesis::by_hand(),
        },
        (false, StepKind::Pivot) => ActionKind::NotDone { step: name },
        (false, StepKind::Compensatable | StepKind::Retriable) => ActionKind::Skip {
            step: name,
            compensation: false,
        },
    })
}
