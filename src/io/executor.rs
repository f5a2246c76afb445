//! One executor: four tasks around a pump, from the start to the end of the node.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_channel::Sender;
use glommio::{LocalExecutorBuilder, Placement, spawn_local, yield_if_needed};

use crate::io::mesh::ShardWaker;
use crate::io::poller::Poller;
use crate::io::pump::{Parts, Pump};
use crate::io::tick::Tick;
use crate::io::watchdog::Progress;
use crate::model::ShardId;
use crate::shard::{Shard, ShardSettings};

/// Connections written between two looks at whether the executor has something more urgent: about 60 us.
const WRITES_BETWEEN_YIELDS: usize = 16;

/// How far the node is. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    Starting,
    Running,
    Draining,
    Stopping,
}

/// The node's phase, and the shards to wake when it changes. Lifetime and view: the node's.
#[derive(Debug)]
pub(super) struct Control {
    phase: AtomicU8,
    wakers: Vec<Arc<ShardWaker>>,
}

impl Control {
    pub(super) fn new(wakers: Vec<Arc<ShardWaker>>) -> Self {
        Self { phase: AtomicU8::new(Phase::Starting as u8), wakers }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Running,
            2 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Goes on to `phase`, unless the node is further already, and tells every shard.
    pub(super) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

/// What an executor tells the thread that runs the node.
#[derive(Debug)]
pub(super) enum Report {
    Up,
    /// It ended. Before the node stops, that is a failure.
    Ended,
}

/// What an executor is started with.
pub(super) struct Start {
    pub(super) settings: ShardSettings,
    pub(super) parts: Parts,
    pub(super) control: Arc<Control>,
    pub(super) reports: Sender<Report>,
}

thread_local! {
    /// Dropped at the end of the thread, whatever glommio does with the tasks of an executor that panicked.
    static END: RefCell<Option<EndReport>> = const { RefCell::new(None) };
}

/// Says that the executor ended, however it ended. An executor that ends while the node runs takes the process with it:
/// its users would wait for ever, and the other shards for its answers.
struct EndReport {
    shard: ShardId,
    control: Arc<Control>,
    reports: Sender<Report>,
}

impl Drop for EndReport {
    fn drop(&mut self) {
        let phase = self.control.phase();
        if phase == Phase::Running || phase == Phase::Draining {
            eprintln!("tidings: the executor of shard {} ended, so the process ends", self.shard.0);
            std::process::abort();
        }
        // Nobody listens any more when the start has failed.
        let _unheard = self.reports.send(Report::Ended);
    }
}

/// Starts the executor's thread, pinned to `cpu` if there is one. It sends `Up` when it serves, or `Ended`.
///
/// # Errors
/// When the system refuses a thread or a descriptor, or there is no such processor.
pub(super) fn spawn(start: Start, cpu: Option<usize>) -> std::io::Result<glommio::ExecutorJoinHandle<()>> {
    let shard = start.settings.id;
    let end = EndReport { shard, control: Arc::clone(&start.control), reports: start.reports.clone() };
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(&format!("shard-{}", shard.0))
        // Only for registered buffers, which are not used; the default pins 30 MB an executor.
        .io_memory(0)
        .spawn(move || async move {
            END.set(Some(end));
            if let Err(error) = run(start).await {
                tracing::error!(shard = shard.0, %error, "the executor cannot serve");
            }
        })
        .map_err(Into::into)
}

/// What the tasks of an executor share. View: one shard.
struct Tasks {
    pump: RefCell<Pump>,
    poller: Rc<Poller>,
    waker: Arc<ShardWaker>,
    progress: Arc<Progress>,
    tick: Tick,
    control: Arc<Control>,
}

async fn run(start: Start) -> std::io::Result<()> {
    let Start { settings, parts, control, reports } = start;
    let (shard, waker, progress) = (settings.id, parts.receiver.waker(), Arc::clone(&parts.progress));
    progress.begin();
    let poller = Rc::new(Poller::new()?);
    let pump = RefCell::new(Pump::new(parts, Shard::new(settings), Rc::clone(&poller))?);
    let tasks = Rc::new(Tasks { pump, poller, waker, progress, tick: Tick::default(), control });
    let readiness = spawn_local(Rc::clone(&tasks).readiness());
    let time = spawn_local(Rc::clone(&tasks).time());
    let calls = spawn_local(Rc::clone(&tasks).calls());
    let _unheard = reports.send(Report::Up);
    tasks.mailbox().await;
    tasks.poller.nudge();
    tasks.progress.call();
    readiness.await;
    time.await;
    calls.await;
    let (pumped, handled) = tasks.pump.borrow().counters();
    tracing::info!(shard = shard.0, ?pumped, ?handled, "shard ended");
    Ok(())
}

impl Tasks {
    fn is_running(&self) -> bool {
        self.control.phase() < Phase::Stopping
    }

    /// Runs until the node stops: mail, replies, and what the node's thread says.
    async fn mailbox(&self) {
        let mut seen = Phase::Running;
        while seen < Phase::Stopping {
            self.waker.wait(|| self.control.phase() > seen || self.pump.borrow().has_mail()).await;
            let phase = self.control.phase();
            if seen < Phase::Draining && phase >= Phase::Draining {
                self.pump.borrow_mut().drain();
            }
            seen = phase.max(seen);
            self.turns().await;
        }
    }

    /// Runs until the node stops: sockets.
    ///
    /// # Panics
    /// When io_uring no longer waits for the sockets: this shard would serve no client.
    async fn readiness(self: Rc<Self>) {
        while self.is_running() {
            self.turns().await;
            if let Err(error) = self.poller.wait().await {
                panic!("waiting for sockets failed: {error}");
            }
        }
    }

    /// Runs until the node stops: time. Its turn also finds what a wake-up should have told.
    async fn time(self: Rc<Self>) {
        while self.is_running() {
            self.tick.wait().await;
            self.turns().await;
        }
    }

    /// Runs until the node stops: what it is called for is that it runs at all.
    async fn calls(self: Rc<Self>) {
        while self.is_running() {
            self.progress.until_called().await;
            self.turns().await;
        }
    }

    /// Takes turns until nothing happens any more. Every turn looks at all sources, whichever woke the task: under load
    /// an executor goes long without returning to its reactor, and mail must not wait for that.
    async fn turns(&self) {
        let mut happened = false;
        loop {
            let more = self.pump.borrow_mut().take_turn();
            self.flush().await;
            if !more {
                return self.tick.put_off(happened, self.pump.borrow().due_in());
            }
            happened = true;
            yield_if_needed().await;
        }
    }

    /// Writes every connection that has something to write, and lets others run in between.
    async fn flush(&self) {
        loop {
            let more = self.pump.borrow_mut().flush(WRITES_BETWEEN_YIELDS);
            if !more {
                return;
            }
            yield_if_needed().await;
        }
    }
}
