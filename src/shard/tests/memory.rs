//! What an idle client costs.

use crate::protocol::{stomp, websocket};
use crate::session::{Session, Subscription};
use crate::shard::connection::{Connection, Http, Socket};
use crate::shard::users::{Live, User};

/// Everything on the heap for a WebSocket session with one subscription, allocations counted with 16 bytes each beyond
/// their size. The text of one subscription and the places in tables are estimated.
#[test]
fn an_idle_session_is_small() {
    let parts = [
        ("Connection", size_of::<Connection>()),
        ("Socket", size_of::<Socket>()),
        ("websocket::Decoder", size_of::<websocket::Decoder>()),
        ("Live, with the Session and its first Subscription", size_of::<Live>()),
        ("the subscription's id and destination", 2 * 32),
        ("User, in its map", size_of::<User>() * 2),
        ("places of the connection and the session", 2 * 8),
        ("two entries among the timers", 2 * 24),
    ];
    let sum: usize = parts.iter().map(|(_, bytes)| bytes + 16).sum();
    let inside = [
        ("Session", size_of::<Session>()),
        ("Subscription", size_of::<Subscription>()),
        ("stomp::Decoder", size_of::<stomp::Decoder>()),
        ("Http", size_of::<Http>()),
    ];
    println!("{parts:?} {inside:?}: {sum} bytes");
    assert!(sum <= 1_100, "{parts:?} {inside:?}: {sum} bytes");
}
