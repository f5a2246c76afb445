//! A node: its threads from the first to the last.
//!
//! Start: probe the system and the port, open the store, bind, start the store's threads, start the executors.
//! End: drain every shard, wait until each reports that nothing is left, stop the executors, then the store, which has
//! no requests left by then.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded, unbounded};
use glommio::ExecutorJoinHandle;

use crate::io::executor::{self, Control, Phase, Report, Start};
use crate::io::listener::{self, Listener};
use crate::io::mesh;
use crate::io::otp_sender;
pub use crate::io::otp_sender::SendOtp;
use crate::io::preflight::{self, Check};
use crate::io::pump::Parts;
use crate::io::signals;
use crate::io::store_bridge::{self, Backing, StoreThreads};
use crate::io::watchdog::{self, Progress};
use crate::model::ShardId;
use crate::session::Policy;
use crate::shard::{ListenerKind, ShardSettings};

/// Opens the store; called once, after checking that the port is free.
pub type OpenStore<S> = Box<dyn FnOnce() -> Result<S, Box<dyn Error + Send + Sync>>>;

/// How to run a node.
pub struct NodeOptions<S> {
    /// Addresses to listen on, and the kind of each listener; port 0 takes a free port.
    pub listen: Vec<(SocketAddr, ListenerKind)>,
    /// Executors; at least 1.
    pub shards: u16,
    /// Processors to pin the executors to, in turn. `None`: those that the process may use. Empty: not pinned.
    pub cpus: Option<Vec<usize>>,
    /// This node's number in the cluster.
    pub node: u16,
    pub policy: Arc<Policy>,
    pub store: OpenStore<S>,
    /// Connections of the node; accepting pauses at this number, or at the one that the file limit allows.
    pub connections: usize,
    /// Sends one-time codes; runs on a thread of its own.
    pub send_otp: SendOtp,
    /// Called once, when every shard serves.
    pub on_ready: Box<dyn FnOnce(&Ready)>,
}

/// What the node started.
#[derive(Clone, Debug)]
pub struct Ready {
    /// With the actual ports in place of port 0.
    pub addresses: Vec<SocketAddr>,
    pub shards: u16,
    /// By shard; `None`: not pinned.
    pub cpus: Vec<Option<usize>>,
    /// Connections after which accepting pauses.
    pub connections_max: usize,
    pub epoch: u64,
}

/// Why a node could not start.
#[derive(Debug)]
pub enum StartError {
    /// A check of the system failed; it contains the fix.
    System(Check),
    /// The address cannot be bound; with the fix.
    Listen {
        address: SocketAddr,
        error: io::Error,
        fix: String,
    },
    Store(Box<dyn Error + Send + Sync>),
    /// A thread, a descriptor or randomness was refused.
    Resources {
        what: &'static str,
        error: io::Error,
    },
    /// An executor ended before it served; the log has the reason.
    Executor {
        reason: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(check) => check.fmt(f),
            Self::Listen { address, error, fix } => write!(f, "cannot listen on {address}: {error}\n  fix: {fix}"),
            Self::Store(error) => write!(f, "the store cannot be opened: {error}"),
            Self::Resources { what, error } => write!(f, "{what}: {error}"),
            Self::Executor { reason } => write!(f, "an executor did not start: {reason}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen { error, .. } | Self::Resources { error, .. } => Some(error),
            Self::Store(error) => Some(&**error),
            Self::System(_) | Self::Executor { .. } => None,
        }
    }
}

/// Runs a node until SIGTERM or SIGINT has drained it. Call this on the process's first thread, before any other thread
/// starts: it blocks signals from here on.
///
/// # Errors
/// When the node cannot start; no thread of it keeps running then.
pub fn run<S: Backing>(options: NodeOptions<S>) -> Result<(), StartError> {
    signals::block().map_err(|error| StartError::Resources { what: "signals cannot be blocked", error })?;
    let node = Node::start(options)?;
    let control = Arc::clone(&node.control);
    signals::watch(move || control.advance(Phase::Draining))
        .map_err(|error| StartError::Resources { what: "no thread for signals", error })?;
    node.join();
    Ok(())
}

