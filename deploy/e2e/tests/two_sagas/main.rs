//! Runs several sagas about one order through the real decisions: the orchestrator's transitions, the participants'
//! barrier and their business rules, without any server. In whatever order and however often their commands arrive, the
//! order must end as if its own saga were the only one, and no other saga may have moved its stock or its money.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod participants;

use participants::{LIMIT_MINOR, Participants};
use proptest::{collection::vec, prelude::*};
use saga_contracts::fault_code::ORDER_OF_ANOTHER_SAGA;
use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    instance::{Position, SagaInstance, SagaStatus},
    message::{Command, Input, PayloadLimit, StartSaga, Trace},
    transition::{CommandContext, SagaEvent, Transition, start, transition},
};
use serde_json::{Value, json};
use std::collections::VecDeque;
use uuid::Uuid;

/// The pieces in stock of each product: the order's own product, and a second one that only other sagas ask for.
const PIECES: i64 = 3;
const PRODUCT: Uuid = Uuid::from_u128(1);
const BESIDE: Uuid = Uuid::from_u128(2);

fn now() -> Timestamp {
    Timestamp::from_timestamp_millis(1_767_225_600_000).unwrap()
}

/// Returns a UUIDv7 that serves as an order's and its saga's id.
fn id(number: u128) -> Uuid {
    let milliseconds = u128::from(now().timestamp_millis().cast_unsigned());
    Uuid::from_u128(milliseconds << 80 | 7 << 76 | 2 << 62 | number)
}

/// The order that a saga is about, and the definition it runs with.
#[derive(Clone, Debug)]
struct SagaSpec {
    /// The index of a shipped definition.
    definition: usize,
    product: Uuid,
    quantity: i64,
    amount_minor: i64,
}

struct Saga {
    id: SagaId,
    definition: SagaDefinition,
    input: Value,
    instance: Option<SagaInstance>,
}

struct World {
    sagas: Vec<Saga>,
    participants: Participants,
    bag: VecDeque<Command>,
    inputs: i64,
}

impl World {
    /// Creates the sagas. The first saga is the order's own.
    fn new(specs: &[SagaSpec]) -> Self {
        let shipped = orchestrator::registry::read(true, None).unwrap();
        let sagas = (0..).zip(specs).map(|(number, spec)| Saga {
            id: SagaId(id(number)),
            definition: shipped[spec.definition % shipped.len()].definition.clone(),
            input: json!({
                "orderId": id(0), "customerId": id(99), "amountMinor": spec.amount_minor, "currency": "EUR",
                "items": [{"productId": spec.product, "quantity": spec.quantity, "unitPriceMinor": 1}],
            }),
            instance: None,
        });
        Self {
            sagas: sagas.collect(),
            participants: Participants::new(id(0), &[PRODUCT, BESIDE], PIECES),
            bag: VecDeque::new(),
            inputs: 0,
        }
    }

    /// Starts a saga or delivers a command. If `stays`, the command remains in the bag and is delivered again later.
    fn step(&mut self, pick: usize, stays: bool) {
        let waiting: Vec<usize> = (0..self.sagas.len())
            .filter(|index| self.sagas[*index].instance.is_none())
            .collect();
        let choices = waiting.len() + self.bag.len();
        match pick.checked_rem(choices) {
            None => {}
            Some(chosen) if chosen < waiting.len() => self.start(waiting[chosen]),
            Some(chosen) => {
                let command = self.bag.remove(chosen - waiting.len()).unwrap();
                if stays {
                    self.bag.push_back(command.clone());
                }
                self.arrive(&command);
            }
        }
    }

    fn start(&mut self, index: usize) {
        let position = self.next_position();
        let saga = &self.sagas[index];
        let asked = StartSaga {
            saga_id: saga.id,
            start_type: "test.started".to_owned(),
            definition: saga.definition.name.clone(),
            business_key: None,
            input: saga.input.clone(),
            trace: Trace::default(),
        };
        let made = start(
            &saga.definition,
            &asked,
            0,
            now(),
            position,
            &command_context(),
        );
        self.accept(index, made);
    }

