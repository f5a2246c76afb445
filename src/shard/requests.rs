//! HTTP on a connection: requests in, answers out in the same order, and the upgrade that ends it.

use std::time::Duration;

use bytes::Bytes;

use crate::api::{self, Call};
use crate::model::command::Outcome;
use crate::model::{ConnectionId, Mono, Refusal, RefusalCode, ShardId};
use crate::protocol::http::{self, Event, Method, Request, Response};
use crate::protocol::sockjs;
use crate::protocol::websocket::handshake;
use crate::session::token::Claims;
use crate::shard::connection::{Answer, Framing, Http, Phase};
use crate::shard::handover::{Handover, Stage};
use crate::shard::mail::{Ask, Asked, Asker, Mail};
use crate::shard::{Outbox, Shard, Turn};

impl Shard {
    /// Feeds bytes to an HTTP connection. Takes its state and gives it back, unless the connection upgrades or ends.
    pub(super) fn feed_http(&mut self, turn: &mut Turn<'_>, id: ConnectionId, mut http: Box<Http>, bytes: &[u8]) {
        if !bytes.is_empty() && http.is_idle() {
            http.since = turn.now.mono;
        }
        let held = std::mem::take(&mut http.held);
        let joined;
        let mut input = if held.is_empty() {
            bytes
        } else {
            joined = [&held, bytes].concat();
            &joined
        };
        loop {
            self.read_requests(turn, id, &mut http, &mut input);
            if self.write_answers(turn, id, &mut http) {
                self.restore(id, Phase::Http(http));
                return self.end_connection(turn, id);
            }
            // Answers have made room for more of what has come.
            if input.is_empty() || !self.takes_requests(id, &http) {
                break;
            }
        }
        if !http.last {
            http.held = input.to_vec();
        }
        self.go_on_http(turn, id, http);
    }

    /// Whether another request may be begun: not too many wait for their answers, and the answers are read.
    fn takes_requests(&self, id: ConnectionId, http: &Http) -> bool {
        let limits = &self.policy.limits;
        let unread = self.outbox(id).map_or(0, Outbox::bytes);
        !http.last && http.upgrade.is_none() && http.slots.len() < limits.http_pipelined && unread < limits.outbox_bytes
    }

    fn read_requests(&mut self, turn: &mut Turn<'_>, id: ConnectionId, http: &mut Http, input: &mut &[u8]) {
        let policy = self.policy.clone();
        while self.takes_requests(id, http) {
            match http.decoder.next(input, &policy.limits) {
                Ok(None) => {
                    assert!(input.is_empty(), "what follows an upgrade is not given to the decoder");
                    return;
                }
                Ok(Some(Event::Continue)) => http.expected = true,
                Ok(Some(Event::Request(request))) => {
                    http.expected = false;
                    http.since = turn.now.mono;
                    self.handle_request(turn, id, http, request);
                }
                Err(refusal) => {
                    let number = http.open_slot(false, false);
                    http.fill_slot(number, api::refuse(&refusal));
                }
            }
        }
    }

