//! A service as a child process that can be started, stopped, killed, and started again on the same port.

use crate::serve::SERVICE_VARIABLE;
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Everything that is needed to start a service, any number of times, and its current child process.
pub struct Process {
    pub binary: PathBuf,
    pub environment: BTreeMap<String, String>,
    pub log: PathBuf,
    pub child: Option<Child>,
}

/// The time within which a service drains after a SIGTERM.
pub const STOP_DEADLINE: Duration = Duration::from_secs(25);

impl Process {
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        saga_test_support::environment::reaper::at_end(&format!(
            "kill -9 {} 2>/dev/null",
            child.id()
        ));
        self.child = Some(child);
        Ok(())
    }

    /// Returns the exit status if the process has exited by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }

    /// If the process has exited by itself, returns its exit status and the last lines of its log as a message.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.exited()?;
        Some(format!("{} ended: {status}\n{}", self.name(), self.tail()))
    }

    /// Sends SIGTERM and waits until the process has drained. Kills it and returns an error after [`STOP_DEADLINE`].
    pub fn stop(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let started = Instant::now();
        while child.try_wait()?.is_none() {
            if started.elapsed() > STOP_DEADLINE {
                child.kill()?;
                child.wait()?;
                bail!(
                    "{} did not stop within {STOP_DEADLINE:?}\n{}",
                    self.name(),
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends SIGKILL: the service does not drain and does not leave its consumer groups.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "signals are not in std")]
    fn signal(&self, signal: i32) -> Result<()> {
        let Some(child) = &self.child else {
            bail!("{} is not running", self.name())
        };
        // SAFETY: the child has not been waited for, so its id cannot have been given to another process.
        let result = unsafe { libc::kill(child.id() as i32, signal) };
        if result != 0 {
            return Err(std::io::Error::last_os_error()).context("kill");
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        self.environment
            .get(SERVICE_VARIABLE)
            .map_or("?", String::as_str)
    }

    /// Returns the last 40 lines of the service's log, for an error message.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
