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
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

/// Jobs that wait for their call in memory: seconds of work for most gateways. What does not fit is left to the sweep of
/// whoever has room.
pub(super) const JOB_LIMIT: usize = 4_096;
/// A database that answers within this is not what a handler waited for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

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
        let (queue, jobs) = mpsc::channel(JOB_LIMIT);
        let calls = Self {
            limits: outside.limits(),
            outside,
            queue,
            held: Mutex::default(),
        };
        (calls, jobs)
    }

    fn held(&self) -> MutexGuard<'_, HashSet<(RowKey, i32)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
