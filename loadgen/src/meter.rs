//! The server's CPU time between two moments of a run, from the kernel's accounting.

use std::fs;
use std::io;

use serde::Serialize;

use crate::clock;

/// CPU and wall time of a process for a number of items, such as messages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spent {
    pub count: u64,
    pub cpu_ns: u64,
    pub wall_ns: u64,
}

impl Spent {
    /// CPU time of one item, in microseconds.
    pub fn cpu_us_each(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.cpu_ns as f64 / self.count as f64 / 1_000.0 }
    }

    /// Share of one CPU.
    pub fn cpu_share(self) -> f64 {
        if self.wall_ns == 0 { 0.0 } else { self.cpu_ns as f64 / self.wall_ns as f64 }
    }
}

/// Watches a count grow: the reading begins after the warm-up and ends with the last item.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    begin_at: u64,
    end_at: u64,
    begin: Option<Reading>,
    end: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    count: u64,
    cpu_ns: u64,
    wall_ns: u64,
}

impl Meter {
    pub fn new(pid: u32, begin_at: u64, end_at: u64) -> Self {
        assert!(begin_at < end_at);
        Self { pid, begin_at, end_at, begin: None, end: None }
    }

    pub fn observe(&mut self, count: u64) {
        if count >= self.begin_at && self.begin.is_none() {
            self.begin = self.read(count);
        }
        if count >= self.end_at && self.end.is_none() {
            self.end = self.read(count);
        }
    }

    /// `None` when the process has ended.
    fn read(&self, count: u64) -> Option<Reading> {
        let cpu_ns = clock::process_cpu_ns(self.pid).ok()?;
        Some(Reading { count, cpu_ns, wall_ns: clock::mono_ns() })
    }

    /// The time spent from the end of the warm-up to the last item.
    pub fn spent(&self) -> Option<Spent> {
        let (begin, end) = (self.begin?, self.end?);
        Some(Spent {
            count: end.count - begin.count,
            cpu_ns: end.cpu_ns.saturating_sub(begin.cpu_ns),
            wall_ns: end.wall_ns - begin.wall_ns,
        })
    }
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `VmRSS` of `/proc/PID/status`.
    pub resident: u64,
    /// `Anonymous` of `smaps_rollup`: what the process itself allocated.
    pub anonymous: u64,
}

/// # Errors
/// When the process has ended, or its files may not be read.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Memory { resident: kilobytes(&status, "VmRSS:"), anonymous: kilobytes(&rollup, "Anonymous:") })
}

/// The kernel's memory for TCP and its slabs, in bytes: for both ends, as both are on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelMemory {
    /// Buffers of TCP sockets: pages of `mem` in `/proc/net/sockstat`.
    pub tcp_buffers: u64,
    /// `Slab` of `/proc/meminfo`: sockets, files, epoll items, and everything else the kernel keeps.
    pub slab: u64,
}

/// # Errors
/// When `/proc` cannot be read.
pub fn kernel_memory() -> io::Result<KernelMemory> {
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    let pages = sockstat.lines().find(|line| line.starts_with("TCP:")).and_then(|line| word_after(line, "mem")).unwrap_or(0);
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    Ok(KernelMemory { tcp_buffers: pages * 4_096, slab: kilobytes(&meminfo, "Slab:") })
}

/// CPU time of threads by name, in nanoseconds. Threads of one name are added up; threads that have ended are missing.
///
/// # Errors
/// When the process has ended.
pub fn threads(pid: u32) -> io::Result<Vec<(String, u64)>> {
    let mut named: Vec<(String, u64)> = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        // A thread may end between the listing and here.
        let (Ok(name), Ok(stat)) = (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat"))) else {
            continue;
        };
        let cpu: u64 = stat.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match named.iter_mut().find(|(other, _)| other == name.trim()) {
            Some((_, sum)) => *sum += cpu,
            None => named.push((name.trim().to_owned(), cpu)),
        }
    }
    named.sort_by_key(|(_, cpu)| std::cmp::Reverse(*cpu));
    Ok(named)
}

/// Whether every thread of the process may run on `cpu` and on no other.
///
/// # Errors
/// When the process has ended.
pub fn is_pinned(pid: u32, cpu: usize) -> io::Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if allowed.is_some_and(|list| list.trim() != cpu.to_string()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

fn word_after(line: &str, name: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 100_000 && memory.anonymous > 0);
        assert!(!threads(pid).unwrap().is_empty());
        assert!(kernel_memory().unwrap().slab > 0);
    }

    #[test]
    fn reads_the_forms_of_proc() {
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"), 12 * 1_024);
        assert_eq!(word_after("TCP: inuse 5 orphan 0 tw 0 alloc 6 mem 3", "mem"), Some(3));
        assert_eq!(word_after("TCP: inuse 5", "mem"), None);
    }

    #[test]
    fn reads_from_warm_up_to_the_last() {
        let mut meter = Meter::new(std::process::id(), 10, 20);
        for count in [0, 9] {
            meter.observe(count);
        }
        assert!(meter.begin.is_none());
        meter.observe(11);
        assert_eq!(meter.spent(), None);
        meter.observe(20);
        assert_eq!(meter.spent().map(|spent| spent.count), Some(9));
    }
}
