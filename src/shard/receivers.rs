//! SockJS on the connections that carry it: requests go to their session's home, and its packets come back into their
//! responses.

use bytes::Bytes;

use crate::api;
use crate::model::{ConnectionId, Refusal, RefusalCode, ShardId, UserId};
use crate::protocol::http::{self, Method, Request, Response};
use crate::protocol::sockjs::{self, Path, Transport};
use crate::session::endpoints::{Endpoint, EndpointId, Endpoints};
use crate::session::sockjs::RequestAddress;
use crate::session::token::Claims;
use crate::shard::connection::{Answer, Http, Phase, Slot, Stream};
use crate::shard::mail::{Mail, SockJsAnswer, SockJsAsk, SockJsId, SockJsWant};
use crate::shard::{Shard, Turn};

use rand_chacha::rand_core::Rng;
use sha2::{Digest, Sha256};

/// The default value of the cookie: load balancers put their own in its place.
const COOKIE_DUMMY: &str = "dummy";
/// A longer cookie is not given back.
const COOKIE_BYTES_MAX: usize = 1_024;

/// A request of a session, as the connection that carries it knows it. Lifetime: its response's.
#[derive(Debug)]
pub(super) struct Receiving {
    home: ShardId,
    session: SockJsId,
    number: u32,
    transport: Transport,
    callback: Box<str>,
    /// The body comes in chunks; else it ends with the connection.
    chunked: bool,
    headers: Vec<(&'static str, String)>,
}

/// Whom a request's tokens name, if it has any, and whether a session may begin with them.
struct Named {
    user: Option<UserId>,
    claims: Result<Option<Box<Claims>>, Refusal>,
}

impl Shard {
    /// Whether a request asks for a WebSocket where there is one.
    pub(super) fn asks_for_socket(&self, request: &Request) -> bool {
        request.upgrade
            && request.method == Method::Get
            && self.policy.endpoints.find(&request.path).is_some_and(|(_, endpoint, rest)| {
                sockjs::parse(rest).is_some_and(|path| path == Path::Base || (endpoint.websocket && is_websocket(&path)))
            })
    }

    /// A request below an endpoint.
    pub(super) fn handle_endpoint(&mut self, turn: &mut Turn<'_>, id: ConnectionId, http: &mut Http, request: Request) {
        let policy = self.policy.clone();
        let Some((endpoint_id, endpoint, rest)) = policy.endpoints.find(&request.path) else { return };
        let path = sockjs::parse(rest).filter(|path| endpoint.websocket || !is_websocket(path));
        let keep_alive = request.keep_alive && self.draining.is_none() && !request.upgrade;
        let number = http.open_slot(request.method == Method::Head, keep_alive);
        let headers = sockjs_headers(&request, endpoint, path.as_ref());
        let mut response = match path {
            None => sockjs::refused(404, ""),
            Some(path) if !path.methods().contains(&request.method) => sockjs::refused(405, "").header("Allow", path.allow()),
            Some(_) if request.upgrade => sockjs::refused(400, "there is no WebSocket at this path\n"),
            Some(path) if request.method == Method::Options => {
                sockjs::preflight(&path, request.header("access-control-request-headers"), turn.now.wall)
            }
            Some(Path::Base | Path::Greeting) => sockjs::greeting(),
            Some(Path::RawWebSocket) => api::refuse(&Refusal::new(RefusalCode::UpgradeRequired, "this path is a WebSocket")),
            Some(Path::Info) => sockjs::info(endpoint.websocket, endpoint.cookie_needed, self.random.next_u32()),
            Some(Path::Iframe) => {
                sockjs::iframe(&policy.endpoints.client_url, &self.iframe_etag, request.header("if-none-match"), turn.now.wall)
            }
            Some(Path::Session { transport: Transport::WebSocket, .. }) => {
                sockjs::refused(400, "Not a valid websocket request\n")
            }
            Some(Path::Session { session, transport }) => {
                let session = (endpoint_id, session, transport);
                match self.ask_home(turn, (id, number), http, &request, session, headers.clone()) {
                    Ok(()) => return,
                    Err(response) => response,
                }
            }
        };
        response.headers.extend(headers);
        http.fill_slot(number, response);
    }

