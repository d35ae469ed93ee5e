//! The wire over Kafka.

use super::Wire;
use anyhow::{Context, Result};
use async_trait::async_trait;
use futures_util::StreamExt;
use saga_core::message::{IncomingRecord, Input, OutgoingRecord, topic::dead_letters_of};
use saga_messaging::{
    kafka::{GroupOffsets, KafkaConfig, KafkaWriter, Tail},
    log::{Delivered, LogWriter},
};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Implements [`Wire`] with Kafka.
pub struct KafkaWire {
    config: KafkaConfig,
    topic: String,
    reply_topic: String,
    reply_partitions: i32,
    writer: KafkaWriter,
    replies: Heard,
    dead_letters: Heard,
    groups: HashMap<String, GroupOffsets>,
}

impl KafkaWire {
    /// Opens the wire. It receives everything that is written from now on to the reply topic and to the dead letters of
    /// `topic`.
    pub async fn open(config: KafkaConfig, topic: &str, reply_topic: &str) -> Result<Self> {
        let writer = KafkaWriter::connect(&config)?;
        writer
            .partition_count(topic)
            .await
            .with_context(|| format!("looking for topic {topic}"))?;
        let reply_partitions = writer
            .partition_count(reply_topic)
            .await
            .with_context(|| format!("looking for topic {reply_topic}"))?;
        Ok(Self {
            replies: Heard::open(&config, reply_topic).await?,
            dead_letters: Heard::open(&config, &dead_letters_of(topic)).await?,
            topic: topic.to_owned(),
            reply_topic: reply_topic.to_owned(),
            reply_partitions,
            writer,
            groups: HashMap::new(),
            config,
        })
    }
}

#[async_trait]
impl Wire for KafkaWire {
    fn reply_topic(&self) -> &str {
        &self.reply_topic
    }

    fn reply_partitions(&self) -> i32 {
        self.reply_partitions
    }

    async fn send(&mut self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>> {
        self.writer
            .publish(records)
            .await
            .with_context(|| format!("sending to {}", self.topic))
    }

    async fn reply(&mut self, key: &str, limit: Duration) -> Result<Option<IncomingRecord>> {
        self.replies.next(key, limit).await
    }

    async fn dead_letter(&mut self, key: &str, limit: Duration) -> Result<Option<IncomingRecord>> {
        self.dead_letters.next(key, limit).await
    }

    async fn committed(&mut self, group: &str, partition: i32) -> Result<i64> {
        if !self.groups.contains_key(group) {
            let offsets = GroupOffsets::connect(&self.config, group)?;
            self.groups.insert(group.to_owned(), offsets);
        }
        let offsets = self.groups.get(group).context("the group's client")?;
        let committed = offsets.committed(&self.topic).await?;
        Ok(committed.get(&partition).copied().unwrap_or_default())
    }
}

/// Records that were read from a topic, by key, until the kit asks for them.
struct Heard {
    topic: String,
    tail: Tail,
    waiting: HashMap<Vec<u8>, VecDeque<IncomingRecord>>,
}

impl Heard {
    async fn open(config: &KafkaConfig, topic: &str) -> Result<Self> {
        let tail = Tail::open(config, topic)
            .await
            .with_context(|| format!("reading topic {topic}"))?;
        Ok(Self {
            topic: topic.to_owned(),
            tail,
            waiting: HashMap::new(),
        })
    }

    async fn next(&mut self, key: &str, limit: Duration) -> Result<Option<IncomingRecord>> {
        let deadline = Instant::now() + limit;
        loop {
            let waiting = self.waiting.get_mut(key.as_bytes());
            if let Some(record) = waiting.and_then(VecDeque::pop_front) {
                return Ok(Some(record));
            }
            let Ok(next) = timeout_at(deadline, self.tail.next()).await else {
                return Ok(None);
            };
            let record = next.with_context(|| format!("{} cannot be read any more", self.topic))?;
            if is_of_an_orchestrator(&record) {
                continue;
            }
            let key = record.key.clone().unwrap_or_default();
            self.waiting.entry(key).or_default().push_back(record);
        }
    }
}

/// Returns true for starts, timers and actions, which share the topic with replies. Any other record may be a wrong
/// reply.
fn is_of_an_orchestrator(record: &IncomingRecord) -> bool {
    match Input::decode(record) {
        Ok(Input::Start(_) | Input::Timer(_) | Input::Operator(_)) => true,
        Ok(Input::Reply(_)) | Err(_) => false,
    }
}
