//! The open intents of a participant, stage by stage. Production runs all stages; tests and simulations stop between
//! any two.

use super::{caller, settle};
use crate::{
    crash_point::CrashPoint,
    gather::Gather,
    log::LogWriter,
    participant::{
        BatchHandler, CallOutcome,
        barrier::RowKey,
        core::{Calls, Core},
        intent::{Intent, IntentState},
        storage::{ClaimLimits, ParticipantStore},
    },
    rule::BatchError,
};
use metrics::gauge;
use saga_core::message::{Command, Direction, OutgoingRecord};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument, error, warn};

/// Outcomes that one transaction settles at most: what a second of a busy gateway brings.
const SETTLE_LIMIT: usize = 256;
/// Replies that one sweep sends again at most.
const SWEEP_LIMIT: usize = 512;
/// Bounds of the time between two sweeps; between them it is the delay of an indeterminate call.
const SWEEP_INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// A call to make.
#[derive(Clone, Debug)]
pub struct Job {
    pub key: RowKey,
    pub generation: i32,
    pub command: Command,
}

impl Job {
    pub(in crate::participant) fn new(key: RowKey, intent: &Intent) -> Self {
        Self {
            key,
            generation: intent.generation,
            command: intent.command.clone(),
        }
    }

    /// `<saga>/<step>/<direction>/<generation>`.
    pub fn idempotency_key(&self) -> String {
        let Self {
            key, generation, ..
        } = self;
        format!(
            "{}/{}/{}/{generation}",
            key.saga_id, key.step, key.direction
        )
    }

    pub(in crate::participant) fn identity(&self) -> (RowKey, i32) {
        (self.key.clone(), self.generation)
    }
}

/// A call that came back.
#[derive(Clone, Debug)]
pub struct Finished {
    pub job: Job,
    pub outcome: CallOutcome,
}

/// Replies to publish; once they are acknowledged, their intents may be closed.
#[derive(Debug, Default)]
#[must_use = "publish the records, then hand it to OpenCalls::acked"]
pub struct Answered {
    pub records: Vec<OutgoingRecord>,
    pub(super) intents: Vec<Told>,
}

/// Whose replies were sent: an intent as it stood then. A call that was opened again since, and settled, has others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub key: RowKey,
    pub generation: i32,
    /// Settled then, and so it stays.
    pub is_final: bool,
}

impl Told {
    pub(super) fn of(key: &RowKey, intent: &Intent) -> Self {
        Self {
            key: key.clone(),
            generation: intent.generation,
            is_final: intent.state == IntentState::Settled,
        }
    }
}

/// What a sweep took over.
#[derive(Debug, Default)]
pub struct Swept {
    pub jobs: Vec<Job>,
    pub answered: Answered,
}

/// The half of a participant that looks after its external calls.
pub struct OpenCalls<H, S: ParticipantStore = PgPool> {
    pub(super) core: Arc<Core<H, S>>,
    jobs: mpsc::Receiver<Job>,
    /// Acknowledged and not closed yet.
    pub(super) acked: Vec<Told>,
}

impl<S: ParticipantStore, H: BatchHandler<S::Connection>> OpenCalls<H, S> {
    pub(in crate::participant) fn new(core: Arc<Core<H, S>>, jobs: mpsc::Receiver<Job>) -> Self {
        Self {
            core,
            jobs,
            acked: Vec::new(),
        }
    }

    pub(super) fn calls(&self) -> Option<&Calls<S::Connection>> {
        self.core.calls.as_ref()
    }

    /// Takes a job from memory, if there is one.
    pub fn next_job(&mut self) -> Option<Job> {
        self.jobs.try_recv().ok()
    }

    /// Makes a call.
    pub async fn call(&self, job: Job) -> Finished {
        match self.calls() {
            Some(calls) => caller::call(&*calls.outside, calls.limits, job).await,
            None => Finished {
                job,
                outcome: CallOutcome::Indeterminate {
                    why: "the participant has no external calls".to_owned(),
                },
            },
        }
    }

    /// Settles what came back in one transaction; what cannot be settled alone is called again later.
    pub async fn settle(&mut self, finished: &[Finished]) -> Result<Answered, BatchError> {
        settle::settle(self, finished).await
    }

