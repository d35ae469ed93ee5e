//! Sagas in a faulty world: whatever is lost, duplicated, reordered, late or interrupted by a crash, the promises hold
//! at every instant, and once the faults stop every saga ends. See `world.rs` for the moves of the world.

mod definitions;
mod participant;
mod purity;
mod world;

use definitions::{place_order, place_order_payment_first, random_definition};
use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use saga_core::{definition::SagaDefinition, message::PayloadLimit};
use world::{Move, World};

/// Seeds of cases that once failed. They are run first, and committed.
const REGRESSIONS: &str = "tests/properties/regressions.txt";

/// Returns a number that selects an element of a list: the list's length is only known when the move is made.
fn nth() -> impl Strategy<Value = usize> {
    0_usize..64
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        30 => Just(Move::Deliver),
        20 => nth().prop_map(Move::StepSucceeds),
        5 => nth().prop_map(Move::StepFails),
        8 => nth().prop_map(Move::StepErrors),
        5 => nth().prop_map(Move::StepPends),
        6 => (nth(), any::<bool>()).prop_map(|(nth, done)| Move::Settle(nth, done)),
        8 => Just(Move::Flush),
        8 => Just(Move::CommitOffsets),
        5 => Just(Move::Crash),
        14 => nth().prop_map(Move::FireTimer),
        2 => nth().prop_map(Move::FireTimerBlindly),
        2 => nth().prop_map(Move::FindGone),
        4 => nth().prop_map(Move::DuplicateInput),
        4 => nth().prop_map(Move::DuplicateCommand),
        3 => nth().prop_map(Move::DropInput),
        3 => nth().prop_map(Move::DropCommand),
        4 => nth().prop_map(Move::ReorderInputs),
        1 => Just(Move::Cancel),
        2 => Just(Move::Retry),
        1 => Just(Move::Compensate),
        1 => nth().prop_map(Move::RetryCorrected),
        3 => nth().prop_map(Move::Complete),
        2 => nth().prop_map(Move::NotDone),
        2 => nth().prop_map(Move::Skip),
        2 => nth().prop_map(Move::SkipCompensation),
        1 => Just(Move::Deadline),
    ];
    vec(one, 0..250)
}

/// Returns moves of a world in which participants and the orchestrator crash and lag, but no step fails or errs,
/// nothing is cancelled, and the log keeps its order.
fn calm_moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        30 => Just(Move::Deliver),
        20 => nth().prop_map(Move::StepSucceeds),
        8 => Just(Move::Flush),
        8 => Just(Move::CommitOffsets),
        5 => Just(Move::Crash),
        20 => nth().prop_map(Move::FireTimer),
        5 => nth().prop_map(Move::FireTimerBlindly),
        4 => nth().prop_map(Move::DuplicateInput),
        4 => nth().prop_map(Move::DuplicateCommand),
    ];
    vec(one, 0..250)
}

/// Returns moves without work by hand: only the lost saga's state would have a record of an operator's decision.
fn moves_without_handiwork() -> impl Strategy<Value = Vec<Move>> {
    moves().prop_map(|mut moves| {
        moves.retain(|one| {
            !matches!(
                one,
                Move::Complete(_) | Move::NotDone(_) | Move::Skip(_) | Move::SkipCompensation(_)
            )
        });
        moves
    })
}

/// Returns the moves with an abandon among them at times.
fn moves_and_perhaps_abandon() -> impl Strategy<Value = Vec<Move>> {
    (
        moves(),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    )
        .prop_map(|(mut moves, at)| {
            if let Some(at) = at {
                moves.insert(at.index(moves.len() + 1), Move::Abandon);
            }
            moves
        })
}

fn any_definition() -> impl Strategy<Value = SagaDefinition> {
    prop_oneof![
        2 => Just(place_order()),
        2 => Just(place_order_payment_first()),
        6 => random_definition(),
    ]
}

/// Returns the broker's limit: none, or one that some commands of most sagas exceed.
fn any_payload_limit() -> impl Strategy<Value = PayloadLimit> {
    prop_oneof![
        3 => Just(PayloadLimit::NONE),
        1 => (20_usize..130).prop_map(PayloadLimit::of_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        // A saga that does not end takes seconds each time: a failure is reported soon, though perhaps not in its
        // smallest form.
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_promises_hold_at_every_instant_and_every_saga_ends(
        definition in any_definition(),
        payload_limit in any_payload_limit(),
        moves in moves_and_perhaps_abandon(),
    ) {
        let mut world = World::new(definition, payload_limit);
        for one in moves {
            world.make(one);
            world.check_invariants();
        }
        world.become_kind();
        world.check_end();
        world.deliver_what_is_left_over();
        world.check_end();
    }

    /// Regression: an order was cancelled although its payment was charged, because the saga that had charged it was
    /// lost.
    #[test]
    fn canceling_a_forgotten_saga_loses_no_effect(
        definition in any_definition(),
        payload_limit in any_payload_limit(),
        before in moves_without_handiwork(),
        after in moves(),
    ) {
        let mut world = World::new(definition, payload_limit);
        for one in before {
            world.make(one);
            world.check_invariants();
        }
        world.forget_and_cancel();
        for one in after {
            world.make(one);
            world.check_invariants();
        }
        world.become_kind();
        world.check_end();
        world.deliver_what_is_left_over();
        world.check_end();
    }

    #[test]
    fn a_world_that_is_merely_slow_and_crashes_compensates_nothing(
        definition in any_definition(),
        moves in calm_moves(),
    ) {
        let mut world = World::new(definition, PayloadLimit::NONE);
        for one in moves {
            world.make(one);
            world.check_invariants();
            world.check_nothing_needless();
        }
        world.become_kind();
        world.check_end();
        world.check_nothing_needless();
    }
}
