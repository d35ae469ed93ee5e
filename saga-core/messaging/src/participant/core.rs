//! What the frame and the settlement share.

use super::{
    BatchHandler, CallLimits, ExternalCalls, ParticipantConfig,
    barrier::RowKey,
    calls::Job,
    guard::{FoldError, HandlerFault},
    labels::CommandLabels,
    storage::ParticipantStore,
};
use crate::rule::BatchError;
use metrics::counter;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

/// For the outside to get on with its calls; then the batch is tried again, with the group kept.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// A database that answers within this is not what a handler waited for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The calls of earlier commands are not through yet.
#[derive(Debug, Error)]
#[error("external calls are behind, so no more commands are picked up")]
struct OutsideBehind;

pub(super) struct Core<H, S: ParticipantStore> {
    pub config: ParticipantConfig,
    pub handler: Arc<H>,
    pub labels: CommandLabels,
    pub store: S,
    pub calls: Option<Calls<S::Connection>>,
}

/// The way from the batch's transaction to the outside.
pub(super) struct Calls<C> {
    pub outside: Arc<dyn ExternalCalls<C>>,
    pub limits: CallLimits,
    queue: mpsc::Sender<Job>,
    /// Queued, or being called, or being settled here: the sweep leaves them alone.
    held: Mutex<HashSet<(RowKey, i32)>>,
}

impl<C: Send + 'static> Calls<C> {
    pub fn new(outside: Arc<dyn ExternalCalls<C>>) -> (Self, mpsc::Receiver<Job>) {
        let limits = outside.limits();
        let (queue, jobs) = mpsc::channel(limits.waiting());
        let calls = Self {
            limits,
            outside,
            queue,
            held: Mutex::default(),
        };
        (calls, jobs)
    }

    fn held(&self) -> MutexGuard<'_, HashSet<(RowKey, i32)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many commands could be called soon. What is not picked up is nobody's lost attempt.
    pub async fn room_for(&self, commands: usize) -> Result<(), BatchError> {
        let wanted = commands.min(self.queue.max_capacity());
        match timeout(ROOM_PATIENCE, self.queue.reserve_many(wanted)).await {
            // Nobody else takes much of it; what does not fit after all is left to the sweep. So it is if the caller is
            // gone.
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_) => Err(BatchError::Retry(Box::new(OutsideBehind))),
        }
    }

    /// Jobs that still fit into memory.
    pub fn room(&self) -> usize {
        self.queue.capacity()
    }

    /// To be called soon, if nobody here is at it already. What does not fit is swept when its lease is over.
    pub fn enqueue(&self, jobs: Vec<Job>) {
        for job in jobs {
            if !self.held().insert(job.identity()) {
                continue;
            }
            if let Err(error) = self.queue.try_send(job) {
                let job = error.into_inner();
                self.held().remove(&job.identity());
                debug!(
                    saga.id = %job.command.saga_id,
                    saga.step = job.command.step,
                    correlation.id = job.command.trace.correlation_id,
                    "no room for an external call, leaving it to the sweep"
                );
            }
        }
    }

    pub fn let_go<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) {
        let mut held = self.held();
        for job in jobs {
            held.remove(&job.identity());
        }
    }
}

impl<S: ParticipantStore, H: BatchHandler<S::Connection>> Core<H, S> {
    /// What the rule should do about it. A handler that was over time is only to blame if the database answers.
    pub async fn judge(&self, error: FoldError) -> BatchError {
        match error {
            FoldError::Batch(error) => {
                self.config.partition_alarm.look_at(&error);
                error
            }
            FoldError::Handler(fault @ HandlerFault::OverTime { .. }) => {
                match timeout(PROBE_TIMEOUT, self.store.now()).await {
                    Ok(Ok(_)) => BatchError::Data(Box::new(fault)),
                    Ok(Err(_)) | Err(_) => BatchError::Retry(Box::new(fault)),
                }
            }
            FoldError::Handler(fault) => BatchError::Data(Box::new(fault)),
        }
    }

    /// `outcome` of a command, for people and dashboards.
    pub fn count(&self, command_type: &str, outcome: &'static str) {
        if matches!(outcome, "success" | "failure" | "called_outside") {
            self.labels.learn(command_type);
        }
        counter!(
            "saga_commands_total",
            "participant" => self.config.name.clone(),
            "command" => self.labels.of(command_type),
            "outcome" => outcome
        )
        .increment(1);
    }
}
