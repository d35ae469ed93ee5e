//! One copy of a service as a child process: started, killed, frozen, asked to stop, and started again if it ends by
//! itself, as whatever runs services in production would.
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

/// A service that was asked to stop drains within this.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What is needed to start a copy, again and again.
#[derive(Debug)]
pub struct Launch {
    pub binary: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// Of the process, too: whatever still runs in it when we end is ended.
    pub directory: PathBuf,
    pub log: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub struct Member {
    launch: Launch,
    state: Mutex<State>,
    /// How often it has ended without being asked to.
    ended_by_itself: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// Whether it is to run; not while a fault keeps it down.
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

    /// SIGKILL: no draining, no leaving of groups. Stays down until it is started.
    pub fn kill(&self) -> Result<()> {
        let mut state = self.state();
        state.wanted = false;
        if let Some(mut child) = state.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has drained; whether it did in time. Stays down until it is started.
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

    /// Whether there is no process any more.
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

    /// Does nothing where no process is.
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

    /// Starts it again if it has ended without being asked to.
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

/// SIGQUIT to a postmaster: an immediate shutdown.
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
        // What cannot be killed any more has ended.
        drop(self.kill());
    }
}
