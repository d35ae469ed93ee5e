//! A process, which can crash, stall and be started again. Its memory is its tasks, which are dropped at an effect.

use super::{
    faults::Site,
    world::{World, lock},
};
use futures_util::FutureExt;
use saga_core::ids::Timestamp;
use std::{
    any::Any,
    future::pending,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// The number of tasks above which ended tasks are removed. A process has fewer tasks at a time.
const MANY_TASKS: usize = 32;

/// One life of one copy of a service.
#[derive(Clone)]
pub struct Process {
    pub world: Arc<World>,
    cell: Arc<Cell>,
}

struct Cell {
    name: String,
    state: Mutex<State>,
    died: Notify,
    woken: Notify,
    stopping: CancellationToken,
}

#[derive(Default)]
struct State {
    dead: bool,
    stalled_until: Option<Instant>,
    tasks: Vec<AbortHandle>,
}

impl Process {
    pub fn new(world: Arc<World>, name: impl Into<String>) -> Self {
        let cell = Cell {
            name: name.into(),
            state: Mutex::default(),
            died: Notify::new(),
            woken: Notify::new(),
            stopping: CancellationToken::new(),
        };
        Self {
            world,
            cell: Arc::new(cell),
        }
    }

    /// Returns the name, such as `orchestrator-1`. It is the same for every life of a copy.
    pub fn name(&self) -> &str {
        &self.cell.name
    }

    /// Returns the token of the graceful stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.cell.stopping
    }

    pub fn is_dead(&self) -> bool {
        lock(&self.cell.state).dead
    }

    pub fn is_stalled(&self) -> bool {
        lock(&self.cell.state)
            .stalled_until
            .is_some_and(|until| until > Instant::now())
    }

    /// Runs a task until it ends or the process dies.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let owner = self.clone();
        let guarded = async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                owner.panicked(&*panic);
            }
        };
        let handle = tokio::spawn(guarded).abort_handle();
        let mut state = lock(&self.cell.state);
        if state.tasks.len() > MANY_TASKS {
            state.tasks.retain(|task| !task.is_finished());
        }
        state.tasks.push(handle);
    }

    /// Reports a panic as a violation, and kills the process.
    fn panicked(&self, panic: &(dyn Any + Send)) {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        self.world
            .observe("no_panic", format!("{}: {text}", self.name()));
        self.kill();
    }

    pub fn has_finished(&self) -> bool {
        lock(&self.cell.state)
            .tasks
            .iter()
            .all(AbortHandle::is_finished)
    }

    /// Kills the process, as SIGKILL does: each of its tasks stops at its current effect.
    pub fn kill(&self) {
        let tasks = {
            let mut state = lock(&self.cell.state);
            if state.dead {
                return;
            }
            state.dead = true;
            std::mem::take(&mut state.tasks)
        };
        self.world.note(self.name(), format_args!("dies"));
        self.cell.stopping.cancel();
        for task in tasks {
            task.abort();
        }
        self.cell.died.notify_one();
    }

    pub async fn died(&self) {
        self.cell.died.notified().await;
    }

    /// Stalls the process, as SIGSTOP does: its tasks wait at their next effect for `time`.
    pub fn stall(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = lock(&self.cell.state);
        if state.stalled_until.is_none_or(|already| already < until) {
            state.stalled_until = Some(until);
        }
        drop(state);
        self.world
            .note(self.name(), format_args!("stands still for {time:?}"));
    }

    /// Ends a stall.
    pub fn wake(&self) {
        lock(&self.cell.state).stalled_until = None;
        self.cell.woken.notify_waiters();
    }

    /// Returns the time by the clock of the process's machine.
    pub fn now(&self) -> Timestamp {
        self.world.now(chrono::TimeDelta::zero())
    }

    /// Passes the entry or exit of an effect. A process that crashes or is dead never returns from this function.
    pub async fn gate(&self, crash: Site) {
        if self.is_dead() {
            pending::<()>().await;
        }
        if self.world.strikes(crash, self.name()) {
            self.kill();
            pending::<()>().await;
        }
        if self.world.strikes(Site::Stall, self.name()) {
            let time = self.world.milliseconds(100, 20_000, "stall", self.name());
            self.stall(time);
        }
        self.stand_still().await;
    }

    /// Stalls for long if a fault strikes at `site`.
    pub async fn hold(&self, site: Site) {
        if self.strikes(site) {
            self.stall(self.world.milliseconds(10_000, 60_000, "held", self.name()));
            self.stand_still().await;
        }
    }

    async fn stand_still(&self) {
        loop {
            let until = lock(&self.cell.state).stalled_until;
            match until {
                Some(until) if until > Instant::now() => {
                    // After a wake-up or the timeout, the stall is checked again.
                    timeout_at(until, self.cell.woken.notified())
                        .await
                        .unwrap_or_default();
                }
                Some(_) | None => break,
            }
        }
        if self.is_dead() {
            pending::<()>().await;
        }
    }

    pub async fn latency(&self) {
        self.world.latency(self.name()).await;
        self.stand_still().await;
    }

    pub fn strikes(&self, site: Site) -> bool {
        self.world.strikes(site, self.name())
    }
}
