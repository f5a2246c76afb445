//! SockJS (protocol 0.3.3): WebSocket messages over any transport that a browser and the proxies in between let through.
//!
//! Flows in: paths below an endpoint, bodies of requests, text messages of its WebSocket. Flows out: messages, and the bytes of
//! packets in each transport's framing. Never imports a socket, a clock or randomness.
//!
//! ```text
//! path    = "" | "/" | "/info" | "/iframe" *any ".html" | "/websocket"
//!         | "/" server "/" session "/" transport                     server and session: not empty, without dots
//! packet  = "o" | "h" | "a[" string *( "," string ) "]" | "c[" code "," string "]"
//! sent    = "[" [ string *( "," string ) ] "]" | string              what clients send; empty: nothing
//! ```
//!
//! Invariants: output is ASCII where browsers or proxies are known to mangle it (control characters, line separators,
//! joiners, the end of the basic plane); no body can end the script, the event or the string that carries it.
//! Strings are JavaScript's: a lone surrogate is kept, in three bytes as if it were a character (WTF-8).

mod decode;
mod encode;
mod pages;
mod path;

pub use decode::{BrokenJson, Messages, messages};
pub use encode::{CLOSE_ANOTHER_OPEN, CLOSE_INTERRUPTED, HEART_BEAT, OPEN, array, callback, close, element, packet, prelude};
pub use pages::{greeting, iframe, iframe_page, info, preflight, receiving, refused};
pub use path::{Path, Transport, parse};

/// One year in seconds: how long unchanging responses may be cached.
const YEAR_SECONDS: &str = "31536000";

/// For responses that no cache and no proxy may keep or change.
const NOT_CACHED: &str = "no-store, no-cache, no-transform, must-revalidate, max-age=0";
