//! `GET /events`: every state change of every saga, as it happens.
//!
//! The topic is read only while somebody listens: ten events a saga are a tenth of the orchestrator's work.

use super::ApiState;
use crate::telemetry;
use axum::{
    extract::State,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt};
use saga_core::message::{IncomingRecord, LifecycleMessage, header};
use saga_messaging::kafka::{KafkaConfig, Tail};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{Notify, broadcast, watch};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Events that a slow page may fall behind before it is told that it missed some: a few seconds of a busy system.
const WAITING_EVENTS: usize = 4_096;
/// Between two tries to follow the topic.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks whether anybody listens still.
const LISTENERS_EVERY: Duration = Duration::from_secs(30);
/// Without Kafka a stream begins all the same, and has nothing to say yet.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// An idle stream says that it lives, so that proxies keep it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event.
#[derive(Debug)]
pub struct LiveEvent {
    pub id: String,
    pub json: String,
}

impl LiveEvent {
    /// `None` of a record that somebody else put there: it stands in the topic for whoever looks for it, and no page
    /// gets to see it. A line break in an id would end the stream of every page.
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

/// Where pages listen.
#[derive(Clone, Debug)]
pub struct LiveEvents {
    sender: broadcast::Sender<Arc<LiveEvent>>,
    /// Called by whoever begins to listen.
    wanted: Arc<Notify>,
    /// Whether the topic is being read.
    open: watch::Sender<bool>,
}

/// Why the topic is not read any more.
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
    /// Follows the topic for those who listen until `stopping`, whatever happens to the broker.
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

    /// Returns while somebody listens.
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
                    "live events have to wait"
                );
                return Ended::Failed;
            }
        };
        self.open.send_replace(true);
        let mut looks = tokio::time::interval(LISTENERS_EVERY);
        loop {
            tokio::select! {
                record = tail.next() => match record {
                    Some(record) => self.tell(&record),
                    None => return Ended::Failed,
                },
                _ = looks.tick() => {
                    // In this order, so that whoever begins to listen meanwhile is seen here, or waits.
                    self.open.send_replace(false);
                    if self.sender.receiver_count() == 0 {
                        return Ended::NobodyListens;
                    }
                    self.open.send_replace(true);
                }
            }
        }
    }

    fn tell(&self, record: &IncomingRecord) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let Some(event) = LiveEvent::of(record) else {
            telemetry::live_event_passed_over();
            debug!(
                messaging.kafka.partition = record.partition,
                messaging.kafka.offset = record.offset,
                "a record of the events' topic is no event of ours"
            );
            return;
        };
        // The last page may just have gone.
        let _listeners = self.sender.send(Arc::new(event));
    }

    /// Whatever is acknowledged after this returned is heard, unless Kafka is away. A shutdown waits for nobody to begin.
    async fn listen(&self, stopping: &CancellationToken) -> broadcast::Receiver<Arc<LiveEvent>> {
        let receiver = self.sender.subscribe();
        self.wanted.notify_one();
        let mut open = self.open.subscribe();
        tokio::select! {
            _opened = open.wait_for(|open| *open) => {}
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(OPEN_LIMIT) => {
                debug!("a stream of events begins while the topic cannot be read");
            }
        }
        receiver
    }
}

/// Lifecycle events from now on, as server-sent events; the data is the record's value. A client that falls behind
/// gets an event `lagged` with the number it missed.
#[utoipa::path(
    get, path = "/events", operation_id = "live_events", tag = "events",
    responses((status = 200, description = "A stream without end", body = LifecycleMessage, content_type = "text/event-stream"))
)]
pub async fn events(State(state): State<ApiState>) -> impl IntoResponse {
    let receiver = state.live.listen(&state.stopping).await;
    let stream = stream(receiver).take_until(state.stopping.cancelled_owned());
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn stream(
    receiver: broadcast::Receiver<Arc<LiveEvent>>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    BroadcastStream::new(receiver).map(|received| {
        Ok(match received {
            Ok(event) => Event::default().id(&event.id).data(&event.json),
            Err(BroadcastStreamRecvError::Lagged(missed)) => Event::default()
                .event("lagged")
                .data(format!("{{\"missed\":{missed}}}")),
        })
    })
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
    fn what_is_no_event_of_ours_is_shown_to_nobody() {
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
