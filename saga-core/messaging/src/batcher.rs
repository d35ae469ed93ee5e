//! Group commit: items that arrive together share one transaction.
//!
//! ```text
//!  submit ─┐
//!  submit ─┼─▶ bounded queue ─▶ gather ─▶ run(Vec<T>) ─▶ each its own answer
//!  submit ─┘                    a moment   one at a time, or a few
//! ```
//!
//! At low and middle load, a database's cost is transactions, not rows. A batch that finds few items in the queue
//! therefore waits a moment, but only if the gaps between recent arrivals let it expect more items in that moment. On
//! an idle system, the first request is handled at once.

use crate::progress::Progress;
use futures_util::FutureExt;
use metrics::{counter, histogram};
use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

/// Limits of one batcher.
#[derive(Clone, Copy, Debug)]
pub struct BatcherSettings {
    /// Most items in a batch.
    pub batch_limit: usize,
    /// Most items that wait; another item is refused with [`BatcherError::Full`].
    pub queue_limit: usize,
    /// Longest wait for more items.
    pub window: Duration,
    /// Most batches that run at once. With more than one, later items may be finished first.
    pub in_flight: usize,
}

impl Default for BatcherSettings {
    fn default() -> Self {
        Self {
            batch_limit: 200,
            queue_limit: 2_000,
            window: Duration::from_millis(3),
            in_flight: 1,
        }
    }
}

/// The reason why an item has no result of its own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatcherError<E> {
    /// The queue is full: the caller should push back.
    #[error("too many are waiting")]
    Full,
    /// The process is stopping and takes no more items.
    #[error("stopping")]
    Closed,
    /// The batch ended without a result for this item, because it panicked. It is unknown whether the item's work was
    /// done.
    #[error("the batch broke off")]
    BrokenOff,
    /// The batch failed.
    #[error(transparent)]
    Failed(E),
}

type Answer<R, E> = Result<R, BatcherError<E>>;

struct Waiting<T, R, E> {
    item: T,
    answer: oneshot::Sender<Answer<R, E>>,
}

/// Collects items into batches. Clones share the queue.
pub struct Batcher<T, R, E> {
    queue: mpsc::Sender<Waiting<T, R, E>>,
    closing: CancellationToken,
    gathering: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
    progress: Progress,
}

impl<T, R, E> Clone for Batcher<T, R, E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            closing: self.closing.clone(),
            gathering: Arc::clone(&self.gathering),
            progress: self.progress.clone(),
        }
    }
}

impl<T, R, E> Batcher<T, R, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Clone + Send + 'static,
{
    /// Starts a batcher. `run` gets the items in the order of submission and returns one result for each, in that
    /// order. `name` labels the metrics.
    pub fn start<F, Fut>(name: &'static str, settings: BatcherSettings, run: F) -> Self
    where
        F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, E>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(settings.queue_limit.max(1));
        let closing = CancellationToken::new();
        let progress = Progress::default();
        let gathering = tokio::spawn(gather(
            name,
            settings,
            Arc::new(run),
            waiting,
            closing.clone(),
            progress.clone(),
        ));
        Self {
            queue,
            closing,
            gathering: Arc::new(tokio::sync::Mutex::new(Some(gathering))),
            progress,
        }
    }

    /// Submits the item and waits for its batch. Dropping the future does not take the item back.
    pub async fn submit(&self, item: T) -> Answer<R, E> {
        if self.closing.is_cancelled() {
            return Err(BatcherError::Closed);
        }
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send(Waiting { item, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(BatcherError::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(BatcherError::Closed),
        }
        answered.await.unwrap_or(Err(BatcherError::BrokenOff))
    }

    /// Returns the number of items that wait for a batch.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Returns the progress of running batches, for `/health`.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Refuses further items and waits until every submitted item has its result.
    pub async fn drain(&self) {
        self.closing.cancel();
        let mut gathering = self.gathering.lock().await;
        if let Some(task) = gathering.take()
            && let Err(broken) = task.await
        {
            error!(
                error = &broken as &dyn std::error::Error,
                "a batcher's task failed"
            );
        }
    }
}

async fn gather<T, R, E, F, Fut>(
    name: &'static str,
    settings: BatcherSettings,
    run: Arc<F>,
    mut queue: mpsc::Receiver<Waiting<T, R, E>>,
    closing: CancellationToken,
    progress: Progress,
) where
    T: Send + 'static,
    R: Send + 'static,
    E: Clone + Send + 'static,
    F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<R>, E>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(settings.in_flight.max(1)));
    let running = TaskTracker::new();
    let mut pace = Pace::new(settings.window);
    // The permit is acquired before a batch is collected, so that more items can arrive while earlier batches run.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let first = tokio::select! {
            biased;
            first = queue.recv() => first,
            () = closing.cancelled() => {
                queue.close();
                queue.recv().await
            }
        };
        let Some(first) = first else { break };
        let mut batch = vec![first];
        let filled = fill(&mut batch, &mut queue, settings, &pace, &closing).await;
        pace.gathered(batch.len(), filled == Filled::InVain);
        histogram!("saga_batcher_batch_items", "batcher" => name).record(batch.len() as f64);
        let run = Arc::clone(&run);
        let begun = progress.begin();
        running.spawn(async move {
            answer(name, batch, |items| run(items)).await;
            drop((permit, begun));
        });
    }
    running.close();
    running.wait().await;
}

