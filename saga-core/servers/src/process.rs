//! Starts child processes that never outlive this process.
//!
//! On Linux the kernel is asked (`PR_SET_PDEATHSIG`) to signal a child when its parent dies, so not even SIGKILL of the
//! parent leaves a server behind. The kernel's notion of "parent" is the *thread* that forked, and runtime threads come
//! and go. Therefore one thread that lives as long as the process forks all children. On other systems a child survives
//! a SIGKILL of its parent, and the next start on the same data directory ends it.
//!
//! This is the only module with unsafe code: the functions that it needs from libc have no safe counterpart in std.
#![expect(
    unsafe_code,
    reason = "signals, account look-up and the hook between fork and exec"
)]

use crate::error::ServerError;
use std::{
    ffi::{CStr, c_int},
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{LazyLock, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(5);
/// Bounds the queue of the spawning thread. A job is a fork and exec of a millisecond, so only a handful ever wait.
const SPAWNER_QUEUE: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Signal {
    Interrupt = libc::SIGINT,
    Terminate = libc::SIGTERM,
    Kill = libc::SIGKILL,
    Stop = libc::SIGSTOP,
    Continue = libc::SIGCONT,
}

/// The account under which a server runs if this process is root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// Returns `None` for an ordinary user: the server then runs as that user. Postgres refuses to run as root, so for
    /// root this is `postgres` if an installation made that account, else `nobody`.
    pub(crate) fn for_postgres() -> Option<Self> {
        // SAFETY: geteuid has no preconditions.
        let is_root = unsafe { libc::geteuid() } == 0;
        is_root.then(|| {
            Self::named(c"postgres")
                .or_else(|| Self::named(c"nobody"))
                .unwrap_or(Self {
                    uid: 65534,
                    gid: 65534,
                })
        })
    }

    fn named(name: &CStr) -> Option<Self> {
        // SAFETY: the name is NUL-terminated. The answer points to static storage, is checked for null and copied before
        // anything else can call getpwnam: only this function does, and it runs once a start.
        unsafe {
            let entry = libc::getpwnam(name.as_ptr());
            entry.as_ref().map(|entry| Self {
                uid: entry.pw_uid,
                gid: entry.pw_gid,
            })
        }
    }
}

static SPAWNER: LazyLock<mpsc::SyncSender<Job>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::sync_channel::<Job>(SPAWNER_QUEUE);
    thread::Builder::new()
        .name("child-spawner".to_owned())
        .spawn(move || jobs.into_iter().for_each(|job| job()))
        .expect("a thread can be started");
    sender
});

/// Forks on the long-lived thread. The kernel sends the child `on_parent_death` when this process dies.
pub(crate) fn spawn(
    mut command: Command,
    account: Option<Account>,
    on_parent_death: Signal,
) -> io::Result<Child> {
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    // The child gets its own process group: Ctrl-C in a terminal must reach this process first, not the server.
    command.stdin(Stdio::null()).process_group(0);
    die_with_parent(&mut command, on_parent_death);
    let (answer, child) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        // The receiver waits for this message only.
        drop(answer.send(command.spawn()));
    });
    SPAWNER
        .send(job)
        .map_err(|_| io::Error::other("the spawning thread is gone"))?;
    child
        .recv()
        .map_err(|_| io::Error::other("the spawning thread is gone"))?
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command, signal: Signal) {
    // SAFETY: getpid has no preconditions.
    let parent = unsafe { libc::getpid() };
    // SAFETY: the hook runs between fork and exec and calls only prctl and getppid, which are async-signal-safe. It
    // runs after the change of user, which would reset the setting.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() == parent {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command, _signal: Signal) {}

fn send(pid: u32, signal: Signal) {
    // SAFETY: kill has no memory preconditions. The pid is a child that was not waited for yet, or was just seen in
    // /proc. If the process has ended meanwhile, the call fails, which is the wanted result.
    unsafe { libc::kill(pid.cast_signed(), signal as c_int) };
}

/// Runs a short-lived tool to its end, off the runtime's threads.
pub(crate) async fn run_tool(
    tool: &'static str,
    mut command: Command,
    account: Option<Account>,
) -> Result<Output, ServerError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = PathBuf::from(command.get_program());
    let output = tokio::task::spawn_blocking(move || {
        spawn(command, account, Signal::Kill)?.wait_with_output()
    })
    .await
    .map_err(io::Error::other)
    .flatten()
    .map_err(ServerError::io("run", program))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout, output.stderr].concat();
    Err(ServerError::Tool {
        tool,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&text).trim().to_owned(),
    })
}

