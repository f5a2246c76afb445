//! One user of a pair: messages sent with their outcomes, messages received with their order. No sockets, no time.

use std::collections::VecDeque;

use tidings::model::MessageId;

use crate::sequence::{Arrival, Bits, Track};

/// An unsettled message: sent again under the same client message id until it is acknowledged or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub number: u64,
    /// When to send it, in monotonic nanoseconds.
    pub due: u64,
}

#[derive(Debug)]
pub struct PairedUser {
    /// One more than the last number assigned.
    next: u64,
    /// In order; the first `on_wire` were written to the connection that is open now.
    pending: VecDeque<Pending>,
    on_wire: usize,
    /// One more than the greatest number written to any connection, and to any that has ended.
    written: u64,
    written_before: u64,
    pub acknowledged: Bits,
    pub refused: Bits,
    /// The peer's messages, live or from the history.
    inbound: Track,
    /// The peer's messages on this connection.
    live: Track,
    /// The newest message delivered on this connection, and on any.
    live_newest: Option<MessageId>,
    newest: Option<MessageId>,
    /// Where reading the history must begin; set when a connection ends, cleared after reading.
    behind: Option<Position>,
    /// Connections so far.
    epoch: u32,
    /// Numbers that earlier connections skipped although they were subscribed.
    skipped: Vec<u64>,
}

/// The last message in the conversation's log before any gap, and the connection that asks for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub after: MessageId,
    pub epoch: u32,
}

/// One delivery compared to the earlier ones on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub arrival: Arrival,
    /// Its id is later than that of the delivery before.
    pub id_increases: bool,
}

impl Default for PairedUser {
    fn default() -> Self {
        Self {
            next: 1,
            pending: VecDeque::new(),
            on_wire: 0,
            written: 0,
            written_before: 0,
            acknowledged: Bits::default(),
            refused: Bits::default(),
            inbound: Track::from_one(),
            live: Track::from_anywhere(),
            live_newest: None,
            newest: None,
            behind: None,
            epoch: 0,
            skipped: Vec::new(),
        }
    }
}

impl PairedUser {
    /// Adds one message that is due.
    pub fn assign(&mut self, due: u64) {
        self.pending.push_back(Pending { number: self.next, due });
        self.next += 1;
    }

    /// The next message to write to the open connection; those of an earlier connection go first.
    pub fn next_to_write(&mut self) -> Option<Pending> {
        let pending = self.pending.get(self.on_wire).copied()?;
        self.on_wire += 1;
        self.written = self.written.max(pending.number + 1);
        Some(pending)
    }

    /// Handles the RECEIPT of `number`. Returns when it was due, or `None` when it was not pending.
    pub fn acknowledge(&mut self, number: u64) -> Option<u64> {
        let due = self.settle(number)?;
        self.acknowledged.insert(number);
        Some(due)
    }

    /// Handles the refusal of `number`; false when it was not pending.
    pub fn refuse(&mut self, number: u64) -> bool {
        let settled = self.settle(number).is_some();
        if settled {
            self.refused.insert(number);
        }
        settled
    }

    fn settle(&mut self, number: u64) -> Option<u64> {
        // Receipts arrive nearly in order, so it is nearly always the first.
        let at = self.pending.iter().position(|pending| pending.number == number)?;
        let pending = self.pending.remove(at)?;
        if at < self.on_wire {
            self.on_wire -= 1;
        }
        Some(pending.due)
    }

    /// Handles a MESSAGE of the peer on the open connection.
    pub fn deliver(&mut self, number: u64, id: MessageId) -> Delivery {
        self.inbound.take(number);
        let arrival = self.live.take(number);
        let id_increases = self.live_newest.is_none_or(|newest| newest < id);
        self.live_newest = self.live_newest.max(Some(id));
        self.newest = self.newest.max(Some(id));
        Delivery { arrival, id_increases }
    }

    /// Handles a message of the peer from the history.
    pub fn catch_up(&mut self, number: u64, id: MessageId) {
        self.inbound.take(number);
        self.newest = self.newest.max(Some(id));
    }

    /// The connection of this epoch has read the history to its end. If that connection has ended since, the gap up to the
    /// present one is still open.
    pub fn caught_up(&mut self, epoch: u32) {
        if epoch == self.epoch {
            self.behind = None;
        }
    }

    /// The connection ended. The next one begins anew, and must send the unsettled messages.
    pub fn disconnect(&mut self) {
        self.on_wire = 0;
        self.written_before = self.written;
        self.epoch += 1;
        let live = std::mem::replace(&mut self.live, Track::from_anywhere());
        self.skipped.extend(live.missing());
        self.live_newest = None;
        // Messages that this connection received count only if the gap before it was closed.
        let after = self.behind.map_or_else(|| self.newest.unwrap_or(MessageId::MIN), |behind| behind.after);
        self.behind = Some(Position { after, epoch: self.epoch });
    }

