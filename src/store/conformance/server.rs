//! The store on a real server, which `TIDINGS_CQL` names: `tests/run cql` starts one. The tests that use it are ignored unless
//! they are asked for, and fail without a server.

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
pub(crate) fn open() -> OnServer {
    open_with(|_| {})
}

/// With other options.
pub(crate) fn open_with(change: impl FnOnce(&mut Options)) -> OnServer {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nodes = std::env::var("TIDINGS_CQL").expect("TIDINGS_CQL names a CQL server: tests/run cql");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut options = Options {
        nodes: nodes.split(',').map(String::from).collect(),
        keyspace: format!("conformance_{}_{number}", std::process::id()),
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
    OnServer { runtime, store, options }
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
    fn apply(&mut self, request: Request) -> Reply {
        self.runtime.block_on(self.store.ask(request, pending()))
    }

    /// The database itself drops expired rows, and the store shows none of them until then.
    fn purge_all(&mut self, _: Wall) {}
}
