//! One client of the load: its login, from TCP to a subscribed STOMP session, and its non-blocking sockets.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use tidings::client::{Client, Event, HeartBeat, Options, Output, Role, Transport};
use tidings::protocol::stomp::{Command, Frame};

use crate::random::Random;
use crate::socket;
use crate::target::{Auth, Target};

/// [`Connection::capture`] keeps at least this many bytes, if they arrive.
const CAPTURE_BYTES: usize = 16 * 1024;
/// An idle connection holds no buffers, so that ten thousand of them stay small.
const KEPT_BYTES_MAX: usize = 4_096;
/// Receipts of the login's subscriptions begin with this.
const SUBSCRIBE_RECEIPT: &str = "subscribed-";

/// A user, and the destinations that the session subscribes to: subscription ids are their indexes.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub user: u64,
    pub destinations: Vec<String>,
    /// The source address, for when one address has too few ports.
    pub source: Option<Ipv4Addr>,
    pub transport: Transport,
}

/// The progress of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginState {
    Down,
    /// The transport is not open yet: TCP, the upgrade, or SockJS's opening is under way.
    Opening,
    /// CONNECT is under way.
    Connecting,
    Subscribing {
        left: usize,
    },
    Ready,
}

/// Broken invariant: only connections that are not down read, write and send heart-beats.
const UP: &str = "a connection that is not down has a client";

pub struct Connection {
    pub login: Login,
    pub state: LoginState,
    /// Distinguishes events of these sockets from those of the slot's earlier ones.
    pub generation: u32,
    /// In the engine's list of connections to be flushed.
    pub dirty: bool,
    pub opened_at: u64,
    pub read_at: u64,
    pub written_at: u64,
    /// As negotiated with the server.
    pub heart_beat: HeartBeat,
    /// The first raw bytes read once ready, if requested.
    pub capture: Option<Vec<u8>>,
    client: Option<Box<Client>>,
    receiver: Option<Socket>,
    sender: Option<Socket>,
}

/// One non-blocking socket, and the bytes that did not fit into its buffer.
struct Socket {
    fd: OwnedFd,
    unsent: Vec<u8>,
    /// Registered for writability.
    watched: bool,
}

impl Socket {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, unsent: Vec::new(), watched: false }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Waiting bytes go first.
        let sent = if self.unsent.is_empty() { send_some(self.fd.as_raw_fd(), bytes)? } else { 0 };
        self.unsent.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        Ok(())
    }

    fn write_unsent(&mut self) -> io::Result<()> {
        let sent = send_some(self.fd.as_raw_fd(), &self.unsent)?;
        self.unsent.drain(..sent);
        if self.unsent.is_empty() && self.unsent.capacity() > KEPT_BYTES_MAX {
            self.unsent = Vec::new();
        }
        Ok(())
    }
}

/// Sends until the socket has no room, which it never has while it connects. Returns the number of bytes sent.
fn send_some(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match socket::send(fd, rest) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// A change of the sockets that the caller must watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    Add { writable: bool },
    Change { writable: bool },
}

impl Connection {
    pub fn new(login: Login) -> Self {
        Self {
            login,
            state: LoginState::Down,
            generation: 0,
            dirty: false,
            opened_at: 0,
            read_at: 0,
            written_at: 0,
            heart_beat: HeartBeat::default(),
            capture: None,
            client: None,
            receiver: None,
            sender: None,
        }
    }