#[derive(PartialEq, Eq)]
enum Filled {
    AsExpected,
    /// The batch waited for more items, and none came.
    InVain,
}

/// Adds the items in the queue, and those that arrive within the window if any are expected.
async fn fill<T, R, E>(
    batch: &mut Vec<Waiting<T, R, E>>,
    queue: &mut mpsc::Receiver<Waiting<T, R, E>>,
    settings: BatcherSettings,
    pace: &Pace,
    closing: &CancellationToken,
) -> Filled {
    let deadline = Instant::now() + settings.window;
    while batch.len() < settings.batch_limit {
        match queue.try_recv() {
            Ok(next) => batch.push(next),
            Err(_) if closing.is_cancelled() || !pace.expects_company() => break,
            Err(_) => match timeout_at(deadline, queue.recv()).await {
                Ok(Some(next)) => batch.push(next),
                Err(_) if batch.len() == 1 => return Filled::InVain,
                Ok(None) | Err(_) => break,
            },
        }
    }
    Filled::AsExpected
}

async fn answer<T, R, E, Fut>(
    name: &'static str,
    batch: Vec<Waiting<T, R, E>>,
    run: impl FnOnce(Vec<T>) -> Fut,
) where
    E: Clone,
    Fut: Future<Output = Result<Vec<R>, E>>,
{
    let mut answers = VecDeque::with_capacity(batch.len());
    let mut items = Vec::with_capacity(batch.len());
    for waiting in batch {
        items.push(waiting.item);
        answers.push_back(waiting.answer);
    }
    // A caller that has been dropped needs no result.
    let tell = |to: oneshot::Sender<Answer<R, E>>, what| drop(to.send(what));
    // A panic must not lose the permit, or the results of later batches.
    match AssertUnwindSafe(run(items)).catch_unwind().await {
        Ok(Ok(results)) => {
            for result in results {
                if let Some(to) = answers.pop_front() {
                    tell(to, Ok(result));
                }
            }
            if !answers.is_empty() {
                error!(
                    batcher = name,
                    missing = answers.len(),
                    "a batch left items unanswered"
                );
            }
        }
        Ok(Err(failure)) => {
            counter!("saga_batcher_failures_total", "batcher" => name).increment(1);
            for to in answers.drain(..) {
                tell(to, Err(BatcherError::Failed(failure.clone())));
            }
        }
        Err(_) => {
            counter!("saga_batcher_failures_total", "batcher" => name).increment(1);
            error!(batcher = name, items = answers.len(), "a batch panicked");
        }
    }
    for to in answers {
        tell(to, Err(BatcherError::BrokenOff));
    }
}

/// The recent average time between two arrivals.
struct Pace {
    window: Duration,
    gap: Duration,
    last: Instant,
}

impl Pace {
    /// Longest gap that counts, in windows: about ten quick arrivals make up for one long silence.
    const SILENCE: u32 = 16;

    fn new(window: Duration) -> Self {
        Self {
            window,
            gap: window * Self::SILENCE,
            last: Instant::now(),
        }
    }

    /// Notes that `count` items have arrived since the last call.
    fn gathered(&mut self, count: usize, waited_in_vain: bool) {
        let now = Instant::now();
        let elapsed = now - self.last;
        self.last = now;
        let silence = self.window * Self::SILENCE;
        let gap = elapsed / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        self.gap = if waited_in_vain || gap > silence {
            // A single caller who waits for each result submits quickly, but its items never arrive together.
            silence
        } else {
            (self.gap * 3 + gap) / 4
        };
    }

