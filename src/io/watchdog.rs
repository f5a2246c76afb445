//! Watches every executor from a thread of its own, and wakes one that has stopped taking turns.
//!
//! The tick bounds how long glommio 0.9.0 sleeps with a task that could run, unless that task is the tick's own. Then no
//! timer is left, and only another thread that wakes another task ends the sleep.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::io::mesh::ShardWaker;
use crate::io::tick;

/// Several ticks: an executor without a turn in all that time sleeps for no reason, or works on something long.
const LOOK_EVERY: Duration = tick::LONGEST.saturating_mul(5);

/// One executor's progress. Lifetime: the node's. Owner: shared by the executor and the watchdog. View: one shard.
#[derive(Debug, Default)]
pub(super) struct Progress {
    turns: AtomicU64,
    wake_requested: AtomicBool,
    waker: ShardWaker,
    /// The kernel's `stat` file of its thread.
    stat: OnceLock<PathBuf>,
}

impl Progress {
    /// Call this on the executor's thread.
    pub(super) fn begin(&self) {
        let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        // Without it the watchdog only logs less.
        _ = self.stat.set(PathBuf::from("/proc").join(thread).join("stat"));
    }

    /// `R` when the thread runs or waits for a CPU, `S` when it sleeps, and the other letters of `proc_pid_stat(5)`. `None`
    /// when it has not begun or the kernel does not report it.
    fn state(&self) -> Option<char> {
        let text = std::fs::read_to_string(self.stat.get()?).ok()?;
        // The name before it may contain anything.
        text.rsplit_once(") ")?.1.chars().next()
    }

    /// The executor has taken a turn.
    pub(super) fn took_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes the executor.
    pub(super) fn wake(&self) {
        self.wake_requested.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits for a call of [`wake`](Self::wake). Only one task may ever wait.
    pub(super) async fn until_woken(&self) {
        self.waker.wait(|| self.wake_requested.swap(false, Ordering::AcqRel)).await;
    }
}

/// Starts the thread that looks at the executors until the other end of `end` is dropped.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn watch(executors: Vec<Arc<Progress>>, end: Receiver<()>) -> io::Result<JoinHandle<()>> {
    let look = move || {
        let (mut seen, mut stalls) = (vec![None; executors.len()], 0_u64);
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(LOOK_EVERY) {
            for shard in stalled(&executors, &mut seen) {
                let state = executors[shard].state().unwrap_or('?');
                executors[shard].wake();
                stalls += 1;
                // This is usual on a machine with too little CPU time, so log it seldom.
                if stalls.is_power_of_two() {
                    let for_ms = LOOK_EVERY.as_millis();
                    tracing::warn!(shard, stalls, for_ms, %state, "a shard took no turn and was woken");
                }
            }
        }
    };
    Builder::new().name("watchdog".into()).spawn(look)
}

/// The executors that took no turn since the last look.
fn stalled(executors: &[Arc<Progress>], seen: &mut [Option<u64>]) -> Vec<usize> {
    let turns = executors.iter().map(|progress| Some(progress.turns.load(Ordering::Relaxed)));
    let looks = turns.zip(seen).map(|(turns, seen)| std::mem::replace(seen, turns) == turns);
    looks.enumerate().filter_map(|(shard, is_stalled)| is_stalled.then_some(shard)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_without_a_turn_since_the_last_look_is_stalled() {
        let executors = [Arc::<Progress>::default(), Arc::default()];
        let mut seen = [None; 2];
        assert!(stalled(&executors, &mut seen).is_empty(), "the first look has nothing to compare with");
        executors[0].took_turn();
        assert_eq!(stalled(&executors, &mut seen), [1]);
        executors[1].took_turn();
        assert_eq!(stalled(&executors, &mut seen), [0]);
        assert_eq!(stalled(&executors, &mut seen), [0, 1]);
    }

    #[test]
    fn the_kernel_distinguishes_running_from_sleeping_threads() {
        let progress = Arc::<Progress>::default();
        assert_eq!(progress.state(), None);
        progress.begin();
        assert_eq!(progress.state(), Some('R'));
        let sleeper = Arc::<Progress>::default();
        let (end, is_ended) = crossbeam_channel::bounded::<()>(0);
        let sleeps = Arc::clone(&sleeper);
        let thread = std::thread::spawn(move || {
            sleeps.begin();
            is_ended.recv()
        });
        while sleeper.state() != Some('S') {
            std::thread::yield_now();
        }
        drop(end);
        thread.join().unwrap().unwrap_err();
    }

    /// Nothing in the executor has a timer: without the watchdog it would sleep for ever.
    #[test]
    fn a_sleeping_executor_is_woken_repeatedly() {
        let progress = Arc::<Progress>::default();
        let (end, is_ended) = crossbeam_channel::bounded(0);
        let watchdog = watch(vec![Arc::clone(&progress)], is_ended).unwrap();
        let executor = glommio::LocalExecutorBuilder::default().io_memory(0).spawn(move || async move {
            for _ in 0..3 {
                progress.until_woken().await;
            }
        });
        executor.unwrap().join().unwrap();
        drop(end);
        watchdog.join().unwrap();
    }
}
