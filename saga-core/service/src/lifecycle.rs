//! Two-stage shutdown: the first SIGTERM or SIGINT drains with a deadline, a second one stops at once.
//!
//! ```text
//!  signal ─▶ soft cancelled: take no new work, finish what is in hand ─▶ every task ended ─▶ exit 0
//!                 │
//!                 └─ after DRAIN_DEADLINE, or a second signal ─▶ hard cancelled: stop now
//! ```

use futures_util::FutureExt;
use std::{
    any::Any,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// The time limit for work in flight after the first signal. It is shorter than the 30 s that container platforms wait.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// The time that tasks have to react to the hard stop.
const HARD_STOP_LIMIT: Duration = Duration::from_secs(1);

/// The shutdown state, passed to everything that runs. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled at the soft stop: tasks take no new work and finish work in flight.
    pub soft: CancellationToken,
    /// Cancelled at the hard stop: tasks stop now.
    pub hard: CancellationToken,
    /// Tracks every spawned task.
    pub tasks: TaskTracker,
    /// The reason of the first [`fail`](Self::fail).
    failure: Arc<OnceLock<String>>,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for SIGTERM and SIGINT from now on. Call this inside the runtime, before anything is started.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let signals = Signals::install()?;
        // Not tracked: the task ends with the process, and a drain must not wait for it.
        tokio::spawn(follow(signals, shutdown.clone()));
        Ok(shutdown)
    }

    /// Returns a child that stops when its parent stops, and that can be stopped and waited for alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            soft: self.soft.child_token(),
            hard: self.hard.child_token(),
            tasks: TaskTracker::new(),
            failure: Arc::default(),
        }
    }

    /// Spawns a tracked task; a panic in it is logged and ends only itself.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let watched = AssertUnwindSafe(future).catch_unwind().map(move |result| {
            if let Err(panic) = result {
                tracing::error!(
                    task = name,
                    panic = panic_message(&*panic),
                    "a task panicked"
                );
            }
        });
        self.tasks.spawn(watched.in_current_span())
    }

    /// Spawns a tracked task without which the service cannot work. If the task fails, panics or ends before the
    /// shutdown, the service drains, and [`failure`](Self::failure) returns the reason.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let shutdown = self.clone();
        let watched = async move {
            let reason = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) if shutdown.soft.is_cancelled() => return,
                Ok(Ok(())) => format!("{name} ended without being stopped"),
                Ok(Err(error)) => format!("{name} failed: {error:#}"),
                Err(panic) => format!("{name} panicked: {}", panic_message(&*panic)),
            };
            shutdown.fail(reason);
        };
        self.tasks.spawn(watched.in_current_span())
    }

    /// Begins the shutdown because a vital part has failed.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "stopping");
        self.failure.get_or_init(|| reason);
        self.soft.cancel();
    }

    /// Returns the reason why the service stopped by itself.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Waits until every tracked task has ended; after `deadline` starts the hard stop. Returns `true` if all tasks
    /// ended before it.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.soft.cancel();
        self.tasks.close();
        let drained = tokio::select! {
            result = timeout(deadline, self.tasks.wait()) => result.is_ok(),
            () = self.hard.cancelled() => false,
        };
        if !drained {
            let left = self.tasks.len();
            tracing::warn!(
                tasks = left,
                "stopping at once, not everything was finished"
            );
            self.hard.cancel();
            if timeout(HARD_STOP_LIMIT, self.tasks.wait()).await.is_err() {
                tracing::warn!(tasks = self.tasks.len(), "some tasks are still running");
            }
        }
        drained
    }
}

/// The streams of SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn follow(mut signals: Signals, shutdown: Shutdown) {
    tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping; a second signal stops at once");
            shutdown.soft.cancel();
        }
        () = shutdown.soft.cancelled() => {}
    }
    tokio::select! {
        name = signals.next() => tracing::warn!(signal = name, "stopping at once"),
        () = tokio::time::sleep(DRAIN_DEADLINE) => {
            tracing::warn!(seconds = DRAIN_DEADLINE.as_secs(), "the time to drain is over");
        }
    }
    shutdown.hard.cancel();
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_follow_the_soft_stop() {
        let shutdown = Shutdown::new();
        let soft = shutdown.soft.clone();
        shutdown.spawn("worker", async move { soft.cancelled().await });
        assert!(shutdown.drain(Duration::from_secs(10)).await);
        assert!(shutdown.soft.is_cancelled());
        assert!(!shutdown.hard.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_ignores_the_soft_stop_meets_the_hard_one() {
        let shutdown = Shutdown::new();
        let hard = shutdown.hard.clone();
        shutdown.spawn("worker", async move { hard.cancelled().await });
        assert!(!shutdown.drain(Duration::from_millis(10)).await);
        assert!(shutdown.hard.is_cancelled());
        assert!(shutdown.tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_task() {
        let shutdown = Shutdown::new();
        let task = shutdown.spawn("worker", async { panic!("broken") });
        task.await.expect("the panic is caught");
        assert!(!shutdown.soft.is_cancelled());
        assert_eq!(shutdown.failure(), None);
    }

    #[tokio::test]
    async fn a_vital_task_takes_the_service_with_it() {
        let check = async |future: fn() -> anyhow::Result<()>, expected: &str| {
            let shutdown = Shutdown::new();
            shutdown.spawn_vital("consumer", async move { future() });
            shutdown.soft.cancelled().await;
            assert_eq!(shutdown.failure(), Some(expected));
        };
        check(|| panic!("broken"), "consumer panicked: broken").await;
        check(|| anyhow::bail!("no broker"), "consumer failed: no broker").await;
        check(|| Ok(()), "consumer ended without being stopped").await;
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_alone() {
        let parent = Shutdown::new();
        let child = parent.child();
        let other = parent.child();
        child.soft.cancel();
        assert!(!parent.soft.is_cancelled() && !other.soft.is_cancelled());
        parent.soft.cancel();
        assert!(other.soft.is_cancelled());
    }
}
