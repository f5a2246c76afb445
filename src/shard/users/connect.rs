//! CONNECT: which user it is, and a session on that user's shard.

use std::time::Duration;

use rand_chacha::rand_core::Rng;

use crate::access::Principal;
use crate::access::token::Claims;
use crate::model::{Close, Fault, Refusal, RefusalCode, SessionId};
use crate::session::Session;
use crate::session::frames::{self, Encapsulation, FrameFormat};
use crate::session::heartbeat::HeartBeats;
use crate::session::intent::ConnectRequest;
use crate::shard::clients::{ClientId, Clients, Received};
use crate::shard::turn::Turn;
use crate::shard::users::Users;

impl Users {
    /// Begins a session, sends the client to its user's shard, or ends it with an ERROR.
    #[expect(clippy::too_many_arguments, reason = "an event's fields, taken apart once")]
    pub(super) fn connect(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        received: &mut Received<'_>,
        client: ClientId,
        connect: ConnectRequest,
        handshake: Option<Box<Claims>>,
        moved: bool,
    ) {
        let claims = match handshake {
            // The shard that read CONNECT has believed it.
            Some(claims) if moved => Ok(*claims),
            handshake => believe(turn, handshake.as_deref(), &connect),
        };
        let entered = claims.and_then(|claims| {
            let to = turn.placement.user(claims.user);
            if to == turn.id {
                self.enter_session(turn, clients, client, &connect, &claims)
            } else {
                clients.move_to(turn, client, to, (connect.clone(), claims), received);
                Ok(())
            }
        });
        if let Err(fault) = entered
            && let Some(format) = clients.format(client)
        {
            let error = frames::error(format, &fault.message, connect.receipt.as_deref());
            clients.close(turn, client, fault.close, Some(error));
        }
    }

    /// Registers the session and answers CONNECTED.
    fn enter_session(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        client: ClientId,
        connect: &ConnectRequest,
        claims: &Claims,
    ) -> Result<(), Fault> {
        if turn.draining.is_some() {
            clients.close(turn, client, Close::Restart, None);
            return Ok(());
        }
        // The token may have been revoked on the way from the shard that read it.
        turn.revocations.check(claims.family).map_err(disbelief)?;
        let limits = turn.limits();
        let user = self.table.enter(claims.user, turn.now.mono);
        if user.sessions.len() >= limits.sessions_per_user {
            return Err(Fault::policy(format!("more than {} sessions of one user", limits.sessions_per_user)));
        }
        let Some(FrameFormat { encapsulation, .. }) = clients.format(client) else { return Ok(()) };
        // A stream without packets has no pings either.
        let ping = if encapsulation == Encapsulation::Bare { Duration::ZERO } else { limits.ping };
        let mut beats = HeartBeats::new(turn.now.mono, ping);
        let heart_beat = beats.negotiate(connect.heart_beat, limits);
        let principal = Principal::new(claims, limits);
        let id = SessionId(u128::from(turn.random.next_u64()) << 64 | u128::from(turn.random.next_u64()));
        let session = Session::new(id, connect.version, principal, beats);
        let deadline = session.next_deadline(turn.now.mono, turn.now.wall);
        let format = FrameFormat { encapsulation, version: connect.version };
        let key = self.sessions.insert(session, client, format);
        user.sessions.push(key);
        clients.connected(client, key, connect.version);
        clients.write(turn, client, frames::connected(format, id, claims.user, heart_beat));
        if let Some(receipt) = &connect.receipt {
            clients.write(turn, client, frames::receipt(format, receipt));
        }
        self.schedule_session(key, deadline);
        Ok(())
    }
}

/// The claims of a CONNECT: of its own token, the handshake's, or both when they name the same user.
fn believe(turn: &Turn, handshake: Option<&Claims>, connect: &ConnectRequest) -> Result<Claims, Fault> {
    let own = connect.token.as_ref().map(|token| turn.verify(token.expose())).transpose().map_err(disbelief)?;
    match (own, handshake) {
        (None, None) => Err(Fault::policy("a token is needed, in the header Authorization or in the query of the URL")),
        (Some(own), Some(handshake)) if own.user != handshake.user => {
            Err(Fault::policy("the tokens of handshake and CONNECT name different users"))
        }
        (Some(own), _) => Ok(own),
        (None, Some(handshake)) if turn.token_end(Some(handshake)) <= turn.now.wall => {
            Err(Fault::policy("the token has expired"))
        }
        (None, Some(handshake)) => Ok(handshake.clone()),
    }
}

/// The fault for a token that is not believed: for good, or for now.
fn disbelief(refusal: Refusal) -> Fault {
    let close = if refusal.code == RefusalCode::StoreUnavailable { Close::TryLater } else { Close::Policy };
    Fault::new(close, refusal.message)
}