/// A server's process, which can be ended and replaced by a new process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Mutex<Option<Child>>,
    stop_signal: Signal,
    stop_limit: Duration,
}

impl Process {
    pub(crate) fn new(stop_signal: Signal, stop_limit: Duration) -> Self {
        Self {
            child: Mutex::new(None),
            stop_signal,
            stop_limit,
        }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        // A panic while the lock was held cannot leave the Option half-written.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn start(&self, command: Command, account: Option<Account>) -> io::Result<u32> {
        let child = spawn(command, account, self.stop_signal)?;
        let pid = child.id();
        *self.child() = Some(child);
        Ok(pid)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Returns the exit status once the process has ended by itself.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child().as_mut()?.try_wait().ok().flatten()
    }

    /// Asks the server to stop and waits; kills it after the limit. Does nothing if there is no process.
    pub(crate) async fn stop(&self) {
        let deadline = self.ask_to_stop();
        while !self.reap(deadline) {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends SIGKILL, as if the machine had crashed, and waits for the end.
    pub(crate) async fn kill(&self) {
        self.signal_tree(Signal::Kill);
        let deadline = Instant::now() + self.stop_limit;
        while !self.reap(deadline) {
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) fn pause(&self) {
        self.signal_tree(Signal::Stop);
    }

    pub(crate) fn resume(&self) {
        self.signal_tree(Signal::Continue);
    }

    fn ask_to_stop(&self) -> Instant {
        if let Some(pid) = self.pid() {
            send(pid, self.stop_signal);
            // A paused server cannot stop.
            self.resume();
        }
        Instant::now() + self.stop_limit
    }

    fn reap(&self, deadline: Instant) -> bool {
        let mut child = self.child();
        let Some(process) = child.as_mut() else {
            return true;
        };
        if matches!(process.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                send(process.id(), Signal::Kill);
            }
            return false;
        }
        *child = None;
        true
    }

    /// Signals the process and its children. The process group is not enough, because every Postgres backend leaves it.
    /// The parent is signaled first, so that it forks no more; for SIGCONT it is signaled last.
    fn signal_tree(&self, signal: Signal) {
        let Some(pid) = self.pid() else { return };
        let children = children(pid);
        if signal == Signal::Continue {
            for child in children {
                send(child, signal);
            }
            send(pid, signal);
        } else {
            send(pid, signal);
            // The children are listed again, for those that were forked between the list and the signal.
            children
                .into_iter()
                .chain(self::children(pid))
                .for_each(|child| send(child, signal));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = self.ask_to_stop();
        while !self.reap(deadline) {
            thread::sleep(POLL);
        }
    }
}

fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.path()))
        })
}

fn children(parent: u32) -> Vec<u32> {
    processes()
        .filter_map(|(pid, path)| {
            // The format is "pid (name) state ppid …", and a name may contain spaces and parentheses.
            let stat = fs::read_to_string(path.join("stat")).ok()?;
            let ppid = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            (ppid.parse() == Ok(parent)).then_some(pid)
        })
        .collect()
}

/// Ends processes that a killed run has left in `directory`. The caller holds the directory's lock, so no other owner's
/// server is there. A process is ours if it runs `program` with this working directory. A pid file is not enough,
/// because its number may meanwhile belong to another process, or to a zombie.
pub(crate) async fn end_left_over(directory: &Path, program: &str) -> Result<(), ServerError> {
    const TERMINATE_AFTER: Duration = Duration::from_secs(3);
    const KILL_AFTER: Duration = Duration::from_secs(6);
    const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
    let directory = directory
        .canonicalize()
        .map_err(ServerError::io("resolve", directory))?;
    let began = Instant::now();
    loop {
        let left = left_over(&directory, program);
        let Some(first) = left.first() else {
            return Ok(());
        };
        let waited = began.elapsed();
        if waited > GIVE_UP_AFTER {
            return Err(ServerError::LeftOver {
                pid: *first,
                path: directory,
            });
        }
        // The kernel signaled the process when its parent died. It gets time to stop cleanly.
        let signal = if waited > KILL_AFTER {
            Signal::Kill
        } else if waited > TERMINATE_AFTER {
            Signal::Terminate
        } else {
            Signal::Continue
        };
        for pid in left {
            send(pid, signal);
        }
        tokio::time::sleep(POLL * 4).await;
    }
}

fn left_over(directory: &Path, program: &str) -> Vec<u32> {
    processes()
        .filter(|(_, path)| {
            fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == directory)
                && fs::read_link(path.join("exe"))
                    .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == program))
        })
        .map(|(pid, _)| pid)
        .collect()
}
