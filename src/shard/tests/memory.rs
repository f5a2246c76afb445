//! What an idle client costs.

use super::harness::{Net, send};
use crate::protocol::{stomp, websocket};
use crate::session::{Session, Subscription};
use crate::shard::{clients, users};

/// Everything on the heap for a WebSocket session with one subscription, allocations counted with 16 bytes each beyond
/// their size. The text of one subscription and the places in tables are estimated.
#[test]
fn an_idle_session_is_small() {
    let parts: Vec<(&str, usize)> = clients::sizes()
        .into_iter()
        .chain(users::sizes())
        .chain([
            ("websocket::Decoder", size_of::<websocket::Decoder>()),
            ("the subscription's id and destination", 2 * 32),
            ("places of the connection and the session", 2 * 8),
            ("two entries among the timers", 2 * 24),
        ])
        .collect();
    let sum: usize = parts.iter().map(|(_, bytes)| bytes + 16).sum();
    let inside = [
        ("Session", size_of::<Session>()),
        ("Subscription", size_of::<Subscription>()),
        ("stomp::Decoder", size_of::<stomp::Decoder>()),
    ];
    println!("{parts:?} {inside:?}: {sum} bytes");
    assert!(sum <= 1_300, "{parts:?} {inside:?}: {sum} bytes");
}

#[test]
fn an_idle_connection_keeps_no_room_of_a_burst() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let client = net.subscriber(1, &["/user/queue/errors"]);
    let frames: Vec<String> = (0..200).map(|number| send(9, &number.to_string())).collect();
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    net.hold_store();
    net.take(client, 0);
    net.stomp(client, &frames);
    net.release_store();
    net.take(client, usize::MAX);
    assert_eq!(net.heard(client).len(), 200);
    let connection = net.connection(client);
    assert!(net.shards[0].outbox(connection).unwrap().heap_bytes() <= 4 * size_of::<bytes::Bytes>());
    assert!(net.shards[0].users.pending_capacity() <= 4);
}