    fn arrive(&mut self, command: &Command) {
        let reply = self.participants.answer(command);
        let index = self
            .sagas
            .iter()
            .position(|saga| saga.id == command.saga_id);
        let index = index.unwrap();
        let event = SagaEvent {
            at: now(),
            position: self.next_position(),
            input: Input::Reply(reply),
        };
        let saga = &self.sagas[index];
        let before = saga.instance.as_ref().unwrap();
        // The reply to a duplicate is not applied.
        if let Ok(made) = transition(&saga.definition, before, &event, None, &command_context()) {
            self.accept(index, made);
        }
    }

    fn accept(&mut self, index: usize, made: Transition) {
        self.bag
            .extend(made.commands.into_iter().map(|sent| sent.command));
        self.sagas[index].instance = Some(made.saga);
    }

    fn next_position(&mut self) -> Position {
        self.inputs += 1;
        Position {
            partition: 0,
            offset: self.inputs,
            at_ms: now().timestamp_millis(),
        }
    }

    fn run_to_end(&mut self) {
        while !self.bag.is_empty() || self.sagas.iter().any(|saga| saga.instance.is_none()) {
            self.step(0, false);
        }
    }
}

fn command_context() -> CommandContext {
    CommandContext {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
        payload_limit: PayloadLimit::NONE,
    }
}

fn own() -> impl Strategy<Value = SagaSpec> {
    // With too many pieces, the order ends before any stock is reserved. With too much money, the charge is declined.
    (
        0_usize..2,
        1..=PIECES + 1,
        prop_oneof![Just(500), Just(LIMIT_MINOR + 1)],
    )
        .prop_map(|(definition, quantity, amount_minor)| SagaSpec {
            definition,
            product: PRODUCT,
            quantity,
            amount_minor,
        })
}

fn others() -> impl Strategy<Value = Vec<SagaSpec>> {
    let product = prop_oneof![Just(PRODUCT), Just(BESIDE)];
    let amount = prop_oneof![Just(100), Just(LIMIT_MINOR + 1)];
    let other =
        (0_usize..2, product, amount).prop_map(|(definition, product, amount_minor)| SagaSpec {
            definition,
            product,
            quantity: 1,
            amount_minor,
        });
    vec(other, 1..3)
}

proptest! {
    #[test]
    fn an_order_ends_as_if_its_own_saga_were_alone(
        own in own(),
        others in others(),
        steps in vec((0_usize..64, prop::bool::weighted(0.2)), 0..60),
    ) {
        let completes = own.quantity <= PIECES && own.amount_minor <= LIMIT_MINOR;
        let mut specs = vec![own.clone()];
        specs.extend(others);
        let mut world = World::new(&specs);
        for (pick, stays) in steps {
            world.step(pick, stays);
            prop_assert_eq!(world.participants.moved_by_others(), None);
        }
        world.run_to_end();
        prop_assert_eq!(world.participants.moved_by_others(), None);
        let ends: Vec<&SagaInstance> = world.sagas.iter().flat_map(|saga| &saga.instance).collect();
        let expected = if completes { SagaStatus::Completed } else { SagaStatus::Compensated };
        prop_assert_eq!(&ends[0].status, &expected);
        for other in &ends[1..] {
            prop_assert_eq!(&other.status, &SagaStatus::Compensated);
            let cause = other.cause.as_ref().map(|cause| cause.code.as_str());
            prop_assert_eq!(cause, Some(ORDER_OF_ANOTHER_SAGA));
        }
        let sold = if completes { own.quantity } else { 0 };
        prop_assert_eq!(world.participants.pieces(PRODUCT), (PIECES - sold, 0, sold));
        prop_assert_eq!(world.participants.pieces(BESIDE), (PIECES, 0, 0));
        prop_assert_eq!(world.participants.kept_minor(), if completes { own.amount_minor } else { 0 });
        prop_assert_eq!(world.participants.is_confirmed(), completes);
    }
}
