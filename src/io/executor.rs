//! One executor: four tasks share a pump from the start to the end of the node.

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

/// Connections written before the executor may run something more urgent: about 60 us.
const WRITES_BETWEEN_YIELDS: usize = 16;

/// The node's phase. It only ever grows.
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

    /// Enters `phase`, unless the node is already in a later one, and wakes every shard.
    pub(super) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

/// An executor's report to the thread that runs the node.
#[derive(Debug)]
pub(super) enum Report {
    Up,
    /// The executor ended. Before the node stops, that is a failure.
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
    /// Dropped when the thread ends, whatever glommio does with the tasks of an executor that panicked.
    static END: RefCell<Option<EndReport>> = const { RefCell::new(None) };
}

/// Reports the end of the executor, whatever ended it. An executor that ends while the node runs ends the process:
/// otherwise its users and the other shards would wait for it for ever.
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
        // The node has dropped the receiver if its start failed.
        let _sent = self.reports.send(Report::Ended);
    }
}

/// Starts the executor's thread, pinned to `cpu` if given. It sends `Up` when it serves, or `Ended`.
///
/// # Errors
/// When the system refuses a thread or a descriptor, or `cpu` does not exist.
pub(super) fn spawn(start: Start, cpu: Option<usize>) -> std::io::Result<glommio::ExecutorJoinHandle<()>> {
    let shard = start.settings.id;
    let end = EndReport { shard, control: Arc::clone(&start.control), reports: start.reports.clone() };
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(&format!("shard-{}", shard.0))
        // For registered buffers, which we do not use; the default pins 30 MB an executor.
        .io_memory(0)
        .spawn(move || async move {
            END.set(Some(end));
            if let Err(error) = run(start).await {
                tracing::error!(shard = shard.0, %error, "the executor cannot serve");
            }
        })
        .map_err(Into::into)
}

/// State that the tasks of an executor share. View: one shard.
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
    let (shard, waker, progress) = (settings.id, parts.mesh_receiver.waker(), Arc::clone(&parts.progress));
    progress.begin();
    let poller = Rc::new(Poller::new()?);
    let pump = RefCell::new(Pump::new(parts, Shard::new(settings), Rc::clone(&poller))?);
    let tasks = Rc::new(Tasks { pump, poller, waker, progress, tick: Tick::default(), control });
    let readiness = spawn_local(Rc::clone(&tasks).readiness());
    let time = spawn_local(Rc::clone(&tasks).time());
    let watched = spawn_local(Rc::clone(&tasks).watched());
    let _sent = reports.send(Report::Up);
    tasks.mailbox().await;
    tasks.poller.nudge();
    tasks.progress.wake();
    readiness.await;
    time.await;
    watched.await;
    let (pumped, handled) = tasks.pump.borrow().counters();
    tracing::info!(shard = shard.0, ?pumped, ?handled, "shard ended");
    Ok(())
}

impl Tasks {
    fn is_running(&self) -> bool {
        self.control.phase() < Phase::Stopping
    }

    /// Handles mail, replies and changes of phase until the node stops.
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

    /// Handles sockets until the node stops.
    ///
    /// # Panics
    /// When io_uring fails to wait for the sockets: this shard would serve no client.
    async fn readiness(self: Rc<Self>) {
        while self.is_running() {
            self.turns().await;
            if let Err(error) = self.poller.wait().await {
                panic!("waiting for sockets failed: {error}");
            }
        }
    }

    /// Handles deadlines until the node stops. Its turn also finds work whose wake-up was lost.
    async fn time(self: Rc<Self>) {
        while self.is_running() {
            self.tick.wait().await;
            self.turns().await;
        }
    }

    /// Takes a turn after each wake-up by the watchdog, until the node stops.
    async fn watched(self: Rc<Self>) {
        while self.is_running() {
            self.progress.until_woken().await;
            self.turns().await;
        }
    }

    /// Takes turns until nothing happens any more. Every turn looks at all sources, whichever woke the task: under load
    /// an executor seldom returns to its reactor, and mail must not wait for that.
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

    /// Writes every connection that has output, and lets other tasks run in between.
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
