//! The client's side of STOMP over TCP, WebSocket and SockJS, for everything that plays a client: the load generator, the
//! simulator, tests and benches.
//!
//! Flows in: frames to send, and the bytes of a server on each connection, in any pieces. Flows out: [`Event`]s that borrow from
//! those bytes, and [`Output`]s: connections to open or to close, bytes to write. Never imports a socket, a clock, a source of
//! randomness, or a room of ours but model and protocol. Masks and names come from the seed in [`Options`]; keeping the
//! heart-beats that were agreed on is the caller's part.
//!
//! ```text
//! let mut client = Client::new(Transport::WebSocket, &options);
//! client.send_frame(Command::Connect, &headers, None);
//! loop:  while let Some(output) = client.next_output() { open, write or close }
//!        read bytes from the connection of a role
//!        let mut received = client.receive(role, &mut bytes);
//!        while let Some(event) = received.next_event()? { ... }
//! ```
//!
//! Invariants: hostile bytes end in an [`Error`], never in a panic; events do not depend on where the bytes
//! were cut; a frame that came whole over TCP or a WebSocket is borrowed, not copied to the heap; after an error or
//! [`Event::Closed`] nothing more comes out.

mod heartbeat;
pub mod http;
mod received;
pub mod sockjs;
#[cfg(test)]
mod tests;
mod websocket;

pub use heartbeat::HeartBeat;
pub use received::Received;
pub use websocket::write_upgrade;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::protocol::stomp::{self, Command, Frame, Version};
use crate::protocol::websocket::{Kind, masked_frame};
use sockjs::Session;
use websocket::WebSocket;

/// An idle client holds no buffer larger than this.
const KEPT_BYTES_MAX: usize = 4_096;

/// How STOMP travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Directly on a TCP connection.
    Tcp,
    #[default]
    WebSocket,
    /// SockJS in a WebSocket.
    SockJsWebSocket,
    /// SockJS: one response carries many packets.
    XhrStreaming,
    /// SockJS: one request for each packet.
    XhrPolling,
    /// SockJS: an event stream.
    EventSource,
}

impl Transport {
    pub const ALL: [(&'static str, Self); 6] = [
        ("tcp", Self::Tcp),
        ("websocket", Self::WebSocket),
        ("sockjs-websocket", Self::SockJsWebSocket),
        ("xhr-streaming", Self::XhrStreaming),
        ("xhr-polling", Self::XhrPolling),
        ("eventsource", Self::EventSource),
    ];

    /// Whether messages travel in requests and responses of HTTP: two connections.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::XhrStreaming | Self::XhrPolling | Self::EventSource)
    }

    /// Whether STOMP is in packets of SockJS.
    #[must_use]
    pub fn is_sockjs(self) -> bool {
        self == Self::SockJsWebSocket || self.is_http()
    }

    /// The connection that the client's frames leave on.
    #[must_use]
    pub fn sender(self) -> Role {
        if self.is_http() { Role::Sender } else { Role::Receiver }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, transport)| *transport == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.iter().find(|(name, _)| *name == text);
        named.map(|(_, transport)| *transport).ok_or_else(|| format!("`{text}` is no transport"))
    }
}

/// One of a client's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The only connection over TCP and WebSocket; over HTTP the one that waits for packets.
    Receiver,
    /// Over HTTP, the connection that brings messages.
    Sender,
}

/// The settings of a client.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Value of `Host`.
    pub host: &'a str,
    /// The path of the WebSocket, or the path under which SockJS is served.
    pub endpoint: &'a str,
    /// Empty, or `?` and the query of every request's URL.
    pub query: &'a str,
    /// Subprotocols that a plain WebSocket offers, as they stand in their header; empty: none.
    pub protocols: &'a str,
    /// The version that frames are written in until CONNECTED names another.
    pub version: Version,
    /// Decides every mask, the key of the handshake and the name of the SockJS session.
    pub seed: u64,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { host: "localhost", endpoint: "/ws", query: "", protocols: "", version: Version::V12, seed: 0 }
    }
}

