//! `GET /events`: every state change of every saga, as it happens.

use super::ApiState;
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
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Events that a slow page may fall behind before it is told that it missed some: a few seconds of a busy system.
const WAITING_EVENTS: usize = 4_096;
/// Between two tries to follow the topic.
const RETRY: Duration = Duration::from_secs(2);
/// An idle stream says that it lives, so that proxies keep it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event, as it stands in the topic.
#[derive(Debug)]
pub struct LiveEvent {
    pub id: String,
    pub json: String,
}

/// Where pages listen.
#[derive(Clone, Debug)]
pub struct LiveEvents {
    sender: broadcast::Sender<Arc<LiveEvent>>,
}

impl Default for LiveEvents {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(WAITING_EVENTS).0,
        }
    }
}

impl LiveEvents {
    /// Follows the topic until `stopping`, whatever happens to the broker.
    pub async fn follow(self, kafka: KafkaConfig, topic: String, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.follow_once(&kafka, &topic) => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn follow_once(&self, kafka: &KafkaConfig, topic: &str) {
        match Tail::open(kafka, topic).await {
            Ok(mut tail) => {
                while let Some(record) = tail.next().await {
                    self.tell(&record);
                }
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "live events have to wait"
                );
            }
        }
    }

    fn tell(&self, record: &IncomingRecord) {
        let id = record
            .header(header::CE_ID)
            .ok()
            .flatten()
            .unwrap_or_default()
            .to_owned();
        let Some(json) = record
            .payload
            .clone()
            .and_then(|payload| String::from_utf8(payload).ok())
        else {
            return;
        };
        // Nobody listens: nothing to do.
        let _listeners = self.sender.send(Arc::new(LiveEvent { id, json }));
    }

    fn listen(&self) -> broadcast::Receiver<Arc<LiveEvent>> {
        self.sender.subscribe()
    }
}

/// Lifecycle events from now on, as server-sent events; the data is the record's value. A client that falls behind
/// gets an event `lagged` with the number it missed.
#[utoipa::path(
    get, path = "/events", operation_id = "live_events", tag = "events",
    responses((status = 200, description = "A stream without end", body = LifecycleMessage, content_type = "text/event-stream"))
)]
pub async fn events(State(state): State<ApiState>) -> impl IntoResponse {
    let stream = stream(state.live.listen()).take_until(state.stopping.cancelled_owned());
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
