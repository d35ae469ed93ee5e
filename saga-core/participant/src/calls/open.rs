//! Processes a participant's open intents in stages. Production runs all stages; tests and simulations stop between any
//! two.

use super::{CallResult, Job, PendingReplies, PublishedIntent, caller, settle};
use crate::{
    CallOutcome, RawBatchHandler,
    barrier::RowKey,
    core::{Calls, Core},
    intent::Intent,
    storage::{ClaimLimits, ParticipantStore},
};
use metrics::gauge;
use saga_messaging::{
    consumer::BatchError, crash_point::CrashPoint, linger::Linger, log::LogWriter, progress::Begun,
};
use saga_postgres::silence::limited;
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument, error, warn};

/// Most outcomes that one transaction settles: about as many as a busy gateway returns in a second.
const SETTLE_LIMIT: usize = 256;
/// Most intents whose replies one sweep sends again.
const SWEEP_LIMIT: usize = 512;
/// Shortest and longest time between two sweeps; within these bounds it is the retry delay of an indeterminate call.
const SWEEP_INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// The intents that a sweep has claimed.
#[derive(Debug, Default)]
pub struct SweepResult {
    pub jobs: Vec<Job>,
    pub answered: PendingReplies,
}

/// The half of a participant that processes its external calls.
pub struct OpenCalls<H, S: ParticipantStore = PgPool> {
    core: Arc<Core<H, S>>,
    jobs: mpsc::Receiver<Job>,
    /// Intents whose replies are acknowledged, and that are not closed yet.
    acked: Vec<PublishedIntent>,
    /// The sweep that is under way, since its first try.
    sweeping: Option<Begun>,
}

impl<S: ParticipantStore, H: RawBatchHandler<S::Connection>> OpenCalls<H, S> {
    pub(crate) fn new(core: Arc<Core<H, S>>, jobs: mpsc::Receiver<Job>) -> Self {
        Self {
            core,
            jobs,
            acked: Vec::new(),
            sweeping: None,
        }
    }

    fn calls(&self) -> Option<&Calls<S::Connection>> {
        self.core.calls.as_ref()
    }

    /// Takes a job from the queue, if there is one.
    pub fn next_job(&mut self) -> Option<Job> {
        self.jobs.try_recv().ok()
    }

    /// Makes a call.
    pub async fn call(&self, job: Job) -> CallResult {
        match self.calls() {
            Some(calls) => caller::call(&*calls.outside, calls.limits, job).await,
            None => CallResult {
                job,
                outcome: CallOutcome::Indeterminate {
                    why: "the participant has no external calls".to_owned(),
                },
            },
        }
    }

    /// Settles the outcomes in one transaction. An outcome that cannot be settled even alone is left to a later call.
    pub async fn settle(&mut self, finished: &[CallResult]) -> Result<PendingReplies, BatchError> {
        let closing = self.closing();
        let settled = settle::settle(&self.core, finished, &closing).await?;
        if settled.closed {
            self.acked.clear();
        }
        Ok(settled.answered)
    }

    /// Notes that the replies are acknowledged.
    pub fn acked(&mut self, answered: PendingReplies) {
        self.acked.extend(answered.intents);
    }

    /// Returns the acknowledged intents in key order, without duplicates.
    fn closing(&self) -> Vec<PublishedIntent> {
        let mut closing = self.acked.clone();
        closing.sort_unstable();
        closing.dedup();
        closing
    }

    /// Closes acknowledged intents that no settlement has closed.
    pub async fn close(&mut self) -> Result<(), BatchError> {
        if self.acked.is_empty() {
            return Ok(());
        }
        match settle::close(&self.core, &self.closing()).await {
            Ok(()) => self.acked.clear(),
            Err(BatchError::Data(_)) => self.close_one_by_one().await?,
            Err(error @ BatchError::Retry(_)) => return Err(error),
        }
        Ok(())
    }

