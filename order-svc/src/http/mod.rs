//! The HTTP API: one file an endpoint, with its errors and its tests.

pub mod answer;
pub mod cancel_order;
pub mod cursor;
pub mod get_order;
pub mod headers;
pub mod list_orders;
pub mod order_events;
pub mod place_order;

use crate::{
    domain::request::RequestRules,
    intake::{
        batch::{IntakeError, Job, Outcome},
        upkeep::Partitions,
        waiting::Waiters,
    },
    saga_log::SagaLog,
};
use saga_messaging::{
    batcher::Batcher,
    outbox::{Outbox, Relay},
    pressure::Pressure,
};
use sqlx::PgPool;
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What the endpoints share.
pub struct App {
    /// Certain plans, for single orders and everything that writes.
    pub pool: PgPool,
    /// Free plans, for listings.
    pub reporting: PgPool,
    pub intake: Batcher<Job, Outcome, IntakeError>,
    pub outbox: Outbox,
    pub relay: Relay,
    pub partitions: Partitions,
    pub pressure: Pressure,
    pub waiters: Arc<Waiters>,
    pub saga_log: SagaLog,
    pub rules: RequestRules,
}

/// All endpoints with their OpenAPI.
pub fn router(app: Arc<App>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(place_order::place_order, list_orders::list_orders))
        .routes(routes!(get_order::get_order))
        .routes(routes!(order_events::order_events))
        .routes(routes!(cancel_order::cancel_order))
        .with_state(app)
}
