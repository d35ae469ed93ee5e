//! The orchestrator's HTTP API.
//!
//! One file an endpoint or a family of them; shapes in [`model`], errors in [`error`]. What a page shows comes from the
//! same functions as the API.

pub mod action;
pub mod dead_letters;
pub mod definitions;
pub mod error;
pub mod intake;
pub mod live;
pub mod model;
pub mod overview;
pub mod page;
pub mod sagas;
pub mod view;

use crate::{
    dead_letters::Desk,
    engine::{shared::Shared, timers::offsets::Offsets},
    store::PgStore,
};
use axum::middleware::from_fn_with_state;
use intake::StartBatcher;
use live::LiveEvents;
use overview::OverviewCache;
use saga_messaging::{kafka::KafkaWriter, outbox::Outbox};
use saga_service::http::{AccessGuard, require_token};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What every handler needs. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub store: PgStore,
    pub shared: Arc<Shared>,
    pub offsets: Arc<Offsets>,
    pub writer: KafkaWriter,
    pub outbox: Outbox,
    pub starts: StartBatcher,
    pub live: LiveEvents,
    pub overview: OverviewCache,
    pub dead_letters: Desk,
    /// The orchestrator's own consumer group.
    pub group: &'static str,
    /// Starts and inputs that may wait before `POST /sagas` pushes back.
    pub max_backlog: u64,
    /// Ends the streams that would otherwise keep the server from draining.
    pub stopping: CancellationToken,
}

/// The whole API. What changes something asks `guard` first; what only looks passes it.
pub fn routes(state: ApiState, guard: AccessGuard) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(intake::start))
        .routes(routes!(sagas::list))
        .routes(routes!(sagas::get))
        .routes(routes!(sagas::events))
        .routes(routes!(sagas::actions))
        .routes(routes!(action::retry))
        .routes(routes!(action::cancel))
        .routes(routes!(action::compensate))
        .routes(routes!(action::complete))
        .routes(routes!(action::skip))
        .routes(routes!(action::abandon))
        .routes(routes!(definitions::list))
        .routes(routes!(definitions::get))
        .routes(routes!(live::events))
        .routes(routes!(overview::get))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::decide::replay))
        .routes(routes!(dead_letters::decide::discard))
        .with_state(state)
        .layer(from_fn_with_state(guard, require_token))
}
