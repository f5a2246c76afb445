//! One client: its non-blocking sockets, the way from TCP to a subscribed STOMP session, and what is queued to be written.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use tidings::protocol::stomp::{Command, Frame};

use crate::codec::{Codec, Event, Outbox};
use crate::random::Random;
use crate::socket;
use crate::sockjs::{self, Role, Session, Transport};
use crate::target::{Auth, Target};

const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The key of RFC 6455 section 1.3: the answer to it proves nothing here, so any will do.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Receipts that the connection itself asked for begin with this.
const SUBSCRIBE_RECEIPT: &str = "subscribed-";

/// Who logs in, and what the session subscribes to: subscription ids are the indexes of `destinations`.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub user: u64,
    pub destinations: Vec<String>,
    /// The address to come from, when one address has too few ports.
    pub source: Option<Ipv4Addr>,
    pub transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Down,
    Connecting,
    Upgrading,
    /// SockJS has yet to say that the session is open.
    Opening,
    /// CONNECT is on its way.
    Greeting,
    Subscribing {
        left: usize,
    },
    Ready,
}

pub struct Connection {
    pub login: Login,
    pub stage: Stage,
    /// The WebSocket's; none over HTTP.
    pub fd: Option<OwnedFd>,
    /// What is in the WebSocket's place over HTTP.
    pub http: Option<Box<Session>>,
    /// Tells the events of this socket from those of the slot's earlier ones.
    pub generation: u32,
    pub out: Outbox,
    /// In the engine's list of connections to be flushed.
    pub dirty: bool,
    /// Registered for writability.
    pub blocked: bool,
    pub opened_at: u64,
    pub read_at: u64,
    pub written_at: u64,
    /// Negotiated heart-beats in nanoseconds, 0 for none.
    pub beat_out_ns: u64,
    pub beat_in_ns: u64,
    /// The first raw bytes read once ready, when asked for.
    pub capture: Option<Vec<u8>>,
    head: Vec<u8>,
    codec: Codec,
}

