//! The store on a real server. `TIDINGS_CQL` names one (`tests/run cql` starts it); without it the other stores are
//! tested alone.

use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::model::Wall;
use crate::store::scylla::{Connected, Options, Scylla, migrate};
use crate::store::{Reply, Request};

use super::Store;

/// A keyspace of its own, on a runtime that only runs while it is asked.
pub(crate) struct OnServer {
    pub(crate) runtime: Runtime,
    pub(crate) store: Rc<Scylla>,
    pub(crate) options: Options,
}

/// Buckets are short, so that pages cross them, and time-outs long: the machine may have other work.
pub(crate) fn open() -> Option<OnServer> {
    open_with(|_| {})
}

/// With other options.
pub(crate) fn open_with(change: impl FnOnce(&mut Options)) -> Option<OnServer> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nodes = std::env::var("TIDINGS_CQL").ok()?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut options = Options {
        nodes: nodes.split(',').map(String::from).collect(),
        keyspace: format!("contract_{}_{number}", std::process::id()),
        request_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        speculative_delay: Duration::from_secs(5),
        bucket: Duration::from_secs(5),
        conversations_max: 4,
        ..Options::default()
    };
    change(&mut options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(migrate(&options)).expect("a schema");
    let store = Rc::new(Scylla::new(options.clone(), runtime.block_on(Connected::open(&options)).expect("a session")));
    Some(OnServer { runtime, store, options })
}

impl OnServer {
    /// Forgets what is remembered of conversations.
    pub(crate) fn forget(&self) {
        self.store.forget();
    }
}

impl Drop for OnServer {
    /// Hundreds of tables would be more than a small node bears.
    fn drop(&mut self) {
        self.runtime.block_on(self.store.drop_keyspace());
    }
}

impl Store for OnServer {
    fn ask(&mut self, request: Request) -> Reply {
        self.runtime.block_on(self.store.ask(request, pending()))
    }

    /// The database drops by itself what has ended, and until then nobody is shown it.
    fn purge_all(&mut self, _: Wall) {}
}