/// A running node. Lifetime: from the start until [`join`](Self::join) returns. Owner: the thread that started it.
pub struct Node {
    control: Arc<Control>,
    reports: Receiver<Report>,
    drained: Receiver<ShardId>,
    executors: Vec<ExecutorJoinHandle<()>>,
    store: StoreThreads,
    otp_thread: JoinHandle<()>,
    /// By shard.
    progress: Vec<Arc<Progress>>,
    ready: Ready,
}

impl Node {
    /// Starts a node and returns when every shard serves. Does not touch signals.
    ///
    /// # Errors
    /// When the node cannot start.
    pub fn start<S: Backing>(options: NodeOptions<S>) -> Result<Self, StartError> {
        assert!(options.shards > 0, "a node has at least one shard");
        preflight::small_pages();
        let shards = options.shards;
        if let Some(check) = preflight::checks(shards).into_iter().find(|check| !check.ok) {
            return Err(StartError::System(check));
        }
        for (address, _) in &options.listen {
            listener::probe(*address).map_err(|error| listen_error(*address, error))?;
        }
        let store = (options.store)().map_err(StartError::Store)?;
        let (listeners, addresses) = bind(&options.listen, shards)?;
        let ready = Ready {
            addresses,
            shards,
            cpus: placements(shards, options.cpus),
            connections_max: options.connections.min(preflight::connections_max(shards)),
            epoch: store.epoch(),
        };
        let seeds = seeds(shards)?;
        let settings = seeds.into_iter().zip((0..shards).map(ShardId)).map(|(seed, id)| ShardSettings {
            id,
            shards,
            node: options.node,
            epoch: ready.epoch,
            seed,
            policy: Arc::clone(&options.policy),
        });
        let node = Self::spawn(settings.collect(), listeners, store, options.send_otp, &options.policy, ready)?;
        if !node.is_up() {
            let reason = node.stop().unwrap_or_else(|| "the log has the reason".into());
            return Err(StartError::Executor { reason });
        }
        node.control.advance(Phase::Running);
        (options.on_ready)(&node.ready);
        Ok(node)
    }

    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Asks every shard to finish. [`join`](Self::join) returns when all have finished.
    pub fn drain(&self) {
        self.control.advance(Phase::Draining);
    }

    /// Waits for a drain to begin and to end, then ends all threads. Afterwards all writes are on disk.
    pub fn join(self) {
        let (end, is_ended) = bounded(0);
        // Without the watchdog, shards rely on the tick alone.
        let watchdog = watchdog::watch(self.progress.clone(), is_ended)
            .inspect_err(|error| tracing::error!(%error, "the watchdog did not start"));
        for _ in 0..self.ready.shards {
            // An executor that ends by itself now ends the process, so every shard reports.
            if let Ok(shard) = self.drained.recv() {
                tracing::debug!(shard = shard.0, "drained");
            }
        }
        drop(end);
        if let Ok(watchdog) = watchdog {
            let _ended = watchdog.join();
        }
        self.stop();
    }

