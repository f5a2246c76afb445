//! SIGTERM and SIGINT, handled by one plain thread.
//!
//! They are blocked before any other thread starts, and threads inherit that, so they never interrupt a system call of an
//! executor. The first signal starts a drain; the second ends the process at once.

use std::io;
use std::mem::MaybeUninit;
use std::thread::Builder;
use std::time::Duration;

/// Blocks SIGTERM and SIGINT in this thread and the threads that it starts from now on.
///
/// # Errors
/// Never on Linux, in practice: the set is valid.
pub(super) fn block() -> io::Result<()> {
    let set = set();
    // SAFETY: `set` is an initialised signal set; the null pointer asks for no old mask.
    check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })
}

/// Calls `drain` at the first signal, and ends the process at the second with 128 plus the signal's number, as shells
/// report it. Call [`block`] in the first thread before.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn watch(drain: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let watch = move || {
        let first = wait();
        tracing::info!(signal = first, "draining; a second signal ends at once");
        drain();
        let second = wait();
        tracing::warn!(signal = second, "ending at once");
        // SAFETY: ends the process without running any of its code, as intended: handlers at exit could wait for the
        // very threads that hang.
        unsafe { libc::_exit(128 + second) }
    };
    Builder::new().name("signals".into()).spawn(watch).map(drop)
}

/// Waits for at most `patience`; returns whether a signal came meanwhile. Call [`block`] in this thread before.
pub(super) fn came_within(patience: Duration) -> bool {
    let set = set();
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX);
    let patience = libc::timespec { tv_sec: seconds, tv_nsec: patience.subsec_nanos().into() };
    // SAFETY: the set and the time outlive the call; the null pointer asks for no details of the signal.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const patience) > 0 }
}

/// Waits for the next signal and returns its number.
fn wait() -> libc::c_int {
    let set = set();
    let mut signal = 0;
    loop {
        // SAFETY: both point to values of the right type that outlive the call.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
            return signal;
        }
    }
}

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, which the other calls and the caller rely on; the numbers are valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        set.assume_init()
    }
}

fn check(errno: libc::c_int) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}