impl Connection {
    pub fn new(login: Login) -> Self {
        Self {
            login,
            stage: Stage::Down,
            fd: None,
            http: None,
            generation: 0,
            out: Outbox::default(),
            dirty: false,
            blocked: false,
            opened_at: 0,
            read_at: 0,
            written_at: 0,
            beat_out_ns: 0,
            beat_in_ns: 0,
            capture: None,
            head: Vec::new(),
            codec: Codec::new(Transport::Websocket),
        }
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `connect`, or a token that cannot be signed.
    pub fn open(&mut self, target: &Target, random: &mut Random, now: u64) -> Result<(), Box<str>> {
        assert_eq!(self.stage, Stage::Down);
        let Login { transport, source, .. } = self.login;
        if transport.is_http() {
            let streaming = transport == Transport::XhrStreaming;
            self.http = Some(Box::new(Session::open(target.address, self.query(target)?, streaming, random)));
            self.begin(None, Stage::Opening, now);
        } else {
            let fd = socket::connect(target.address, source).map_err(|error| format!("connect: {error}"))?;
            self.begin(Some(fd), Stage::Connecting, now);
        }
        Ok(())
    }

    fn query(&self, target: &Target) -> Result<String, String> {
        Ok(match target.auth {
            Auth::Query => format!("?token={}", target.token(self.login.user, &[])?),
            Auth::Connect => String::new(),
        })
    }

    /// Takes a connected socket that already speaks STOMP over WebSocket frames.
    pub fn adopt(&mut self, fd: OwnedFd, now: u64) {
        assert_eq!(self.stage, Stage::Down);
        self.begin(Some(fd), Stage::Ready, now);
    }

    fn begin(&mut self, fd: Option<OwnedFd>, stage: Stage, now: u64) {
        self.fd = fd;
        self.stage = stage;
        self.generation = self.generation.wrapping_add(1);
        self.out = Outbox::new(self.login.transport);
        self.head.clear();
        self.codec = Codec::new(self.login.transport);
        self.blocked = false;
        (self.opened_at, self.read_at, self.written_at) = (now, now, now);
        (self.beat_out_ns, self.beat_in_ns) = (0, 0);
    }

    /// The TCP connection stands: asks for the upgrade.
    ///
    /// # Errors
    /// The socket's own error, or a token that cannot be signed.
    pub fn connected(&mut self, target: &Target, random: &mut Random) -> Result<(), Box<str>> {
        let fd = self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        socket::take_error(fd).map_err(|error| format!("connect: {error}"))?;
        let (path, protocol) = if self.login.transport == Transport::SockjsWebsocket {
            (format!("{}/websocket", sockjs::session_path(random)), "")
        } else {
            ("/ws".to_owned(), "Sec-WebSocket-Protocol: v12.stomp\r\n")
        };
        let query = self.query(target)?;
        let request = format!(
            "GET {path}{query} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\n{protocol}\r\n",
            target.address
        );
        self.out.raw(request.as_bytes());
        self.stage = Stage::Upgrading;
        Ok(())
    }

    /// Takes what the WebSocket read; frames that are not part of logging in go to `on_frame`.
    ///
    /// # Errors
    /// Why the connection must end.
    pub fn take(
        &mut self,
        bytes: &mut [u8],
        target: &Target,
        random: &mut Random,
        on_frame: &mut impl FnMut(&Frame<'_>),
    ) -> Result<(), Box<str>> {
        if self.stage != Stage::Upgrading {
            return self.take_frames(bytes, target, random, on_frame);
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n").map(|at| at + 4) else {
            return if self.head.len() > HEAD_BYTES_MAX { Err("the answer to the upgrade is too long".into()) } else { Ok(()) };
        };
        let status = self.head.get(9..12).unwrap_or_default();
        if status != b"101" {
            return Err(format!("upgrade refused with {}", String::from_utf8_lossy(status)).into());
        }
        let mut rest = self.head.split_off(end);
        self.head = Vec::new();
        if self.login.transport == Transport::SockjsWebsocket {
            self.stage = Stage::Opening;
        } else {
            self.arrival(target, random).greet()?;
        }
        self.take_frames(&mut rest, target, random, on_frame)
    }

    /// Takes what a connection of a session over HTTP read; as [`take`](Self::take).
    ///
    /// # Errors
    /// Why the session must end.
    pub fn take_http(
        &mut self,
        role: Role,
        bytes: &[u8],
        target: &Target,
        random: &mut Random,
        on_frame: &mut impl FnMut(&Frame<'_>),
    ) -> Result<(), Box<str>> {
        let Some(mut session) = self.http.take() else { return Ok(()) };
        let result = session.take(role, bytes, &mut |packet| {
            let (codec, mut arrival) = self.split(target, random);
            codec.feed_packet(packet, &mut |event| arrival.take(event, on_frame))
        });
        self.http = Some(session);
        result
    }

    /// Whether there is something to be written, or room for it is waited for.
    pub fn wants_flush(&self) -> bool {
        match &self.http {
            Some(session) => session.is_writable(&self.out.messages),
            None => self.blocked || !self.out.is_empty(),
        }
    }

    fn split<'a>(&'a mut self, target: &'a Target, random: &'a mut Random) -> (&'a mut Codec, Arrival<'a>) {
        let Self { login, stage, out, beat_out_ns, beat_in_ns, codec, .. } = self;
        (codec, Arrival { login, stage, out, beat_out_ns, beat_in_ns, target, random })
    }

    fn arrival<'a>(&'a mut self, target: &'a Target, random: &'a mut Random) -> Arrival<'a> {
        self.split(target, random).1
    }

    fn take_frames(
        &mut self,
        bytes: &mut [u8],
        target: &Target,
        random: &mut Random,
        on_frame: &mut impl FnMut(&Frame<'_>),
    ) -> Result<(), Box<str>> {
        if let Some(capture) =
            self.capture.as_mut().filter(|capture| capture.len() < HEAD_BYTES_MAX && self.stage == Stage::Ready)
        {
            capture.extend_from_slice(bytes);
        }
        let (codec, mut arrival) = self.split(target, random);
        codec.feed(bytes, &mut |event| arrival.take(event, on_frame))
    }

    pub fn close(&mut self) {
        self.fd = None;
        self.http = None;
        self.stage = Stage::Down;
        self.out.clear();
    }
}

/// What arriving frames may touch of a connection.
struct Arrival<'a> {
    login: &'a Login,
    stage: &'a mut Stage,
    out: &'a mut Outbox,
    beat_out_ns: &'a mut u64,
    beat_in_ns: &'a mut u64,
    target: &'a Target,
    random: &'a mut Random,
}

