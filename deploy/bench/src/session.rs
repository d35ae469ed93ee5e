//! The frame of every measurement: the system is started, and everything is stopped, whatever happened.

use crate::{
    bench::Bench,
    measure::Machine,
    options::Shared,
    progress::{say, update},
    system::{self, Instance, System},
};
use anyhow::{Context, Result, anyhow};
use saga_harness::system::Service;
use saga_service::lifecycle::Shutdown;
use std::{fs, path::Path, sync::OnceLock};
use thiserror::Error;

/// The error of a measurement that a signal ended. A program that takes several measurements ends with this error, even
/// if it would otherwise go on after one that fails.
#[derive(Clone, Copy, Debug, Error)]
#[error("interrupted")]
pub struct Interrupted;

static SHUTDOWN: OnceLock<Shutdown> = OnceLock::new();

/// Returns the process's only `Shutdown`: a signal that arrives between two systems ends the second one before it is
/// started.
fn shutdown() -> Result<&'static Shutdown> {
    if let Some(shutdown) = SHUTDOWN.get() {
        return Ok(shutdown);
    }
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    Ok(SHUTDOWN.get_or_init(|| shutdown))
}

/// Gives `work` a system with one instance of each service, and stops the system afterwards. Ends early at a signal and
/// at the time limit.
pub async fn within<T>(
    options: &Shared,
    log_plans: bool,
    work: impl AsyncFnOnce(&mut Bench<'_>) -> Result<T>,
) -> Result<T> {
    within_each(options, log_plans, [""], async |[bench]| work(bench).await).await
}

/// Like [`within`], but with several systems, each on its own servers. The data and logs of each system are in a
/// directory with its name.
pub async fn within_each<T, const COUNT: usize>(
    options: &Shared,
    log_plans: bool,
    names: [&str; COUNT],
    work: impl AsyncFnOnce(&mut [Bench<'_>; COUNT]) -> Result<T>,
) -> Result<T> {
    // Installed before anything is started, so that Ctrl-C stops everything cleanly at any moment.
    let shutdown = shutdown()?;
    saga_servers::install_crypto_provider();
    let directory = system::data_directory(options.data_dir.as_deref())?;
    let mut systems = [const { None }; COUNT];
    let working = async {
        let machine = Machine::look(&directory)?;
        let mut benches = Vec::with_capacity(COUNT);
        for (name, place) in names.into_iter().zip(&mut systems) {
            let (data, machine) = (directory.join(name), machine.clone());
            let bench = start(options, log_plans, name, &data, machine, place);
            benches.push(bench.await?);
        }
        let mut benches: [Bench<'_>; COUNT] =
            benches.try_into().ok().context("a system for each name")?;
        work(&mut benches).await
    };
    let outcome = tokio::select! {
        biased;
        () = shutdown.soft.cancelled() => Err(Interrupted.into()),
        outcome = working => outcome,
        () = tokio::time::sleep(options.limit()) => {
            Err(anyhow!("the time limit of {} minutes is reached", options.limit().as_secs() / 60))
        }
    };
    update("  stopping");
    let mut stopped = Ok(());
    for system in systems.iter_mut().flatten() {
        stopped = stopped.and(system.stop().await);
    }
    let found = outcome?;
    stopped?;
    fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
    say("");
    Ok(found)
}

async fn start<'a>(
    options: &Shared,
    log_plans: bool,
    name: &str,
    data: &Path,
    machine: Machine,
    place: &'a mut Option<System>,
) -> Result<Bench<'a>> {
    update("  starting Postgres and Kafka");
    let logs = options.out.join("logs").join(name);
    for made in [&logs, data] {
        fs::create_dir_all(made).with_context(|| format!("making {}", made.display()))?;
    }
    let started = System::start(options, data.to_owned(), logs, log_plans).await?;
    let system = place.insert(started);
    system.provide(options.partitions).await?;
    update("  starting the services");
    let services = Service::ALL.map(Instance::first);
    system.start_instances(services).await?;
    Bench::new(system, machine, options.partitions, options.seed).await
}
