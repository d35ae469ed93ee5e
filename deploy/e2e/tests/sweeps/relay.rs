//! The relay between the orchestrator and the participants. Every command and every reply passes through it, and
//! scripts say which messages it duplicates, delays or drops.
//!
//! ```text
//!  orchestrator ─▶ sweep.<participant>.commands ─▶ Relay ─▶ sweep.<participant>.delivered ─▶ participant
//!       ▲                                                                                        │
//!       └───────────────── saga.inputs ◀── Relay ◀── sweep.replies ◀─────────────────────────────┘
//! ```
//!
//! The orchestrator takes the relay's consumer group for the participants' group. For the orchestrator, a command that
//! the relay has consumed was picked up, even if the relay has dropped it.

use super::script::{Message, Mishap, Script};
use async_trait::async_trait;
use saga_contracts::topic::SAGA_INPUTS;
use saga_core::{
    ids::SagaId,
    message::{CommandRef, DecodeError, IncomingRecord, OutgoingRecord, header},
};
use saga_messaging::{
    consumer::{BatchError, Processor},
    kafka::KafkaWriter,
    log::{Delivered, LogError, LogWriter, TopicPartition},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub const GROUP: &str = "sweep-relay";
pub const REPLIES: &str = "sweep.replies";
const PREFIX: &str = "sweep.";
const COMMANDS: &str = ".commands";
const DELIVERED: &str = ".delivered";

/// Returns the topic to which the orchestrator sends a participant's commands.
pub fn commands_topic(participant: &str) -> String {
    format!("{PREFIX}{participant}{COMMANDS}")
}

/// Returns the topic from which a participant consumes its commands.
pub fn delivered_topic(participant: &str) -> String {
    format!("{PREFIX}{participant}{DELIVERED}")
}

/// The relay's state for one saga.
#[derive(Debug)]
struct Passage {
    script: Arc<Script>,
    /// Every message that the relay has consumed, whatever it did with it.
    seen: BTreeSet<Message>,
    /// The number of messages that the script has duplicated, dropped, delayed or held.
    interventions: usize,
    holds: bool,
    held: Vec<OutgoingRecord>,
    late: Vec<OutgoingRecord>,
    is_over: bool,
}

pub struct Relay {
    sagas: Mutex<HashMap<SagaId, Passage>>,
    writer: KafkaWriter,
}

impl Relay {
    pub fn new(writer: KafkaWriter) -> Self {
        Self {
            sagas: Mutex::new(HashMap::new()),
            writer,
        }
    }

    fn sagas(&self) -> MutexGuard<'_, HashMap<SagaId, Passage>> {
        // Nothing panics while the map is half-changed.
        self.sagas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a saga and its script. Must be called before the saga starts.
    pub fn expect(&self, saga: SagaId, script: Arc<Script>) {
        let passage = Passage {
            holds: script.held.is_some(),
            script,
            seen: BTreeSet::new(),
            interventions: 0,
            held: Vec::new(),
            late: Vec::new(),
            is_over: false,
        };
        self.sagas().insert(saga, passage);
    }

    pub fn script(&self, saga: SagaId) -> Option<Arc<Script>> {
        let sagas = self.sagas();
        sagas.get(&saga).map(|passage| Arc::clone(&passage.script))
    }

    pub fn seen(&self, saga: SagaId) -> BTreeSet<Message> {
        let sagas = self.sagas();
        sagas
            .get(&saga)
            .map(|passage| passage.seen.clone())
            .unwrap_or_default()
    }

    pub fn interventions(&self, saga: SagaId) -> usize {
        let sagas = self.sagas();
        sagas.get(&saga).map_or(0, |passage| passage.interventions)
    }

    /// Sends the held messages, and holds no more messages.
    pub async fn let_go(&self, saga: SagaId) -> Result<(), LogError> {
        let held = self.sagas().get_mut(&saga).map(|passage| {
            passage.holds = false;
            std::mem::take(&mut passage.held)
        });
        self.send(held.unwrap_or_default()).await
    }

    /// Ends the saga's script: sends all held and late messages, and passes every further message on.
    pub async fn end(&self, saga: SagaId) -> Result<(), LogError> {
        let kept = self.sagas().get_mut(&saga).map(|passage| {
            passage.is_over = true;
            let mut kept = std::mem::take(&mut passage.held);
            kept.append(&mut passage.late);
            kept
        });
        self.send(kept.unwrap_or_default()).await
    }

    async fn send(&self, records: Vec<OutgoingRecord>) -> Result<(), LogError> {
        if !records.is_empty() {
            self.writer.publish(&records).await?;
        }
        Ok(())
    }

    /// Returns the records to send for one record.
    fn pass(&self, record: &IncomingRecord) -> Result<Vec<OutgoingRecord>, DecodeError> {
        let message = Message {
            part: CommandRef {
                step: record.required(header::STEP)?.to_owned(),
                direction: record.parsed(header::DIRECTION)?,
                attempt: record.parsed(header::ATTEMPT)?,
            },
            is_reply: record.topic == REPLIES,
        };
        let onward = onward(record);
        let mut sagas = self.sagas();
        Ok(match sagas.get_mut(&record.parsed(header::SAGA_ID)?) {
            None => vec![onward],
            Some(passage) => passage.meet(&message, onward),
        })
    }
}

impl Passage {
    fn meet(&mut self, message: &Message, onward: OutgoingRecord) -> Vec<OutgoingRecord> {
        let is_first = self.seen.insert(message.clone());
        if self.is_over {
            return vec![onward];
        }
        let mishap = self.script.mishap.as_ref();
        let struck = mishap.filter(|(at, _)| is_first && at == message);
        let passing = match struck.map(|(_, mishap)| mishap) {
            Some(Mishap::Duplicated) => vec![onward.clone(), onward],
            Some(Mishap::Dropped) => Vec::new(),
            Some(Mishap::Late) => self.keep(onward),
            None if self.script.silences(message) => self.keep(onward),
            None if self.holds && self.script.holds(message) => {
                self.held.push(onward);
                Vec::new()
            }
            None => return vec![onward],
        };
        self.interventions += 1;
        passing
    }

    fn keep(&mut self, record: OutgoingRecord) -> Vec<OutgoingRecord> {
        self.late.push(record);
        Vec::new()
    }
}

/// Returns the record for the topic where it would have gone without the relay. A command's reply topic becomes the
/// relay's.
fn onward(record: &IncomingRecord) -> OutgoingRecord {
    let topic = match record.topic.strip_suffix(COMMANDS) {
        Some(participant) => format!("{participant}{DELIVERED}"),
        None => SAGA_INPUTS.to_owned(),
    };
    let headers = record.headers.iter().map(|(name, value)| match name {
        header::REPLY_TOPIC => (name, REPLIES.as_bytes()),
        _ => (name, value),
    });
    OutgoingRecord {
        topic,
        partition: Some(record.partition),
        key: record.key.clone().unwrap_or_default(),
        headers: headers.collect(),
        payload: record.payload.clone().unwrap_or_default(),
    }
}

/// The relay as the processor of a consumer.
pub struct Passing(pub Arc<Relay>);

#[async_trait]
impl Processor for Passing {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        let mut passing = Vec::new();
        for record in records {
            let passed = self.0.pass(record);
            passing.extend(passed.map_err(|error| BatchError::Data(error.into()))?);
        }
        Ok(passing)
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        panic!("nobody writes what the relay cannot read: {record:?}: {why}")
    }

    fn published(&mut self, _: &[OutgoingRecord], _: &[Delivered]) {}

    async fn assigned(&mut self, _: &[TopicPartition]) -> Result<(), BatchError> {
        Ok(())
    }

    fn revoked(&mut self, _: &[TopicPartition]) {}
}
