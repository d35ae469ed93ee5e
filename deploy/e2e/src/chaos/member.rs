//! One copy of a service as a child process that can be started, killed, frozen and stopped. It is started again if it
//! exits by itself, as a supervisor in production would do.
#![expect(unsafe_code, reason = "signals are not in std")]

use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The time within which a service drains after a SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Everything that is needed to start a copy, any number of times.
#[derive(Debug)]
pub struct Launch {
    pub binary: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// The working directory of the process. Processes that still run in it when chaos ends are killed.
    pub directory: PathBuf,
    pub log: PathBuf,
}

/// One copy of a service: its launch settings and its current process.
#[derive(Debug)]
pub struct Member {
    launch: Launch,
    state: Mutex<State>,
    /// The number of times that the process has exited without having been stopped or killed.
    ended_by_itself: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// True if the process should run; false while a fault keeps it down.
    wanted: bool,
}

impl Member {
    pub fn new(launch: Launch) -> Self {
        Self {
            launch,
            state: Mutex::default(),
            ended_by_itself: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the state is half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start(&self) -> Result<()> {
        let mut state = self.state();
        state.wanted = true;
        if state.child.is_none() {
            state.child = Some(self.spawn()?);
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.launch.log)?;
        Command::new(&self.launch.binary)
            .envs(&self.launch.environment)
            .current_dir(&self.launch.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.launch.binary.display()))
    }

    /// Sends SIGKILL: the service does not drain and does not leave its consumer groups. It stays down until
    /// [`start`](Self::start).
    pub fn kill(&self) -> Result<()> {
        let mut state = self.state();
        state.wanted = false;
        if let Some(mut child) = state.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends SIGTERM and waits until the service has drained. Kills it after `STOP_LIMIT`. Returns whether it drained
    /// in time. The service stays down until [`start`](Self::start).
    pub async fn stop(&self) -> Result<bool> {
        self.state().wanted = false;
        self.signal(libc::SIGTERM)?;
        let limit = tokio::time::Instant::now() + STOP_LIMIT;
        loop {
            if self.reap()? {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= limit {
                self.kill()?;
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for an exited process, without blocking. Returns true if there is no process any more.
    fn reap(&self) -> Result<bool> {
        let mut state = self.state();
        let ended = match state.child.as_mut() {
            Some(child) => child.try_wait()?.is_some(),
            None => true,
        };
        if ended {
            state.child = None;
        }
        Ok(ended)
    }

    pub fn freeze(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// Sends a signal. Does nothing if there is no process.
    fn signal(&self, signal: i32) -> Result<()> {
        let state = self.state();
        let Some(child) = &state.child else {
            return Ok(());
        };
        // SAFETY: the child has not been waited for, so its id cannot have been given to another process.
        let result = unsafe { libc::kill(child.id().cast_signed(), signal) };
        if result == 0 {
            return Ok(());
        }
        Err(std::io::Error::last_os_error()).context("kill")
    }

    /// Starts the process again if it has exited without having been stopped or killed.
    pub fn supervise(&self) -> Result<()> {
        let mut state = self.state();
        let ended = match state.child.as_mut() {
            Some(child) => child.try_wait()?.is_some(),
            None => state.wanted,
        };
        if ended && state.wanted {
            self.ended_by_itself.fetch_add(1, Ordering::Relaxed);
            state.child = Some(self.spawn()?);
        }
        Ok(())
    }

    pub fn ended_by_itself(&self) -> u64 {
        self.ended_by_itself.load(Ordering::Relaxed)
    }
}

/// Sends SIGQUIT to a postmaster, which requests an immediate shutdown.
pub fn quit(pid: u32) -> Result<()> {
    // SAFETY: the caller names a child of this process that it has not waited for.
    let result = unsafe { libc::kill(pid.cast_signed(), libc::SIGQUIT) };
    if result == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).context("SIGQUIT")
}

impl Drop for Member {
    fn drop(&mut self) {
        // A process that cannot be killed has exited already.
        drop(self.kill());
    }
}
