//! The command line that every service has.
//!
//! ```text
//!  arguments ─▶ configuration ─▶ signals ─▶ telemetry ─▶ listener ─▶ migrations ─▶ run ─▶ drain
//! ```
//!
//! Signal handlers are installed before everything that takes time, so that the start can be interrupted. The listener
//! is bound before the migrations, so that an address in use is reported at once. An unavailable database is waited
//! for, see [`crate::startup`]. Only the `migrate` subcommand fails instead, because its caller waits for the result.

use crate::{
    Service, ServiceConfig, config,
    lifecycle::{DRAIN_DEADLINE, Shutdown},
    startup::{Server, Startup},
    telemetry,
};
use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use std::{
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::net::TcpListener;

/// The time that tasks have after the hard stop before the process ends.
const ABANDON_LIMIT: Duration = Duration::from_secs(1);

/// Runs a service: `--config FILE`, `--data-dir DIR` (joins a running standalone system), `--listen`, `--print-config`,
/// `--check-config`, `--migrate=auto|check`, subcommands `migrate` and `adopt-group`.
pub fn main<S: Service>() -> ExitCode {
    telemetry::name_process(S::NAME);
    match execute::<S>(&command::<S>().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&format!("{}: {error:#}", S::NAME));
            ExitCode::FAILURE
        }
    }
}

fn execute<S: Service>(arguments: &ArgMatches) -> anyhow::Result<()> {
    let config = configuration::<S>(arguments)?;
    if arguments.get_flag("print-config") {
        return print(&config::to_toml(&config)?);
    }
    if arguments.get_flag("check-config") {
        return print("the configuration is valid\n");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let only_migrate = arguments.subcommand_matches("migrate").is_some();
    let adopt = arguments
        .subcommand_matches("adopt-group")
        .map(|adopt| adopt.get_flag("yes"));
    let check_only = arguments
        .get_one::<String>("migrate")
        .is_some_and(|mode| mode == "check");
    let result = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
        telemetry::init(config.log())?;
        if only_migrate {
            return interruptible(&shutdown, S::migrate(&config))
                .await
                .map(|_| ());
        }
        if let Some(confirmed) = adopt {
            let adopted = async {
                let adopted = S::adopt(&config, confirmed).await;
                adopted.context("this service is in no consumer group")?
            };
            let told = interruptible(&shutdown, adopted).await?;
            return print(&told.unwrap_or_default());
        }
        serve::<S>(config, check_only, shutdown).await
    });
    runtime.shutdown_timeout(ABANDON_LIMIT);
    result
}

async fn serve<S: Service>(
    config: S::Config,
    check_only: bool,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let listener = bind(config.http().listen, "--listen", &listen_variable::<S>()).await?;
    let servers = Vec::from_iter(config.postgres().map(Server::postgres));
    let mut startup = Startup::new(config.http(), S::NAME, &listener, &shutdown);
    let prepared = startup
        .until(&servers, || async {
            if check_only {
                S::check_migrations(&config).await
            } else {
                S::migrate(&config).await
            }
        })
        .await?;
    startup.end().await;
    if prepared.is_none() {
        return Ok(());
    }
    run::<S>(config, listener, shutdown).await
}

/// Runs a service that is configured and migrated, then drains its tasks.
pub async fn run<S: Service>(
    config: S::Config,
    listener: TcpListener,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let abandoned = async {
        shutdown.hard.cancelled().await;
        tokio::time::sleep(ABANDON_LIMIT).await;
    };
    let result = tokio::select! {
        result = S::run(config, listener, shutdown.clone()) => result,
        () = abandoned => bail!("stopped before everything was finished"),
    };
    let drained = shutdown.drain(DRAIN_DEADLINE).await;
    result?;
    if let Some(reason) = shutdown.failure() {
        bail!("{reason}");
    }
    if !drained {
        bail!("stopped before everything was finished");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Runs `work`. Returns `None` if a signal came first.
async fn interruptible<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        result = work => result.map(Some),
        () = shutdown.soft.cancelled() => Ok(None),
    }
}

