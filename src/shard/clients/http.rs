//! HTTP on a connection: requests in, answers out in the same order, and the upgrade that ends it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::access::Caller;
use crate::access::token::Claims;
use crate::api::{self, Call};
use crate::model::command::Outcome;
use crate::model::{Mono, Refusal, RefusalCode};
use crate::protocol::http::{self, Event, Method, Request, Response};
use crate::protocol::websocket::handshake;
use crate::shard::clients::answer::{Answer, Slot};
use crate::shard::clients::io::ConnectionIo;
use crate::shard::clients::receiver::asks_for_socket;
use crate::shard::mail::{Asker, LoginMail, ReplyTo, UserMail};
use crate::shard::turn::Turn;

/// Requests of one HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) decoder: http::Decoder,
    /// Requests not yet answered, in their order: answers leave in that order.
    pub(super) slots: VecDeque<Slot>,
    pub(super) next_number: u32,
    /// An upgrade waits until everything before it has been answered.
    pub(super) upgrade: Option<Box<Request>>,
    /// Bytes that wait for a slot or the upgrade.
    pub(super) held: Vec<u8>,
    /// The first byte of the request under way, or the end of the last exchange: how long the client may take counts
    /// from here.
    pub(super) since: Mono,
    /// A client waits for `100 Continue` before it sends its body.
    pub(super) expected: bool,
    /// No request after this one is read.
    pub(super) last: bool,
}

/// How a look at the requests of a connection ended.
pub(super) enum HttpFlow {
    /// More input or more answers are needed; the connection is to be checked at this time.
    Wait(Mono),
    /// The last answer is queued.
    End,
    /// Everything before the request for an upgrade has been answered.
    Upgrade(Box<Request>),
}

/// What a check of an idle connection found.
pub(super) enum HttpCheck {
    Wait(Mono),
    End,
    Respond(Response),
}

