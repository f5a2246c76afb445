//! What goes with a connection that moves to its user's shard.

use std::net::IpAddr;

use crate::access::token::Claims;
use crate::model::Redacted;
use crate::session::endpoints::EndpointId;
use crate::session::intent::ConnectRequest;
use crate::shard::clients::framing::Framing;

/// A connection between two shards: no answer outstanding, nothing queued. A descriptor moves at most once.
#[derive(Debug)]
pub struct Handover {
    pub(super) peer: Redacted<IpAddr>,
    /// STOMP bytes that followed CONNECT in its packet, already out of their WebSocket frame.
    pub(super) payload: Vec<u8>,
    /// Read from the socket and not yet decoded.
    pub(super) bytes: Vec<u8>,
    pub(super) progress: Progress,
}

/// How far the connection had come.
#[derive(Debug)]
pub(super) enum Progress {
    /// The token stood in the handshake; the new shard writes the 101.
    Upgrade { switching: Vec<u8>, claims: Claims, endpoint: EndpointId, framing: Framing },
    /// The token stood in CONNECT; the new shard writes CONNECTED.
    Connect { connect: ConnectRequest, claims: Claims, framing: Framing },
}

impl Handover {
    /// The peer's address, for the limits of the new shard.
    #[must_use]
    pub fn peer(&self) -> &Redacted<IpAddr> {
        &self.peer
    }
}
