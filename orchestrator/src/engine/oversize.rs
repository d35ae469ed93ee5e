//! A command that no broker takes. Sending it would fail for ever, so it is not sent: its saga parks, and a person
//! reads why.

use saga_core::{
    definition::SagaDefinition,
    ids::Timestamp,
    instance::{
        Delivery, LifecycleEvent, LifecycleKind, LogEntry, Phase, SagaInstance, SagaStatus,
        StepState, Unchanging,
    },
    message::{Command, Direction, DuePart, Fault},
};

/// Room for a record's headers and framing beside its payload, bytes.
const OVERHEAD_BYTES: usize = 8 * 1024;

/// Whether a payload of this size can be sent under the broker's limit.
pub fn fits(payload_bytes: usize, message_limit_bytes: usize) -> bool {
    payload_bytes.saturating_add(OVERHEAD_BYTES) <= message_limit_bytes
}

/// Takes back the sending of `command` in the state and the events that its transition made, and parks the saga.
pub fn park(
    definition: &SagaDefinition,
    instance: &mut SagaInstance,
    entry: &mut Unchanging<LogEntry>,
    command: &Command,
    payload_bytes: usize,
    at: Timestamp,
) {
    let Some((index, _)) = definition.step(&command.step) else {
        return;
    };
    let fault = Fault::new(
        "payload_too_large",
        format!(
            "the payload of {} has {payload_bytes} bytes, more than the broker takes",
            command.command_type
        ),
    );
    let part = DuePart {
        step: command.step.clone(),
        direction: command.direction,
        attempt: command.attempt,
    };
    let delivery = Delivery::UsedUp {
        attempt: command.attempt,
        fault: fault.clone(),
    };
    instance.steps[index].state = match command.direction {
        Direction::Forward => StepState::Running(delivery),
        Direction::Compensation => StepState::Compensating(delivery),
        Direction::Resolve => StepState::Resolving(delivery),
    };
    rewrite_events(instance, entry, &part, fault.clone(), at);
    let phase = match &instance.status {
        SagaStatus::Compensating => Phase::Compensating,
        SagaStatus::Running => Phase::Running,
        SagaStatus::Parked { .. }
        | SagaStatus::Completed
        | SagaStatus::Compensated
        | SagaStatus::Abandoned { .. } => return,
    };
    instance.status = SagaStatus::Parked {
        step: command.step.clone(),
        reason: fault,
        phase,
    };
}

/// The command was not sent, so no event may say so; the sequence stays gapless.
fn rewrite_events(
    instance: &mut SagaInstance,
    entry: &mut Unchanging<LogEntry>,
    part: &DuePart,
    fault: Fault,
    at: Timestamp,
) {
    let mut events = entry.events.clone();
    let first = instance.sequence + 1 - (events.len() as u64).min(instance.sequence + 1);
    events.retain(|event| match &event.kind {
        LifecycleKind::CommandSent { part: sent, .. } => sent != part,
        LifecycleKind::Started
        | LifecycleKind::CommandQueued { .. }
        | LifecycleKind::CommandPickedUp { .. }
        | LifecycleKind::StepSucceeded { .. }
        | LifecycleKind::StepFailed { .. }
        | LifecycleKind::StepErrored { .. }
        | LifecycleKind::StepTimedOut { .. }
        | LifecycleKind::ResolveStarted { .. }
        | LifecycleKind::StepNotDone { .. }
        | LifecycleKind::CompensationStarted { .. }
        | LifecycleKind::StepCompensated { .. }
        | LifecycleKind::StepCompleted { .. }
        | LifecycleKind::StepSkipped { .. }
        | LifecycleKind::CompensationSkipped { .. }
        | LifecycleKind::LateReply { .. }
        | LifecycleKind::DeadlinePassed
        | LifecycleKind::ActionDecided { .. }
        | LifecycleKind::Parked { .. }
        | LifecycleKind::Unparked { .. }
        | LifecycleKind::Completed
        | LifecycleKind::Compensated { .. }
        | LifecycleKind::Abandoned { .. } => true,
    });
    let kind = LifecycleKind::Parked {
        step: part.step.clone(),
        reason: fault,
    };
    events.push(LifecycleEvent {
        sequence: 0,
        at,
        kind,
    });
    for (sequence, event) in (first..).zip(events.iter_mut()) {
        event.sequence = sequence;
        instance.sequence = sequence;
    }
    *entry = Unchanging::from(LogEntry {
        position: entry.position,
        events,
    });
    if let Some(last) = instance.log.last_mut() {
        *last = entry.clone();
    }
}