    fn expects_company(&self) -> bool {
        self.gap < self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Doubles its items; fails on 7 and panics on 13. Each batch needs a permit of the gate.
    struct Doubler {
        batcher: Batcher<u32, u32, String>,
        sizes: Arc<Mutex<Vec<usize>>>,
        gate: Arc<Semaphore>,
    }

    fn doubler(settings: BatcherSettings) -> Doubler {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let (seen, pass) = (Arc::clone(&sizes), Arc::clone(&gate));
        let batcher = Batcher::start("test", settings, move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.len());
            let pass = Arc::clone(&pass);
            async move {
                pass.acquire().await.unwrap().forget();
                assert!(!items.contains(&13), "unlucky");
                if items.contains(&7) {
                    return Err("seven".to_owned());
                }
                Ok(items.into_iter().map(|item| item * 2).collect())
            }
        });
        Doubler {
            batcher,
            sizes,
            gate,
        }
    }

    fn open(settings: BatcherSettings) -> Doubler {
        let doubler = doubler(settings);
        doubler.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        doubler
    }

    impl Doubler {
        /// Submits the items in order. All are in the queue when this returns; the results come later.
        async fn submit_all(
            &self,
            items: impl IntoIterator<Item = u32>,
        ) -> Vec<JoinHandle<Answer<u32, String>>> {
            let mut answers = Vec::new();
            for item in items {
                let batcher = self.batcher.clone();
                answers.push(tokio::spawn(async move { batcher.submit(item).await }));
                tokio::task::yield_now().await;
            }
            answers
        }

        fn sizes(&self) -> Vec<usize> {
            self.sizes.lock().unwrap().clone()
        }

        async fn until_running(&self, batches: usize) {
            while self.sizes.lock().unwrap().len() < batches {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn all(answers: Vec<JoinHandle<Answer<u32, String>>>) -> Vec<Answer<u32, String>> {
        let answers = futures_util::future::join_all(answers).await;
        answers.into_iter().map(Result::unwrap).collect()
    }

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn an_idle_batcher_does_not_wait() {
        let doubler = open(BatcherSettings {
            window: LONG,
            ..BatcherSettings::default()
        });
        assert_eq!(doubler.batcher.submit(4).await, Ok(8));
    }

    #[tokio::test]
    async fn items_that_arrive_while_a_batch_runs_form_one_batch() {
        let doubler = doubler(BatcherSettings::default());
        let first = doubler.submit_all([1]).await;
        doubler.until_running(1).await;
        let rest = doubler.submit_all(100..150).await;
        doubler.gate.add_permits(2);
        assert_eq!(all(first).await, [Ok(2)]);
        let expected: Vec<_> = (100..150).map(|item| Ok(item * 2)).collect();
        assert_eq!(all(rest).await, expected);
        assert_eq!(doubler.sizes(), [1, 50]);
    }

    #[test]
    fn company_is_expected_while_arrivals_are_close() {
        let mut pace = Pace::new(LONG);
        assert!(!pace.expects_company());
        for _ in 0..20 {
            pace.gathered(1, false);
        }
        assert!(pace.expects_company());
        pace.gathered(1, true);
        assert!(!pace.expects_company());
    }

    #[tokio::test]
    async fn a_batch_that_expects_company_waits_for_it() {
        let doubler = open(BatcherSettings {
            batch_limit: 3,
            window: LONG,
            ..BatcherSettings::default()
        });
        for item in 100..110 {
            assert_eq!(doubler.batcher.submit(item).await, Ok(item * 2));
        }
        let first = doubler.submit_all([1]).await;
        let rest = doubler.submit_all([2, 3]).await;
        assert_eq!(all(first).await, [Ok(2)]);
        assert_eq!(all(rest).await, [Ok(4), Ok(6)]);
        assert_eq!(doubler.sizes().last(), Some(&3));
    }

    #[tokio::test]
    async fn a_full_queue_pushes_back() {
        let doubler = doubler(BatcherSettings {
            queue_limit: 5,
            ..BatcherSettings::default()
        });
        let running = doubler.submit_all([1]).await;
        doubler.until_running(1).await;
        let answers = doubler.submit_all(100..110).await;
        doubler.gate.add_permits(10);
        let answers = all(answers).await;
        let full = answers
            .iter()
            .filter(|answer| **answer == Err(BatcherError::Full));
        assert_eq!(full.count(), 5);
        assert_eq!(all(running).await, [Ok(2)]);
    }

    #[tokio::test]
    async fn a_failed_batch_fails_all_its_items_and_no_other() {
        let doubler = doubler(BatcherSettings::default());
        let first = doubler.submit_all([1]).await;
        doubler.until_running(1).await;
        let second = doubler.submit_all([7, 8]).await;
        doubler.gate.add_permits(3);
        assert_eq!(all(first).await, [Ok(2)]);
        let failed = Err(BatcherError::Failed("seven".to_owned()));
        assert_eq!(all(second).await, [failed.clone(), failed]);
        assert_eq!(doubler.batcher.submit(8).await, Ok(16));
    }

    #[tokio::test]
    async fn a_panic_breaks_off_one_batch_only() {
        let doubler = open(BatcherSettings::default());
        assert_eq!(
            doubler.batcher.submit(13).await,
            Err(BatcherError::BrokenOff)
        );
        assert_eq!(doubler.batcher.submit(8).await, Ok(16));
    }

    #[tokio::test]
    async fn draining_answers_submitted_items_and_refuses_new_ones() {
        let doubler = doubler(BatcherSettings {
            batch_limit: 3,
            ..BatcherSettings::default()
        });
        let answers = doubler.submit_all(100..110).await;
        doubler.until_running(1).await;
        doubler.gate.add_permits(20);
        doubler.batcher.drain().await;
        assert!(all(answers).await.iter().all(Result::is_ok));
        assert_eq!(doubler.sizes().iter().sum::<usize>(), 10);
        assert_eq!(doubler.batcher.submit(1).await, Err(BatcherError::Closed));
    }

    #[tokio::test]
    async fn batches_run_side_by_side_when_allowed() {
        let doubler = doubler(BatcherSettings {
            batch_limit: 1,
            in_flight: 4,
            ..BatcherSettings::default()
        });
        let answers = doubler.submit_all(100..104).await;
        doubler.until_running(4).await;
        doubler.gate.add_permits(4);
        assert!(all(answers).await.iter().all(Result::is_ok));
    }
}
