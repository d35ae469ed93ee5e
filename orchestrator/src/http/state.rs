//! The state of the API.

use super::{live::LiveEvents, model::Overview, start_batcher::StartBatcher};
use crate::{
    dead_letters::DeadLetters,
    engine::{shared::Shared, timers::offsets::OffsetReader},
    store::PgStore,
};
use saga_messaging::{kafka::KafkaWriter, outbox::Outbox};
use std::sync::Arc;
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

/// The state that every handler needs. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub store: PgStore,
    pub shared: Arc<Shared>,
    pub offsets: Arc<OffsetReader>,
    pub writer: KafkaWriter,
    pub outbox: Outbox,
    pub starts: StartBatcher,
    pub live: LiveEvents,
    pub overview: OverviewCache,
    pub dead_letters: DeadLetters,
    /// The orchestrator's own consumer group.
    pub group: &'static str,
    /// The number of waiting starts and inputs above which `POST /sagas` pushes back.
    pub max_backlog: u64,
    /// Ends the event streams, which would otherwise keep the server from draining.
    pub stopping: CancellationToken,
}

/// The last overview. Clones share it.
#[derive(Clone, Default)]
pub struct OverviewCache {
    pub(super) last: Arc<Mutex<Option<(Instant, Overview)>>>,
}
