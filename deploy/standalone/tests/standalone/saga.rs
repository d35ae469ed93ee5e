//! The binary under test, and the operations on it.

use anyhow::{Context, Result, bail, ensure};
use saga_test_support::environment::reaper;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
};

/// The limit includes the download of servers that are not on the machine.
const START_LIMIT: Duration = Duration::from_mins(4);
const STOP_LIMIT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);

/// Allows one system at a time: each uses all of a small machine.
static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

pub struct Saga {
    child: Option<Child>,
    directory: PathBuf,
    ports: Vec<u16>,
    variables: Vec<(&'static str, &'static str)>,
    pub http: reqwest::Client,
    _turn: MutexGuard<'static, ()>,
}

/// Returns the program with SIGINT at its default. A test that runs as a background job of a script ignores SIGINT, and its
/// child processes inherit that until they install a handler.
fn program() -> Command {
    const SAGA: &str = env!("CARGO_BIN_EXE_saga");
    if cfg!(target_os = "linux") {
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", SAGA]);
        command
    } else {
        Command::new(SAGA)
    }
}

impl Saga {
    pub async fn new(name: &str) -> Result<Self> {
        let turn = TURN.lock().await;
        let directory =
            std::env::temp_dir().join(format!("saga-standalone-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Self {
            child: None,
            directory,
            ports: (0..6).map(|_| saga_servers::free_port()).collect(),
            variables: Vec::new(),
            http: saga_test_support::http_client(),
            _turn: turn,
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn config_file(&self, service: &str) -> PathBuf {
        self.directory.join(format!("data/config/{service}.toml"))
    }

    pub fn order_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[0])
    }

    pub fn orchestrator_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[1])
    }

    pub fn inventory_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[2])
    }

    /// Sets an environment variable for later starts.
    pub fn set(&mut self, name: &'static str, value: &'static str) {
        self.variables.push((name, value));
    }

    fn command(&self) -> Command {
        const VARIABLES: [&str; 6] = [
            "ORDER",
            "ORCHESTRATOR",
            "INVENTORY",
            "PAYMENT",
            "KAFKA",
            "POSTGRES",
        ];
        let mut command = program();
        command
            .envs(self.variables.iter().copied())
            .env("SAGA_DATA_DIR", self.directory.join("data"))
            .stdin(Stdio::null());
        for (name, port) in VARIABLES.iter().zip(&self.ports) {
            command.env(format!("SAGA_{name}_PORT"), port.to_string());
        }
        command
    }

    /// Runs another instance with the same settings, which is expected to exit by itself. Returns its exit code and
    /// output.
    pub async fn run_beside(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        self.run_with(arguments, &[]).await
    }

    pub async fn run_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<(Option<i32>, String)> {
        let mut command = self.command();
        command
            .args(arguments)
            .envs(variables.iter().copied())
            .kill_on_drop(true);
        let output = tokio::time::timeout(START_LIMIT, command.output())
            .await
            .context("it was not refused")??;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    pub fn spawn(&mut self, arguments: &[&str]) -> Result<()> {
        let log = File::create(self.log())?;
        let child = self
            .command()
            .args(arguments)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        if let Some(pid) = child.id() {
            reaper::at_end(&format!("kill -9 {pid} 2>/dev/null"));
        }
        self.child = Some(child);
        Ok(())
    }

    /// Starts the system and waits until it prints that it is ready.
    pub async fn start(&mut self, arguments: &[&str]) -> Result<()> {
        self.spawn(arguments)?;
        let began = Instant::now();
        while !self.said().contains("saga: ready in") {
            if let Some(status) = self.child()?.try_wait()? {
                bail!("it ended ({status}):\n{}", self.said());
            }
            ensure!(
                began.elapsed() < START_LIMIT,
                "it is not ready:\n{}",
                self.said()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("saga.log")
    }

    /// Returns the system's output so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Returns the output lines that contain `part`.
    pub fn printed(&self, part: &str) -> Result<Vec<String>> {
        let said = self.said();
        let lines: Vec<String> = said
            .lines()
            .filter(|line| line.contains(part))
            .map(str::to_owned)
            .collect();
        ensure!(!lines.is_empty(), "no line has {part}:\n{said}");
        Ok(lines)
    }

    fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("it is not running")
    }

    pub fn pid(&self) -> Result<u32> {
        self.child
            .as_ref()
            .and_then(Child::id)
            .context("it is not running")
    }

    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        send(self.pid()?, signal);
        Ok(())
    }

    /// Stops the system cleanly, and checks that no child process is left.
    pub async fn stop(&mut self, signal: libc::c_int) -> Result<()> {
        self.stop_by(signal, &[0]).await
    }

    pub async fn stop_by(&mut self, signal: libc::c_int, codes: &[i32]) -> Result<()> {
        let tree = descendants(self.pid()?);
        self.signal(signal)?;
        let status = self.ended().await?;
        // If the signal came before its handler was installed, the process dies of it, and nothing had been started.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(signal)
            && tree.is_empty();
        let clean = status.code().is_some_and(|code| codes.contains(&code)) || by_signal;
        ensure!(clean, "it ended with {status}:\n{}", self.said());
        let left: Vec<u32> = tree.into_iter().filter(|pid| is_alive(*pid)).collect();
        ensure!(left.is_empty(), "{left:?} still run:\n{}", self.said());
        Ok(())
    }

    /// Sends SIGKILL to the process and all its descendants, as if the machine had lost power.
    pub async fn kill_tree(&mut self) -> Result<()> {
        let pid = self.pid()?;
        let tree = descendants(pid);
        for pid in std::iter::once(pid).chain(tree) {
            send(pid, libc::SIGKILL);
        }
        self.ended().await.map(|_| ())
    }

    async fn ended(&mut self) -> Result<ExitStatus> {
        let waited = tokio::time::timeout(STOP_LIMIT, self.child()?.wait()).await;
        let Ok(status) = waited else {
            bail!("it does not end:\n{}", self.said());
        };
        self.child = None;
        Ok(status?)
    }
}

impl Drop for Saga {
    /// The reaper ends processes that a failed test has left. The directory of a process that still runs is kept for
    /// inspection.
    fn drop(&mut self) {
        if self.child.is_none() {
            fs::remove_dir_all(&self.directory).ok();
        }
    }
}

fn send(pid: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    #[expect(unsafe_code, reason = "signals have no safe counterpart in std")]
    // SAFETY: kill has no memory preconditions; the pid is a child's, or was just seen below it.
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Returns the children of a process, their children, and so on.
pub fn descendants(parent: u32) -> Vec<u32> {
    let mut found = vec![parent];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        found.extend(
            processes()
                .filter(|(_, its_parent, _)| *its_parent == parent)
                .map(|(pid, ..)| pid),
        );
    }
    found.split_off(1)
}

fn is_alive(pid: u32) -> bool {
    processes().any(|(found, _, state)| found == pid && state != "Z")
}

/// Returns the id, the parent's id and the state of every process.
fn processes() -> impl Iterator<Item = (u32, u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        // The format is "pid (name) state ppid …". The name may contain spaces and parentheses.
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.to_owned();
        Some((pid, fields.next()?.parse().ok()?, state))
    })
}
