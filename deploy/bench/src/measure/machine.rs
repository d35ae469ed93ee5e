//! The machine that was measured.

use anyhow::{Context, Result};
use saga_service::clock;
use serde::Serialize;
use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    process::Command,
    time::Instant,
};

const UNKNOWN: &str = "unknown";
/// Of a write-ahead log's page, and how often it is written and flushed.
const PROBE_BYTES: usize = 8_192;
const PROBES: usize = 200;

/// What a reader needs to compare figures with those of another machine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub date: String,
    /// Of the sources, with a plus sign where they were changed since.
    pub commit: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    /// What holds the servers' data.
    pub filesystem: String,
    /// Median of writing and flushing 8 KiB there: no commit is faster.
    pub flush_us: u64,
    pub rustc: String,
}

impl Machine {
    /// `data_dir` is where the servers keep their data.
    pub fn look(data_dir: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Ok(Self {
            date: clock::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit(),
            cpu: cpu(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_mib(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&read("/proc/self/mounts"), data_dir),
            flush_us: flush_us(data_dir).context("writing to the data directory")?,
            rustc: said("rustc", &["--version"]).unwrap_or_else(|| UNKNOWN.to_owned()),
        })
    }
}

/// What a program prints, in the directory of the sources.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn commit() -> String {
    let Some(commit) = said("git", &["rev-parse", "--short=12", "HEAD"]) else {
        return UNKNOWN.to_owned();
    };
    let is_clean = said("git", &["status", "--porcelain"]).is_some_and(|text| text.is_empty());
    if is_clean { commit } else { commit + "+" }
}

fn cpu(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn memory_mib(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    });
    kib.map_or(0, |kib: u64| kib / 1_024)
}

/// Of the mount that a path lies on: the longest that it begins with.
fn filesystem(mounts: &str, path: &Path) -> String {
    let mut found = (0, UNKNOWN);
    for line in mounts.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if let (Some(point), Some(kind)) = (fields.next(), fields.next())
            && path.starts_with(point)
            && point.len() > found.0
        {
            found = (point.len(), kind);
        }
    }
    found.1.to_owned()
}

fn flush_us(directory: &Path) -> Result<u64> {
    let path = directory.join("flush-probe");
    let mut file = fs::File::create(&path)?;
    let mut took: Vec<u64> = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[7; PROBE_BYTES])?;
        file.sync_data()?;
        took.push(began.elapsed().as_micros() as u64);
    }
    fs::remove_file(&path)?;
    took.sort_unstable();
    Ok(took[PROBES / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_by_its_model() {
        assert_eq!(
            cpu("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n"),
            "Fast CPU @ 3 GHz"
        );
        assert_eq!(cpu(""), std::env::consts::ARCH);
    }

    #[test]
    fn memory_is_in_mebibytes() {
        assert_eq!(
            memory_mib("MemTotal:       2097152 kB\nMemFree: 1 kB\n"),
            2_048
        );
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /tmpo xfs rw 0 0\n";
        let check = |path: &str, expected: &str| {
            assert_eq!(filesystem(mounts, Path::new(path)), expected, "{path}");
        };
        check("/tmp/data", "tmpfs");
        check("/tmporary", "ext4");
        check("/var/lib", "ext4");
    }
}
