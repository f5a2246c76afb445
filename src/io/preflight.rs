//! Checks of what the server needs from the system, each with its fix. Used at the start, where glommio would otherwise
//! panic and blame the kernel, and by `tidings doctor`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::io::listener;

/// glommio's minimum for one executor.
const MEMLOCK_BYTES_PER_SHARD: u64 = 512 * 1024;

/// Descriptors that are not connections: the store's files, rings, listeners, logs.
const FILES_RESERVED: u64 = 256;
/// Descriptors of one executor: three rings, epoll, eventfd, listeners.
const FILES_PER_SHARD: u64 = 16;
/// With fewer connections than this the server would be of no use.
const CONNECTIONS_MIN: u64 = 64;

/// The oldest kernel tested: its io_uring has the operations that glommio's rings use.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// What the check found.
    pub detail: String,
    /// How to fix it; empty when the check passed.
    pub fix: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "\n  fix: {}", self.fix) }
    }
}

/// Checks everything but the port, for `shards` executors. Raises the soft limits of files and locked memory as far as
/// the hard ones allow. Waits a tenth of a second at most.
#[must_use]
pub fn checks(shards: u16) -> Vec<Check> {
    vec![kernel(), memlock(shards), uring(), files(shards)]
}

/// Checks that the server can listen on the address.
#[must_use]
pub fn port(address: SocketAddr) -> Check {
    let outcome = listener::probe(address);
    let fix = match &outcome {
        Ok(()) => String::new(),
        Err(error) => port_fix(address, error),
    };
    let detail = match outcome {
        Ok(()) => format!("{address} is free"),
        Err(error) => format!("{address}: {error}"),
    };
    Check { name: "port", ok: fix.is_empty(), detail, fix }
}

pub(super) fn port_fix(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "another server listens on port {port}: stop it (`ss -ltnp 'sport = :{port}'` names it), or choose another port"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=): \
                 give it, or take a port above instead of {port}"
            )
        }
        io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this machine: choose one that is", address.ip()),
        _ => "choose another address".into(),
    }
}

/// The number of connections that the limit of descriptors allows. Call this after [`checks`], which raises the limit.
#[must_use]
pub fn connections_max(shards: u16) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(connections_for(files, shards)).unwrap_or(usize::MAX)
}

fn connections_for(files: u64, shards: u16) -> u64 {
    files.saturating_sub(FILES_RESERVED + FILES_PER_SHARD * u64::from(shards)).max(CONNECTIONS_MIN)
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let ok = kernel_version(&release).is_none_or(|version| version >= KERNEL_MIN);
    let (major, minor) = KERNEL_MIN;
    Check {
        name: "kernel",
        ok,
        detail: format!("Linux {release}"),
        fix: if ok { String::new() } else { format!("Linux {major}.{minor} or newer is needed for io_uring") },
    }
}

/// Major and minor number; `None` when `release` has another form.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn uring() -> Check {
    let mut outcome = uring_probe();
    if outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOMEM)) {
        // The kernel may still charge memory that another process of this user had locked just before it ended.
        pause();
        outcome = uring_probe();
    }
    let ok = outcome.is_ok();
    let (detail, fix) = match outcome {
        Ok(()) => ("available".into(), String::new()),
        Err(error) => (error.to_string(), uring_fix(&error)),
    };
    Check { name: "io_uring", ok, detail, fix }
}

/// Sets up a ring as an executor does, and checks that the kernel supports the operations it waits with.
fn uring_probe() -> io::Result<()> {
    let ring = IoUring::new(128)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed =
        [opcode::PollAdd::CODE, opcode::PollRemove::CODE, opcode::Timeout::CODE, opcode::AsyncCancel::CODE, opcode::Read::CODE];
    match needed.iter().find(|code| !probe.is_supported(**code)) {
        None => Ok(()),
        Some(code) => Err(io::Error::other(format!("operation {code} is missing"))),
    }
}

fn uring_fix(error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    uring_fix_for(error.raw_os_error(), disabled.trim()).into()
}

/// `disabled` is the value of `kernel.io_uring_disabled`: 0 allows all processes, 1 privileged ones, 2 none.
fn uring_fix_for(errno: Option<i32>, disabled: &str) -> &'static str {
    match (errno, disabled) {
        (Some(libc::EPERM), "1") => {
            "only privileged processes may use io_uring: `sysctl kernel.io_uring_disabled=0`, \
             or add the user's group to kernel.io_uring_group"
        }
        (Some(libc::EPERM), "2") => "io_uring is switched off: `sysctl kernel.io_uring_disabled=0`",
        (Some(libc::EPERM | libc::EACCES), _) => {
            "the container's seccomp profile forbids io_uring: allow io_uring_setup, io_uring_enter and io_uring_register \
             (Docker: --security-opt seccomp=<profile that allows them>)"
        }
        (Some(libc::ENOSYS), _) => "this kernel has no io_uring: Linux 5.8 or newer is needed, built with CONFIG_IO_URING",
        (Some(libc::ENOMEM), _) => {
            "the limit of locked memory is too low: raise it (`ulimit -l`, systemd: LimitMEMLOCK=, Docker: --ulimit memlock=)"
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => "no descriptor is left: raise the limit of open files (`ulimit -n`)",
        _ => "Linux 5.8 or newer is needed, with io_uring allowed",
    }
}