    /// Begins to log in.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn open(&mut self, target: &Target, random: &mut Random, now: u64) -> Result<(), Box<str>> {
        let query = match target.auth {
            Auth::Query => format!("?token={}", target.token(self.login.user, &[])?),
            Auth::Connect => String::new(),
        };
        let host = target.address.to_string();
        let options =
            Options { host: &host, query: &query, protocols: "v12.stomp", seed: random.next_u64(), ..Options::default() };
        self.begin(Client::new(self.login.transport, &options), LoginState::Opening, now);
        Ok(())
    }

    /// Takes a connected socket that already speaks STOMP over WebSocket frames.
    pub fn adopt(&mut self, fd: OwnedFd, now: u64) {
        self.begin(Client::upgraded(&Options::default()), LoginState::Ready, now);
        self.receiver = Some(Socket::new(fd));
    }

    fn begin(&mut self, client: Client, state: LoginState, now: u64) {
        assert_eq!(self.state, LoginState::Down);
        self.client = Some(Box::new(client));
        self.state = state;
        self.generation = self.generation.wrapping_add(1);
        (self.opened_at, self.read_at, self.written_at) = (now, now, now);
        self.heart_beat = HeartBeat::default();
    }

    /// The client of a connection that is not down.
    ///
    /// # Panics
    /// When the connection is down.
    pub fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect(UP)
    }

    pub fn fd(&self, role: Role) -> Option<RawFd> {
        let socket = if role == Role::Receiver { &self.receiver } else { &self.sender };
        socket.as_ref().map(|socket| socket.fd.as_raw_fd())
    }

    /// Handles bytes that one of the sockets read. Frames that are not part of the login go to `on_frame`.
    ///
    /// # Errors
    /// The reason why the connection must end.
    pub fn receive(
        &mut self,
        role: Role,
        bytes: &mut [u8],
        target: &Target,
        on_frame: &mut impl FnMut(&Frame<'_>),
    ) -> Result<(), Box<str>> {
        let Self { login, state, heart_beat, capture, client, .. } = self;
        if let Some(capture) = capture.as_mut().filter(|capture| capture.len() < CAPTURE_BYTES && *state == LoginState::Ready) {
            capture.extend_from_slice(bytes);
        }
        let mut received = client.as_mut().expect(UP).receive(role, bytes);
        loop {
            // The event borrows from the client, so it must be dropped before an answer is sent.
            let reached = match received.next_event().map_err(|error| error.to_string())? {
                None => return Ok(()),
                Some(Event::Open) => Some(LoginState::Connecting),
                Some(Event::Frame(frame)) if frame.command == Command::Error => return Err(describe_error(&frame)),
                Some(Event::Frame(frame)) => match *state {
                    LoginState::Connecting if frame.command == Command::Connected => {
                        *heart_beat = target.heart_beat.agree(frame.header("heart-beat"));
                        Some(subscribing(login.destinations.len()))
                    }
                    LoginState::Connecting => return Err("the first frame is not CONNECTED".into()),
                    LoginState::Subscribing { left } if is_subscribe_receipt(&frame) => {
                        *state = subscribing(left - 1);
                        None
                    }
                    LoginState::Ready | LoginState::Subscribing { .. } => {
                        on_frame(&frame);
                        None
                    }
                    LoginState::Down | LoginState::Opening => return Err("a frame before the session".into()),
                },
                Some(Event::HeartBeat | Event::Ping | Event::Pong(_)) => None,
                Some(Event::Closed { code, reason }) => return Err(describe_close(code, reason)),
            };
            let Some(reached) = reached else { continue };
            *state = reached;
            match reached {
                LoginState::Connecting => connect(received.client(), login, target)?,
                _ => subscribe(received.client(), &login.destinations),
            }
        }
    }

    /// Whether bytes wait to be written, now or when the socket has room.
    pub fn wants_flush(&self) -> bool {
        let waits = |socket: &Option<Socket>| socket.as_ref().is_some_and(|socket| socket.watched || !socket.unsent.is_empty());
        self.client.as_ref().is_some_and(|client| client.has_output()) || waits(&self.receiver) || waits(&self.sender)
    }

    /// Carries out the client's outputs. Calls `watch` for each socket whose watched readiness changes.
    ///
    /// # Errors
    /// Those of the sockets, and of `watch`.
    pub fn flush(
        &mut self,
        target: &Target,
        now: u64,
        mut watch: impl FnMut(Role, RawFd, Watch) -> io::Result<()>,
    ) -> io::Result<()> {
        let Self { login, client, receiver, sender, written_at, .. } = self;
        let Some(client) = client else { return Ok(()) };
        let frames_leave_by = login.transport.sender();
        let mut added = [false; 2];
        while let Some(output) = client.next_output() {
            match output {
                Output::Open(role) => {
                    *of(role, receiver, sender) = Some(Socket::new(socket::connect(target.address, login.source)?));
                    added[role as usize] = true;
                }
                Output::Write(role, bytes) => {
                    // To STOMP a message is a sign of life, a request for packets is not.
                    if role == frames_leave_by {
                        *written_at = now;
                    }
                    if let Some(socket) = of(role, receiver, sender) {
                        socket.write(bytes)?;
                    }
                }
                Output::Close(role) => *of(role, receiver, sender) = None,
            }
        }
        for role in [Role::Receiver, Role::Sender] {
            let Some(socket) = of(role, receiver, sender) else { continue };
            if socket.watched {
                socket.write_unsent()?;
            }
            let writable = !socket.unsent.is_empty();
            if added[role as usize] {
                watch(role, socket.fd.as_raw_fd(), Watch::Add { writable })?;
            } else if writable != socket.watched {
                watch(role, socket.fd.as_raw_fd(), Watch::Change { writable })?;
            }
            socket.watched = writable;
        }
        Ok(())
    }

    /// The server has closed one of the sockets.
    ///
    /// # Errors
    /// When that ends the session.
    pub fn disconnected(&mut self, role: Role) -> Result<(), Box<str>> {
        *of(role, &mut self.receiver, &mut self.sender) = None;
        self.client().disconnected(role).map_err(|error| error.to_string().into())
    }

    /// Makes the next close reset the sockets.
    pub fn reset(&mut self) {
        for fd in [Role::Receiver, Role::Sender].into_iter().filter_map(|role| self.fd(role)) {
            // If this fails, the socket closes without a reset, which a peer must handle as well.
            let _ = socket::reset_on_close(fd);
        }
    }

    pub fn close(&mut self) {
        (self.client, self.receiver, self.sender) = (None, None, None);
        self.state = LoginState::Down;
    }
}

