//! Sends staged records.

use super::{
    codec,
    staging::{Outbox, OutboxError, Shared, StagedBatch},
    storage::OutboxStore,
};
use crate::{
    crash_point::CrashPoint,
    log::{Delivered, LogError, LogWriter},
    progress::{Begun, Progress},
};
use metrics::counter;
use saga_core::{
    message::OutgoingRecord,
    mutant::{self, Mutant},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Staged batches that wait for the log: more than arrive during a broker's restart. A batch that does not fit is left
/// to the sweep.
const WAITING_BATCHES: usize = 1_024;
/// Most records that are sent together, so that the backlog of an outage does not become one request.
const PUBLISH_LIMIT: usize = 1_000;
/// First and longest wait between two attempts while the log is unavailable.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Most rows that one sweep claims.
const SWEEP_LIMIT: usize = 100;

#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// How long a row's lease lasts. It is longer than a delivery may take, because otherwise a slow broker would get
    /// everything twice; and shorter than a customer waits for an order that a crash left behind.
    pub lease: Duration,
    /// Time between two sweeps.
    pub sweep: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            sweep: Duration::from_secs(1),
        }
    }
}

/// A batch whose transaction is committed.
struct Committed {
    id: i64,
    records: Vec<OutgoingRecord>,
}

/// The end of the outbox that publishes records. Clones share everything.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Committed>,
    progress: Progress,
}

impl Relay {
    /// Returns both ends of the outbox, and the future that runs between them, to be spawned. After `shutdown`, the
    /// future ends when the batches handed over before are sent, or when the log is unavailable.
    pub fn new<S: OutboxStore, W: LogWriter>(
        store: S,
        writer: W,
        settings: RelaySettings,
        shutdown: CancellationToken,
    ) -> (Outbox, Relay, impl Future<Output = ()> + Send) {
        let shared = Arc::new(Shared::default());
        let (queue, waiting) = mpsc::channel(WAITING_BATCHES);
        let progress = Progress::default();
        let outbox = Outbox {
            shared: Arc::clone(&shared),
            lease: settings.lease,
        };
        let sender = Sender {
            store,
            writer,
            settings,
            outbox: outbox.clone(),
            progress: progress.clone(),
            shutdown,
        };
        let relay = Relay {
            shared,
            queue,
            progress,
        };
        (outbox, relay, sender.run(waiting))
    }

    /// Sends the records of a batch whose transaction is committed. Never waits.
    pub fn publish_soon(&self, mut staged: StagedBatch) {
        staged.acked.commit();
        let records = std::mem::take(&mut staged.records);
        let count = records.len() as u64;
        self.shared.unsent.fetch_add(count, Ordering::Relaxed);
        let batch = Committed {
            id: staged.id,
            records,
        };
        if self.queue.try_send(batch).is_err() {
            // The batch's row is stored, and the sweep counts it once its lease is over.
            self.shared.unsent.fetch_sub(count, Ordering::Relaxed);
            counter!("saga_outbox_left_to_sweep_total").increment(1);
        }
        self.shared.report();
    }

    /// Returns the backlog; see [`Outbox::backlog`].
    pub fn backlog(&self) -> u64 {
        self.shared.backlog()
    }

