//! The intake of the order service: an order is accepted in a transaction with the outbox, and its start is published
//! by the real relay.

use super::{
    checker::history::Accepted,
    log::SimWriter,
    process::Process,
    store::{Database, ParticipantTables, SimOutbox, SimParticipantStore},
    workload::{COMMAND_LIMIT_BYTES, Workload},
    world::{World, saga_id},
};
use saga_core::message::topic::SAGA_INPUTS;
use saga_core::{
    definition::SagaDefinition,
    ids::SagaId,
    message::{OutgoingRecord, StartSaga, Trace},
};
use saga_messaging::{
    kafka::home_partition,
    outbox::{Outbox, OutboxError, Relay, RelaySettings},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// An order that a client wants to place.
#[derive(Clone, Debug)]
pub struct Order {
    pub saga: SagaId,
    pub accepted: Accepted,
    pub start: OutgoingRecord,
    /// Name of the step that the starter does itself.
    pub(super) starter_step: Option<String>,
}

impl Order {
    pub fn new(world: &World, workload: &Workload, number: u64) -> Self {
        let at = world.now(chrono::TimeDelta::zero());
        let saga = saga_id(at, number);
        let definition = Arc::clone(workload.definition(number));
        let partitions = world.broker.partition_count(SAGA_INPUTS);
        let home = home_partition(&saga.to_string(), partitions);
        let starter_step = definition
            .steps
            .iter()
            .find(|step| step.action.is_none())
            .map(|step| step.name.clone());
        let mut start = start(saga, &definition, number);
        if workload.is_large(saga) {
            start.input["note"] = "x".repeat(COMMAND_LIMIT_BYTES).into();
        }
        Self {
            saga,
            start: start.encode(SAGA_INPUTS, home, "/intake", at),
            accepted: Accepted {
                number,
                calm: workload.is_calm(saga),
                home_partition: home,
                definition,
            },
            starter_step,
        }
    }
}

/// Makes the message that starts a saga.
pub fn start(saga: SagaId, definition: &SagaDefinition, number: u64) -> StartSaga {
    StartSaga {
        saga_id: saga,
        start_type: "order.created".to_owned(),
        definition: definition.name.clone(),
        business_key: Some(format!("order-{number}")),
        input: json!({
            "orderId": saga.0, "customerId": saga.0, "amountMinor": number, "currency": "EUR",
            "items": [{"productId": saga.0, "quantity": 1, "unitPriceMinor": number}],
        }),
        trace: Trace {
            correlation_id: format!("order-{number}"),
            traceparent: None,
        },
    }
}

/// The intake of the order service, in one process.
pub struct Intake {
    pub(super) process: Process,
    store: SimParticipantStore,
    outbox: Outbox,
    relay: Relay,
}

impl Intake {
    pub fn begin(process: &Process, database: &Arc<Database<ParticipantTables>>) -> Arc<Self> {
        let (outbox, relay, relaying) = Relay::new(
            SimOutbox::new(database, process),
            SimWriter::new(process),
            RelaySettings {
                lease: Duration::from_secs(5),
                sweep: Duration::from_secs(1),
            },
            process.stopping().clone(),
        );
        process.spawn(relaying);
        Arc::new(Self {
            process: process.clone(),
            store: SimParticipantStore::new(database, process),
            outbox,
            relay,
        })
    }

    /// Writes the order, the barrier row of its first step and the start of its saga in one transaction.
    pub(super) async fn take_in(&self, order: &Order) -> Result<(), OutboxError> {
        let mut tx = self.store.begin().await?;
        if !tx.accept(order.saga, &order.accepted).await? {
            return Ok(());
        }
        if let Some(step) = &order.starter_step {
            tx.record_started(order.saga, step).await?;
        }
        let staged = self
            .outbox
            .stage(&mut tx, std::slice::from_ref(&order.start))
            .await?;
        tx.commit().await?;
        self.relay.publish_soon(staged);
        Ok(())
    }
}
