//! The slab of a shard's connections: descriptor, generation, flags.

use std::os::fd::OwnedFd;

use crate::model::ConnectionId;

/// What the pump knows about a connection besides its descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// The socket may have unread bytes.
    pub(super) readable: bool,
    /// The peer has closed its writing half: keep reading after a short read.
    pub(super) ending: bool,
    /// In the queue of connections to read.
    pub(super) queued: bool,
    /// The shard does not want to read.
    pub(super) paused: bool,
    /// In the queue of connections to write.
    pub(super) dirty: bool,
    /// The socket's buffer is full: wait until it is writable.
    pub(super) blocked: bool,
}

/// Lifetime: the connection's on this shard. Owner: the slab. View: one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) state: State,
}

#[derive(Debug)]
enum SlotState {
    Taken(Connection),
    /// The next free slot's index plus one; 0: none.
    Free(u32),
}

#[derive(Debug)]
struct Slot {
    state: SlotState,
    /// Grows each time the slot is freed, so that an event for an earlier connection finds none.
    generation: u32,
}

/// Connections by id. Lifetime and owner: a shard's pump. View: one shard.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    /// The first free slot's index plus one; 0: none.
    free: u32,
    len: usize,
}

/// Indexes from here on belong to listeners.
pub(super) const INDEX_MAX: u32 = u32::MAX - 1_024;

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// # Panics
    /// When four thousand million connections are open.
    pub(super) fn insert(&mut self, socket: OwnedFd) -> ConnectionId {
        let connection = Connection { socket, state: State::default() };
        self.len += 1;
        if self.free == 0 {
            let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
            assert!(index < INDEX_MAX);
            self.slots.push(Slot { state: SlotState::Taken(connection), generation: 0 });
            return ConnectionId { index, generation: 0 };
        }
        let index = self.free - 1;
        let slot = &mut self.slots[index as usize];
        let SlotState::Free(next) = slot.state else { panic!("the free list leads to a connection") };
        self.free = next;
        slot.state = SlotState::Taken(connection);
        ConnectionId { index, generation: slot.generation }
    }

    pub(super) fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize)?;
        match &mut slot.state {
            SlotState::Taken(connection) if slot.generation == id.generation => Some(connection),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.find(id)?;
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let state = std::mem::replace(&mut slot.state, SlotState::Free(self.free));
        self.free = id.index + 1;
        self.len -= 1;
        match state {
            SlotState::Taken(connection) => Some(connection),
            SlotState::Free(_) => None,
        }
    }
}

/// The number that identifies a connection to epoll.
pub(super) fn key(id: ConnectionId) -> u64 {
    u64::from(id.index) << 32 | u64::from(id.generation)
}

/// The inverse of [`key`].
pub(super) fn id(key: u64) -> ConnectionId {
    ConnectionId { index: (key >> 32) as u32, generation: key as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_stale_id_finds_no_connection() {
        let mut connections = Connections::default();
        let first = connections.insert(socket());
        let second = connections.insert(socket());
        assert!(connections.remove(first).is_some());
        assert!(connections.remove(first).is_none());
        let third = connections.insert(socket());
        assert_eq!(third.index, first.index);
        assert!(connections.find(first).is_none());
        assert!(connections.find(third).is_some() && connections.find(second).is_some());
        assert_eq!(connections.len(), 2);
    }

    #[test]
    fn freed_slots_are_reused() {
        let mut connections = Connections::default();
        for _ in 0..3 {
            let ids: Vec<_> = (0..10).map(|_| connections.insert(socket())).collect();
            for id in ids {
                assert!(connections.remove(id).is_some());
            }
        }
        assert_eq!((connections.slots.len(), connections.len()), (10, 0));
    }

    #[test]
    fn keys_round_trip() {
        for id_ in [ConnectionId { index: 0, generation: 0 }, ConnectionId { index: 5, generation: u32::MAX }] {
            assert_eq!(id(key(id_)), id_);
        }
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 20, "{}", size_of::<Slot>());
    }
}