    /// Sends a request on to its session's home.
    fn ask_home(
        &mut self,
        turn: &mut Turn<'_>,
        (id, number): (ConnectionId, u32),
        http: &mut Http,
        request: &Request,
        (endpoint, name, transport): (EndpointId, &str, Transport),
        headers: Vec<(&'static str, String)>,
    ) -> Result<(), Response> {
        let callback = if transport.takes_callback() {
            let name = request.query_value("c").or_else(|| request.query_value("callback"));
            sockjs::callback(name.as_deref()).map_err(|words| sockjs::refused(500, words))?.into()
        } else {
            Box::default()
        };
        let Named { user, claims } = self.identify(turn, request).map_err(|refusal| api::refuse(&refusal))?;
        let session = SockJsId { endpoint, user, name: name.into() };
        let want = match transport.is_send() {
            true => SockJsWant::Send { body: sent(request, transport) },
            false => SockJsWant::Receive { stream: transport.is_stream(), claims },
        };
        let home = self.sockjs_home(&session);
        let chunked = request.version_minor > 0;
        if let Some(slot) = http.slots.iter_mut().find(|slot| slot.number == number) {
            slot.keep_alive &= chunked || !transport.is_stream();
            // Its body ends with the connection: no request behind it is read.
            http.last |= !slot.keep_alive;
            let session = session.clone();
            slot.receiving = Some(Box::new(Receiving { home, session, number, transport, callback, chunked, headers }));
        }
        let from = RequestAddress { shard: self.id, connection: id, number };
        self.mail(turn, home, Mail::SockJs(Box::new(SockJsAsk { session, from, want, passed_on: None })));
        Ok(())
    }

    /// Whom a request's tokens name, and whether they are good to begin a session with. A session that was begun has an end
    /// of its own, so that requests which go on with it may carry a token that has expired since.
    fn identify(&self, turn: &Turn<'_>, request: &Request) -> Result<Named, Refusal> {
        let query = request.query_value("token");
        let (mut named, mut claims) = (None, Ok(None));
        for token in query.as_deref().into_iter().chain(api::bearer(request)) {
            let unauthorized = |what: String| Refusal::new(RefusalCode::Unauthorized, what);
            let user = self.policy.keys.identify(token).map_err(|fault| unauthorized(fault.to_string()))?;
            if named.is_some_and(|named| named != user) {
                return Err(unauthorized("the two tokens name different users".into()));
            }
            named = Some(user);
            claims = claims.and_then(|_| self.verify(turn, token).map(|claims| Some(Box::new(claims))));
        }
        Ok(Named { user: named, claims })
    }

    /// A session's home has answered.
    pub(super) fn receiver_answered(&mut self, turn: &mut Turn<'_>, id: ConnectionId, number: u32, answer: SockJsAnswer) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Http(http) = &mut connection.phase else { return };
        let Some(slot) = http.slot_mut(number) else { return };
        slot.take_answer(answer);
        if http.slots.front().is_some_and(|slot| slot.number == number) {
            self.resume_http(turn, id);
        }
    }

    /// Tells homes that what their receivers were given is out.
    pub(super) fn confirm(&mut self, turn: &mut Turn<'_>, id: ConnectionId, confirmed: Option<(ShardId, SockJsId, u32)>) {
        if let Some((home, session, number)) = confirmed {
            let place = RequestAddress { shard: self.id, connection: id, number };
            self.mail(turn, home, Mail::SockJsWritten { session, place });
        }
    }

    /// Tells homes that their receivers are gone with the connection.
    pub(super) fn lose_receivers<'a>(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        receivers: impl IntoIterator<Item = &'a Receiving>,
    ) {
        for receiving in receivers.into_iter().filter(|receiving| !receiving.transport.is_send()) {
            let place = RequestAddress { shard: self.id, connection: id, number: receiving.number };
            self.mail(turn, receiving.home, Mail::SockJsLost { session: receiving.session.clone(), place });
        }
    }
}

impl Http {
    /// The outbox is empty: which receiver can be told so.
    pub(super) fn written(&mut self) -> Option<(ShardId, SockJsId, u32)> {
        let slot = self.slots.front_mut()?;
        let (Answer::Stream(stream), Some(receiving)) = (&mut slot.answer, slot.receiving.as_deref()) else { return None };
        let sent = std::mem::take(&mut stream.sending);
        sent.then(|| (receiving.home, receiving.session.clone(), receiving.number))
    }

