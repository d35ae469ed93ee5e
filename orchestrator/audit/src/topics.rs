//! Reads every topic, from its first record to its end at the start of the read.
//!
//! Only this module decodes records. A record that cannot be decoded is counted and otherwise ignored: the consumers
//! judge it, and any program may write to a topic.

mod events;
mod read;

pub use events::{Answers, Event, Story};

use crate::{error::AuditError, sources::Sources};
use rdkafka::{
    Message, Offset, TopicPartitionList, bindings, consumer::Consumer, message::BorrowedMessage,
    types::RDKafkaRespErr,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    ptr, slice,
};
use uuid::Uuid;

pub(crate) const INPUTS: &str = "saga.inputs";
pub(crate) const EVENTS: &str = "saga.events";
const DEAD_LETTERS: &str = ".dlq";
const COMMANDS: [&str; 3] = ["order.commands", "inventory.commands", "payment.commands"];

/// The topics' records about the sagas that are audited.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    /// Events by saga, from `saga.events`.
    pub stories: BTreeMap<Uuid, Story>,
    /// Positions of a saga's starts in `saga.inputs`: partition and offset.
    pub starts: BTreeMap<Uuid, Vec<(i32, i64)>>,
    /// Answers of participants to forward commands, by saga and step.
    pub answers: BTreeMap<(Uuid, String), Answers>,
    /// Partitions of `saga.events` that have lost their first records to retention, with the time of the oldest kept
    /// record.
    pub trimmed: BTreeMap<i32, i64>,
    /// Number of records by topic.
    pub records: BTreeMap<String, u64>,
    /// Number of records of the system's topics that cannot be read, by topic.
    pub unreadable: BTreeMap<String, u64>,
    /// Number of records in dead-letter topics, by topic and reason.
    pub dead_letters: BTreeMap<String, BTreeMap<String, u64>>,
    /// Sagas that dead letters name.
    pub dead_sagas: BTreeSet<Uuid>,
}

/// Returns the committed offsets of the orchestrator's group, by partition.
pub async fn handled(sources: &Sources) -> Result<BTreeMap<i32, i64>, AuditError> {
    let sources = sources.clone();
    blocking(move || {
        let failed = |source| AuditError::Topic {
            topic: INPUTS.to_owned(),
            source,
        };
        let consumer = read::client(&sources, &sources.orchestrator_group).map_err(failed)?;
        let mut list = TopicPartitionList::new();
        for partition in read::partitions(&consumer, INPUTS)? {
            list.add_partition(INPUTS, partition);
        }
        let committed = consumer
            .committed_offsets(list, read::TIMEOUT)
            .map_err(failed)?;
        let offsets = committed
            .elements()
            .into_iter()
            .map(|element| match element.offset() {
                Offset::Offset(offset) => (element.partition(), offset),
                Offset::Beginning
                | Offset::End
                | Offset::Stored
                | Offset::Invalid
                | Offset::OffsetTail(_) => (element.partition(), 0),
            });
        Ok(offsets.collect())
    })
    .await
}

/// Reads all topics and their dead-letter topics.
pub async fn read(sources: &Sources, since: Uuid) -> Result<Topics, AuditError> {
    let sources = sources.clone();
    blocking(move || {
        let mut topics = Topics::default();
        let consumer =
            read::client(&sources, "saga-audit").map_err(|source| AuditError::Topic {
                topic: "(all)".to_owned(),
                source,
            })?;
        let names = [INPUTS, EVENTS].into_iter().chain(COMMANDS);
        let all: Vec<String> = names
            .flat_map(|name| [name.to_owned(), format!("{name}{DEAD_LETTERS}")])
            .collect();
        let trimmed = read::all(&consumer, &all, &mut |message| {
            if message.topic().ends_with(DEAD_LETTERS) {
                topics.take_dead_letter(message);
            } else {
                topics.take(message, since);
            }
        })?;
        let of_events = trimmed
            .into_iter()
            .filter(|((topic, _), _)| topic == EVENTS);
        topics.trimmed = of_events
            .map(|((_, partition), at)| (partition, at))
            .collect();
        Ok(topics)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(AuditError::Interrupted)?
}

impl Topics {
    fn take(&mut self, message: &BorrowedMessage<'_>, since: Uuid) {
        let topic = message.topic();
        *self.records.entry(topic.to_owned()).or_default() += 1;
        let Some(saga) = header(message, "saga-id").and_then(|id| id.parse().ok()) else {
            *self.unreadable.entry(topic.to_owned()).or_default() += 1;
            return;
        };
        if saga < since {
            return;
        }
        let readable = match topic {
            EVENTS => self.take_event(saga, message),
            INPUTS => {
                self.take_input(saga, message);
                true
            }
            _ => true,
        };
        if !readable {
            *self.unreadable.entry(topic.to_owned()).or_default() += 1;
        }
    }

    fn take_event(&mut self, saga: Uuid, message: &BorrowedMessage<'_>) -> bool {
        let sequence = header(message, "saga-sequence").and_then(|text| text.parse().ok());
        let (Some(sequence), Some(kind)) = (sequence, header(message, "ce_type")) else {
            return false;
        };
        // A replayed record keeps its headers and its value, so both must name the same event.
        if !events::names(message.payload(), saga, sequence) {
            return false;
        }
        let story = self.stories.entry(saga).or_default();
        story.partition = message.partition();
        story.add(sequence, Event::new(&kind, message.payload()));
        true
    }

    fn take_input(&mut self, saga: Uuid, message: &BorrowedMessage<'_>) {
        if let Some(outcome) = header(message, "saga-outcome") {
            let step = header(message, "saga-step").unwrap_or_default();
            let forward =
                header(message, "saga-direction").is_some_and(|text| text != "compensation");
            if forward {
                self.answers.entry((saga, step)).or_default().add(&outcome);
            }
        } else if header(message, "saga-definition").is_some() {
            let place = (message.partition(), message.offset());
            self.starts.entry(saga).or_default().push(place);
        }
    }

    fn take_dead_letter(&mut self, message: &BorrowedMessage<'_>) {
        let topic = message.topic();
        *self.records.entry(topic.to_owned()).or_default() += 1;
        let reason = header(message, "dead-letter-reason").unwrap_or_else(|| "(none)".to_owned());
        *self
            .dead_letters
            .entry(topic.to_owned())
            .or_default()
            .entry(reason)
            .or_default() += 1;
        if let Some(saga) = header(message, "saga-id").and_then(|id| id.parse().ok()) {
            self.dead_sagas.insert(saga);
        }
    }
}

/// Returns the last value of a header, if it is text. The headers are not iterated: the client library's iterator
/// panics at a name that is not UTF-8, and any program may write such a record.
#[expect(
    unsafe_code,
    reason = "only the C library finds a header by its name without reading the names of others"
)]
fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let name = CString::new(name).ok()?;
    let (mut list, mut value, mut size) = (ptr::null_mut(), ptr::null(), 0);
    // SAFETY: the message lives as long as its borrow, and `name` lives until the end of the function. The list and the
    // value that the library returns belong to the message.
    let bytes = unsafe {
        let found = bindings::rd_kafka_message_headers(message.ptr(), &raw mut list);
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let found =
            bindings::rd_kafka_header_get_last(list, name.as_ptr(), &raw mut value, &raw mut size);
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || value.is_null() {
            return None;
        }
        slice::from_raw_parts(value.cast::<u8>(), size)
    };
    String::from_utf8(bytes.to_vec()).ok()
}
