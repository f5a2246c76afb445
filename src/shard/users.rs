//! Users with sessions here, and the sessions themselves.

use slab::Slab;
use smallvec::SmallVec;

use crate::model::map::{self, Map};
use crate::model::{ConnectionId, Mono, UserId};
use crate::session::Session;
use crate::session::frames::{Encapsulation, FrameFormat};
use crate::session::rate::Bucket;
use crate::shard::mail::SessionKey;
use crate::shard::sockjs::SockJsKey;

/// What a session's frames travel on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Socket(ConnectionId),
    /// A SockJS session over HTTP.
    SockJs(SockJsKey),
}

/// A session and the way to it.
#[derive(Debug)]
pub(super) struct Live {
    generation: u32,
    pub(super) session: Session,
    pub(super) carrier: Carrier,
    pub(super) format: FrameFormat,
}

/// Sessions by key. Owner: the shard. View: shard.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slab: Slab<Box<Live>>,
    next_generation: u32,
}

impl Sessions {
    pub(super) fn insert(&mut self, session: Session, carrier: Carrier, encapsulation: Encapsulation) -> SessionKey {
        let format = FrameFormat { encapsulation, version: session.version };
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let index = self.slab.insert(Box::new(Live { generation, session, carrier, format }));
        SessionKey { index: u32::try_from(index).expect("fewer than 2^32 sessions fit a shard's memory"), generation }
    }

    pub(super) fn find(&self, key: SessionKey) -> Option<&Live> {
        self.slab.get(key.index as usize).map(|live| &**live).filter(|live| live.generation == key.generation)
    }

    pub(super) fn find_mut(&mut self, key: SessionKey) -> Option<&mut Live> {
        self.slab.get_mut(key.index as usize).map(|live| &mut **live).filter(|live| live.generation == key.generation)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The session on a carrier; looks at all of them.
    pub(super) fn carried_by(&self, carrier: Carrier) -> Option<SessionKey> {
        let (index, live) = self.slab.iter().find(|(_, live)| live.carrier == carrier)?;
        Some(SessionKey { index: u32::try_from(index).ok()?, generation: live.generation })
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Box<Live>> {
        self.find(key)?;
        self.slab.try_remove(key.index as usize)
    }
}

/// A user of this shard: kept while there is a session or a budget that is not full.
#[derive(Debug)]
pub(super) struct User {
    pub(super) sessions: SmallVec<[SessionKey; 1]>,
    pub(super) budget: Bucket,
    /// A timer will look whether the user can be forgotten.
    pub(super) watched: bool,
}

/// Users by id. Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct Users {
    map: Map<UserId, User>,
}

impl Users {
    pub(super) fn new(seed: u64) -> Self {
        Self { map: map::map(seed) }
    }

    pub(super) fn enter(&mut self, user: UserId, now: Mono) -> &mut User {
        self.map.entry(user).or_insert_with(|| User { sessions: SmallVec::new(), budget: Bucket::new(now), watched: false })
    }

    pub(super) fn find(&self, user: UserId) -> Option<&User> {
        self.map.get(&user)
    }

    /// Takes a session off its user. Gives the time of the next look at the user, as [`look`](Self::look) does.
    pub(super) fn leave(&mut self, user: UserId, session: SessionKey, now: Mono) -> Option<Mono> {
        let known = self.map.get_mut(&user)?;
        known.sessions.retain(|key| *key != session);
        if known.watched { None } else { self.look(user, now) }
    }

    /// Forgets a user without sessions whose budget is full; gives the time at which it will be, when it is not yet.
    pub(super) fn look(&mut self, user: UserId, now: Mono) -> Option<Mono> {
        let known = self.map.get_mut(&user)?;
        known.watched = known.sessions.is_empty() && known.budget.full_at() > now;
        if known.watched {
            return Some(known.budget.full_at());
        }
        if known.sessions.is_empty() {
            self.map.remove(&user);
        }
        None
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{SessionId, Wall};
    use crate::protocol::stomp::Version;
    use crate::session::Principal;
    use crate::session::heartbeat::HeartBeats;

    #[test]
    fn a_stale_key_finds_nobody() {
        let session = || {
            let principal = Principal { user: UserId::new(1).unwrap(), admin: false, expires: Wall(0), family: None };
            Session::new(SessionId(1), Version::V12, principal, HeartBeats::new(Mono(0), Duration::from_secs(1)))
        };
        let carrier = Carrier::Socket(ConnectionId { index: 0, generation: 0 });
        let mut sessions = Sessions::default();
        let first = sessions.insert(session(), carrier, Encapsulation::WebSocket);
        assert!(sessions.remove(first).is_some());
        let second = sessions.insert(session(), carrier, Encapsulation::WebSocket);
        assert_eq!(first.index, second.index);
        assert!(sessions.find(first).is_none() && sessions.remove(first).is_none());
        assert!(sessions.find(second).is_some());
    }
}
