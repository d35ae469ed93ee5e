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

/// How long work in hand may take after the first signal. Shorter than the 30 s that container platforms wait.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// How long tasks may take to notice the hard stop.
const HARD_STOP_LIMIT: Duration = Duration::from_secs(1);

/// Handed to everything that runs. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled: take no new work, finish what is in hand.
    pub soft: CancellationToken,
    /// Cancelled: stop now.
    pub hard: CancellationToken,
    /// Everything spawned is tracked here.
    pub tasks: TaskTracker,
    /// The first vital task that ended although nobody asked it to.
    failure: Arc<OnceLock<String>>,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for SIGTERM and SIGINT from now on. Call it before anything is started, inside the runtime.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let signals = Signals::install()?;
        // Not tracked: it ends with the process, and a drain must not wait for it.
        tokio::spawn(follow(signals, shutdown.clone()));
        Ok(shutdown)
    }

    /// A part that stops when the whole stops, and can be stopped and waited for alone.
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

    /// As [`spawn`](Self::spawn), for a task without which the service is worth nothing: if it fails, panics or ends
    /// before the shutdown, the service drains, and [`failure`](Self::failure) says why.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let shutdown = self.clone();
        let watched = async move {
            let reason = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) if shutdown.soft.is_cancelled() => return,
                Ok(Ok(())) => format!("{name} ended although nobody asked it to"),
                Ok(Err(error)) => format!("{name} failed: {error:#}"),
                Err(panic) => format!("{name} panicked: {}", panic_message(&*panic)),
            };
            shutdown.fail(reason);
        };
        self.tasks.spawn(watched.in_current_span())
    }

    /// Begins the shutdown because something vital is broken.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "stopping");
        self.failure.get_or_init(|| reason);
        self.soft.cancel();
    }

    /// Why the service stopped by itself.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Waits until every tracked task has ended; after `deadline` stops them the hard way. `true` if all ended by
    /// themselves.
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
                tracing::warn!(tasks = self.tasks.len(), "tasks left behind");
            }
        }
        drained
    }
}

/// SIGTERM and SIGINT.
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
            tracing::info!(signal = name, "stopping; once more stops at once");
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
        check(|| Ok(()), "consumer ended although nobody asked it to").await;
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
