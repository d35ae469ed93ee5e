//! The promises, each by its name: DESIGN.md section 1.

use super::World;
use saga_core::{
    definition::StepKind,
    instance::{ActionVerdict, LifecycleKind, SagaInstance, SagaStatus, StepState},
    message::ActionKind,
    transition::{Transition, commands_in_flight, legal_actions, waiting_on},
};

impl World {
    pub fn check_invariants(&self) {
        self.effects_happen_once_and_are_undone_once();
        self.nothing_is_compensated_unless_the_pivot_is_known_not_to_be_done();
        self.compensations_go_backwards();
        self.sequence_numbers_have_no_gap();
        self.a_live_saga_says_what_it_waits_for();
    }

    /// P3.
    fn effects_happen_once_and_are_undone_once(&self) {
        for (name, participant) in &self.participants {
            assert!(
                participant.done == 0 || !self.is_by_hand(name),
                "{name} was done, and by hand as well"
            );
            assert!(participant.done <= 1, "{name} was done twice");
            assert!(
                participant.undone <= participant.done,
                "{name} was undone more than done"
            );
        }
    }

    /// P4.
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
        if undone || saga.steps.iter().any(|step| compensates(&step.state)) {
            let state = &saga.steps[pivot].state;
            assert!(
                matches!(
                    state,
                    StepState::Skipped | StepState::Failed { .. } | StepState::NotDone
                ),
                "compensated with the pivot {state:?}"
            );
            let name = &self.definition.steps[pivot].name;
            assert_eq!(
                self.participant(name).done,
                0,
                "compensated, and the pivot is done"
            );
        }
    }

    /// Completed or skipped by an operator: then its participant must not have done it, and never do it.
    fn is_by_hand(&self, name: &str) -> bool {
        self.told.values().any(|event| {
            matches!(
                &event.kind,
                LifecycleKind::StepCompleted { step } | LifecycleKind::StepSkipped { step }
                    if step == name
            )
        })
    }

    /// By the action, and not because it went back and left something as it was.
    fn was_abandoned(&self) -> bool {
        self.saga().steps.iter().any(|step| !step.state.is_clear())
    }

    fn compensations_go_backwards(&self) {
        let Some(saga) = &self.saga else { return };
        for (index, instance) in saga.steps.iter().enumerate() {
            if !matches!(
                instance.state,
                StepState::Compensating(_) | StepState::Compensated
            ) {
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
        assert_eq!(told, (1..=last).collect::<Vec<u64>>());
    }

    /// P2.
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

    /// P5, its last sentence.
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

    /// A refusal names what is legal, what is legal is not refused, and a refused action changes nothing.
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
                // Of several parked steps only one may have been meant.
                assert!(
                    !is_named || code == "not_parked",
                    "{kind:?} is legal: {applied:#?}"
                );
                let legal: Vec<String> = legal.iter().map(ToString::to_string).collect();
                assert_eq!(*instead, legal);
                assert_eq!(applied.saga.steps, saga.steps, "{kind:?} was refused");
                assert_eq!(applied.saga.status, saga.status, "{kind:?} was refused");
            }
            ActionVerdict::Accepted if saga.steps == applied.saga.steps => {
                // Asked for a second time; or the last one.
                let is_over = applied.saga.status.is_ended();
                assert!(is_over || !is_named, "{kind:?} did nothing: {applied:#?}");
            }
            ActionVerdict::Accepted | ActionVerdict::Pending => {
                assert!(is_named, "{kind:?} is not named by {legal:?}");
            }
        }
    }

    /// P3 and P4 of an ended saga.
    pub fn check_end(&self) {
        let saga = self.saga();
        for (step, instance) in self.definition.steps.iter().zip(&saga.steps) {
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
        let flying = commands_in_flight(&self.definition, saga, &self.outbound);
        assert!(flying.is_empty(), "in flight after the end: {flying:#?}");
    }
}