    fn spawn<S: Backing>(
        settings: Vec<ShardSettings>,
        listeners: Vec<Vec<Listener>>,
        store: S,
        send_otp: SendOtp,
        policy: &Policy,
        ready: Ready,
    ) -> Result<Self, StartError> {
        let no_thread = |error| StartError::Resources { what: "a thread was refused", error };
        let mesh_ends = mesh::mesh(ready.shards, mesh::DEPTH);
        let wakers: Vec<_> = mesh_ends.iter().map(|(receiver, _)| receiver.waker()).collect();
        let (store, store_handles) = store_bridge::start(store, &wakers, policy.limits.store_inflight).map_err(no_thread)?;
        let (otp_thread, otp_sender) = otp_sender::start(send_otp).map_err(no_thread)?;
        let control = Arc::new(Control::new(wakers));
        let (reports_in, reports) = unbounded();
        let (drained_in, drained) = unbounded();
        let open = Arc::<AtomicUsize>::default();
        let (mut executors, mut progress_by_shard) = (Vec::new(), Vec::new());
        for ((((settings, (mesh_receiver, mesh_sender)), store), listeners), cpu) in
            settings.into_iter().zip(mesh_ends).zip(store_handles).zip(listeners).zip(&ready.cpus)
        {
            let progress = Arc::<Progress>::default();
            progress_by_shard.push(Arc::clone(&progress));
            let parts = Parts {
                id: settings.id,
                progress,
                listeners,
                mesh_receiver,
                mesh_sender,
                store,
                otp_sender: otp_sender.clone(),
                open: Arc::clone(&open),
                open_max: ready.connections_max,
                connections_max: policy.limits.connections_per_shard,
                drained: drained_in.clone(),
            };
            let start = Start { settings, parts, control: Arc::clone(&control), reports: reports_in.clone() };
            let executor = executor::spawn(start, *cpu).map_err(|error| {
                // The executors that already run end by themselves.
                control.advance(Phase::Stopping);
                StartError::Executor { reason: error.to_string() }
            })?;
            executors.push(executor);
        }
        Ok(Self { control, reports, drained, executors, store, otp_thread, progress: progress_by_shard, ready })
    }

    /// Waits until all executors serve, or one has ended.
    fn is_up(&self) -> bool {
        (0..self.ready.shards).all(|_| matches!(self.reports.recv(), Ok(Report::Up)))
    }

    /// Ends all threads. Returns the reason if an executor failed.
    fn stop(self) -> Option<String> {
        self.control.advance(Phase::Stopping);
        let mut reason = None;
        for executor in self.executors {
            if let Err(error) = executor.join() {
                tracing::error!(%error, "an executor failed");
                reason = Some(error.to_string());
            }
        }
        // The executors dropped the store's handles, so the store ends after its last batch.
        self.store.join();
        let _ended = self.otp_thread.join();
        reason
    }
}

/// Returns the listeners of each shard, one on each address, and the addresses with their actual ports.
fn bind(listen: &[(SocketAddr, ListenerKind)], shards: u16) -> Result<(Vec<Vec<Listener>>, Vec<SocketAddr>), StartError> {
    let mut by_shard: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for (address, kind) in listen {
        let failed = |error| listen_error(*address, error);
        let listeners = listener::bind_all(*address, *kind, shards).map_err(failed)?;
        for (number, (listener, shard_listeners)) in listeners.into_iter().zip(&mut by_shard).enumerate() {
            listener.listen().map_err(failed)?;
            if number == 0 {
                addresses.push(listener.address().map_err(failed)?);
            }
            shard_listeners.push(listener);
        }
    }
    Ok((by_shard, addresses))
}

fn listen_error(address: SocketAddr, error: io::Error) -> StartError {
    let fix = preflight::port_fix(address, &error);
    StartError::Listen { address, error, fix }
}

/// Assigns processors to shards in turn, so that more shards than processors share them.
fn placements(shards: u16, cpus: Option<Vec<usize>>) -> Vec<Option<usize>> {
    let cpus = cpus.unwrap_or_else(allowed_cpus);
    let mut turn = cpus.iter().copied().cycle();
    (0..shards).map(|_| turn.next()).collect()
}

/// The processors that this process may run on, ascending; empty when the system does not report them.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

fn seeds(shards: u16) -> Result<Vec<[u8; 32]>, StartError> {
    let mut seeds = vec![[0; 32]; usize::from(shards)];
    for seed in &mut seeds {
        getrandom::fill(seed).map_err(|error| StartError::Resources { what: "no randomness", error: error.into() })?;
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_processors_in_turn() {
        let check = |shards, cpus: &[usize], expect: &[Option<usize>]| {
            assert_eq!(placements(shards, Some(cpus.to_vec())), expect);
        };
        check(3, &[2, 5], &[Some(2), Some(5), Some(2)]);
        check(1, &[2, 5], &[Some(2)]);
        check(2, &[], &[None, None]);
        assert!(!allowed_cpus().is_empty());
    }
}
