//! Sagas in an unkind world: whatever is lost, doubled, reordered, late or struck by a crash, the promises hold at
//! every instant, and once the world is kind again every saga ends. See `world.rs` for what the world may do.

mod definitions;
mod participant;
mod purity;
mod world;

use definitions::{place_order, place_order_payment_first, random_definition};
use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use saga_core::definition::SagaDefinition;
use world::{Move, World};

/// Seeds of cases that once failed; run first, and committed.
const REGRESSIONS: &str = "tests/properties/regressions.txt";

/// Any part of a list, chosen by a number: the list's length is only known when the move is made.
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
        2 => nth().prop_map(Move::Skip),
        2 => nth().prop_map(Move::SkipCompensation),
        1 => Just(Move::Deadline),
    ];
    vec(one, 0..250)
}

/// Moves of a world in which participants and the orchestrator crash and lag, but nobody fails, errs or cancels, and
/// the log keeps its order.
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

/// The same, until an operator has had enough.
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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_promises_hold_at_every_instant_and_every_saga_ends(
        definition in any_definition(),
        moves in moves_and_perhaps_abandon(),
    ) {
        let mut world = World::new(definition);
        for one in moves {
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
        let mut world = World::new(definition);
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
