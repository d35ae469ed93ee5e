//! What the kernel tells of processes: CPU and memory, from `/proc`.

use anyhow::{Context, Result};
use std::{collections::BTreeMap, fs};

/// The kernel's unit of CPU time: a hundredth of a second on every Linux that this runs on (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
const KIB: u64 = 1_024;

/// Of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub parent: u32,
    /// User and system time of its own, in ticks.
    pub own_ticks: u64,
    /// Of its children that have ended and were waited for.
    pub ended_children_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may hold any character, parentheses and spaces too.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first one here is the third of the file; see proc(5).
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(4)?).ok()?,
            own_ticks: number(14)? + number(15)?,
            ended_children_ticks: number(16)? + number(17)?,
        })
    }

    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Of `/proc/PID/status`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// What no other process shares.
    pub anonymous: u64,
    /// Shared memory that it has touched.
    pub shared: u64,
}

impl Memory {
    fn parse(text: &str) -> Self {
        let kib = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number =
                value.and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
            KIB * number.unwrap_or(0)
        };
        Self {
            resident: kib("VmRSS"),
            anonymous: kib("RssAnon"),
            shared: kib("RssShmem"),
        }
    }

    fn of(pid: u32) -> Option<Self> {
        Some(Self::parse(
            &fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        ))
    }
}

/// A process that is watched, or one with all its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub name: String,
    pub pid: u32,
    /// Postgres is a process a connection.
    pub with_children: bool,
}

/// CPU seconds since it was started, and memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

/// By name. A process that has ended is missing.
pub fn usage(all: &[Watched]) -> BTreeMap<String, Usage> {
    let processes = if all.iter().any(|watched| watched.with_children) {
        parents()
    } else {
        Vec::new()
    };
    let of = |watched: &Watched| {
        let stat = Stat::of(watched.pid)?;
        let memory = Memory::of(watched.pid)?;
        let usage = if watched.with_children {
            let children = processes
                .iter()
                .filter(|(_, stat)| stat.parent == watched.pid);
            let children: Vec<(Stat, Memory)> = children
                .map(|(pid, stat)| (*stat, Memory::of(*pid).unwrap_or_default()))
                .collect();
            family((stat, memory), &children)
        } else {
            Usage {
                cpu_seconds: seconds(stat.own_ticks),
                resident_bytes: memory.resident,
            }
        };
        Some((watched.name.clone(), usage))
    };
    all.iter().filter_map(of).collect()
}

/// Open file descriptors by name, a family's together. A process that has ended is missing.
pub fn descriptors(all: &[Watched]) -> BTreeMap<String, u64> {
    let processes = if all.iter().any(|watched| watched.with_children) {
        parents()
    } else {
        Vec::new()
    };
    let of = |watched: &Watched| {
        let own = open_files(watched.pid)?;
        let children = processes
            .iter()
            .filter(|(_, stat)| watched.with_children && stat.parent == watched.pid);
        let theirs: u64 = children.filter_map(|(pid, _)| open_files(*pid)).sum();
        Some((watched.name.clone(), own + theirs))
    };
    all.iter().filter_map(of).collect()
}

fn open_files(pid: u32) -> Option<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(files.count() as u64)
}

/// A child's time is its own while it lives, and its parent's when it has ended. Shared memory is counted once: as much as
/// the one that has touched most of it.
fn family(parent: (Stat, Memory), children: &[(Stat, Memory)]) -> Usage {
    let everyone = || children.iter().chain([&parent]);
    let ticks: u64 = everyone()
        .map(|(stat, _)| stat.own_ticks + stat.ended_children_ticks)
        .sum();
    let anonymous: u64 = everyone().map(|(_, memory)| memory.anonymous).sum();
    let shared = everyone().map(|(_, memory)| memory.shared).max();
    Usage {
        cpu_seconds: seconds(ticks),
        resident_bytes: anonymous + shared.unwrap_or(0),
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

/// Every process.
fn parents() -> Vec<(u32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::of(pid)?)))
        .collect()
}

/// CPU seconds of the whole machine since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineTime {
    /// By anybody, in user and system mode and for interrupts.
    pub busy: f64,
    /// Taken by other guests of the same host.
    pub stolen: f64,
}

pub fn machine_time() -> Result<MachineTime> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    parse_machine(&text).context("/proc/stat cannot be read")
}

/// `cpu  user nice system idle iowait irq softirq steal …`
fn parse_machine(text: &str) -> Option<MachineTime> {
    let fields = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = fields
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
        return None;
    };
    Some(MachineTime {
        busy: seconds(user + nice + system + irq + softirq),
        stolen: seconds(steal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(own_ticks: u64, ended_children_ticks: u64) -> Stat {
        Stat {
            parent: 1,
            own_ticks,
            ended_children_ticks,
        }
    }

    #[test]
    fn stat_is_read_whatever_the_process_is_called() {
        let check = |name: &str| {
            let text = format!(
                "812 ({name}) S 1 812 812 0 -1 4194560 100 0 0 0 150 50 7 3 20 0 9 0 4711 1 2 3"
            );
            assert_eq!(Stat::parse(&text), Some(stat(200, 10)), "{name}");
        };
        check("java");
        check("a b) c (d");
        check("");
        assert_eq!(Stat::parse("812 (java) S"), None);
    }

    #[test]
    fn memory_is_read_by_name() {
        let text = "Name:\tjava\nVmHWM:\t  900 kB\nVmRSS:\t  400 kB\nRssAnon:\t 300 kB\nRssFile:\t 20 kB\n\
                    RssShmem:\t  80 kB\n";
        let expected = Memory {
            resident: 400 * KIB,
            anonymous: 300 * KIB,
            shared: 80 * KIB,
        };
        assert_eq!(Memory::parse(text), expected);
        // A thread of the kernel has none.
        assert_eq!(Memory::parse("Name:\tkthreadd\n"), Memory::default());
    }

    #[test]
    fn a_family_counts_ended_children_and_shared_memory_once() {
        let memory = |anonymous, shared| Memory {
            resident: anonymous + shared,
            anonymous,
            shared,
        };
        let parent = (stat(100, 500), memory(10, 70));
        let children = [(stat(300, 0), memory(20, 90)), (stat(100, 0), memory(5, 0))];
        let expected = Usage {
            cpu_seconds: 10.0,
            resident_bytes: 10 + 20 + 5 + 90,
        };
        assert_eq!(family(parent, &children), expected);
    }

    #[test]
    fn own_time_is_seen() {
        let own = Watched {
            name: "self".to_owned(),
            pid: std::process::id(),
            with_children: true,
        };
        assert!(usage(&[own])["self"].resident_bytes > 0);
        assert!(machine_time().expect("a machine").busy > 0.0);
    }

    #[test]
    fn own_descriptors_are_seen() {
        let own = || Watched {
            name: "self".to_owned(),
            pid: std::process::id(),
            with_children: false,
        };
        let before = descriptors(&[own()])["self"];
        let held: Vec<fs::File> = (0..50)
            .map(|_| fs::File::open("/proc/self/stat").expect("a file"))
            .collect();
        // Other tests of this process open and close files meanwhile.
        assert!(descriptors(&[own()])["self"] >= before + 40, "{before}");
        drop(held);
    }

    #[test]
    fn machine_time_leaves_out_idling_and_waiting() {
        let text = "cpu  100 20 30 900000 800000 4 6 50 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        let expected = MachineTime {
            busy: 1.6,
            stolen: 0.5,
        };
        assert_eq!(parse_machine(text), Some(expected));
        assert_eq!(parse_machine("intr 1 2 3\n"), None);
    }
}
