//! Captures the log of a test's process, for tests of the lines that operators read.

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};
use tracing_subscriber::{EnvFilter, fmt};

static INSTALLED: Once = Once::new();
static LOG: Mutex<String> = Mutex::new(String::new());

fn log() -> MutexGuard<'static, String> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends to the captured log. The subscriber writes each line in one call.
struct Sink;

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        log().push_str(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Captures what all threads log from now on, instead of printing it. The first call of the process decides the filter.
///
/// # Panics
///
/// If the process has another subscriber already. A service that is started later leaves this one in place.
pub fn capture(filter: &str) {
    INSTALLED.call_once(|| {
        fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .with_writer(|| Sink)
            .init();
    });
}

/// Returns the first captured line that contains all `parts`.
pub fn line_with(parts: &[&str]) -> Option<String> {
    let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
    log().lines().find(has_all).map(str::to_owned)
}
