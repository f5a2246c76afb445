//! The rooms that are fuzzed, and the targets. The rooms are compiled here by themselves, without the rest of the server and what it
//! depends on: they need little more than std, and marking all the rest for the fuzzer would take minutes.

#![allow(dead_code, reason = "other rooms of the server use it")]

// The targets say `tidings`, as tests/corpus.rs includes them, too.
extern crate self as tidings;

#[path = "../../src/store/embedded/journal.rs"]
pub mod journal;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
pub mod targets;

pub mod store {
    pub mod embedded {
        pub use crate::journal;
    }
}
