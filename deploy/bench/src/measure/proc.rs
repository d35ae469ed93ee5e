//! The CPU time and memory of processes and of the machine, from `/proc`.

use anyhow::{Context, Result};
use procfs::{
    CurrentSI, KernelStats,
    process::{Process, all_processes},
    ticks_per_second,
};
use std::collections::BTreeMap;

const KIB: u64 = 1_024;

/// A watched process, alone or with all its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub name: String,
    pub pid: u32,
    /// `true` for Postgres, which has a process for each connection.
    pub with_children: bool,
}

/// CPU seconds since the process was started, and its memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

/// The figures of a single process. Ticks are the kernel's unit of CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Single {
    /// The process's own user and system time.
    own_ticks: u64,
    /// The time of its children that have ended and were waited for.
    ended_children_ticks: u64,
    resident: u64,
    /// Memory that no other process shares.
    anonymous: u64,
    /// Shared memory that the process has touched.
    shared: u64,
}

impl Single {
    fn of(process: &Process) -> Option<Self> {
        let (stat, status) = (process.stat().ok()?, process.status().ok()?);
        let bytes = |kib: Option<u64>| KIB * kib.unwrap_or(0);
        Some(Self {
            own_ticks: stat.utime + stat.stime,
            ended_children_ticks: (stat.cutime + stat.cstime).unsigned_abs(),
            resident: bytes(status.vmrss),
            anonymous: bytes(status.rssanon),
            shared: bytes(status.rssshmem),
        })
    }
}

/// Returns the usage of each process by name. A process that has ended is missing.
pub fn usage(all: &[Watched]) -> BTreeMap<String, Usage> {
    each(all, |process, children| {
        let single = Single::of(process)?;
        let Some(children) = children else {
            return Some(Usage {
                cpu_seconds: seconds(single.own_ticks),
                resident_bytes: single.resident,
            });
        };
        let children: Vec<Single> = children.iter().filter_map(Single::of).collect();
        Some(family(single, &children))
    })
}

/// Returns the number of open file descriptors by name; children are added to their parent. A process that has ended is
/// missing.
pub fn descriptors(all: &[Watched]) -> BTreeMap<String, u64> {
    each(all, |process, children| {
        let children = children.into_iter().flatten();
        let theirs = children.filter_map(|child| child.fd_count().ok());
        Some((process.fd_count().ok()? + theirs.sum::<usize>()) as u64)
    })
}

/// Computes something of each watched process, and of its children if it is watched with them.
fn each<T>(
    all: &[Watched],
    of: impl Fn(&Process, Option<Vec<Process>>) -> Option<T>,
) -> BTreeMap<String, T> {
    let of = |watched: &Watched| {
        let process = Process::new(watched.pid.cast_signed()).ok()?;
        let children = watched.with_children.then(|| children(&process));
        Some((watched.name.clone(), of(&process, children)?))
    };
    all.iter().filter_map(of).collect()
}

fn children(parent: &Process) -> Vec<Process> {
    let all = all_processes().into_iter().flatten().flatten();
    let is_child = |process: &Process| process.stat().is_ok_and(|stat| stat.ppid == parent.pid());
    all.filter(is_child).collect()
}

/// Adds up a process and its children. A child's time counts as its own while it lives, and as its parent's after it
/// has ended. Shared memory is counted once: the amount of the process that has touched the most.
fn family(parent: Single, children: &[Single]) -> Usage {
    let everyone = || children.iter().chain([&parent]);
    let ticks = everyone().map(|single| single.own_ticks + single.ended_children_ticks);
    let anonymous = everyone().map(|single| single.anonymous);
    let shared = everyone().map(|single| single.shared).max();
    Usage {
        cpu_seconds: seconds(ticks.sum()),
        resident_bytes: anonymous.sum::<u64>() + shared.unwrap_or(0),
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / ticks_per_second() as f64
}

/// CPU seconds of the whole machine since it was booted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineTime {
    /// Time of all processes in user and system mode, and of interrupts.
    pub busy: f64,
    /// Time taken by other guests of the same host.
    pub stolen: f64,
}

pub fn machine_time() -> Result<MachineTime> {
    let all = KernelStats::current().context("/proc/stat")?.total;
    let interrupts = all.irq.unwrap_or(0) + all.softirq.unwrap_or(0);
    Ok(MachineTime {
        busy: seconds(all.user + all.nice + all.system + interrupts),
        stolen: seconds(all.steal.unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_counts_ended_children_and_shared_memory_once() {
        let single = |own_ticks, ended_children_ticks, anonymous, shared| Single {
            own_ticks,
            ended_children_ticks,
            resident: anonymous + shared,
            anonymous,
            shared,
        };
        let children = [single(300, 0, 20, 90), single(100, 0, 5, 0)];
        let expected = Usage {
            cpu_seconds: 1_000.0 / ticks_per_second() as f64,
            resident_bytes: 10 + 20 + 5 + 90,
        };
        assert_eq!(family(single(100, 500, 10, 70), &children), expected);
    }

    fn own(with_children: bool) -> Watched {
        Watched {
            name: "self".to_owned(),
            pid: std::process::id(),
            with_children,
        }
    }

    #[test]
    fn own_time_is_seen() {
        assert!(usage(&[own(true)])["self"].resident_bytes > 0);
        assert!(usage(&[own(false)])["self"].resident_bytes > 0);
        assert!(machine_time().expect("a machine").busy > 0.0);
    }

    #[test]
    fn own_descriptors_are_seen() {
        let before = descriptors(&[own(false)])["self"];
        let held: Vec<std::fs::File> = (0..50)
            .map(|_| std::fs::File::open("/proc/self/stat").expect("a file"))
            .collect();
        // Other tests of this process open and close files at the same time.
        let after = descriptors(&[own(false)])["self"];
        assert!(after >= before + 40, "{before}");
        drop(held);
    }
}
