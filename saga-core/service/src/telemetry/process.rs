//! Metrics that the kernel provides about this process. They are read on each request for the metrics.

use std::{fs, sync::OnceLock, time::Instant};

static STARTED: OnceLock<Instant> = OnceLock::new();

pub(super) fn describe() {
    STARTED.get_or_init(Instant::now);
    metrics::describe_gauge!(
        "process_resident_memory_bytes",
        "Memory that the process holds"
    );
    metrics::describe_gauge!("process_open_fds", "Open file descriptors");
    metrics::describe_gauge!("process_threads", "Threads of the process");
    metrics::describe_gauge!("process_uptime_seconds", "Since the process started");
    metrics::describe_histogram!(
        "http_request_duration_seconds",
        "HTTP requests, by matched route"
    );
}

/// Sets the metrics. Without `/proc`, only the uptime is known.
pub(super) fn record() {
    if let Some(started) = STARTED.get() {
        metrics::gauge!("process_uptime_seconds").set(started.elapsed().as_secs_f64());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    if let Some(kilobytes) = number("VmRSS:") {
        metrics::gauge!("process_resident_memory_bytes").set((kilobytes * 1024) as f64);
    }
    if let Some(threads) = number("Threads:") {
        metrics::gauge!("process_threads").set(threads as f64);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(entries.count() as f64);
    }
}