impl Arrival<'_> {
    fn greet(&mut self) -> Result<(), Box<str>> {
        let Self { login, stage, out, beat_out_ns, beat_in_ns, target, random } = self;
        let beat = target.heart_beat.to_string();
        let mut headers = vec![("accept-version", "1.2"), ("host", "localhost"), ("heart-beat", beat.as_str())];
        let authorization;
        if target.auth == Auth::Connect {
            authorization = format!("Bearer {}", target.token(login.user, &[])?);
            headers.push(("Authorization", &authorization));
        }
        out.frame(Command::Connect, &headers, b"", random);
        **beat_out_ns = u64::from(target.heart_beat.out_ms) * 1_000_000;
        **beat_in_ns = u64::from(target.heart_beat.in_ms) * 1_000_000;
        **stage = Stage::Greeting;
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, on_frame: &mut impl FnMut(&Frame<'_>)) -> Result<(), Box<str>> {
        match event {
            Event::Open if *self.stage == Stage::Opening => self.greet(),
            Event::Open => Err("the server knows the session no more, and began it anew".into()),
            Event::Frame(frame) if frame.command == Command::Error => Err(describe_error(&frame)),
            Event::Frame(frame) => match *self.stage {
                Stage::Ready => {
                    on_frame(&frame);
                    Ok(())
                }
                Stage::Greeting => {
                    if frame.command != Command::Connected {
                        return Err("the first frame is not CONNECTED".into());
                    }
                    negotiate(frame.header("heart-beat").unwrap_or("0,0"), self.beat_out_ns, self.beat_in_ns);
                    subscribe(&self.login.destinations, self.out, self.random);
                    *self.stage = subscribing(self.login.destinations.len());
                    Ok(())
                }
                Stage::Subscribing { left } => {
                    if frame.command == Command::Receipt && frame.header("receipt-id").is_some_and(is_subscribe_receipt) {
                        *self.stage = subscribing(left - 1);
                    } else {
                        on_frame(&frame);
                    }
                    Ok(())
                }
                Stage::Down | Stage::Connecting | Stage::Upgrading | Stage::Opening => Err("a frame before the session".into()),
            },
            Event::HeartBeat => Ok(()),
            Event::Ping(payload) => {
                self.out.pong(payload, self.random);
                Ok(())
            }
            Event::Close { code, reason } => Err(describe_close(code, reason)),
        }
    }
}

fn subscribing(left: usize) -> Stage {
    if left == 0 { Stage::Ready } else { Stage::Subscribing { left } }
}

fn is_subscribe_receipt(receipt: &str) -> bool {
    receipt.starts_with(SUBSCRIBE_RECEIPT)
}

fn subscribe(destinations: &[String], out: &mut Outbox, random: &mut Random) {
    for (id, destination) in destinations.iter().enumerate() {
        let (id, receipt) = (id.to_string(), format!("{SUBSCRIBE_RECEIPT}{id}"));
        let headers = [("id", id.as_str()), ("destination", destination), ("ack", "auto"), ("receipt", &receipt)];
        out.frame(Command::Subscribe, &headers, b"", random);
    }
}

/// The server's `sx,sy`: it sends every `sx` at best and wants something every `sy` (STOMP 1.2, "Heart-beating").
fn negotiate(header: &str, out_ns: &mut u64, in_ns: &mut u64) {
    let mut parts = header.split(',').map(|part| part.trim().parse::<u32>().unwrap_or(0));
    let (sends, wants) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let agree = |ours: u64, theirs: u32| if ours == 0 || theirs == 0 { 0 } else { ours.max(u64::from(theirs) * 1_000_000) };
    *out_ns = agree(*out_ns, wants);
    *in_ns = agree(*in_ns, sends);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heart_beats_are_the_slower_of_both() {
        let check = |header: &str, expect: (u64, u64)| {
            let (mut out, mut into) = (5_000_000, 5_000_000);
            negotiate(header, &mut out, &mut into);
            assert_eq!((out, into), expect, "{header}");
        };
        check("10,3", (5_000_000, 10_000_000));
        check("0,0", (0, 0));
        check("garbage", (0, 0));
    }
}