impl Http {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            decoder: http::Decoder::new(),
            slots: VecDeque::new(),
            next_number: 0,
            upgrade: None,
            held: Vec::new(),
            since: now,
            expected: false,
            last: false,
        }
    }

    /// No byte of a request has come that was not answered.
    pub(super) fn is_idle(&self) -> bool {
        self.decoder.is_idle() && self.held.is_empty()
    }

    /// Opens the place of the next answer. With one that ends the connection, no request behind it is read
    /// (RFC 9112 section 9.6).
    pub(super) fn open_slot(&mut self, head_only: bool, keep_alive: bool) -> u32 {
        self.last |= !keep_alive;
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let context = api::Context::default();
        let (answer, origin, receiver) = (Answer::Awaited, None, None);
        self.slots.push_back(Slot { number, answer, head_only, keep_alive, context, origin, receiver });
        number
    }

    /// Puts an answer into its place; an answer whose request is gone is dropped.
    pub(super) fn fill_slot(&mut self, number: u32, response: Response) {
        if let Some(slot) = self.slot_mut(number) {
            slot.answer = Answer::Whole(response);
        }
    }

    pub(super) fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.number == number)
    }

    /// Reads requests and writes the answers that are ready; bytes that cannot be read yet are held.
    pub(super) fn read(&mut self, turn: &mut Turn, io: &mut ConnectionIo, iframe_etag: &str, bytes: &[u8]) -> HttpFlow {
        if !bytes.is_empty() && self.is_idle() {
            self.since = turn.now.mono;
        }
        let held = std::mem::take(&mut self.held);
        let joined;
        let mut input = if held.is_empty() {
            bytes
        } else {
            joined = [&held, bytes].concat();
            &joined
        };
        loop {
            self.read_requests(turn, io, iframe_etag, &mut input);
            if self.write_answers(turn, io) {
                return HttpFlow::End;
            }
            // Answers have made room for more of the input.
            if input.is_empty() || !self.takes_requests(turn, io) {
                break;
            }
        }
        if !self.last {
            self.held = input.to_vec();
        }
        if self.slots.is_empty()
            && io.outbox.is_empty()
            && let Some(request) = self.upgrade.take()
        {
            return HttpFlow::Upgrade(request);
        }
        // Keep reading while a client waits for packets, or we would not notice it disconnect. Bytes after the last request
        // are dropped.
        let watched = self.last && self.receives();
        if !watched && !self.takes_requests(turn, io) {
            io.pause(turn);
        } else {
            io.resume(turn);
        }
        HttpFlow::Wait(self.since.after(http_patience(turn)))
    }

    /// Whether another request may be begun: not too many wait for their answers, and the answers are read.
    fn takes_requests(&self, turn: &Turn, io: &ConnectionIo) -> bool {
        let limits = turn.limits();
        !self.last
            && self.upgrade.is_none()
            && self.slots.len() < limits.http_pipelined
            && io.outbox.bytes() < limits.outbox_bytes
    }

    fn read_requests(&mut self, turn: &mut Turn, io: &ConnectionIo, iframe_etag: &str, input: &mut &[u8]) {
        while self.takes_requests(turn, io) {
            match self.decoder.next(input, turn.limits()) {
                Ok(None) => {
                    assert!(input.is_empty(), "what follows an upgrade is not given to the decoder");
                    return;
                }
                Ok(Some(Event::Continue)) => self.expected = true,
                Ok(Some(Event::Request(request))) => {
                    self.expected = false;
                    self.since = turn.now.mono;
                    self.handle_request(turn, io, iframe_etag, request);
                }
                Err(refusal) => {
                    let number = self.open_slot(false, false);
                    self.fill_slot(number, api::refuse(&refusal));
                }
            }
        }
    }

    /// Queues the answers that are ready. True when the last of them was among these.
    fn write_answers(&mut self, turn: &mut Turn, io: &mut ConnectionIo) -> bool {
        let mut out = Vec::new();
        let mut ends = false;
        while let Some(slot) = self.slots.front_mut() {
            match std::mem::replace(&mut slot.answer, Answer::Awaited) {
                Answer::Awaited => break,
                Answer::Whole(response) => response.encode(slot.head_only, slot.keep_alive, turn.now.wall, &mut out),
                Answer::Stream(mut stream) => {
                    let chunked = slot.receiver.as_ref().is_some_and(|receiver| receiver.is_chunked());
                    if let Some(head) = stream.head.take() {
                        head.encode_stream(chunked, slot.keep_alive, turn.now.wall, &mut out);
                    }
                    stream.sending |= !stream.pieces.is_empty();
                    out.append(&mut stream.pieces);
                    if !stream.ended {
                        slot.answer = Answer::Stream(stream);
                        break;
                    }
                }
            }
            ends = !slot.keep_alive;
            io.undelivered.extend(self.slots.pop_front().and_then(|slot| slot.receiver).map(|receiver| *receiver));
            if ends {
                break;
            }
        }
        // RFC 9110 section 10.1.1; out of turn it would be taken for the answer to an earlier request.
        if self.slots.is_empty() && std::mem::take(&mut self.expected) {
            out.extend_from_slice(http::CONTINUE);
        }
        if !out.is_empty() {
            self.since = turn.now.mono;
            io.write(turn, Bytes::from(out));
        }
        ends || (self.last && self.slots.is_empty())
    }

    fn handle_request(&mut self, turn: &mut Turn, io: &ConnectionIo, iframe_etag: &str, request: Request) {
        let policy = turn.policy.clone();
        let keep_alive = request.keep_alive && turn.draining.is_none() && !request.upgrade;
        let head_only = request.method == Method::Head;
        if asks_for_socket(turn, &request) {
            // Its handshake comes when everything before it has been answered.
            self.upgrade = Some(Box::new(request));
            return;
        }
        if let Some(refusal) = foreign_origin(turn, &request) {
            let number = self.open_slot(head_only, keep_alive);
            return self.fill_slot(number, api::refuse(&refusal).header("Vary", "Origin"));
        }
        if policy.endpoints.find(&request.path).is_some() {
            return self.handle_endpoint(turn, io, iframe_etag, request);
        }
        let number = self.open_slot(head_only, keep_alive);
        if let Some(fallback) = policy.endpoints.fallback {
            return self.fill(turn, number, &request, fallback(&request));
        }
        if request.method == Method::Options {
            return self.fill(turn, number, &request, api::preflight(&request));
        }
        match find_caller(turn, &request) {
            Ok(caller) => self.handle_call(turn, io, number, &request, caller),
            Err(refusal) => self.fill(turn, number, &request, api::refuse(&refusal)),
        }
    }

    fn handle_call(&mut self, turn: &mut Turn, io: &ConnectionIo, number: u32, request: &Request, caller: Option<Claims>) {
        let call = api::route(request, caller.as_ref().map(|claims| claims.user), turn.limits());
        let reply_to = ReplyTo::Request { connection: io.id, number };
        match call {
            Err(response) => self.fill(turn, number, request, response),
            Ok(Call::Page(page)) if turn.policy.page => self.fill(turn, number, request, page),
            Ok(Call::Page(_)) => self.fill(turn, number, request, api::nothing_here()),
            Ok(Call::Health(health)) => {
                let unready = unready(turn, health);
                self.fill(turn, number, request, api::health(unready.as_ref()));
            }
            Ok(Call::Auth(_) | Call::Command(_)) if turn.draining.is_some() => {
                self.fill(turn, number, request, api::refuse(&ending()));
            }
            Ok(Call::Auth(command)) => {
                self.keep_context(turn, number, request);
                let (shard, peer, command) = (turn.id, io.peer.clone(), Box::new(command));
                turn.mail(turn.placement.address(&io.peer), LoginMail::Authenticate { shard, reply_to, peer, command });
            }
            Ok(Call::Command(command)) => {
                self.keep_context(turn, number, request);
                let Some(claims) = caller else { unreachable!("commands have a caller") };
                let asker = Asker { shard: turn.id, reply_to, caller: Caller::new(&claims) };
                turn.mail(turn.placement.user(claims.user), UserMail::Submit { asker, command: Box::new(command) });
            }
        }
    }

    fn keep_context(&mut self, turn: &Turn, number: u32, request: &Request) {
        if let Some(slot) = self.slot_mut(number) {
            slot.context = api::Context::of(request);
            slot.origin = cors_origin(turn, request);
        }
    }

    fn fill(&mut self, turn: &Turn, number: u32, request: &Request, response: Response) {
        let origin = cors_origin(turn, request);
        self.fill_slot(number, with_cors(response, origin.as_deref()));
    }

    /// The outcome of a request's command. True when the answer may be written now.
    pub(super) fn answered(&mut self, number: u32, outcome: &Outcome) -> bool {
        let Some(slot) = self.slot_mut(number) else { return false };
        let response = api::render(slot.context, outcome);
        slot.answer = Answer::Whole(with_cors(response, slot.origin.as_deref()));
        self.slots.front().is_some_and(|slot| matches!(slot.answer, Answer::Whole(_)))
    }

    /// A connection without a whole request for too long ends; with a part of one, after 408.
    pub(super) fn check(&self, turn: &Turn) -> HttpCheck {
        let patience = http_patience(turn);
        let until = self.since.after(patience);
        if until > turn.now.mono {
            HttpCheck::Wait(until)
        } else if !self.slots.is_empty() || self.upgrade.is_some() {
            // The answer is ours to give, and the store's patience ends before the client's.
            HttpCheck::Wait(turn.after(patience))
        } else if self.is_idle() {
            HttpCheck::End
        } else {
            let refusal = Refusal::new(RefusalCode::Timeout, "the request did not come to its end in time");
            HttpCheck::Respond(api::refuse(&refusal))
        }
    }

    /// The server ends. True when the connection can end at once; otherwise its answers are awaited, or its first request
    /// may be on the way and is answered, if it comes soon.
    pub(super) fn drain(&mut self, turn: &Turn) -> bool {
        if let Some(slot) = self.slots.back_mut() {
            slot.keep_alive = false;
            self.last = true;
            return false;
        }
        if self.is_idle() && self.next_number > 0 && self.upgrade.is_none() {
            return true;
        }
        self.since = turn.now.mono;
        false
    }
}

