//! The sessions of this shard, and the users they belong to.

use slab::Slab;
use smallvec::SmallVec;

use crate::access::rate::Bucket;
use crate::model::map::{self, Map};
use crate::model::{Mono, UserId};
use crate::session::Session;
use crate::session::frames::FrameFormat;
use crate::shard::clients::ClientId;
use crate::shard::mail::SessionKey;

/// A session and the way to its client.
#[derive(Debug)]
pub(super) struct SessionEntry {
    generation: u32,
    pub(super) session: Session,
    pub(super) client: ClientId,
    pub(super) format: FrameFormat,
    /// The one current entry among the timers.
    pub(super) timer: Option<Mono>,
}

/// Sessions by key. Owner: the users' part. View: shard.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slab: Slab<Box<SessionEntry>>,
    next_generation: u32,
}

impl Sessions {
    pub(super) fn insert(&mut self, session: Session, client: ClientId, format: FrameFormat) -> SessionKey {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let index = self.slab.insert(Box::new(SessionEntry { generation, session, client, format, timer: None }));
        SessionKey { index: u32::try_from(index).expect("fewer than 2^32 sessions fit a shard's memory"), generation }
    }

    #[inline]
    pub(super) fn find(&self, key: SessionKey) -> Option<&SessionEntry> {
        self.slab.get(key.index as usize).map(|entry| &**entry).filter(|entry| entry.generation == key.generation)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, key: SessionKey) -> Option<&mut SessionEntry> {
        self.slab.get_mut(key.index as usize).map(|entry| &mut **entry).filter(|entry| entry.generation == key.generation)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(super) fn keys(&self) -> Vec<SessionKey> {
        let key = |index: usize, generation| SessionKey { index: u32::try_from(index).unwrap_or(u32::MAX), generation };
        self.slab.iter().map(|(index, entry)| key(index, entry.generation)).collect()
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Box<SessionEntry>> {
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

/// Users by id. Owner: the users' part. View: shard.
#[derive(Debug)]
pub(super) struct UserTable {
    map: Map<UserId, User>,
}

impl UserTable {
    pub(super) fn new(seed: u64) -> Self {
        Self { map: map::map(seed) }
    }

    pub(super) fn enter(&mut self, user: UserId, now: Mono) -> &mut User {
        self.map.entry(user).or_insert_with(|| User { sessions: SmallVec::new(), budget: Bucket::new(now), watched: false })
    }

    pub(super) fn find(&self, user: UserId) -> Option<&User> {
        self.map.get(&user)
    }

    /// Takes a session off its user. Returns when to look at the user, as [`look`](Self::look) does.
    pub(super) fn leave(&mut self, user: UserId, session: SessionKey, now: Mono) -> Option<Mono> {
        let known = self.map.get_mut(&user)?;
        known.sessions.retain(|key| *key != session);
        if known.watched { None } else { self.look(user, now) }
    }

    /// Forgets a user without sessions whose budget is full; returns the time at which it will be, when it is not yet.
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
    use crate::access::Principal;
    use crate::model::{ConnectionId, SessionId, Wall};
    use crate::protocol::stomp::Version;
    use crate::session::frames::Encapsulation;
    use crate::session::heartbeat::HeartBeats;

    #[test]
    fn a_stale_key_finds_no_session() {
        let session = || {
            let principal = Principal { user: UserId::new(1).unwrap(), admin: false, expires: Wall(0), family: None };
            Session::new(SessionId(1), Version::V12, principal, HeartBeats::new(Mono(0), Duration::from_secs(1)))
        };
        let client = ClientId::Socket(ConnectionId { index: 0, generation: 0 });
        let format = FrameFormat { encapsulation: Encapsulation::WebSocket, version: Version::V12 };
        let mut sessions = Sessions::default();
        let first = sessions.insert(session(), client, format);
        assert!(sessions.remove(first).is_some());
        let second = sessions.insert(session(), client, format);
        assert_eq!(first.index, second.index);
        assert!(sessions.find(first).is_none() && sessions.remove(first).is_none());
        assert!(sessions.find(second).is_some());
    }
}
