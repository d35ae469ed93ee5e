//! Cleans up after this process, however it ends.
//!
//! Rust does not drop statics, and a killed process runs no code at all. Therefore a child shell reads from a pipe that
//! only this process holds, and runs the lines that it has read when the pipe closes.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
};

static REAPER: LazyLock<Mutex<Child>> = LazyLock::new(|| {
    let shell = Command::new("sh")
        .args(["-c", "trap '' INT TERM HUP; lines=$(cat); eval \"$lines\""])
        // The shell gets its own process group, so that Ctrl-C or a kill of our group does not end it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    Mutex::new(shell)
});

/// Runs a line of shell after this process has ended.
pub fn at_end(line: &str) {
    let mut shell = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("the pipe was asked for");
    writeln!(pipe, "{line}").expect("the reaper reads");
}
