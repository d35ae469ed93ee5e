//! Checks the promises by their names in saga-core/README.md, Promises.

use super::World;
use saga_core::{
    definition::{Step, StepKind},
    instance::{ActionVerdict, Delivery, LifecycleKind, SagaInstance, SagaStatus, StepState},
    message::{ActionKind, Direction},
    transition::{OutgoingCommand, Transition, commands_in_flight, legal_actions, waiting_on},
};
use std::collections::BTreeSet;

impl World {
    pub fn check_invariants(&self) {
        self.effects_happen_once_and_are_undone_once();
        self.nothing_is_compensated_unless_the_pivot_is_known_not_to_be_done();
        self.compensations_go_backwards();
        self.sequence_numbers_have_no_gap();
        self.a_live_saga_says_what_it_waits_for();
    }

    /// Checks promise P3.
    fn effects_happen_once_and_are_undone_once(&self) {
        for (name, participant) in &self.participants {
            assert!(
                participant.done == 0 || !self.is_by_hand(name) || self.is_taken_on(name),
                "{name} was done, and by hand as well"
            );
            assert!(participant.done <= 1, "{name} was done twice");
            assert!(
                participant.undone <= participant.done,
                "{name} was undone more than done"
            );
        }
    }

    /// Checks promise P4.
    fn nothing_is_compensated_unless_the_pivot_is_known_not_to_be_done(&self) {
        let Some(saga) = &self.saga else { return };
        let Some(pivot) = self.definition.pivot() else {
            return;
        };
        let compensates = |state: &StepState| {
            matches!(state, StepState::Compensating(_) | StepState::Compensated)
        };
        let undone = self
            .participants
            .values()
            .any(|participant| participant.undone > 0);
        let compensates = saga.steps.iter().any(|step| compensates(&step.state));
        if compensates || undone {
            let name = &self.definition.steps[pivot].name;
            assert!(
                self.participant(name).done == 0 || self.is_taken_on(name),
                "compensated, and the pivot is done"
            );
        }
        if compensates || (undone && !self.forgotten) {
            let state = &saga.steps[pivot].state;
            assert!(
                matches!(
                    state,
                    StepState::Skipped | StepState::Failed { .. } | StepState::NotDone
                ),
                "compensated with the pivot {state:?}"
            );
        }
    }

    /// Returns true if an operator completed or skipped the step: then its participant must not have done it, and never
    /// do it.
    fn is_by_hand(&self, name: &str) -> bool {
        self.told.values().any(|event| {
            matches!(
                &event.kind,
                LifecycleKind::StepCompleted { step } | LifecycleKind::StepSkipped { step }
                    if step == name
            )
        })
    }

    /// Returns true if an operator decided the step without its participant's answer, with a warning: the operator is
    /// responsible for its outcome.
    fn is_taken_on(&self, name: &str) -> bool {
        self.told.values().any(|event| {
            matches!(
                &event.kind,
                LifecycleKind::ActionDecided {
                    step: Some(step),
                    verdict: ActionVerdict::Accepted { warning: Some(_) },
                    ..
                } if step == name
            )
        })
    }

    /// Returns true if an operator decided the pivot of a forgotten saga. Then the operator is also responsible for the
    /// steps before and after the pivot, because the pivot may have gone the other way before the saga was lost.
    fn is_taken_on_with_pivot(&self) -> bool {
        let pivot = self.definition.pivot();
        self.forgotten
            && pivot.is_some_and(|pivot| self.is_taken_on(&self.definition.steps[pivot].name))
    }

    fn is_skipped_by_hand(&self, name: &str) -> bool {
        self.told.values().any(|event| {
            matches!(&event.kind, LifecycleKind::CompensationSkipped { step } if step == name)
        })
    }

    /// Returns true if an operator abandoned the saga, and false if it compensated and left a skipped step as it was.
    fn was_abandoned(&self) -> bool {
        self.saga().steps.iter().any(|step| !step.state.is_clear())
    }

    /// Checks the order of compensations, except for steps that an operator skipped: a reply from before the loss may
    /// say that such a step is compensated.
    fn compensations_go_backwards(&self) {
        let Some(saga) = &self.saga else { return };
        for (index, instance) in saga.steps.iter().enumerate() {
            let is_sent = matches!(
                instance.state,
                StepState::Compensating(_) | StepState::Compensated
            );
            if !is_sent || self.is_skipped_by_hand(&self.definition.steps[index].name) {
                continue;
            }
            for (step, descendant) in self.definition.steps.iter().zip(&saga.steps) {
                assert!(
                    !step.ancestors.contains(&index) || descendant.state.is_clear(),
                    "compensated before {}, which came after it",
                    step.name
                );
            }
        }
    }

    fn sequence_numbers_have_no_gap(&self) {
        let last = self.saga.as_ref().map_or(0, |saga| saga.sequence);
        let told: Vec<u64> = self.told.keys().copied().collect();
        let is_recovered = self.saga.as_ref().is_some_and(|saga| saga.recovered);
        let first = match told.first() {
            Some(first) if is_recovered => *first,
            Some(_) | None => 1,
        };
        assert_eq!(told, (first..=last).collect::<Vec<u64>>());
    }

