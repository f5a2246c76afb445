//! A look from outside at every executor: one that has stopped taking turns is woken.
//!
//! The tick bounds how long glommio 0.9.0 sleeps with a task that could run, unless the tick is that task. Then no timer
//! is left, and only a wake-up of yet another task, from another thread, ends the sleep.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::io::mesh::ShardWaker;
use crate::io::tick;

/// Several ticks: who took no turn in all that time sleeps for no reason, or works on something long.
const LOOK_EVERY: Duration = tick::LONGEST.saturating_mul(5);

/// One executor's. Lifetime: the node's. Owner: shared by the executor and who looks at it. View: one shard.
#[derive(Debug, Default)]
pub(super) struct Progress {
    turns: AtomicU64,
    called: AtomicBool,
    waker: ShardWaker,
    /// The file in which the kernel tells of its thread.
    stat: OnceLock<PathBuf>,
}

impl Progress {
    /// The executor is on this thread.
    pub(super) fn begin(&self) {
        let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        // Without it the watch has less to say, and that is all.
        _ = self.stat.set(PathBuf::from("/proc").join(thread).join("stat"));
    }

    /// `R` when the thread is on a CPU or waits for one that others have, `S` when it sleeps, and the other letters of
    /// `proc_pid_stat(5)`. `None` when it has not begun or the kernel does not tell.
    fn state(&self) -> Option<char> {
        let text = std::fs::read_to_string(self.stat.get()?).ok()?;
        // The name before it may hold anything.
        text.rsplit_once(") ")?.1.chars().next()
    }

    /// The executor has taken a turn.
    pub(super) fn took_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes the executor.
    pub(super) fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Until it was called. Only one task may ever wait.
    pub(super) async fn until_called(&self) {
        self.waker.wait(|| self.called.swap(false, Ordering::AcqRel)).await;
    }
}

/// Looks at executors until the other end of `end` is dropped.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn watch(executors: Vec<Arc<Progress>>, end: Receiver<()>) -> io::Result<JoinHandle<()>> {
    let look = move || {
        let (mut seen, mut stalls) = (vec![None; executors.len()], 0_u64);
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(LOOK_EVERY) {
            for shard in stalled(&executors, &mut seen) {
                let state = executors[shard].state().unwrap_or('?');
                executors[shard].call();
                stalls += 1;
                // On a machine with too little time for its threads this is usual, and told seldom.
                if stalls.is_power_of_two() {
                    let for_ms = LOOK_EVERY.as_millis();
                    tracing::warn!(shard, stalls, for_ms, %state, "a shard took no turn and was called");
                }
            }
        }
    };
    Builder::new().name("progress".into()).spawn(look)
}

/// Who has taken no turn since the last look.
fn stalled(executors: &[Arc<Progress>], seen: &mut [Option<u64>]) -> Vec<usize> {
    let turns = executors.iter().map(|progress| Some(progress.turns.load(Ordering::Relaxed)));
    let looks = turns.zip(seen).map(|(turns, seen)| std::mem::replace(seen, turns) == turns);
    looks.enumerate().filter_map(|(shard, is_stalled)| is_stalled.then_some(shard)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_took_no_turn_since_the_last_look_is_stalled() {
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
    fn the_kernel_tells_threads_that_run_from_those_that_sleep() {
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

    /// Nothing in the executor has a timer: without the calls it would sleep for ever.
    #[test]
    fn an_executor_that_sleeps_is_called_again_and_again() {
        let progress = Arc::<Progress>::default();
        let (end, is_ended) = crossbeam_channel::bounded(0);
        let watching = watch(vec![Arc::clone(&progress)], is_ended).unwrap();
        let executor = glommio::LocalExecutorBuilder::default().io_memory(0).spawn(move || async move {
            for _ in 0..3 {
                progress.until_called().await;
            }
        });
        executor.unwrap().join().unwrap();
        drop(end);
        watching.join().unwrap();
    }
}