fn of<'a>(role: Role, receiver: &'a mut Option<Socket>, sender: &'a mut Option<Socket>) -> &'a mut Option<Socket> {
    if role == Role::Receiver { receiver } else { sender }
}

fn connect(client: &mut Client, login: &Login, target: &Target) -> Result<(), String> {
    let heart_beat = target.heart_beat.to_string();
    let mut headers = vec![("accept-version", "1.2"), ("host", "localhost"), ("heart-beat", heart_beat.as_str())];
    let authorization;
    if target.auth == Auth::Connect {
        authorization = format!("Bearer {}", target.token(login.user, &[])?);
        headers.push(("Authorization", &authorization));
    }
    client.send_frame(Command::Connect, &headers, None);
    Ok(())
}

fn subscribe(client: &mut Client, destinations: &[String]) {
    for (id, destination) in destinations.iter().enumerate() {
        let (id, receipt) = (id.to_string(), format!("{SUBSCRIBE_RECEIPT}{id}"));
        let headers = [("id", id.as_str()), ("destination", destination), ("ack", "auto"), ("receipt", &receipt)];
        client.send_frame(Command::Subscribe, &headers, None);
    }
}

fn subscribing(left: usize) -> LoginState {
    if left == 0 { LoginState::Ready } else { LoginState::Subscribing { left } }
}

fn is_subscribe_receipt(frame: &Frame<'_>) -> bool {
    frame.command == Command::Receipt && frame.header("receipt-id").is_some_and(|id| id.starts_with(SUBSCRIBE_RECEIPT))
}

fn describe_error(frame: &Frame<'_>) -> Box<str> {
    format!("ERROR {}", frame.header("message").unwrap_or("without a message")).into()
}

fn describe_close(code: Option<u16>, reason: &str) -> Box<str> {
    match code {
        Some(code) => format!("closed with {code} {reason}").into(),
        None => "closed without a code".into(),
    }
}
