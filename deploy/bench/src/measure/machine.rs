//! Describes the machine that was measured.

use anyhow::{Context, Result};
use procfs::{CpuInfo, Current, Meminfo, process::Process};
use saga_service::clock;
use serde::Serialize;
use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

const UNKNOWN: &str = "unknown";
/// The size of one page of a write-ahead log, and how often such a page is written and flushed.
const PROBE_BYTES: usize = 8_192;
const PROBES: usize = 200;

/// The properties of a machine that a reader needs to compare figures with those of another machine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub date: String,
    /// The commit of the sources, with a plus sign if they were changed since.
    pub commit: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    /// The type of the filesystem that holds the servers' data.
    pub filesystem: String,
    /// Median time of writing and flushing 8 KiB there: no commit is faster.
    pub flush_us: u64,
    pub rustc: String,
}

impl Machine {
    /// Describes the machine. `data_dir` is where the servers keep their data.
    pub fn look(data_dir: &Path) -> Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            date: clock::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit(),
            cpu: cpu().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: Meminfo::current().map_or(0, |memory| memory.mem_total >> 20),
            kernel: release.trim().to_owned(),
            filesystem: filesystem(mounts(), data_dir),
            flush_us: flush_us(data_dir).context("writing to the data directory")?,
            rustc: said("rustc", &["--version"]).unwrap_or_else(|| UNKNOWN.to_owned()),
        })
    }
}

/// Returns the output of a program, run in the directory of the sources; `None` if it fails.
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

fn cpu() -> Option<String> {
    let all = CpuInfo::current().ok()?;
    Some(all.model_name(0)?.to_owned())
}

/// Returns the mount points with the types of their filesystems.
fn mounts() -> Vec<(PathBuf, String)> {
    let all = Process::myself().and_then(|own| own.mountinfo());
    let all = all.into_iter().flatten();
    all.map(|mount| (mount.mount_point, mount.fs_type))
        .collect()
}

/// Returns the type of the filesystem that holds a path: that of the longest mount point which is a prefix of the path.
fn filesystem(mounts: Vec<(PathBuf, String)>, path: &Path) -> String {
    let above = mounts
        .into_iter()
        .filter(|(point, _)| path.starts_with(point));
    let innermost = above.max_by_key(|(point, _)| point.as_os_str().len());
    innermost.map_or_else(|| UNKNOWN.to_owned(), |(_, kind)| kind)
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
    fn the_innermost_mount_counts() {
        let mounts = || {
            let all = [("/", "ext4"), ("/tmp", "tmpfs"), ("/tmpo", "xfs")];
            all.map(|(point, kind)| (PathBuf::from(point), kind.to_owned()))
                .to_vec()
        };
        let check = |path: &str, expected: &str| {
            assert_eq!(filesystem(mounts(), Path::new(path)), expected, "{path}");
        };
        check("/tmp/data", "tmpfs");
        check("/tmporary", "ext4");
        check("/var/lib", "ext4");
    }
}