    /// Whether the user's own message may arrive: a session receives what another session of its user sent, here one that has
    /// ended.
    pub fn may_receive(&self, own: u64) -> bool {
        own < self.written_before
    }

    /// Where to begin reading the history once subscribed.
    pub fn behind(&self) -> Option<Position> {
        self.behind
    }

    /// One more than the greatest number assigned.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Messages neither acknowledged nor refused.
    pub fn unsettled(&self) -> usize {
        self.pending.len()
    }

    /// Whether all of the peer's acknowledged messages have arrived.
    pub fn has_all_of(&self, peer: &Self) -> bool {
        self.lost_of(peer) == 0
    }

    /// The number of the peer's acknowledged messages that never arrived.
    pub fn lost_of(&self, peer: &Self) -> u64 {
        // In the common case, everything in order, skip the walk over the numbers.
        if self.inbound.next() == peer.next && self.inbound.missing().next().is_none() {
            return 0;
        }
        peer.acknowledged.iter().filter(|number| !self.inbound.has(*number)).count() as u64
    }

    /// The number of the peer's acknowledged messages that a subscribed connection skipped.
    pub fn skipped_of(&self, peer: &Self) -> u64 {
        let skipped = self.skipped.iter().copied().chain(self.live.missing());
        skipped.filter(|number| peer.acknowledged.has(*number)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings::model::Wall;

    fn id(at: u64) -> MessageId {
        MessageId::from_parts(Wall(at), 0, 0)
    }

    fn numbers_written(client: &mut PairedUser) -> Vec<u64> {
        std::iter::from_fn(|| client.next_to_write()).map(|pending| pending.number).collect()
    }

    #[test]
    fn unsettled_messages_are_written_again_first() {
        let mut client = PairedUser::default();
        for due in 10..14 {
            client.assign(due);
        }
        assert_eq!(numbers_written(&mut client), [1, 2, 3, 4]);
        assert_eq!(client.acknowledge(2), Some(11));
        assert_eq!(client.acknowledge(2), None);
        assert!(client.refuse(3));
        client.disconnect();
        client.assign(14);
        assert_eq!(numbers_written(&mut client), [1, 4, 5]);
        assert_eq!(client.unsettled(), 3);
        assert!(client.acknowledged.has(2) && client.refused.has(3));
    }

    #[test]
    fn only_messages_of_an_earlier_connection_come_back() {
        let mut client = PairedUser::default();
        for due in 1..=3 {
            client.assign(due);
        }
        client.next_to_write();
        client.next_to_write();
        assert!(!client.may_receive(1), "the connection that sent it is open");
        client.disconnect();
        assert_eq!(numbers_written(&mut client), [1, 2, 3]);
        assert!(client.may_receive(2) && !client.may_receive(3));
    }

    #[test]
    fn a_message_may_come_live_or_by_the_history() {
        let (mut sender, mut receiver) = (PairedUser::default(), PairedUser::default());
        for number in 1..=4 {
            sender.assign(0);
            sender.next_to_write();
            sender.acknowledge(number);
        }
        assert_eq!(receiver.deliver(1, id(1)).arrival, Arrival::InOrder);
        receiver.disconnect();
        assert_eq!(receiver.deliver(4, id(4)), Delivery { arrival: Arrival::InOrder, id_increases: true });
        assert_eq!(receiver.lost_of(&sender), 2);
        for number in [2, 3, 4] {
            receiver.catch_up(number, id(number));
        }
        assert!(receiver.has_all_of(&sender));
        assert_eq!(receiver.skipped_of(&sender), 0);
    }

    #[test]
    fn faults_within_a_connection_are_counted() {
        let (mut sender, mut receiver) = (PairedUser::default(), PairedUser::default());
        for number in 1..=3 {
            sender.assign(0);
            sender.next_to_write();
            sender.acknowledge(number);
        }
        receiver.deliver(1, id(1));
        assert_eq!(receiver.deliver(1, id(1)), Delivery { arrival: Arrival::Duplicate, id_increases: false });
        assert_eq!(receiver.deliver(3, id(3)).arrival, Arrival::Ahead);
        assert_eq!(receiver.skipped_of(&sender), 1);
        receiver.disconnect();
        assert_eq!(receiver.skipped_of(&sender), 1);
        receiver.catch_up(2, id(2));
        // It arrived by the history, but a subscribed connection still skipped it.
        assert_eq!((receiver.lost_of(&sender), receiver.skipped_of(&sender)), (0, 1));
    }
}
