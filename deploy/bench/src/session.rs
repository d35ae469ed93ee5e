//! What every measurement runs within: the system is started, and everything is stopped, whatever happened.

use crate::{
    load::{Flight, Watch},
    measure::{Machine, describe_postgres},
    options::ServerOptions,
    progress::{say, update},
    report::Servers,
    stage::Bench,
    system::{self, System},
};
use anyhow::{Context, Result, anyhow};
use saga_service::lifecycle::Shutdown;
use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};
use thiserror::Error;

/// By a signal. Whoever measures several things ends with it, whatever else may go wrong with one of them.
#[derive(Clone, Copy, Debug, Error)]
#[error("interrupted")]
pub struct Interrupted;

static SHUTDOWN: OnceLock<Shutdown> = OnceLock::new();

/// One for the process: a signal between two systems ends the second one before it is started.
fn shutdown() -> Result<&'static Shutdown> {
    if let Some(shutdown) = SHUTDOWN.get() {
        return Ok(shutdown);
    }
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    Ok(SHUTDOWN.get_or_init(|| shutdown))
}

/// Gives `work` a system with one instance of each service, and stops it afterwards. Ends early at a signal and at the
/// time limit.
pub async fn within<T>(
    options: &ServerOptions,
    log_plans: bool,
    work: impl AsyncFnOnce(&mut Bench<'_>) -> Result<T>,
) -> Result<T> {
    within_each(options, log_plans, [""], async |[bench]| work(bench).await).await
}

/// As [`within`], with several systems, each on servers of its own. Data and logs of each are in a directory by its name.
pub async fn within_each<T, const COUNT: usize>(
    options: &ServerOptions,
    log_plans: bool,
    names: [&str; COUNT],
    work: impl AsyncFnOnce(&mut [Bench<'_>; COUNT]) -> Result<T>,
) -> Result<T> {
    // Before anything is started, so that Ctrl-C stops it cleanly at any moment.
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
    options: &ServerOptions,
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
    system.start_services().await?;
    let (postgres, settings) = describe_postgres(&system.url_of("postgres")).await?;
    let servers = Servers {
        postgres,
        postgres_settings: settings.into_iter().collect(),
        kafka: system.kafka_version(),
        partitions: options.partitions,
    };
    let flight = Arc::new(Flight::new());
    let watch = Watch::start(&system.brokers, Arc::clone(&flight))?;
    let probe = system.probe().await?;
    Ok(Bench {
        system,
        machine,
        servers,
        flight,
        watch,
        probe,
        seed: options.seed,
        stages: 0,
    })
}