    /// Sends the answers that are ready. True when the last of them was among these.
    fn write_answers(&mut self, turn: &mut Turn<'_>, id: ConnectionId, http: &mut Http) -> bool {
        let (mut out, mut undelivered) = (Vec::new(), Vec::new());
        let mut ends = false;
        while let Some(slot) = http.slots.front_mut() {
            match std::mem::replace(&mut slot.answer, Answer::Awaited) {
                Answer::Awaited => break,
                Answer::Whole(response) => response.encode(slot.head_only, slot.keep_alive, turn.now.wall, &mut out),
                Answer::Stream(mut stream) => {
                    let chunked = slot.receiving.as_ref().is_some_and(|receiving| receiving.is_chunked());
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
            undelivered.extend(http.slots.pop_front().and_then(|slot| slot.receiving).map(|receiving| *receiving));
            if ends {
                break;
            }
        }
        // RFC 9110 section 10.1.1; out of turn it would be taken for the answer to an earlier request.
        if http.slots.is_empty() && std::mem::take(&mut http.expected) {
            out.extend_from_slice(http::CONTINUE);
        }
        if !out.is_empty() {
            http.since = turn.now.mono;
            self.write(turn, id, Bytes::from(out));
        }
        if let Some(connection) = self.connections.find_mut(id) {
            connection.undelivered.append(&mut undelivered);
        }
        ends || (http.last && http.slots.is_empty())
    }

    /// Gives the connection its state back, or takes the upgrade that waited.
    fn go_on_http(&mut self, turn: &mut Turn<'_>, id: ConnectionId, http: Box<Http>) {
        if http.upgrade.is_some() && http.slots.is_empty() && self.outbox(id).is_some_and(Outbox::is_empty) {
            return self.upgrade(turn, id, *http);
        }
        // Who waits for packets is read on, and what comes behind the last request is dropped: its leaving must be seen.
        let watched = http.last && http.receives();
        let full = !watched && !self.takes_requests(id, &http);
        let check_at = http.since.after(self.http_patience());
        self.restore(id, Phase::Http(http));
        if full {
            self.pause(turn, id);
        } else {
            self.resume(turn, id);
        }
        self.schedule_connection(id, check_at);
    }

    /// An answer has come, or the outbox is empty: goes on with what was held.
    pub(super) fn resume_http(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if !matches!(connection.phase, Phase::Http(_)) {
            return;
        }
        if let Phase::Http(http) = std::mem::replace(&mut connection.phase, Phase::Taken) {
            self.feed_http(turn, id, http, &[]);
        }
    }

    fn handle_request(&mut self, turn: &mut Turn<'_>, id: ConnectionId, http: &mut Http, request: Request) {
        let keep_alive = request.keep_alive && self.draining.is_none() && !request.upgrade;
        let head_only = request.method == Method::Head;
        if self.asks_for_socket(&request) {
            // Its handshake comes when everything before it has been answered.
            http.upgrade = Some(Box::new(request));
            return;
        }
        if let Some(refusal) = self.foreign_origin(&request) {
            let number = http.open_slot(head_only, keep_alive);
            return http.fill_slot(number, api::refuse(&refusal).header("Vary", "Origin"));
        }
        if self.policy.endpoints.find(&request.path).is_some() {
            return self.handle_endpoint(turn, id, http, request);
        }
        let number = http.open_slot(head_only, keep_alive);
        if let Some(fallback) = self.policy.endpoints.fallback {
            return self.fill(http, number, &request, fallback(&request));
        }
        if request.method == Method::Options {
            return self.fill(http, number, &request, api::preflight(&request));
        }
        let caller = match self.caller(turn, &request) {
            Ok(caller) => caller,
            Err(refusal) => return self.fill(http, number, &request, api::refuse(&refusal)),
        };
        let call = api::route(&request, caller.as_ref().map(|claims| claims.user), &self.policy.limits);
        let asked = Asked::Request { connection: id, number };
        match call {
            Err(response) => self.fill(http, number, &request, response),
            Ok(Call::Page(page)) if self.policy.page => self.fill(http, number, &request, page),
            Ok(Call::Page(_)) => self.fill(http, number, &request, api::nothing_here()),
            Ok(Call::Health(health)) => {
                let unready = self.unready(health);
                self.fill(http, number, &request, api::health(unready.as_ref()));
            }
            Ok(Call::Auth(_) | Call::Command(_)) if self.draining.is_some() => {
                self.fill(http, number, &request, api::refuse(&ending()));
            }
            Ok(Call::Auth(command)) => {
                self.keep_context(http, number, &request);
                let Some(connection) = self.connections.find(id) else { return };
                let peer = connection.peer.clone();
                let to = self.address_shard(&peer);
                self.mail(turn, to, Mail::Authenticate { shard: self.id, asked, peer, command: Box::new(command) });
            }
            Ok(Call::Command(command)) => {
                self.keep_context(http, number, &request);
                let Some(claims) = caller else { unreachable!("commands have a caller") };
                let admin = claims.roles.iter().any(|role| &**role == "admin");
                let asker = Asker { shard: self.id, asked, user: claims.user, admin };
                let ask = Ask { asker, command };
                let to = ShardId::of(claims.user.value(), self.shards);
                self.mail(turn, to, Mail::Submit(Box::new(ask)));
            }
        }
    }

    /// Who asks, on paths where it matters.
    fn caller(&self, turn: &Turn<'_>, request: &Request) -> Result<Option<Claims>, Refusal> {
        if !api::needs_token(request) {
            return Ok(None);
        }
        match api::bearer(request) {
            None => Ok(None),
            Some(token) => self.verify(turn, token).map(Some),
        }
    }

    fn keep_context(&self, http: &mut Http, number: u32, request: &Request) {
        if let Some(slot) = http.slot_mut(number) {
            slot.context = api::Context::of(request);
            slot.origin = self.cors_origin(request);
        }
    }

    fn fill(&self, http: &mut Http, number: u32, request: &Request, response: Response) {
        let origin = self.cors_origin(request);
        http.fill_slot(number, with_cors(response, origin.as_deref()));
    }

    /// The request's Origin when it may read answers: echoed, with credentials.
    fn cors_origin(&self, request: &Request) -> Option<Box<str>> {
        let origin = request.header("origin")?;
        self.policy.origins.allows(origin, request.header("host")).then(|| origin.into())
    }

    /// Browsers name the page that a request comes from; what does not is no browser, and no page can misuse it.
    fn foreign_origin(&self, request: &Request) -> Option<Refusal> {
        let mut origins = request.header_values("origin");
        let origin = origins.next()?;
        if origins.next().is_some() {
            return Some(Refusal::new(RefusalCode::BadRequest, "there is more than one Origin"));
        }
        let origin = std::str::from_utf8(origin).unwrap_or_default();
        let allowed = self.policy.origins.allows(origin, request.header("host"));
        (!allowed).then(|| Refusal::new(RefusalCode::Forbidden, "this origin is not allowed"))
    }

    fn unready(&self, health: api::Health) -> Option<Refusal> {
        match health {
            api::Health::Live => None,
            api::Health::Ready if self.draining.is_some() => Some(ending()),
            api::Health::Ready if self.store_failing => {
                Some(Refusal::new(RefusalCode::StoreUnavailable, "the store cannot be reached").retry_after(2))
            }
            api::Health::Ready => None,
        }
    }

    /// The outcome of a request's command has come.
    pub(super) fn request_answered(&mut self, turn: &mut Turn<'_>, id: ConnectionId, number: u32, outcome: &Outcome) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Http(http) = &mut connection.phase else { return };
        let Some(slot) = http.slot_mut(number) else { return };
        let response = api::render(slot.context, outcome);
        slot.answer = Answer::Whole(with_cors(response, slot.origin.as_deref()));
        if http.slots.front().is_some_and(|slot| matches!(slot.answer, Answer::Whole(_))) {
            self.resume_http(turn, id);
        }
    }

    /// The handshake of a WebSocket, when everything before it has been answered.
    fn upgrade(&mut self, turn: &mut Turn<'_>, id: ConnectionId, http: Http) {
        let Some(request) = http.upgrade else { return };
        let policy = self.policy.clone();
        let Some((endpoint, _, rest)) = policy.endpoints.find(&request.path) else { return };
        let framing = Framing::websocket(matches!(sockjs::parse(rest), Some(sockjs::Path::Session { .. })));
        match self.handshake(turn, &request) {
            Err(refusal) => self.respond_and_end(turn, id, &api::refuse(&refusal)),
            Ok((switching, claims)) => {
                let to = claims.as_ref().map_or(self.id, |claims| ShardId::of(claims.user.value(), self.shards));
                match claims {
                    Some(claims) if to != self.id => {
                        let Some(connection) = self.connections.find(id) else { return };
                        let peer = connection.peer.clone();
                        let stage = Stage::Upgrade { switching, claims, endpoint, framing };
                        self.move_connection(turn, id, to, Handover { peer, bytes: http.held, stage });
                    }
                    claims => {
                        self.begin_socket(turn, id, switching, claims, endpoint, framing);
                        self.resume(turn, id);
                        let mut held = http.held;
                        self.receive(turn, id, &mut held);
                    }
                }
            }
        }
    }

    /// The bytes of the 101, and whom the handshake's token names, if it had one.
    fn handshake(&self, turn: &Turn<'_>, request: &Request) -> Result<(Vec<u8>, Option<Claims>), Refusal> {
        if self.draining.is_some() {
            return Err(ending());
        }
        if let Some(refusal) = self.foreign_origin(request) {
            return Err(refusal);
        }
        let accept = handshake::accept(request)?;
        let claims = match (request.query_value("token"), api::bearer(request)) {
            (None, None) => None,
            (Some(token), None) => Some(self.verify(turn, &token)?),
            (None, Some(token)) => Some(self.verify(turn, token)?),
            (Some(query), Some(header)) => {
                let (query, header) = (self.verify(turn, &query)?, self.verify(turn, header)?);
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
    pub(super) fn http_patience(&self) -> Duration {
        if self.draining.is_some() { self.policy.limits.linger } else { self.policy.limits.http_idle }
    }

    /// A connection without a whole request for too long ends; with a part of one, after 408.
    pub(super) fn http_check(&mut self, turn: &mut Turn<'_>, id: ConnectionId) -> Option<Mono> {
        let patience = self.http_patience();
        let connection = self.connections.find_mut(id)?;
        let Phase::Http(http) = &mut connection.phase else { return None };
        let until = http.since.after(patience);
        if until > turn.now.mono {
            return Some(until);
        }
        if !http.slots.is_empty() || http.upgrade.is_some() {
            // The answer is ours to give, and the store's patience ends before the client's.
            return Some(turn.now.mono.after(patience));
        }
        if http.is_idle() {
            self.end_connection(turn, id);
        } else {
            let refusal = Refusal::new(RefusalCode::Timeout, "the request did not come to its end in time");
            self.respond_and_end(turn, id, &api::refuse(&refusal));
        }
        None
    }
}

fn ending() -> Refusal {
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
