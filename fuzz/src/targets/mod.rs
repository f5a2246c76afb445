//! What must hold of every input, one function for each target.
//!
//! The fuzzer calls these with what it makes up (`fuzz_targets/`), and `tests/corpus.rs` with what is kept in `corpus/`. Each panics
//! when something does not hold.

mod http;
mod journal;
mod sockjs;
mod stomp;
mod websocket;

pub use http::http;
pub use journal::journal;
pub use sockjs::sockjs;
pub use stomp::stomp;
pub use websocket::websocket;

/// Checks one input; panics when something does not hold.
pub type Target = fn(&[u8]);

/// Each target with the name of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 5] =
    [("http", http), ("websocket", websocket), ("stomp", stomp), ("sockjs", sockjs), ("journal", journal)];

/// The first byte, which says how the rest is to be read, and the rest.
fn split(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}