    /// The replies stand in the log.
    pub fn acked(&mut self, answered: Answered) {
        self.acked.extend(answered.intents);
    }

    /// What is acknowledged, in key order; once, however often it was.
    pub(super) fn closing(&self) -> Vec<Told> {
        let mut closing = self.acked.clone();
        closing.sort_unstable();
        closing.dedup();
        closing
    }

    /// Closes what was acknowledged, if no settlement did.
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

    /// One of the rows cannot be read: the others are closed without it. It is answered once more whenever its lease is
    /// over, until a person has looked.
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

    /// Takes over intents whose lease is over: calls to make again, replies to send again. The jobs are to be given to
    /// [`OpenCalls::enqueue`], or called.
    pub async fn sweep(&mut self) -> Result<Swept, BatchError> {
        let Some(calls) = self.calls() else {
            return Ok(Swept::default());
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
        let mut swept = Swept {
            jobs: alive.into_iter().map(job).collect(),
            answered: Answered::default(),
        };
        let over: Vec<Finished> = over
            .into_iter()
            .map(|found| Finished {
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
            swept.answered.intents.push(Told::of(&key, &intent));
        }
        Ok(swept)
    }

    fn report(&self, open: i64, expired: i64) {
        let name = || self.core.config.name.clone();
        gauge!("saga_open_intents", "participant" => name()).set(open as f64);
        gauge!("saga_expired_intents", "participant" => name()).set(expired as f64);
    }

    /// Leaves jobs to [`OpenCalls::run`].
    pub fn enqueue(&self, jobs: Vec<Job>) {
        if let Some(calls) = self.calls() {
            calls.enqueue(jobs);
        }
    }

    /// All stages, until `shutdown`; then the calls under way are waited for and settled.
    pub async fn run<W: LogWriter>(mut self, writer: W, shutdown: CancellationToken) {
        let Some(calls) = self.calls() else { return };
        let (outside, limits) = (Arc::clone(&calls.outside), calls.limits);
        let (finish, mut finished) = mpsc::channel(SETTLE_LIMIT);
        let jobs = std::mem::replace(&mut self.jobs, mpsc::channel(1).1);
        let calling = caller::run(outside, limits, jobs, finish, shutdown.clone());
        // Ends with this future, should that be dropped: as if the process had died.
        let caller = AbortOnDropHandle::new(tokio::spawn(calling.in_current_span()));
        let (least, most) = SWEEP_INTERVAL;
        let mut tick = tokio::time::interval(limits.retry_delay.clamp(least, most));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut gather = Gather::new();
        loop {
            let asked = Instant::now();
            tokio::select! {
                biased;
                // First, so that outcomes cannot starve it; and the time runs from its end, so that it cannot starve them.
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
        if let Err(error) = self.close().await {
            warn!(
                error = &error as &dyn std::error::Error,
                "answered intents stay open, they are answered once more after the next start"
            );
        }
        if let Err(error) = caller.await {
            error!(error = &error as &dyn std::error::Error, "the caller broke");
        }
    }

    /// The database may be away for as long as it likes; what is in memory then is settled when it is back.
    async fn settle_and_publish<W: LogWriter>(
        &mut self,
        batch: &[Finished],
        writer: &W,
        shutdown: &CancellationToken,
    ) {
        let mut wait = FIRST_RETRY;
        loop {
            let error = match self.settle(batch).await {
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

    async fn publish<W: LogWriter>(&mut self, answered: Answered, writer: &W) {
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

    async fn turn<W: LogWriter>(&mut self, writer: &W) {
        let swept = match self.close().await {
            Ok(()) => self.sweep().await,
            Err(error) => Err(error),
        };
        match swept {
            Ok(swept) => {
                self.enqueue(swept.jobs);
                self.publish(swept.answered, writer).await;
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "open external calls cannot be swept now, trying again"
            ),
        }
    }
}

/// The intent's row of a finished job.
impl Finished {
    pub(super) fn is_for(&self, intent: &Intent) -> bool {
        intent.generation == self.job.generation && intent.state == IntentState::Open
    }

    pub(super) fn direction(&self) -> Direction {
        self.job.key.direction
    }
}
