//! The properties that must hold in every state, by the promise of saga-core/README.md (Promises) that each belongs to.

use crate::{
    definition::Kind,
    message::Command,
    participant::Mark,
    rest::GoesOn,
    saga::{Saga, State, Status},
    world::{Event, System, World},
};
use stateright::{Model, Property};

/// The names of the properties in counterexamples and in the table of knock-outs.
pub mod name {
    pub const COMMAND_KEPT: &str = "P1 a command in flight is not lost";
    pub const EVENTS_TOLD: &str = "P1 no event is missing";
    pub const NOT_STUCK: &str = "P2 whatever happens next, it ends or parks";
    pub const AT_REST: &str = "P2 whatever happens next, it comes to rest";
    pub const RETRY_RUNS: &str = "P2 a parked step can run again";
    pub const ONCE: &str = "P3 an effect happens once and is undone once";
    pub const NO_LATE_EFFECT: &str = "P3 no effect after its compensation";
    pub const ALL_DONE: &str = "P3 completed means all done";
    pub const ALL_UNDONE: &str = "P3 compensated means all undone";
    pub const BACKWARDS: &str = "P3 compensations run backwards";
    pub const PIVOT_FIRST: &str = "P4 nothing is compensated before the pivot is resolved";
    pub const PIVOT_STANDS: &str = "P4 nothing is undone beside a done pivot";
    pub const NEEDED: &str = "P5 nothing is compensated needlessly";
    pub const BREEDS_NOT: &str = "P5 a duplicate breeds no others";
    pub const NO_LOST_UPDATE: &str = "P6 no row is written unread";
    pub const ONE_PLACE: &str = "P6 live and history are disjoint";
}

/// Ends that the scenarios together must reach; otherwise they would prove nothing.
pub mod reach {
    pub const COMPLETED: &str = "reaches completed";
    pub const COMPENSATED: &str = "reaches compensated";
    pub const PARKED: &str = "reaches parked";
    pub const ABANDONED: &str = "reaches abandoned";
    pub const ALL: [&str; 4] = [COMPLETED, COMPENSATED, PARKED, ABANDONED];
}

impl Model for System {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.scenario)]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        self.everything(world, events);
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        self.happen(&mut next, event);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        use name::{
            ALL_DONE, ALL_UNDONE, AT_REST, BACKWARDS, BREEDS_NOT, COMMAND_KEPT, EVENTS_TOLD,
            NEEDED, NO_LATE_EFFECT, NO_LOST_UPDATE, NOT_STUCK, ONCE, ONE_PLACE, PIVOT_FIRST,
            PIVOT_STANDS, RETRY_RUNS,
        };
        let always = Property::<Self>::always;
        vec![
            always(COMMAND_KEPT, |_, world| commands_are_kept(world)),
            always(EVENTS_TOLD, |_, world| events_are_published(world)),
            always(NOT_STUCK, |system, world| {
                system.goes_on(world) != GoesOn::ToAStandstill
            }),
            always(AT_REST, |system, world| {
                system.goes_on(world) != GoesOn::ForEver
            }),
            always(RETRY_RUNS, retry_runs),
            always(ONCE, |_, world| {
                let mut all = world.participants.iter();
                all.all(|one| one.done <= 1 && one.undone <= one.done)
            }),
            always(NO_LATE_EFFECT, |_, world| {
                let mut all = world.participants.iter();
                all.all(|one| !one.compensated || one.done <= one.undone)
            }),
            always(ALL_DONE, |_, world| {
                !has_ended(world, Status::Completed) || all_is_done(world)
            }),
            always(ALL_UNDONE, |_, world| {
                let mut all = world.participants.iter().enumerate();
                !has_ended(world, Status::Compensated)
                    || all.all(|(step, one)| one.done == one.undone || is_taken_on(world, step))
            }),
            always(BACKWARDS, compensations_run_backwards),
            always(PIVOT_FIRST, pivot_is_resolved_first),
            always(PIVOT_STANDS, nothing_is_undone_beside_a_done_pivot),
            always(NEEDED, |_, world| {
                world.witness.has_cause || !stopped_going_forward(world)
            }),
            always(BREEDS_NOT, |system, world| {
                let injected = system.scenario.budget.duplicates - world.budget.duplicates;
                world.witness.copies <= injected
            }),
            always(NO_LOST_UPDATE, |_, world| !world.witness.lost_update),
            always(ONE_PLACE, |_, world| {
                world.store.live.is_none() || world.store.history.is_none()
            }),
            Property::sometimes(reach::COMPLETED, |_, world| {
                has_ended(world, Status::Completed)
            }),
            Property::sometimes(reach::COMPENSATED, |_, world| {
                has_ended(world, Status::Compensated)
            }),
            Property::sometimes(reach::ABANDONED, |_, world| {
                has_ended(world, Status::Abandoned)
            }),
            Property::sometimes(reach::PARKED, |_, world: &World| {
                world.store.live.as_ref().is_some_and(Saga::is_parked)
            }),
        ]
    }
}

