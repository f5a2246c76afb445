//! The kernel's clocks in nanoseconds, read through one call so that server, floor and load share one measure.

use std::io;

/// Time since an arbitrary start; never goes back.
pub fn mono_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Seconds since 1970, for the `exp` of tokens.
pub fn wall_seconds() -> u64 {
    read(libc::CLOCK_REALTIME) / 1_000_000_000
}

/// CPU time of all threads of a process, ended ones included, as the kernel accounts it (`sum_exec_runtime`: the value in
/// `/proc/PID/task/*/schedstat`, but exact for threads that run at this moment).
///
/// # Errors
/// When the process does not exist.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut clock = 0;
    // SAFETY: `clock` is a valid place for a clockid_t.
    let code = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for a timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for a timespec.
    let code = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(code, 0, "the kernel has no clock {clock}");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward() {
        let (mono, cpu) = (mono_ns(), process_cpu_ns(std::process::id()).unwrap());
        assert!(std::hint::black_box((0..100_000u64).sum::<u64>()) > 0);
        assert!(mono_ns() > mono);
        assert!(process_cpu_ns(std::process::id()).unwrap() > cpu);
        assert!(wall_seconds() > 1_600_000_000);
    }

    #[test]
    fn a_missing_process_is_an_error() {
        /// The greatest id that Linux assigns (`PID_MAX_LIMIT`).
        const PID_MAX: u32 = 1 << 22;
        assert!(process_cpu_ns(PID_MAX + 1).is_err());
    }
}