/// The caller of a request, on paths where there must be one.
fn find_caller(turn: &Turn, request: &Request) -> Result<Option<Claims>, Refusal> {
    if !api::needs_token(request) {
        return Ok(None);
    }
    api::bearer(request).map(|token| turn.verify(token)).transpose()
}

/// The request's Origin when it may read answers: echoed, with credentials.
fn cors_origin(turn: &Turn, request: &Request) -> Option<Box<str>> {
    let origin = request.header("origin")?;
    turn.policy.origins.allows(origin, request.header("host")).then(|| origin.into())
}

/// Browsers name the page that a request comes from; a client that names none is no browser, and no page can misuse it.
fn foreign_origin(turn: &Turn, request: &Request) -> Option<Refusal> {
    let mut origins = request.header_values("origin");
    let origin = origins.next()?;
    if origins.next().is_some() {
        return Some(Refusal::new(RefusalCode::BadRequest, "there is more than one Origin"));
    }
    let origin = std::str::from_utf8(origin).unwrap_or_default();
    let allowed = turn.policy.origins.allows(origin, request.header("host"));
    (!allowed).then(|| Refusal::new(RefusalCode::Forbidden, "this origin is not allowed"))
}

fn unready(turn: &Turn, health: api::Health) -> Option<Refusal> {
    match health {
        api::Health::Live => None,
        api::Health::Ready if turn.draining.is_some() => Some(ending()),
        api::Health::Ready if turn.store.failing => {
            Some(Refusal::new(RefusalCode::StoreUnavailable, "the store cannot be reached").retry_after(2))
        }
        api::Health::Ready => None,
    }
}