    /// Checks promise P2.
    fn a_live_saga_says_what_it_waits_for(&self) {
        let Some(saga) = &self.saga else { return };
        let waiting = waiting_on(&self.definition, saga);
        assert_eq!(
            waiting.kind == "nothing",
            saga.status.is_ended(),
            "{waiting:?}"
        );
        let parked = matches!(saga.status, SagaStatus::Parked { .. });
        assert_eq!(waiting.kind == "person", parked, "{waiting:?}");
        let moves = parked || saga.status.is_ended() || !self.armed().is_empty();
        assert!(moves, "nothing will ever move it: {saga:#?}");
    }

    /// Checks the last sentence of promise P5.
    pub fn check_nothing_needless(&self) {
        let Some(saga) = &self.saga else { return };
        assert_eq!(saga.cause, None, "compensated needlessly");
        assert_eq!(saga.resolve_cause, None, "resolved needlessly");
        for command in &self.decided {
            assert!(
                command.ends_with("/forward/1"),
                "tried again needlessly: {command}"
            );
        }
    }

    /// Checks that a refusal names the legal actions, that a legal action is not refused, and that a refused action
    /// changes nothing.
    pub(super) fn check_verdict(
        &self,
        saga: &SagaInstance,
        kind: &ActionKind,
        applied: &Transition,
    ) {
        let legal = legal_actions(&self.definition, saga);
        let is_compensation = matches!(
            kind,
            ActionKind::Skip {
                compensation: true,
                ..
            }
        );
        let is_named = legal.iter().any(|legal| {
            legal.action == kind.name()
                && legal.compensation == is_compensation
                && (legal.step.is_none() || legal.step.as_deref() == kind.step())
        });
        match applied.verdict.as_ref().unwrap() {
            ActionVerdict::Refused {
                legal: instead,
                code,
                ..
            } => {
                // The action may have meant only one of several parked steps.
                assert!(
                    !is_named || code == "not_parked",
                    "{kind:?} is legal: {applied:#?}"
                );
                let legal: Vec<String> = legal.iter().map(ToString::to_string).collect();
                assert_eq!(*instead, legal);
                assert_eq!(applied.saga.steps, saga.steps, "{kind:?} was refused");
                assert_eq!(applied.saga.status, saga.status, "{kind:?} was refused");
            }
            ActionVerdict::Accepted { .. } if saga.steps == applied.saga.steps => {
                // The action was asked for a second time, or it is the last one.
                let is_over = applied.saga.status.is_ended();
                assert!(is_over || !is_named, "{kind:?} did nothing: {applied:#?}");
            }
            ActionVerdict::Accepted { .. } | ActionVerdict::Pending => {
                assert!(is_named, "{kind:?} is not named by {legal:?}");
            }
        }
    }

    /// Checks that exactly the commands of which the log says so are sent, and that the broker accepts them. A resolve is
    /// never held back.
    pub(super) fn check_sent(&self, applied: &Transition) {
        let mut told = BTreeSet::new();
        for event in &applied.entry.events {
            if let LifecycleKind::CommandSent { part, .. } = &event.kind {
                let (step, direction) = (&part.step, part.direction);
                told.insert(format!(
                    "{}/{step}/{direction}/{}",
                    applied.saga.id, part.attempt
                ));
            }
        }
        let sent = applied.commands.iter().map(|sent| sent.command.id());
        assert_eq!(told, sent.collect());
        for OutgoingCommand { command, .. } in &applied.commands {
            let bytes = command.payload.to_string().len();
            let is_bare = command.direction == Direction::Resolve && command.payload.is_null();
            assert!(
                is_bare || self.command_context.payload_limit.fits(bytes),
                "{} has {bytes} bytes",
                command.id()
            );
        }
        for (step, instance) in self.definition.steps.iter().zip(&applied.saga.steps) {
            if let Some((direction, Delivery::UsedUp { attempt, fault })) =
                instance.state.delivery()
                && fault.code == "payload_too_large"
            {
                let id = format!("{}/{}/{direction}/{attempt}", applied.saga.id, step.name);
                assert!(!self.decided.contains(&id), "{id} was sent");
                assert_ne!(direction, Direction::Resolve);
            }
        }
    }

    /// Checks promises P3 and P4 of an ended saga.
    pub fn check_end(&self) {
        let saga = self.saga();
        let all = self.definition.steps.iter().zip(&saga.steps);
        let on_a_person =
            |step: &Step| self.is_taken_on(&step.name) || self.is_taken_on_with_pivot();
        for (step, instance) in all.filter(|(step, _)| !on_a_person(step)) {
            let participant = self.participant(&step.name);
            let (done, undone) = (participant.done, participant.undone);
            let expected = u32::from(!self.is_by_hand(&step.name));
            match &saga.status {
                SagaStatus::Completed => {
                    let found = (done, undone);
                    assert_eq!(found, (expected, 0), "completed, but {}", step.name);
                }
                SagaStatus::Compensated => {
                    assert_eq!(done, undone, "compensated, but {}", step.name);
                    assert!(step.kind == StepKind::Compensatable || done == 0);
                }
                SagaStatus::Abandoned { .. } if self.was_abandoned() => {}
                SagaStatus::Abandoned { .. } => {
                    let is_skipped =
                        matches!(instance.state, StepState::CompensationSkipped { .. });
                    assert!(is_skipped || done == undone, "went back, but {}", step.name);
                }
                SagaStatus::Running | SagaStatus::Compensating | SagaStatus::Parked { .. } => {
                    panic!("not ended: {saga:#?}")
                }
            }
        }
        let flying = commands_in_flight(&self.definition, saga, &self.command_context);
        assert!(flying.is_empty(), "in flight after the end: {flying:#?}");
    }
}