/// Binds `address`; the error names the flag and the variable that choose another.
pub async fn bind(address: SocketAddr, flag: &str, variable: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let remedy = format!("choose another with {flag} or {variable}");
        let known = [
            (ErrorKind::AddrInUse, "is already in use"),
            (
                ErrorKind::AddrNotAvailable,
                "is not an address of this machine",
            ),
            (ErrorKind::PermissionDenied, "may not be used by this user"),
        ];
        match known.iter().find(|(kind, _)| *kind == error.kind()) {
            Some((_, what)) => anyhow::anyhow!("{address} {what}: {remedy}"),
            None => {
                anyhow::Error::new(error).context(format!("cannot listen on {address}; {remedy}"))
            }
        }
    })
}

fn configuration<S: Service>(arguments: &ArgMatches) -> anyhow::Result<S::Config> {
    let joined = match arguments.get_one::<PathBuf>("data-dir") {
        Some(directory) => Some(joined_config(directory, S::NAME)?),
        None => None,
    };
    let file = arguments.get_one::<PathBuf>("config");
    let overrides = arguments
        .get_one::<SocketAddr>("listen")
        .map(|address| format!("[http]\nlisten = \"{address}\"\n"));
    let sources = config::Sources {
        files: joined.iter().chain(file).map(PathBuf::as_path).collect(),
        environment: std::env::vars_os().collect(),
        overrides: overrides.as_deref(),
    };
    config::load_from::<S>(&sources).context("the configuration is not usable")
}

/// Returns the path of the file in which the standalone mode writes the settings with which the service `name` joins
/// it.
pub fn data_dir_config(directory: &Path, name: &str) -> PathBuf {
    directory.join("config").join(format!("{name}.toml"))
}

fn joined_config(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = data_dir_config(directory, name);
    if path.exists() {
        return Ok(path);
    }
    bail!(
        "{} does not exist: --data-dir names the data directory of a system that `saga` (`cargo run` in the \
         repository) has started at least once",
        path.display()
    )
}

fn listen_variable<S: Service>() -> String {
    format!("{}_LISTEN", config::environment_prefix(S::NAME))
}

/// Builds the command line. clap takes names that live as long as the program; leaking them is fine, since a program
/// has one command line.
fn command<S: Service>() -> Command {
    let prefix = config::environment_prefix(S::NAME);
    let variable = |name: &str| -> &'static str { format!("{prefix}_{name}").leak() };
    let after: &'static str = format!(
        "Configuration comes from the embedded defaults, then the file of --data-dir, then --config FILE, then the \
         environment, then the command line; later ones win. Every key can be set as a variable: {prefix}__SECTION__KEY, \
         such as {prefix}__POSTGRES__URL; lists are separated by commas, or written as in TOML. --print-config shows what comes of it.\n\n\
         The first SIGTERM or Ctrl-C finishes what is in hand (at most {} s), a second one stops at once.{}",
        DRAIN_DEADLINE.as_secs(),
        S::HELP,
    )
    .leak();
    Command::new(S::NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("A service of the saga orchestrator's order processing")
        .after_help(after)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .env(variable("CONFIG"))
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help("TOML file with settings that differ from the defaults"),
        )
        .arg(
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("DIR")
                .env(variable("DATA_DIR"))
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help("Join the system that `saga --data-dir DIR` runs: its addresses and credentials"),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS:PORT")
                .env(variable("LISTEN"))
                .value_parser(value_parser!(SocketAddr))
                .help("Where HTTP listens, instead of http.listen"),
        )
        .arg(
            Arg::new("migrate")
                .long("migrate")
                .value_name("MODE")
                .env(variable("MIGRATE"))
                .default_value("auto")
                .value_parser(PossibleValuesParser::new(["auto", "check"]))
                .help("Bring the database up to date at start, or only check that it is"),
        )
        .arg(flag("print-config", "Print the configuration that results, secrets masked, and end"))
        .arg(flag("check-config", "Check the configuration and end"))
        .subcommand(Command::new("migrate").about("Bring the database up to date and end"))
        .subcommand(
            Command::new("adopt-group")
                .about("Give the service's consumer group, which must have no members, to this database, and end")
                .arg(flag("yes", "Do it; without this, only say what would be changed, and fail")),
        )
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // A closed pipe, as in `--print-config | head`, is not a failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "errors before or after telemetry are for the terminal"
)]
fn print_error(text: &str) {
    eprintln!("{text}");
}
