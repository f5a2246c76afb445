//! **Everything comes to rest.** Once nothing goes wrong any more, every client is online, every command has its answer, and
//! nothing is under way between the shards and the store.

use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "once nothing goes wrong any more, everything comes to rest";

impl Oracle {
    pub(in crate::sim) fn unsettled(&mut self, what: String) {
        self.break_promise(Promise::Settled, what);
    }
}
