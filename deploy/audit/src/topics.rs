//! Every topic, from its first record to where it ended when we looked.
//!
//! Records are decoded here and nowhere else in this crate. What cannot be decoded is counted and left alone: judging it is
//! the consumers' business, and a topic is open to whoever writes into it.

mod events;
mod read;

pub use events::{Answers, Event, Story};

use crate::{error::AuditError, sources::Sources};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    message::{BorrowedMessage, Headers},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

pub(crate) const INPUTS: &str = "saga.inputs";
pub(crate) const EVENTS: &str = "saga.events";
const DEAD_LETTERS: &str = ".dlq";
const COMMANDS: [&str; 3] = ["order.commands", "inventory.commands", "payment.commands"];
/// A broker that does not answer for so long is away.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What the topics hold of the sagas that are looked at.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    /// By saga, from `saga.events`.
    pub stories: BTreeMap<Uuid, Story>,
    /// Where the starts of a saga stand in `saga.inputs`: partition and offset.
    pub starts: BTreeMap<Uuid, Vec<(i32, i64)>>,
    /// What participants answered to forward commands, by saga and step.
    pub answers: BTreeMap<(Uuid, String), Answers>,
    /// Partitions of `saga.events` that have lost their first records to retention, with the time of the oldest one kept.
    pub trimmed: BTreeMap<i32, i64>,
    /// Records by topic.
    pub records: BTreeMap<String, u64>,
    /// Records of our topics that cannot be read, by topic.
    pub unreadable: BTreeMap<String, u64>,
    /// Records in dead-letter topics, by topic and reason.
    pub dead_letters: BTreeMap<String, BTreeMap<String, u64>>,
    /// Dead letters that name a saga.
    pub dead_sagas: BTreeSet<Uuid>,
}

/// The offsets of the orchestrator's group, by partition.
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
        let committed = consumer.committed_offsets(list, TIMEOUT).map_err(failed)?;
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

/// Reads all topics and their dead letters.
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
        // Whoever replays a record keeps its headers and its value; both must name the same event.
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

/// The last value of a header, if it is text.
fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = message.headers()?;
    headers
        .iter()
        .filter(|header| header.key == name)
        .last()
        .and_then(|header| String::from_utf8(header.value?.to_vec()).ok())
}
