//! **A shard keeps its side of the boundary.** It names connections that it has, flushes each once at a time, bounds what
//! waits for one, and reports that it has drained when nothing is left. `shards` and `sockets` see it and report it here.

use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "a shard keeps its side of the boundary";

impl Oracle {
    pub(in crate::sim) fn boundary_broken(&mut self, what: String) {
        self.break_promise(Promise::Boundary, what);
    }
}