/// The bytes of the 101, and the claims of the handshake's token, if it had one.
///
/// # Errors
/// The refusal to answer instead.
pub(super) fn shake_hands(turn: &Turn, request: &Request) -> Result<(Vec<u8>, Option<Claims>), Refusal> {
    if turn.draining.is_some() {
        return Err(ending());
    }
    if let Some(refusal) = foreign_origin(turn, request) {
        return Err(refusal);
    }
    let accept = handshake::accept(request)?;
    let claims = match (request.query_value("token"), api::bearer(request)) {
        (None, None) => None,
        (Some(token), None) => Some(turn.verify(&token)?),
        (None, Some(token)) => Some(turn.verify(token)?),
        (Some(query), Some(header)) => {
            let (query, header) = (turn.verify(&query)?, turn.verify(header)?);
            if query.user != header.user {
                return Err(Refusal::new(RefusalCode::Unauthorized, "the two tokens name different users"));
            }
            Some(query)
        }
    };
    let mut switching = Vec::new();
    let protocol = handshake::choose_stomp(&accept.protocols);
    handshake::response(&accept, protocol).encode(false, true, turn.now.wall, &mut switching);
    Ok((switching, claims))
}

/// How long a client may take for its request; when the server ends, not long.
pub(super) fn http_patience(turn: &Turn) -> Duration {
    if turn.draining.is_some() { turn.limits().linger } else { turn.limits().http_idle }
}

pub(super) fn ending() -> Refusal {
    Refusal::new(RefusalCode::Draining, "the server is ending").retry_after(1)
}

fn with_cors(mut response: Response, origin: Option<&str>) -> Response {
    response.headers.push(("Vary", "Origin".to_owned()));
    if let Some(origin) = origin {
        response.headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
        response.headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
        response.headers.push(("Access-Control-Expose-Headers", "Location, Retry-After, WWW-Authenticate".to_owned()));
    }
    response
}