    /// Returns the progress of sending, for a health check.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

struct Sender<S, W> {
    store: S,
    writer: W,
    settings: RelaySettings,
    outbox: Outbox,
    progress: Progress,
    shutdown: CancellationToken,
}

impl<S: OutboxStore, W: LogWriter> Sender<S, W> {
    async fn run(self, mut queue: mpsc::Receiver<Committed>) {
        let mut sweep = interval(self.settings.sweep);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeping = None;
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                // The sweep is polled first, so that a constant stream of batches cannot keep it from the rows that a
                // crash left. Its timer restarts when it ends, so that it cannot delay the batches.
                _ = sweep.tick() => {
                    self.sweep(&mut sweeping).await;
                    sweep.reset();
                }
                batch = queue.recv() => match batch {
                    Some(first) => self.send(gather(first, &mut queue)).await,
                    None => break,
                },
            }
        }
        queue.close();
        while let Some(first) = queue.recv().await {
            self.send(gather(first, &mut queue)).await;
        }
        if let Err(error) = self.settle().await {
            warn!(
                error = &error as &dyn std::error::Error,
                "sent rows stay in the outbox"
            );
        }
    }

    /// Sends batches in order until the log has acknowledged them. While the process stops there is one attempt,
    /// because the rows are stored.
    async fn send(&self, batches: Vec<Committed>) {
        let ids: Vec<i64> = batches.iter().map(|batch| batch.id).collect();
        let counts: Vec<usize> = batches.iter().map(|batch| batch.records.len()).collect();
        let records: Vec<_> = batches
            .into_iter()
            .flat_map(|batch| batch.records)
            .collect();
        let claimed = Instant::now();
        let _begun = self.progress.begin();
        if mutant::on(Mutant::EmptyOutboxFirst) {
            self.outbox.shared.acked().extend(ids.iter().copied());
            self.settle().await.ok();
        }
        let mut wait = FIRST_RETRY;
        let mut delivered = vec![None; records.len()];
        loop {
            CrashPoint::OutboxBeforePublish.pass();
            match self.writer.publish_rest(&records, &mut delivered).await {
                Ok(()) => {
                    CrashPoint::OutboxAfterPublish.pass();
                    self.outbox.shared.acked().extend(ids);
                    break;
                }
                // One of the batches has a record that is too large: the others must not wait until a person has
                // removed it.
                Err(LogError::TooLarge(_)) if ids.len() > 1 => {
                    self.send_each(&ids, &counts, &records, &mut delivered)
                        .await;
                    break;
                }
                Err(refused @ (LogError::Refused(_) | LogError::TooLarge(_))) => {
                    refuse(&refused, &ids);
                    break;
                }
                Err(unavailable @ LogError::Unavailable(_)) => warn!(
                    error = &unavailable as &dyn std::error::Error,
                    records = records.len(),
                    retry_in_ms = wait.as_millis() as u64,
                    "the outbox waits for the log"
                ),
            }
            // Once the lease is over, a sweep in this or another process sends the batches; sending them here as well
            // would double the load.
            if self.shutdown.is_cancelled() || claimed.elapsed() > self.settings.lease {
                break;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_RETRY);
        }
        let shared = &self.outbox.shared;
        shared
            .unsent
            .fetch_sub(records.len() as u64, Ordering::Relaxed);
        shared.report();
    }

    /// Sends what is left of batches one by one. The records of the batches follow each other in `records`, and their
    /// deliveries in `delivered`; `counts` has the size of each batch.
    async fn send_each(
        &self,
        ids: &[i64],
        counts: &[usize],
        mut records: &[OutgoingRecord],
        mut delivered: &mut [Option<Delivered>],
    ) {
        for (id, count) in ids.iter().zip(counts) {
            let (own, own_delivered);
            (own, records) = records.split_at(*count);
            (own_delivered, delivered) = delivered.split_at_mut(*count);
            if let Err(error) = self.resend(*id, own, own_delivered).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "batches are left to the sweep"
                );
                return;
            }
        }
    }

    /// Sweeps, and leaves the beginning in `sweeping` if that fails. Until a sweep succeeds, they are one piece of work.
    async fn sweep(&self, sweeping: &mut Option<Begun>) {
        sweeping.get_or_insert_with(|| self.progress.begin());
        match self.try_sweep().await {
            Ok(()) => *sweeping = None,
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "the outbox could not be swept"
            ),
        }
    }

    async fn try_sweep(&self) -> Result<(), OutboxError> {
        self.settle().await?;
        let rows = self.store.claim(SWEEP_LIMIT, self.settings.lease).await?;
        let abandoned = self.store.abandoned().await?;
        let shared = &self.outbox.shared;
        shared.abandoned.store(abandoned, Ordering::Relaxed);
        shared.report();
        if rows.is_empty() {
            return Ok(());
        }
        CrashPoint::OutboxAfterClaim.pass();
        info!(
            batches = rows.len(),
            "sending batches that were left in the outbox"
        );
        counter!("saga_outbox_swept_total").increment(rows.len() as u64);
        for (id, text) in rows {
            match codec::decode(&text) {
                Ok(records) => {
                    self.resend(id, &records, &mut vec![None; records.len()])
                        .await?;
                }
                Err(unreadable) => error!(
                    error = &unreadable as &dyn std::error::Error,
                    outbox.id = id,
                    "a row of the outbox cannot be read; it stays for a person to look at"
                ),
            }
        }
        self.settle().await
    }

    async fn resend(
        &self,
        id: i64,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), OutboxError> {
        match self.writer.publish_rest(records, delivered).await {
            Ok(()) => {
                self.outbox.shared.acked().insert(id);
                Ok(())
            }
            Err(refused @ (LogError::Refused(_) | LogError::TooLarge(_))) => {
                refuse(&refused, &[id]);
                Ok(())
            }
            Err(unavailable @ LogError::Unavailable(_)) => Err(OutboxError::Log(unavailable)),
        }
    }

    /// Removes sent rows that no later batch has removed.
    async fn settle(&self) -> Result<(), OutboxError> {
        while !self.outbox.shared.acked().is_empty() {
            let mut acked = self.outbox.acked_rows();
            CrashPoint::OutboxBeforeRemove.pass();
            self.store.remove(&acked.ids).await?;
            CrashPoint::OutboxAfterRemove.pass();
            acked.commit();
        }
        Ok(())
    }
}

/// Logs refused rows. They stay in the outbox, so that nothing is lost, and the sweep retries them; a person has to
/// look.
fn refuse(refused: &LogError, ids: &[i64]) {
    counter!("saga_outbox_refused_total").increment(ids.len() as u64);
    error!(
        error = refused as &dyn std::error::Error,
        outbox.ids = ?ids,
        "the log refuses records of the outbox; their rows stay until it takes them"
    );
}

/// Adds the batches that wait behind `first`.
fn gather(first: Committed, queue: &mut mpsc::Receiver<Committed>) -> Vec<Committed> {
    let mut count = first.records.len();
    let mut batches = vec![first];
    while count < PUBLISH_LIMIT {
        match queue.try_recv() {
            Ok(batch) => {
                count += batch.records.len();
                batches.push(batch);
            }
            Err(_) => break,
        }
    }
    batches
}
