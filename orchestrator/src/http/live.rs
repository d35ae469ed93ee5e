//! The feed of live events, from the events topic to the clients of `GET /events`.
//!
//! The topic is read only while a client listens: reading ten events per saga is a tenth of the orchestrator's work.

use crate::telemetry;
use futures_util::StreamExt;
use saga_core::{
    instance::LifecycleMessage,
    message::{IncomingRecord, header},
};
use saga_messaging::kafka::{KafkaConfig, Tail};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Events by which a slow client may fall behind before it gets an event `lagged`: a few seconds of a busy system.
const WAITING_EVENTS: usize = 4_096;
/// Time between two attempts to read the topic.
const RETRY: Duration = Duration::from_secs(2);
/// Time between two checks whether any client still listens.
const LISTENERS_EVERY: Duration = Duration::from_secs(30);
/// The longest wait for the topic when a stream is opened. Without Kafka, the stream begins without events.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// One lifecycle event, as it is sent to clients.
#[derive(Debug)]
pub struct LiveEvent {
    pub id: String,
    pub json: String,
}

impl LiveEvent {
    /// Returns the event of a record, or `None` if the record is not a lifecycle event, because another program wrote
    /// it. Clients do not get such a record. A line break in an id would end the stream of every client.
    fn of(record: &IncomingRecord) -> Option<Self> {
        let id = record.required(header::CE_ID).ok()?;
        let event: LifecycleMessage = record.json().ok()?;
        if id.contains(['\n', '\r', '\0']) {
            return None;
        }
        Some(Self {
            id: id.to_owned(),
            json: serde_json::to_string(&event).ok()?,
        })
    }
}

/// The channel from the events topic to the clients.
#[derive(Clone, Debug)]
pub struct LiveEvents {
    sender: broadcast::Sender<Arc<LiveEvent>>,
    /// Notified by each client that begins to listen.
    wanted: Arc<Notify>,
    /// True while the topic is read.
    open: watch::Sender<bool>,
}

/// The reason why the topic is not read any more.
enum Ended {
    NobodyListens,
    Failed,
}

impl Default for LiveEvents {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(WAITING_EVENTS).0,
            wanted: Arc::default(),
            open: watch::Sender::new(false),
        }
    }
}

impl LiveEvents {
    /// Reads the topic while clients listen, until `stopping`. Retries after errors of the broker.
    pub async fn follow(self, kafka: KafkaConfig, topic: String, stopping: CancellationToken) {
        let following = async {
            loop {
                self.listeners().await;
                let ended = self.follow_once(&kafka, &topic).await;
                self.open.send_replace(false);
                if let Ended::Failed = ended {
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = following => {}
        }
    }

    /// Waits until a client listens.
    async fn listeners(&self) {
        while self.sender.receiver_count() == 0 {
            self.wanted.notified().await;
        }
    }

    async fn follow_once(&self, kafka: &KafkaConfig, topic: &str) -> Ended {
        let mut tail = match Tail::open(kafka, topic).await {
            Ok(tail) => tail,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the events topic cannot be read: live events are delayed"
                );
                return Ended::Failed;
            }
        };
        self.open.send_replace(true);
        let mut looks = tokio::time::interval(LISTENERS_EVERY);
        loop {
            tokio::select! {
                record = tail.next() => match record {
                    Some(record) => self.broadcast(&record),
                    None => return Ended::Failed,
                },
                _ = looks.tick() => {
                    // The flag is reset before the count is read: a client that begins to listen meanwhile is counted
                    // here, or waits for the flag.
                    self.open.send_replace(false);
                    if self.sender.receiver_count() == 0 {
                        return Ended::NobodyListens;
                    }
                    self.open.send_replace(true);
                }
            }
        }
    }

    fn broadcast(&self, record: &IncomingRecord) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let Some(event) = LiveEvent::of(record) else {
            telemetry::live_event_passed_over();
            debug!(
                messaging.kafka.partition = record.partition,
                messaging.kafka.offset = record.offset,
                "a record of the events topic is not a lifecycle event"
            );
            return;
        };
        // The send fails if the last client has just disconnected.
        let _listeners = self.sender.send(Arc::new(event));
    }

    /// Returns a receiver that gets every event acknowledged from now on, unless Kafka is unavailable. A shutdown ends
    /// the wait.
    pub async fn listen(
        &self,
        stopping: &CancellationToken,
    ) -> broadcast::Receiver<Arc<LiveEvent>> {
        let receiver = self.sender.subscribe();
        self.wanted.notify_one();
        let mut open = self.open.subscribe();
        tokio::select! {
            _opened = open.wait_for(|open| *open) => {}
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(OPEN_LIMIT) => {
                debug!("a stream of events starts although the topic cannot be read");
            }
        }
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::{
        ids::{SagaId, Timestamp},
        instance::{LifecycleEvent, LifecycleKind},
        message::Trace,
    };
    use std::borrow::Cow;
    use uuid::Uuid;

    fn record() -> IncomingRecord {
        let message = LifecycleMessage {
            saga_id: SagaId(Uuid::from_u128(7)),
            definition: "place-order".into(),
            definition_version: 1,
            business_key: Some("a\r\nb".into()),
            correlation_id: "c".into(),
            event: Cow::Owned(LifecycleEvent {
                sequence: 1,
                at: Timestamp::UNIX_EPOCH,
                kind: LifecycleKind::Started,
            }),
        };
        let record = message.encode("saga.events", "/test", &Trace::default());
        IncomingRecord {
            topic: record.topic,
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(record.key),
            headers: record.headers,
            payload: Some(record.payload),
        }
    }

    fn with_id(id: &[u8]) -> IncomingRecord {
        let mut record = record();
        record.headers.remove(header::CE_ID);
        record.headers.push(header::CE_ID, id);
        record
    }

    #[test]
    fn an_event_is_shown() {
        let event = LiveEvent::of(&record()).unwrap();
        assert!(!event.id.is_empty() && event.json.contains("place-order"));
    }

    #[test]
    fn foreign_records_are_no_live_events() {
        let foreign = |payload: &[u8]| IncomingRecord {
            payload: Some(payload.to_vec()),
            ..record()
        };
        for record in [
            foreign(b"{"),
            foreign(b"{\"a\":\r1}"),
            foreign(b"\xff"),
            with_id(b"a\nb"),
            with_id(b"a\0"),
            with_id(b"\xff"),
        ] {
            assert!(LiveEvent::of(&record).is_none(), "{record:?}");
        }
    }
}