/// An action of the server. Borrows from the bytes that came.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "an event lives on the stack until the next one; a box would be a heap call a frame"
)]
pub enum Event<'a> {
    /// The server takes frames. Over TCP it does from the start, and this never comes.
    Open,
    Frame(Frame<'a>),
    /// An EOL of STOMP. Heart-beats of SockJS and pings keep connections, not sessions.
    HeartBeat,
    /// The answer is in the output already.
    Ping,
    Pong(&'a [u8]),
    /// The server's last word: its WebSocket or SockJS session is closed.
    Closed {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// An instruction for one of the connections.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// Open it, to the server's TCP listener for [`Transport::Tcp`] and to its HTTP listener otherwise.
    Open(Role),
    /// Write these bytes. They are not returned again.
    Write(Role, &'a [u8]),
    /// Close it. The client goes on without it, or opens another.
    Close(Role),
}

/// Why a client cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The server answered a request of this connection with a status that does not belong to it.
    Refused { role: Role, status: u16 },
    /// The server opened the SockJS session a second time: it no longer knows the first.
    SessionLost,
    /// The server closed a connection that the client still needed.
    Disconnected { role: Role },
    /// The server broke a protocol.
    Broken(Cow<'static, str>),
}

impl Error {
    fn broken(problem: &'static str) -> Self {
        Self::Broken(problem.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { role, status } => write!(f, "the server answered the {role} with {status}"),
            Self::SessionLost => f.write_str("the server began the SockJS session anew"),
            Self::Disconnected { role } => write!(f, "the server closed the {role} without a close frame or within a request"),
            Self::Broken(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receiver => "receiver",
            Self::Sender => "sender",
        })
    }
}

/// One client and its session. Lifetime: the session's; one that comes back is a new client.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    version: Version,
    framing: Framing,
    stomp: stomp::Decoder,
    /// CONNECTED named this version. The decoder learns it before the next frame, when that one is no longer borrowed.
    agreed: Option<Version>,
    /// STOMP that came in packets of SockJS and was not read yet, from `stream_at` on.
    stream: Vec<u8>,
    stream_at: usize,
    /// Payload of a pong, or reason of a close, while its event is borrowed.
    text: Vec<u8>,
    /// The last message of the WebSocket was a binary one.
    binary: bool,
    /// Nothing more is to come out.
    ended: bool,
    receiver: Wire,
    sender: Wire,
    random: Random,
    /// A frame while it is written.
    frame: Vec<u8>,
}

/// The protocol around STOMP on the wire.
#[derive(Debug)]
enum Framing {
    Tcp,
    WebSocket(Box<WebSocket>),
    Http(Box<Session>),
}

/// The client's end of one connection.
#[derive(Debug, Default)]
struct Wire {
    out: Vec<u8>,
    /// `out` was returned to the caller, and goes with the next call.
    returned: bool,
    open: bool,
    closing: bool,
}

impl Wire {
    /// Has the connection closed. Bytes written from now on leave on the next one.
    fn close(&mut self) -> Result<(), Error> {
        if !self.open {
            return Err(Error::broken("a response on a connection that was not opened"));
        }
        self.closing = true;
        Ok(())
    }

    /// Where bytes to write are appended.
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.forget_returned();
        &mut self.out
    }

    fn forget_returned(&mut self) {
        if std::mem::take(&mut self.returned) {
            self.out.clear();
            if self.out.capacity() > KEPT_BYTES_MAX {
                self.out = Vec::new();
            }
        }
    }
}

impl Client {
    /// A client whose first outputs open the connection and begin the handshake.
    #[must_use]
    pub fn new(transport: Transport, options: &Options<'_>) -> Self {
        let mut client = Self::bare(transport, options);
        let Self { receiver, random, .. } = &mut client;
        client.framing = match transport {
            Transport::Tcp => Framing::Tcp,
            Transport::WebSocket => {
                Framing::WebSocket(Box::new(WebSocket::new(options.endpoint, options, random, &mut receiver.out)))
            }
            Transport::SockJsWebSocket => {
                let path = sockjs::session_path(options.endpoint, random) + "/websocket";
                let options = Options { protocols: "", ..*options };
                Framing::WebSocket(Box::new(WebSocket::new(&path, &options, random, &mut receiver.out)))
            }
            Transport::XhrStreaming | Transport::XhrPolling | Transport::EventSource => {
                Framing::Http(Box::new(Session::new(transport, options, random, receiver)))
            }
        };
        client
    }

    /// A client on an open WebSocket whose handshake is over.
    #[must_use]
    pub fn upgraded(options: &Options<'_>) -> Self {
        let mut client = Self::bare(Transport::WebSocket, options);
        client.framing = Framing::WebSocket(Box::new(WebSocket::upgraded()));
        client.receiver.open = true;
        client
    }

    fn bare(transport: Transport, options: &Options<'_>) -> Self {
        Self {
            transport,
            version: options.version,
            framing: Framing::Tcp,
            stomp: stomp::Decoder::new(stomp::Side::Client),
            agreed: None,
            stream: Vec::new(),
            stream_at: 0,
            text: Vec::new(),
            binary: false,
            ended: false,
            receiver: Wire::default(),
            sender: Wire::default(),
            random: Random(options.seed),
            frame: Vec::new(),
        }
    }

    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the last frame came in a binary message.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// Queues a frame. Over HTTP it waits until the session is open.
    pub fn send_frame(&mut self, command: Command, headers: &[(&str, &str)], body: Option<&[u8]>) {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        stomp::encode(&mut frame, self.version, command, headers, body);
        self.send_messages([frame.as_slice()]);
        self.frame = frame;
    }

    pub fn send_heart_beat(&mut self) {
        self.send_messages([stomp::HEART_BEAT]);
    }

    /// Queues bytes of STOMP, each piece as one message of the transport. Over SockJS a piece must be text.
    pub fn send_messages<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        match &mut self.framing {
            Framing::Tcp => {
                for piece in pieces {
                    self.receiver.buffer().extend_from_slice(piece);
                }
            }
            Framing::WebSocket(_) if self.transport == Transport::SockJsWebSocket => {
                let mut array = vec![b'['];
                for piece in pieces {
                    if array.len() > 1 {
                        array.push(b',');
                    }
                    crate::protocol::sockjs::element(piece, &mut array);
                }
                array.push(b']');
                self.send_packet(Kind::Text, &array);
            }
            Framing::WebSocket(_) => {
                for piece in pieces {
                    self.send_packet(Kind::Text, piece);
                }
            }
            Framing::Http(session) => {
                for piece in pieces {
                    session.send(piece);
                }
            }
        }
    }

    /// Queues a frame of the WebSocket, as it is; nothing where there is none.
    ///
    /// # Panics
    /// When the payload of a control frame is longer than 125 bytes.
    pub fn send_packet(&mut self, kind: Kind, payload: &[u8]) {
        if let Framing::WebSocket(_) = self.framing {
            masked_frame(kind, self.random.mask(), payload, self.receiver.buffer());
        }
    }

    /// Closes a WebSocket with code 1000. Other transports have no such word.
    pub fn close(&mut self) {
        self.send_packet(Kind::Close, &1000_u16.to_be_bytes());
    }

    /// Takes bytes of one of the connections. Call [`Received::next_event`] until it returns `None`: dropping it earlier loses the
    /// rest.
    pub fn receive<'c>(&'c mut self, role: Role, bytes: &'c mut [u8]) -> Received<'c> {
        Received::new(self, role, bytes)
    }

    /// Notes that the server has closed one of the connections. A connection that ends between two requests is opened again when it
    /// is needed.
    ///
    /// # Errors
    /// The client needed it.
    pub fn disconnected(&mut self, role: Role) -> Result<(), Error> {
        let Framing::Http(session) = &mut self.framing else {
            self.ended = true;
            return Err(Error::Disconnected { role });
        };
        let wire = if role == Role::Receiver { &mut self.receiver } else { &mut self.sender };
        (wire.open, wire.closing) = (false, false);
        session.disconnected(role).inspect_err(|_| self.ended = true)
    }

    /// Whether [`next_output`](Self::next_output) would return anything.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let waits = |wire: &Wire| wire.closing || (!wire.out.is_empty() && !wire.returned);
        let can_send = matches!(&self.framing, Framing::Http(session) if session.can_send());
        can_send || waits(&self.receiver) || waits(&self.sender) || self.opens_early()
    }

    /// TCP is opened before there is anything to write: the server may have something to say.
    fn opens_early(&self) -> bool {
        matches!(self.framing, Framing::Tcp) && !self.receiver.open && !self.ended
    }

    /// The next output; `None` when there is none.
    pub fn next_output(&mut self) -> Option<Output<'_>> {
        if let Framing::Http(session) = &mut self.framing {
            session.send_unsent(&mut self.sender);
        }
        if self.opens_early() {
            self.receiver.open = true;
            return Some(Output::Open(Role::Receiver));
        }
        for (role, wire) in [(Role::Receiver, &mut self.receiver), (Role::Sender, &mut self.sender)] {
            wire.forget_returned();
            if wire.closing {
                (wire.closing, wire.open) = (false, false);
                return Some(Output::Close(role));
            }
            if wire.out.is_empty() {
                continue;
            }
            if !wire.open {
                wire.open = true;
                return Some(Output::Open(role));
            }
            wire.returned = true;
            return Some(Output::Write(role, &wire.out));
        }
        None
    }
}

/// SplitMix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn mask(&mut self) -> [u8; 4] {
        (self.next() as u32).to_ne_bytes()
    }
}
