//! Logs and metrics.
//!
//! Several services can run in one process (the standalone mode), so every line and every HTTP metric carries the
//! service's name. The name belongs to the thread: each service has a runtime whose threads are named once. Thus lines
//! of tasks that libraries spawn have a name, too.

mod format;
mod process;
mod service_name;

pub(crate) use service_name::service_name;
pub use service_name::{name_process, name_thread};

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use std::{
    io::IsTerminal,
    panic,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    /// The filter, in the syntax of `RUST_LOG`: `info,sqlx=warn`.
    pub filter: String,
}

/// The interval between two cleanups of the recorder's buffers, which would grow if no client reads the metrics.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The buckets of metrics named `*_seconds`: from half a millisecond, the fastest batch, to a minute.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// The buckets of all other metrics, which are counts or sizes.
const COUNTS: [f64; 14] = [
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    200.0,
    500.0,
    1_000.0,
    5_000.0,
    20_000.0,
    100_000.0,
    1_000_000.0,
];

static INSTALLED: Mutex<bool> = Mutex::new(false);
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the subscriber and the metrics recorder. It may be called again in one process (tests, standalone): the
/// first call decides.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    // A filter must be valid even if it is not used.
    let filter = EnvFilter::try_new(&config.filter)
        .with_context(|| format!("log.filter \"{}\" is not a filter", config.filter))?;
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    let registry = tracing_subscriber::registry().with(filter);
    // A subscriber that is already installed, such as a test's, stays.
    let result = match config.format {
        LogFormat::Human => {
            let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let inner = fmt::format().compact().with_ansi(colors);
            registry
                .with(
                    fmt::layer()
                        .with_ansi(colors)
                        .with_writer(std::io::stderr)
                        .event_format(format::Human::new(inner)),
                )
                .try_init()
        }
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .with_ansi(false)
                    .with_writer(std::io::stderr)
                    .fmt_fields(fmt::format::JsonFields::new())
                    .event_format(format::Json),
            )
            .try_init(),
    };
    if result.is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    install_recorder()?;
    *installed = true;
    Ok(())
}

fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic.message = message, panic.place = place, "panic");
}

fn install_recorder() -> anyhow::Result<()> {
    let handle = PrometheusBuilder::new()
        .set_buckets(&COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()
        .context("another metrics recorder is installed")?;
    let upkeep = handle.clone();
    // The thread lives as long as the process and has nothing to finish.
    thread::Builder::new()
        .name("metrics upkeep".to_owned())
        .spawn(move || {
            loop {
                thread::sleep(UPKEEP_INTERVAL);
                upkeep.run_upkeep();
            }
        })
        .context("cannot start a thread")?;
    process::describe();
    RECORDER.get_or_init(|| handle);
    Ok(())
}

/// Returns all metrics in Prometheus' text format; empty before [`init`].
pub fn render() -> String {
    match RECORDER.get() {
        Some(handle) => {
            process::record();
            handle.render()
        }
        None => String::new(),
    }
}
