//! The permanent tick of an executor: it sets the precision of deadlines and the longest sleep of the executor.
//!
//! An executor needs it even without deadlines. glommio 0.9.0 may park with a task that could run, when its preemption flag
//! is set before any task ran, and only a timer ends that. Waking an executor costs several times as much as a turn, so every
//! turn puts the tick off, and a quiet shard sleeps longer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use glommio::timer::Timer;

/// The tick after a turn in which something happened.
pub const SHORTEST: Duration = Duration::from_millis(10);
/// The longest tick after turns in which nothing happened; each of them doubles it.
pub const LONGEST: Duration = Duration::from_millis(40);

/// Lifetime and owner: a shard's executor, on which it must be made. View: one executor.
#[derive(Debug)]
pub struct Tick {
    timer: RefCell<Timer>,
    length: Cell<Duration>,
}

impl Default for Tick {
    fn default() -> Self {
        Self { timer: RefCell::new(Timer::new(SHORTEST)), length: Cell::new(SHORTEST) }
    }
}

impl Tick {
    /// Restarts the tick after a turn. `due` is the time until the next deadline, which shortens the tick, but not below
    /// [`SHORTEST`].
    pub fn put_off(&self, happened: bool, due: Option<Duration>) {
        self.length.set(if happened { SHORTEST } else { (self.length.get() * 2).min(LONGEST) });
        let due = due.unwrap_or(LONGEST).max(SHORTEST);
        self.timer.borrow_mut().reset(due.min(self.length.get()));
    }

    /// Waits until a tick passes without being put off. Only one task may wait.
    pub async fn wait(&self) {
        poll_fn(|context| Pin::new(&mut *self.timer.borrow_mut()).poll(context)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::io::clock;

    #[test]
    fn is_put_off_while_a_task_waits_and_ticks_again() {
        let executor = glommio::LocalExecutorBuilder::default().io_memory(0).spawn(|| async {
            let tick = Tick::default();
            for _ in 0..3 {
                let mut waiting = Box::pin(tick.wait());
                if poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await.is_ready() {
                    waiting = Box::pin(tick.wait());
                }
                glommio::timer::sleep(SHORTEST / 2).await;
                let put_off = clock::mono();
                tick.put_off(true, None);
                waiting.await;
                assert!(clock::mono().since(put_off) >= SHORTEST);
            }
        });
        executor.unwrap().join().unwrap();
    }

    #[test]
    fn quiet_makes_it_longer_and_a_deadline_shorter() {
        let executor = glommio::LocalExecutorBuilder::default().io_memory(0).spawn(|| async {
            let tick = Tick::default();
            let length = |happened, due| {
                tick.put_off(happened, due);
                tick.length.get()
            };
            assert_eq!([length(false, None), length(false, None), length(false, None)], [SHORTEST * 2, LONGEST, LONGEST]);
            assert_eq!(length(true, None), SHORTEST);
            for _ in 0..3 {
                tick.put_off(false, None);
            }
            let before = clock::mono();
            tick.put_off(false, Some(Duration::from_millis(15)));
            tick.wait().await;
            assert!(clock::mono().since(before) >= Duration::from_millis(15));
        });
        executor.unwrap().join().unwrap();
    }
}
