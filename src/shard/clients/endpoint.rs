//! SockJS on the connections that carry it: requests go to their session's home, and its packets come back into their
//! responses.

use bytes::Bytes;
use rand_chacha::rand_core::Rng;
use sha2::{Digest, Sha256};

use crate::access::token::Claims;
use crate::api;
use crate::model::{Refusal, RefusalCode, ShardId, UserId};
use crate::protocol::http::{Method, Request, Response};
use crate::protocol::sockjs::{self, Path, Transport};
use crate::session::endpoints::{Endpoint, EndpointId, Endpoints};
use crate::session::sockjs::RequestAddress;
use crate::shard::clients::answer::Answer;
use crate::shard::clients::http::Http;
use crate::shard::clients::io::ConnectionIo;
use crate::shard::clients::receiver::{Receiver, is_websocket};
use crate::shard::mail::{ClientMail, SockJsAnswer, SockJsId, SockJsRequest, SockJsWant};
use crate::shard::turn::Turn;

/// The default value of the cookie: load balancers put their own in its place.
const COOKIE_DUMMY: &str = "dummy";
/// A longer cookie is not given back.
const COOKIE_BYTES_MAX: usize = 1_024;

/// The user that a request's tokens name, if it has any, and whether a session may begin with them.
struct Identity {
    user: Option<UserId>,
    claims: Result<Option<Box<Claims>>, Refusal>,
}

impl Http {
    /// A request below an endpoint.
    pub(super) fn handle_endpoint(&mut self, turn: &mut Turn, io: &ConnectionIo, iframe_etag: &str, request: Request) {
        let policy = turn.policy.clone();
        let Some((endpoint_id, endpoint, rest)) = policy.endpoints.find(&request.path) else { return };
        let path = sockjs::parse(rest).filter(|path| endpoint.websocket || !is_websocket(path));
        let keep_alive = request.keep_alive && turn.draining.is_none() && !request.upgrade;
        let number = self.open_slot(request.method == Method::Head, keep_alive);
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
            Some(Path::Info) => sockjs::info(endpoint.websocket, endpoint.cookie_needed, turn.random.next_u32()),
            Some(Path::Iframe) => {
                sockjs::iframe(&policy.endpoints.client_url, iframe_etag, request.header("if-none-match"), turn.now.wall)
            }
            Some(Path::Session { transport: Transport::WebSocket, .. }) => {
                sockjs::refused(400, "Not a valid websocket request\n")
            }
            Some(Path::Session { session, transport }) => {
                let session = (endpoint_id, session, transport);
                match self.ask_home(turn, io, number, &request, session, headers.clone()) {
                    Ok(()) => return,
                    Err(response) => response,
                }
            }
        };
        response.headers.extend(headers);
        self.fill_slot(number, response);
    }

    /// Sends a request on to its session's home.
    fn ask_home(
        &mut self,
        turn: &mut Turn,
        io: &ConnectionIo,
        number: u32,
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
        let Identity { user, claims } = identify(turn, request).map_err(|refusal| api::refuse(&refusal))?;
        let session = SockJsId { endpoint, user, name: name.into() };
        let want = match transport.is_send() {
            true => SockJsWant::Send { body: sent(request, transport) },
            false => SockJsWant::Receive { stream: transport.is_stream(), claims },
        };
        let home = sockjs_home(turn, &session);
        let chunked = request.version_minor > 0;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.number == number) {
            slot.keep_alive &= chunked || !transport.is_stream();
            // Its body ends with the connection: no request behind it is read.
            self.last |= !slot.keep_alive;
            let session = session.clone();
            slot.receiver = Some(Box::new(Receiver { home, session, number, transport, callback, chunked, headers }));
        }
        let from = RequestAddress { shard: turn.id, connection: io.id, number };
        let request = SockJsRequest { session, from, want, passed_on: None };
        turn.mail(home, ClientMail::SockJs(Box::new(request)));
        Ok(())
    }

    /// The outbox is empty: notifies the home of the receiver at the front that its packets have gone out.
    pub(super) fn confirm_written(&mut self, turn: &mut Turn, io: &ConnectionIo) {
        let Some(slot) = self.slots.front_mut() else { return };
        let (Answer::Stream(stream), Some(receiver)) = (&mut slot.answer, slot.receiver.as_deref()) else { return };
        if std::mem::take(&mut stream.sending) {
            let address = receiver.address(turn, io.id);
            turn.mail(receiver.home, ClientMail::SockJsWritten { session: receiver.session.clone(), receiver: address });
        }
    }

    /// Whether a client waits for packets, so that we must notice it disconnect.
    pub(super) fn receives(&self) -> bool {
        self.slots.front().is_some_and(|slot| slot.receiver.is_some())
    }

    /// A session's home has answered. True when the answer may be written now.
    pub(super) fn receiver_answered(&mut self, number: u32, answer: SockJsAnswer) -> bool {
        let Some(slot) = self.slot_mut(number) else { return false };
        slot.take_answer(answer);
        self.slots.front().is_some_and(|slot| slot.number == number)
    }

    /// The connection is gone, and its receivers with it.
    pub(super) fn lose_receivers(&self, turn: &mut Turn, io: &ConnectionIo) {
        for slot in &self.slots {
            if let Some(receiver) = slot.receiver.as_deref() {
                receiver.lose(turn, io.id);
            }
        }
    }
}

/// The user that a request's tokens name, and whether a session may begin with them. A session that was begun has an end of
/// its own, so requests that go on with it may carry a token that has expired since.
fn identify(turn: &Turn, request: &Request) -> Result<Identity, Refusal> {
    let query = request.query_value("token");
    let (mut named, mut claims) = (None, Ok(None));
    for token in query.as_deref().into_iter().chain(api::bearer(request)) {
        let unauthorized = |what: String| Refusal::new(RefusalCode::Unauthorized, what);
        let user = turn.policy.keys.identify(token).map_err(|fault| unauthorized(fault.to_string()))?;
        if named.is_some_and(|named| named != user) {
            return Err(unauthorized("the two tokens name different users".into()));
        }
        named = Some(user);
        claims = claims.and_then(|_| turn.verify(token).map(|claims| Some(Box::new(claims))));
    }
    Ok(Identity { user: named, claims })
}

/// Where a session is at home before its user is known.
fn sockjs_home(turn: &Turn, id: &SockJsId) -> ShardId {
    match id.user {
        Some(user) => turn.placement.user(user),
        None => {
            let digest = Sha256::digest(id.name.as_bytes());
            turn.placement.key(u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes")))
        }
    }
}

/// Changes when the page does.
pub(super) fn iframe_etag(endpoints: &Endpoints) -> Box<str> {
    let digest = Sha256::digest(sockjs::iframe_page(&endpoints.client_url).as_bytes());
    format!("\"{:016x}\"", u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))).into()
}

/// What a form or a plain body brings.
fn sent(request: &Request, transport: Transport) -> Bytes {
    let form = transport == Transport::JsonpSend
        && request.header("content-type").is_some_and(|media| {
            media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
        });
    if form { request.form_value("d").unwrap_or_default().into() } else { request.body.clone() }
}

/// Headers of every answer below an endpoint: the origin that may read it, and the cookie where one is wanted.
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