    /// Whether a client waits for packets, so that its leaving must be seen.
    pub(super) fn receives(&self) -> bool {
        self.slots.front().is_some_and(|slot| slot.receiving.is_some())
    }
}

impl Slot {
    fn take_answer(&mut self, answer: SockJsAnswer) {
        let Some(receiving) = self.receiving.as_deref_mut() else { return };
        let head = |receiving: &mut Receiving| {
            let mut head = sockjs::receiving(receiving.transport);
            head.headers.append(&mut receiving.headers);
            head
        };
        let mut plain = |mut response: Response| {
            response.headers.append(&mut receiving.headers);
            Answer::Whole(response)
        };
        match answer {
            SockJsAnswer::NoSession => self.answer = plain(sockjs::refused(404, "")),
            SockJsAnswer::Broken(words) => self.answer = plain(sockjs::refused(500, words)),
            SockJsAnswer::Refused(refusal) => self.answer = plain(api::refuse(&refusal)),
            SockJsAnswer::Taken => {
                let mut response = head(receiving);
                if receiving.transport == Transport::JsonpSend {
                    // Some browsers do strange things with a form whose answer is empty.
                    response.body = Bytes::from_static(b"ok");
                }
                self.answer = Answer::Whole(response);
            }
            SockJsAnswer::Packets { packets, last } if receiving.transport.is_stream() => {
                if !matches!(self.answer, Answer::Stream(_)) {
                    let mut pieces = Vec::new();
                    receiving.piece(&sockjs::prelude(receiving.transport, &receiving.callback), &mut pieces);
                    self.answer = Answer::Stream(Stream { head: Some(head(receiving)), pieces, ended: false, sending: false });
                }
                let Answer::Stream(stream) = &mut self.answer else { return };
                let mut framed = Vec::new();
                for packet in packets {
                    framed.clear();
                    sockjs::packet(receiving.transport, &receiving.callback, &packet, &mut framed);
                    receiving.piece(&framed, &mut stream.pieces);
                }
                if last && receiving.chunked {
                    stream.pieces.extend_from_slice(http::LAST_CHUNK);
                }
                stream.ended = last;
            }
            SockJsAnswer::Packets { packets, .. } => {
                let mut body = Vec::new();
                for packet in packets {
                    sockjs::packet(receiving.transport, &receiving.callback, &packet, &mut body);
                }
                let mut response = head(receiving);
                response.body = body.into();
                self.answer = Answer::Whole(response);
            }
        }
    }
}

impl Receiving {
    fn piece(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.chunked {
            http::chunk(bytes, out);
        } else {
            out.extend_from_slice(bytes);
        }
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.chunked
    }
}

/// Changes when the page does.
pub(super) fn iframe_etag(endpoints: &Endpoints) -> Box<str> {
    let digest = Sha256::digest(sockjs::iframe_page(&endpoints.client_url).as_bytes());
    format!("\"{:016x}\"", u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))).into()
}

fn is_websocket(path: &Path<'_>) -> bool {
    matches!(path, Path::RawWebSocket | Path::Session { transport: Transport::WebSocket, .. })
}

/// What a form or a plain body brings.
fn sent(request: &Request, transport: Transport) -> Bytes {
    let form = transport == Transport::JsonpSend
        && request.header("content-type").is_some_and(|media| {
            media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
        });
    if form { request.form_value("d").unwrap_or_default().into() } else { request.body.clone() }
}

/// What every answer below an endpoint carries: who may read it, and the cookie where one is wanted.
fn sockjs_headers(request: &Request, endpoint: &Endpoint, path: Option<&Path<'_>>) -> Vec<(&'static str, String)> {
    let mut headers = vec![("Vary", "Origin".to_owned())];
    // Requests of other origins than the allowed ones do not come this far.
    match request.header("origin") {
        Some(origin) => {
            headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
            headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
        }
        None => headers.push(("Access-Control-Allow-Origin", "*".to_owned())),
    }
    if endpoint.cookie_needed && matches!(path, Some(Path::Session { .. })) {
        headers.push(("Set-Cookie", format!("JSESSIONID={}; path=/", session_cookie(request).unwrap_or(COOKIE_DUMMY))));
    }
    headers
}

/// The value of the cookie that load balancers go by, when it is one (RFC 6265 section 4.1.1).
fn session_cookie(request: &Request) -> Option<&str> {
    let is_octet = |byte: u8| matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x3A | 0x3C..=0x5B | 0x5D..=0x7E);
    let cookies = request.header_values("cookie").filter_map(|value| std::str::from_utf8(value).ok());
    let value = cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| cookie.trim().strip_prefix("JSESSIONID="))?;
    (value.len() <= COOKIE_BYTES_MAX && value.bytes().all(is_octet)).then_some(value)
}