fn has_ended(world: &World, status: Status) -> bool {
    let ended = world.store.history.as_ref();
    ended.is_some_and(|saga| saga.status == status)
}

/// Returns true if an input that made this version, or any version if `None`, will be read again.
fn is_redelivered(world: &World, version: Option<u8>) -> bool {
    world
        .inputs
        .iter()
        .any(|entry| entry.applied > 0 && version.is_none_or(|version| version == entry.applied))
}

fn commands_are_kept(world: &World) -> bool {
    let kept = |command: Command| {
        world.participants[command.step()].was_delivered(command)
            || world.owner.unsent.commands.contains(&command)
            || is_redelivered(world, None)
    };
    let mut in_flight = world.store.live.iter().flat_map(Saga::in_flight);
    in_flight.all(kept)
}

fn events_are_published(world: &World) -> bool {
    let newest = world.store.saga().map_or(0, |saga| saga.version);
    (1..=newest).all(|number| {
        world.witness.told & (1 << (number - 1)) != 0
            || world.owner.unsent.events.contains(&number)
            || is_redelivered(world, Some(number))
    })
}

/// Checks that the barrier does not answer for ever with a failure or an error that parks its saga.
fn retry_runs(system: &System, world: &World) -> bool {
    let steps = system.scenario.definition.steps;
    steps.iter().zip(&world.participants).all(|(step, one)| {
        step.kind != Kind::Retriable || !matches!(one.forward, Some(Mark::Failed | Mark::Errored))
    })
}

/// Checks that a completed saga's steps are done. A step that a person completed or skipped must not have been done.
fn all_is_done(world: &World) -> bool {
    let Some(saga) = &world.store.history else {
        return true;
    };
    let mut all = saga.steps.iter().zip(&world.participants);
    all.all(|(step, one)| {
        step.taken_on || (one.done == u8::from(!step.by_person) && one.undone == 0)
    })
}

fn compensations_run_backwards(system: &System, world: &World) -> bool {
    let all = &world.participants;
    (0..all.len()).all(|earlier| {
        all[earlier].undone == 0
            || (0..all.len())
                .filter(|later| system.scenario.definition.is_ancestor(earlier, *later))
                .filter(|later| !is_let_be(world, *later) && !is_taken_on(world, *later))
                .all(|later| all[later].done == all[later].undone)
    })
}

/// Returns true if a person decided the step without its participant's answer.
fn is_taken_on(world: &World, step: usize) -> bool {
    let saga = world.store.saga();
    saga.is_some_and(|saga| saga.steps[step].taken_on)
}

/// Returns true if a person decided that the step is not compensated.
fn is_let_be(world: &World, step: usize) -> bool {
    world.store.saga().is_some_and(|saga| {
        saga.status == Status::Abandoned || saga.steps[step].state == State::CompensationSkipped
    })
}

/// Checks, by the saga's row and by the effects, that nothing is compensated while the pivot may still be done.
fn pivot_is_resolved_first(system: &System, world: &World) -> bool {
    let Some(pivot) = system.scenario.definition.pivot() else {
        return true;
    };
    let compensating = world
        .store
        .saga()
        .filter(|saga| matches!(saga.status, Status::Compensating | Status::Compensated));
    let by_row = compensating.is_none_or(|saga| {
        matches!(
            saga.steps[pivot].state,
            State::Failed | State::NotDone | State::Skipped
        )
    });
    let undone = world.participants.iter().any(|one| one.undone > 0);
    by_row && !(undone && world.participants[pivot].forward == Some(Mark::Pending))
}

fn nothing_is_undone_beside_a_done_pivot(system: &System, world: &World) -> bool {
    let pivot = system.scenario.definition.pivot();
    let is_done =
        pivot.is_some_and(|pivot| world.participants[pivot].done > 0 && !is_taken_on(world, pivot));
    !is_done || world.participants.iter().all(|one| one.undone == 0)
}

fn stopped_going_forward(world: &World) -> bool {
    world.store.saga().is_some_and(|saga| {
        saga.is_parked() || matches!(saga.status, Status::Compensating | Status::Compensated)
    })
}
