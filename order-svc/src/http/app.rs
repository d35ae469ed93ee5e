//! The state of the HTTP API.

use super::order_request::RequestRules;
use crate::{
    intake::{
        batch::{IntakeError, Job, Outcome},
        upkeep::Partitions,
        waiting::Waiters,
    },
    saga_log::SagaLog,
};
use saga_messaging::{
    backpressure::Backpressure,
    batcher::Batcher,
    outbox::{Outbox, Relay},
};
use saga_postgres::clock::Clock;
use sqlx::PgPool;
use std::sync::Arc;

/// The state that the endpoints share.
pub struct App {
    /// The pool with fixed plans, for single orders and all writes.
    pub pool: PgPool,
    /// The pool with the planner's default settings, for listings.
    pub reporting: PgPool,
    pub intake: Batcher<Job, Outcome, IntakeError>,
    pub outbox: Outbox,
    pub relay: Relay,
    pub partitions: Partitions,
    pub pressure: Backpressure,
    pub waiters: Arc<Waiters>,
    /// The clock of ids and of orders' times.
    pub clock: &'static Clock,
    pub saga_log: SagaLog,
    pub rules: RequestRules,
}
