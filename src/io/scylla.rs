//! The database on a thread of its own, with a tokio runtime that only this thread drives.
//!
//! Requests run concurrently, bounded by each shard's handle. A watch pings the database. When no answer comes, all requests
//! under way fail at once, and new ones are refused until a session exists again.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::io::signals;
use crate::io::store_bridge::{Backing, Ends, Origin, guarded};
use crate::store::scylla::{Connected, Latencies, OpenError, Options, Scylla, migrate};
use crate::store::{Failure, Reply, Request};

/// Pause between two pings, and between two tries to reach the database.
const WATCH_EVERY: Duration = Duration::from_millis(100);
const CONNECT_EVERY: Duration = Duration::from_millis(250);

/// The longest pause between two tries at the start.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// How to watch a database while it is used.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// After this long without any answer the database counts as lost.
    pub lost_after: Duration,
    /// Between two reports of statement latency; zero: only one, at the end.
    pub report_every: Duration,
}

/// What to do when the database is unreachable at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Update the schema, and end when the database is unreachable.
    Once,
    /// Wait for it.
    Wait,
}

/// A connected database. Owner: the thread that starts the node, then the bridge's.
pub struct Database {
    runtime: Runtime,
    options: Options,
    connected: Connected,
    epoch: u64,
    times: Times,
}

/// Updates the schema, and returns the versions before and after.
///
/// # Errors
/// When the system refuses a runtime, or the database cannot be reached or refuses.
pub fn migrate_schema(options: &Options) -> Result<(i32, i32), Box<dyn Error + Send + Sync>> {
    Ok(runtime()?.block_on(migrate(options))?)
}

pub(super) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Opens a session, and updates the schema first if `migrates`.
pub(super) async fn reach(options: &Options, migrates: bool) -> Result<Connected, OpenError> {
    if migrates {
        migrate(options).await?;
    }
    Connected::open(options).await
}

impl Database {
    /// Connects to the database and takes the node's next epoch.
    ///
    /// # Errors
    /// When it cannot be reached ([`Start::Once`]), refuses, or its schema is too old; when a signal ends the wait.
    pub fn open(options: Options, node: u16, start: Start, times: Times) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let runtime = runtime()?;
        let mut pause = CONNECT_EVERY;
        let connected = loop {
            match (runtime.block_on(reach(&options, start == Start::Once)), start) {
                (Ok(connected), _) => break connected,
                (Err(OpenError::Unreachable(reason)), Start::Wait) => {
                    tracing::warn!(%reason, retry_in_ms = pause.as_millis(), "waiting for the database");
                    if signals::came_within(pause) {
                        return Err("ended while waiting for the database".into());
                    }
                    pause = (pause * 2).min(BACK_OFF_MAX);
                }
                (Err(error), _) => return Err(error.into()),
            }
        };
        let store = Scylla::new(options.clone(), connected);
        let epoch = runtime.block_on(store.next_epoch(node))?;
        Ok(Self { runtime, options, connected: store.into_connected(), epoch, times })
    }
}

impl Backing for Database {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn start(self, ends: Ends) -> io::Result<Vec<JoinHandle<()>>> {
        let Self { runtime, options, connected, times, .. } = self;
        let serve = move || {
            let store = Rc::new(Scylla::new(options, connected));
            let local = LocalSet::new();
            local.block_on(&runtime, serve(store, ends, times));
        };
        let serve = move || guarded(serve);
        Ok(vec![Builder::new().name("store-scylla".into()).spawn(serve)?])
    }
}