fn memlock(shards: u16) -> Check {
    let needed = MEMLOCK_BYTES_PER_SHARD * u64::from(shards);
    let limit = raise(Resource::Memlock, needed);
    let ok = limit.is_none_or(|limit| limit >= needed);
    let kib = needed / 1024;
    Check {
        name: "memlock",
        ok,
        detail: limit
            .map_or_else(|| "unlimited".into(), |limit| format!("{} KiB, {kib} needed for {shards} shards", limit / 1024)),
        fix: if ok {
            String::new()
        } else {
            format!(
                "allow {kib} KiB to be locked (`ulimit -l {kib}`, systemd: LimitMEMLOCK={kib}K, \
                 Docker: --ulimit memlock={needed}), or run fewer shards"
            )
        },
    }
}

fn files(shards: u16) -> Check {
    let limit = raise(Resource::Nofile, u64::MAX);
    let needed = FILES_RESERVED + FILES_PER_SHARD * u64::from(shards) + CONNECTIONS_MIN;
    let ok = limit.is_none_or(|limit| limit >= needed);
    let connections = connections_for(limit.unwrap_or(u64::MAX), shards);
    Check {
        name: "files",
        ok,
        detail: limit
            .map_or_else(|| "unlimited".into(), |limit| format!("{limit} open files, room for {connections} connections")),
        fix: if ok { String::new() } else { format!("allow {needed} open files at least (`ulimit -n`, systemd: LimitNOFILE=)") },
    }
}

/// Raises the soft limit to `wanted` or as far as the hard one allows, and returns it. Never lowers it. `None`: no limit.
fn raise(resource: Resource, wanted: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let soft = current?;
    let target = maximum.unwrap_or(u64::MAX).min(wanted);
    if target > soft && setrlimit(resource, Rlimit { current: Some(target), maximum }).is_ok() {
        return Some(target);
    }
    Some(soft)
}

/// Keeps transparent huge pages from filling a small heap: with them, 16 executors took 78 MB instead of 9.
pub fn small_pages() {
    // SAFETY: sets one flag of this process; the other arguments must be zero (PR_SET_THP_DISABLE of prctl(2)).
    let outcome = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
    if outcome != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "huge pages stay enabled");
    }
}

#[expect(clippy::disallowed_methods, reason = "runs on the thread that starts the node, before any executor")]
fn pause() {
    thread::sleep(Duration::from_millis(100));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_run_a_shard() {
        for check in checks(1) {
            assert!(check.ok, "{check}");
            assert!(check.fix.is_empty() && !check.detail.is_empty(), "{check:?}");
        }
        assert!(connections_max(1) >= 64);
    }

    #[test]
    fn kernel_releases_of_every_form() {
        for (release, expect) in [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("5.8.0", Some((5, 8))),
            ("4.19-generic", Some((4, 19))),
            ("7", None),
            ("", None),
            ("x.y", None),
        ] {
            assert_eq!(kernel_version(release), expect, "{release}");
        }
    }

    #[test]
    fn each_refusal_of_io_uring_has_its_fix() {
        for (errno, disabled, word) in [
            (libc::EPERM, "1", "io_uring_group"),
            (libc::EPERM, "2", "io_uring_disabled=0"),
            (libc::EPERM, "0", "seccomp"),
            (libc::ENOSYS, "", "CONFIG_IO_URING"),
            (libc::ENOMEM, "0", "memlock"),
            (libc::EMFILE, "0", "ulimit -n"),
            (libc::EIO, "0", "5.8"),
        ] {
            let fix = uring_fix_for(Some(errno), disabled);
            assert!(fix.contains(word), "{errno} {disabled}: {fix}");
        }
    }

    #[test]
    fn the_check_names_a_taken_port() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let check = port(address);
        assert!(!check.ok && check.fix.contains(&format!("port {}", address.port())), "{check}");
        drop(taken);
        assert!(port(address).ok);
    }

    #[test]
    fn descriptors_are_reserved_for_the_store() {
        for (files, shards, expect) in [(1_024, 1, 752), (1_024, 16, 512), (100, 1, 64), (1_000_000, 2, 999_712)] {
            assert_eq!(connections_for(files, shards), expect, "{files} {shards}");
        }
    }
}
