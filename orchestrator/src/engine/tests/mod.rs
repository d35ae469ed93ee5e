//! Tests of the engine on a store in memory: what a batch decides, writes and sends.

mod actions;
mod fold;
mod memory;
mod timers;

use crate::{
    engine::{
        Engine,
        settings::{EngineSettings, Participant, Participants},
        shared::Shared,
    },
    registry::{self, Catalog},
};
use memory::MemoryStore;
use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    message::{
        ActionKind, Direction, IncomingRecord, OperatorAction, Outcome, OutgoingRecord,
        PayloadLimit, Reply, ReplyTo, StartSaga, Trace, header,
    },
};
use saga_messaging::{
    consumer::{BatchError, Processor},
    log::{Delivered, TopicPartition},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

const INPUTS: &str = "saga.inputs";
const MESSAGE_LIMIT_BYTES: usize = 100_000;

/// 2026-09-21T14:13:20Z.
fn epoch() -> Timestamp {
    Timestamp::from_timestamp_millis(1_790_000_000_000).unwrap()
}

fn shipped() -> impl Iterator<Item = SagaDefinition> {
    let sources = registry::read(true, None).unwrap();
    sources.into_iter().map(|source| source.definition)
}

fn settings() -> EngineSettings {
    let participants = ["order", "inventory", "payment"].map(|name| {
        let participant = Participant {
            topic: format!("{name}.commands"),
            group: format!("{name}-svc"),
        };
        (name.to_owned(), participant)
    });
    EngineSettings {
        inputs_topic: INPUTS.to_owned(),
        events_topic: "saga.events".to_owned(),
        source: "/saga/orchestrator".to_owned(),
        participants: Participants::from(BTreeMap::from(participants)),
        payload_limit: PayloadLimit::of_message(MESSAGE_LIMIT_BYTES),
    }
}

/// An engine and the log in front of it.
struct Bench {
    engine: Engine<MemoryStore>,
    store: MemoryStore,
    shared: Arc<Shared>,
    next_offset: i64,
    ids: u128,
}

impl Bench {
    fn new() -> Self {
        let shared = Arc::new(Shared::new(settings()));
        let store = MemoryStore::new(epoch());
        store.tables().catalog = Catalog::of(1, shipped());
        shared.timers().assign([0]);
        Self {
            engine: Engine::new(store.clone(), Arc::clone(&shared)),
            store,
            shared,
            next_offset: 0,
            ids: 0,
        }
    }

    fn saga_id(&mut self) -> SagaId {
        self.ids += 1;
        id_at(epoch(), self.ids)
    }

    /// Appends a record to partition 0 of `saga.inputs`.
    fn append(&mut self, record: OutgoingRecord) -> IncomingRecord {
        self.next_offset += 1;
        IncomingRecord {
            topic: record.topic,
            partition: 0,
            offset: self.next_offset - 1,
            timestamp_ms: self.store.now().timestamp_millis(),
            key: Some(record.key),
            headers: record.headers,
            payload: Some(record.payload),
        }
    }

    fn start(&mut self, saga: SagaId) -> IncomingRecord {
        self.start_with(saga, "place-order", order())
    }

    fn start_with(&mut self, saga: SagaId, definition: &str, input: Value) -> IncomingRecord {
        let start = StartSaga {
            saga_id: saga,
            start_type: "order.created".to_owned(),
            definition: definition.to_owned(),
            business_key: Some(format!("order-{saga}")),
            input,
            trace: trace(),
        };
        self.append(start.encode(INPUTS, 0, "/order-svc", epoch()))
    }

    fn reply(&mut self, to: &OutgoingRecord, outcome: Outcome, payload: Value) -> IncomingRecord {
        let reply = Reply {
            saga_id: text(to, header::SAGA_ID).parse().unwrap(),
            step: text(to, header::STEP),
            direction: text(to, header::DIRECTION).parse().unwrap(),
            attempt: text(to, header::ATTEMPT).parse().unwrap(),
            reply_type: format!("{}.answered", text(to, header::CE_TYPE)),
            outcome,
            payload,
            trace: trace(),
        };
        let reply_to = ReplyTo {
            topic: INPUTS.to_owned(),
            partition: 0,
        };
        self.append(reply.encode(&reply_to, "/participant", epoch()))
    }

    fn action(
        &mut self,
        saga: SagaId,
        kind: ActionKind,
        if_version: Option<u64>,
    ) -> IncomingRecord {
        self.ids += 1;
        let action = OperatorAction {
            saga_id: saga,
            action_id: Uuid::from_u128(self.ids),
            kind,
            actor: "somebody".to_owned(),
            reason: "because".to_owned(),
            if_version,
            trace: trace(),
        };
        self.append(action.encode(INPUTS, Some(0), "/http", epoch()))
    }

    /// Processes a batch and acknowledges its outputs, which it returns.
    async fn process(&mut self, records: &[IncomingRecord]) -> Vec<OutgoingRecord> {
        let outputs = self.engine.process(records).await.unwrap();
        let delivered: Vec<Delivered> = (0..)
            .zip(&outputs)
            .map(|(offset, _)| Delivered {
                partition: 0,
                offset,
            })
            .collect();
        self.engine.published(&outputs, &delivered);
        outputs
    }

    /// Answers every command with success, one at a time, until no command follows. Returns the types of the commands.
    async fn run_to_end(&mut self, first: Vec<OutgoingRecord>) -> Vec<String> {
        let mut waiting = commands(&first);
        let mut sent = Vec::new();
        while !waiting.is_empty() {
            let command = waiting.remove(0);
            sent.push(text(&command, header::CE_TYPE));
            let reply = self.reply(&command, Outcome::Success, json!({"done": true}));
            waiting.extend(commands(&self.process(&[reply]).await));
        }
        sent
    }
}

fn order() -> Value {
    json!({
        "orderId": Uuid::from_u128(7), "customerId": Uuid::from_u128(8), "amountMinor": 1000, "currency": "EUR",
        "items": [{"productId": Uuid::from_u128(9), "quantity": 1, "unitPriceMinor": 1000}]
    })
}

fn trace() -> Trace {
    Trace {
        correlation_id: "correlation".to_owned(),
        traceparent: None,
    }
}

/// Returns a UUIDv7 of the given time.
fn id_at(at: Timestamp, number: u128) -> SagaId {
    let milliseconds = u128::from(at.timestamp_millis().cast_unsigned());
    SagaId(Uuid::from_u128(
        (milliseconds << 80) | (7 << 76) | (2 << 62) | number,
    ))
}

fn text(record: &OutgoingRecord, name: &str) -> String {
    let value = record.headers.get(name).unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

fn of_topic<'a>(records: &'a [OutgoingRecord], end: &'a str) -> Vec<&'a OutgoingRecord> {
    records
        .iter()
        .filter(|record| record.topic.ends_with(end))
        .collect()
}

fn commands(records: &[OutgoingRecord]) -> Vec<OutgoingRecord> {
    of_topic(records, ".commands")
        .into_iter()
        .cloned()
        .collect()
}

fn types(records: &[OutgoingRecord], end: &str) -> Vec<String> {
    of_topic(records, end)
        .into_iter()
        .map(|record| text(record, header::CE_TYPE))
        .collect()
}

fn ids(records: &[OutgoingRecord], end: &str) -> Vec<String> {
    of_topic(records, end)
        .into_iter()
        .map(|record| text(record, header::CE_ID))
        .collect()
}

fn reason(records: &[OutgoingRecord]) -> String {
    let letters = of_topic(records, ".dlq");
    assert_eq!(letters.len(), 1, "one dead letter");
    text(letters[0], header::DEAD_LETTER_REASON)
}

#[tokio::test]
async fn an_unavailable_store_is_retried_and_no_command_is_sent() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    bench.store.fail_commits(1);
    let failed = bench.engine.process(std::slice::from_ref(&start)).await;
    assert!(matches!(failed, Err(BatchError::Retry(_))));
    assert_eq!(bench.shared.timers().len(), 0);
    let outputs = bench.process(&[start]).await;
    assert_eq!(types(&outputs, ".commands"), ["inventory.reserve"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_processed_alone_becomes_a_dead_letter() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let why = BatchError::Data("a bad row".into());
    let outputs = bench.engine.reject(&start, &why).await.unwrap();
    assert_eq!(reason(&outputs), "cannot_be_processed");
}

#[tokio::test]
async fn partitions_given_up_take_their_timers_with_them() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    bench.process(&[start]).await;
    assert_eq!(bench.shared.timers().len(), 1);
    bench.engine.revoked(&[TopicPartition {
        topic: INPUTS.to_owned(),
        partition: 0,
    }]);
    assert_eq!(bench.shared.timers().len(), 0);
}

/// Returns the direction of a command.
fn direction(record: &OutgoingRecord) -> Direction {
    text(record, header::DIRECTION).parse().unwrap()
}

#[test]
fn a_participant_that_is_not_configured_here_is_reached_where_another_process_registered_it() {
    let mut few = settings();
    few.participants.configured.remove("payment");
    let shared = Shared::new(few);
    let mut catalog = Catalog::of(1, shipped());
    for (name, topic) in [("payment", "theirs.commands"), ("order", "moved.commands")] {
        let participant = Participant {
            topic: topic.to_owned(),
            group: "theirs".to_owned(),
        };
        catalog.participants.insert(name.to_owned(), participant);
    }
    shared.learn(catalog);
    let participants = &shared.settings.participants;
    assert_eq!(participants.topic("payment"), "theirs.commands");
    assert_eq!(participants.get("payment").unwrap().group, "theirs");
    // The process's own configuration takes precedence.
    assert_eq!(participants.topic("order"), "order.commands");
}