/// Serves until every handle is dropped and every request answered.
async fn serve(store: Rc<Scylla>, ends: Ends, times: Times) {
    let Ends { writes, reads, answers, wake, .. } = ends;
    let (lost, is_lost) = watch::channel(false);
    let (under_way, idle) = (Rc::new(RefCell::new(0_usize)), Rc::new(Notify::new()));
    let reachable = answers.clone();
    let watching =
        tokio::task::spawn_local(watch_over(Rc::clone(&store), lost, times.lost_after, move |up| reachable.set_reachable(up)));
    let reporting = tokio::task::spawn_local(report_every(Rc::clone(&store), times.report_every));
    let begin = |origin: Origin, request: Request| {
        if *is_lost.borrow() {
            answers.give(origin, Reply::Failed(Failure::Unavailable));
            return answers.wake(origin.shard);
        }
        let mut losing = is_lost.clone();
        let given_up = async move { _ = losing.wait_for(|lost| *lost).await };
        let asked = store.ask(request, given_up);
        let (answers, under_way, idle) = (answers.clone(), Rc::clone(&under_way), Rc::clone(&idle));
        *under_way.borrow_mut() += 1;
        tokio::task::spawn_local(async move {
            answers.give(origin, asked.await);
            answers.wake(origin.shard);
            *under_way.borrow_mut() -= 1;
            idle.notify_one();
        });
    };
    loop {
        let mut ended = 0;
        loop {
            match writes.try_recv() {
                Ok(batch) => batch.into_iter().for_each(|(origin, write)| begin(origin, write.into())),
                Err(error) => break ended += usize::from(error.is_disconnected()),
            }
        }
        loop {
            match reads.try_recv() {
                Ok((origin, read)) => begin(origin, read.into()),
                Err(error) => break ended += usize::from(error.is_disconnected()),
            }
        }
        if ended == 2 {
            break;
        }
        wake.notified().await;
    }
    while *under_way.borrow() > 0 {
        idle.notified().await;
    }
    watching.abort();
    reporting.abort();
    report("statement latency since the session was made, in powers of two", store.latencies());
}

/// Logs statement latency at each interval; never when `every` is zero.
async fn report_every(store: Rc<Scylla>, every: Duration) {
    if every.is_zero() {
        return;
    }
    loop {
        sleep(every).await;
        report("statement latency since the last report, in powers of two", store.new_latencies());
    }
}

fn report(what: &'static str, latencies: Vec<Latencies>) {
    for latency in latencies.into_iter().filter(|latency| latency.count > 0) {
        tracing::info!(
            statement = latency.statement,
            count = latency.count,
            failures = latency.failures,
            p50_us = latency.quantiles[0].as_micros(),
            p99_us = latency.quantiles[1].as_micros(),
            p999_us = latency.quantiles[2].as_micros(),
            "{what}"
        );
    }
}

/// Reports when the database is lost and when it is back.
async fn watch_over(store: Rc<Scylla>, lost: watch::Sender<bool>, lost_after: Duration, set_reachable: impl Fn(bool)) {
    loop {
        sleep(WATCH_EVERY).await;
        if store.silence() < WATCH_EVERY || is_alive(&store, lost_after).await {
            continue;
        }
        tracing::error!(silent_for_ms = store.silence().as_millis(), "the database is lost: requests are refused");
        lost.send_replace(true);
        set_reachable(false);
        if let Some(connected) = reach_again(&store).await {
            store.replace(connected);
        }
        tracing::info!("the database is back");
        lost.send_replace(false);
        set_reachable(true);
    }
}

/// Pings until the database has not answered anything for `patience`: more than once, so that one lost connection does not
/// count as a lost database.
async fn is_alive(store: &Scylla, patience: Duration) -> bool {
    while store.silence() < patience {
        let left = patience.saturating_sub(store.silence());
        if store.ping(left.min(patience / 2)).await || store.silence() < WATCH_EVERY {
            return true;
        }
        sleep(WATCH_EVERY / 2).await;
    }
    false
}

/// Waits until the database answers: on the old session, which may have outlived a pause, or on a new one, as the driver
/// takes seconds to reconnect.
async fn reach_again(store: &Scylla) -> Option<Connected> {
    let old = async {
        while !store.ping(Duration::from_secs(1)).await {
            sleep(CONNECT_EVERY).await;
        }
    };
    let new = async {
        loop {
            match Connected::open(store.options()).await {
                Ok(connected) => return connected,
                Err(error) => tracing::debug!(%error, "the database is not back yet"),
            }
            sleep(CONNECT_EVERY).await;
        }
    };
    tokio::select! {
        () = old => None,
        connected = new => Some(connected),
    }
}
