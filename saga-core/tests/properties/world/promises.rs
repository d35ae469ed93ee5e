//! The promises, each by its name: DESIGN.md section 1.

use super::World;
use saga_core::{
    definition::StepKind,
    instance::{SagaStatus, StepState},
    transition::{commands_in_flight, waiting_on},
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

    /// P3 and P4 of an ended saga.
    pub fn check_end(&self) {
        let saga = self.saga();
        for step in &self.definition.steps {
            let participant = self.participant(&step.name);
            let (done, undone) = (participant.done, participant.undone);
            match &saga.status {
                SagaStatus::Completed => {
                    assert_eq!((done, undone), (1, 0), "completed, but {}", step.name);
                }
                SagaStatus::Compensated => {
                    assert_eq!(done, undone, "compensated, but {}", step.name);
                    assert!(step.kind == StepKind::Compensatable || done == 0);
                }
                SagaStatus::Running
                | SagaStatus::Compensating
                | SagaStatus::Parked { .. }
                | SagaStatus::Abandoned { .. } => panic!("not ended: {saga:#?}"),
            }
        }
        let flying = commands_in_flight(&self.definition, saga, &self.outbound);
        assert!(flying.is_empty(), "in flight after the end: {flying:#?}");
    }
}
