//! State that the command processor and the settlement of external calls share.

use super::{
    CallLimits, ParticipantConfig, RawBatchHandler, RawCalls,
    barrier::RowKey,
    calls::Job,
    guard::{FoldError, HandlerFault},
    labels::CommandLabels,
    storage::ParticipantStore,
};
use metrics::counter;
use saga_messaging::consumer::BatchError;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

/// External calls have this long to make room. Then the batch is retried, and the consumer keeps its place in the
/// group.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// A handler is blamed for a timeout only if the database answers within this time.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Core<H, S: ParticipantStore> {
    pub config: ParticipantConfig,
    pub handler: Arc<H>,
    pub labels: CommandLabels,
    pub store: S,
    pub calls: Option<Calls<S::Connection>>,
}

/// The queue that leads from the batch's transaction to the external calls.
pub(super) struct Calls<C> {
    pub outside: Arc<dyn RawCalls<C>>,
    pub limits: CallLimits,
    queue: mpsc::Sender<Job>,
    /// Jobs that are queued, called or settled in this process. [`Calls::enqueue`] skips them when the sweep claims
    /// them.
    held: Mutex<HashSet<(RowKey, i32)>>,
}

impl<C: Send + 'static> Calls<C> {
    pub fn new(outside: Arc<dyn RawCalls<C>>) -> (Self, mpsc::Receiver<Job>) {
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

    /// Waits until the queue has room for this many jobs. A command that is not picked up costs no attempt.
    pub async fn room_for(&self, commands: usize) -> Result<(), BatchError> {
        let wanted = commands.min(self.queue.max_capacity());
        match timeout(ROOM_PATIENCE, self.queue.reserve_many(wanted)).await {
            // The reserved room is released at once. Little else fills the queue, and a job that does not fit after all
            // is left to the sweep. All jobs are left to the sweep if the caller has ended.
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_) => Err(BatchError::backpressure(
                "external calls are behind, so no more commands are picked up",
            )),
        }
    }

    /// Returns the number of jobs that still fit into the queue.
    pub fn room(&self) -> usize {
        self.queue.capacity()
    }

    /// Queues jobs to be called soon, except those that this process holds already. A job that does not fit is left to
    /// the sweep, which claims it when its lease is over.
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

impl<S: ParticipantStore, H: RawBatchHandler<S::Connection>> Core<H, S> {
    /// Converts the error into the consumer's decision. A handler that exceeded its time is blamed only if the database
    /// answers.
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

    /// Counts a command by `outcome`. Its type becomes a metric label once a handler has answered it.
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
