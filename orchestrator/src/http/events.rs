//! `GET /events`: every state change of every saga, as it happens.

use super::{ApiState, live::LiveEvent};
use axum::{
    extract::State,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt};
use saga_core::instance::LifecycleMessage;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

/// Time between two keep-alive comments on an idle stream, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Streams lifecycle events from now on, as server-sent events. The data is the record's value. A client that falls
/// behind gets an event `lagged` with the number of events that it missed.
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