    /// Closes the intents one by one, because the row of one cannot be read. That intent's replies are sent again
    /// whenever its lease is over, until a person has looked.
    async fn close_one_by_one(&mut self) -> Result<(), BatchError> {
        while let Some(told) = self.acked.pop() {
            match settle::close(&self.core, std::slice::from_ref(&told)).await {
                Ok(()) => {}
                Err(BatchError::Data(why)) => error!(
                    saga.id = %told.key.saga_id,
                    saga.step = told.key.step,
                    error = %why,
                    "an answered intent cannot be closed"
                ),
                Err(error @ BatchError::Retry(_)) => {
                    self.acked.push(told);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Claims intents whose lease is over: their calls must be made again, or their replies sent again. Pass the jobs
    /// to [`OpenCalls::enqueue`], or call them.
    pub async fn sweep(&mut self) -> Result<SweepResult, BatchError> {
        let Some(calls) = self.calls() else {
            return Ok(SweepResult::default());
        };
        let limits = ClaimLimits {
            calls: calls.room(),
            replies: SWEEP_LIMIT,
            lease: calls.limits.lease,
        };
        let lifetime = calls.limits.key_lifetime;
        let claimed = self.core.store.claim(limits).await?;
        self.report(claimed.open, claimed.expired);
        let (alive, over): (Vec<_>, Vec<_>) = claimed
            .calls
            .into_iter()
            .partition(|(_, intent)| claimed.now < intent.opened_at + lifetime);
        let job = |(key, intent): (RowKey, Intent)| Job::new(key, &intent);
        let mut swept = SweepResult {
            jobs: alive.into_iter().map(job).collect(),
            answered: PendingReplies::default(),
        };
        let over: Vec<CallResult> = over
            .into_iter()
            .map(|found| CallResult {
                job: job(found),
                outcome: CallOutcome::Indeterminate {
                    why: "its key may be forgotten outside".to_owned(),
                },
            })
            .collect();
        if !over.is_empty() {
            swept.answered = self.settle(&over).await?;
        }
        for (key, intent) in claimed.replies {
            let replies = intent.replies.iter().flatten();
            let records = replies.map(|reply| reply.encode(&self.core.config.source));
            swept.answered.records.extend(records);
            swept
                .answered
                .intents
                .push(PublishedIntent::of(&key, &intent));
        }
        Ok(swept)
    }

    fn report(&self, open: i64, expired: i64) {
        let name = || self.core.config.name.clone();
        gauge!("saga_open_intents", "participant" => name()).set(open as f64);
        gauge!("saga_expired_intents", "participant" => name()).set(expired as f64);
    }

    /// Queues jobs for [`OpenCalls::run`].
    pub fn enqueue(&self, jobs: Vec<Job>) {
        if let Some(calls) = self.calls() {
            calls.enqueue(jobs);
        }
    }

    /// Runs all stages until `shutdown`; then waits for the calls in flight and settles them.
    pub async fn run<W: LogWriter>(mut self, writer: W, shutdown: CancellationToken) {
        let Some(calls) = self.calls() else { return };
        let (outside, limits) = (Arc::clone(&calls.outside), calls.limits);
        let (finish, mut finished) = mpsc::channel(SETTLE_LIMIT);
        let jobs = std::mem::replace(&mut self.jobs, mpsc::channel(1).1);
        let calling = caller::run(outside, limits, jobs, finish, shutdown.clone());
        // The caller ends with this future: if that is dropped, calls end just as if the process had died.
        let caller = AbortOnDropHandle::new(tokio::spawn(calling.in_current_span()));
        let (least, most) = SWEEP_INTERVAL;
        let mut tick = tokio::time::interval(limits.retry_delay.clamp(least, most));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut gather = Linger::default();
        loop {
            let asked = Instant::now();
            tokio::select! {
                biased;
                // The sweep is polled first, so that outcomes cannot starve it. Its timer restarts when it ends, so
                // that it cannot starve the outcomes.
                _ = tick.tick(), if !shutdown.is_cancelled() => {
                    self.turn(&writer).await;
                    tick.reset();
                }
                count = finished.recv_many(&mut batch, SETTLE_LIMIT) => {
                    if count == 0 {
                        break;
                    }
                    if let Some(until) = gather.until(asked, count, SETTLE_LIMIT) {
                        sleep_until(until).await;
                        while batch.len() < SETTLE_LIMIT && let Ok(more) = finished.try_recv() {
                            batch.push(more);
                        }
                    }
                    gather.hand_out(batch.len());
                    self.settle_and_publish(&batch, &writer, &shutdown).await;
                    batch.clear();
                }
            }
        }
        if let Err(error) = limited(self.close()).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "answered intents stay open, they are answered once more after the next start"
            );
        }
        if let Err(error) = caller.await {
            error!(
                error = &error as &dyn std::error::Error,
                "the task that makes external calls failed"
            );
        }
    }

    /// Settles the outcomes and publishes the replies. While the database is unavailable, the outcomes stay in memory
    /// and are retried until `shutdown`.
    async fn settle_and_publish<W: LogWriter>(
        &mut self,
        batch: &[CallResult],
        writer: &W,
        shutdown: &CancellationToken,
    ) {
        let _begun = self.core.config.progress.begin();
        let mut wait = FIRST_RETRY;
        loop {
            let error = match limited(self.settle(batch)).await {
                Ok(answered) => return self.publish(answered, writer).await,
                Err(error) => error,
            };
            warn!(
                error = &error as &dyn std::error::Error,
                outcomes = batch.len(),
                "external calls cannot be settled now, trying again"
            );
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(LONGEST_RETRY);
        }
    }

    async fn publish<W: LogWriter>(&mut self, answered: PendingReplies, writer: &W) {
        if answered.records.is_empty() {
            self.acked(answered);
            return;
        }
        match writer.publish(&answered.records).await {
            Ok(_) => {
                CrashPoint::CallAfterPublish.pass();
                self.acked(answered);
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                records = answered.records.len(),
                "replies of external calls were not acknowledged, the sweep sends them again"
            ),
        }
    }

    /// Closes what was answered, and sweeps.
    async fn turn<W: LogWriter>(&mut self, writer: &W) {
        let progress = &self.core.config.progress;
        self.sweeping.get_or_insert_with(|| progress.begin());
        let swept = match limited(self.close()).await {
            Ok(()) => limited(self.sweep()).await,
            Err(error) => Err(error),
        };
        match swept {
            Ok(swept) => {
                self.enqueue(swept.jobs);
                self.publish(swept.answered, writer).await;
                self.sweeping = None;
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "open external calls cannot be swept now, trying again"
            ),
        }
    }
}
