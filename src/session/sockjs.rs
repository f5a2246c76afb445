//! A SockJS session over HTTP, as its transport sees it: messages wait for requests that fetch them.
//!
//! ```text
//! alone --attach--> waiting --next--> alone            polling: one packet a request
//!                   waiting --next--> sending --written--> waiting     a stream: until its limit, then alone
//! ```
//!
//! A session ends when it was alone for too long, or when a receiver was lost: packets on their way to it may be lost,
//! and the client must not believe that none is.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use crate::model::{ConnectionId, Mono, ShardId};
use crate::protocol::sockjs;

/// The address of a request that waits for its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestAddress {
    pub shard: ShardId,
    pub connection: ConnectionId,
    pub number: u32,
}

/// Packets for a receiver.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub to: RequestAddress,
    pub packets: SmallVec<[Bytes; 2]>,
    /// The response ends with these packets.
    pub last: bool,
}

#[derive(Debug)]
struct Receiver {
    address: RequestAddress,
    /// Takes many packets.
    stream: bool,
    /// Bytes of packets sent to it.
    sent_bytes: usize,
    /// Its last packets are still being written: messages that arrive meanwhile wait, and go in one packet.
    sending: bool,
}

/// Lifetime: the SockJS session's. Owner: the session's shard. View: one client.
#[derive(Debug)]
pub struct Channel {
    /// Messages as JSON strings.
    queue: VecDeque<Bytes>,
    bytes: usize,
    opened: bool,
    beat: bool,
    closed: Option<(u16, Cow<'static, str>)>,
    receiver: Option<Receiver>,
    /// The previous receiver, whose response may still be on its way.
    previous: Option<RequestAddress>,
    alone_since: Mono,
}

impl Channel {
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            opened: false,
            beat: false,
            closed: None,
            receiver: None,
            previous: None,
            alone_since: now,
        }
    }

    /// A request asks for messages. It is refused while another one waits; in a closed session, none does.
    ///
    /// # Errors
    /// The response to the refused request.
    pub fn attach(&mut self, address: RequestAddress, stream: bool) -> Result<(), Batch> {
        if self.receiver.is_some() {
            let (code, reason) = sockjs::CLOSE_ANOTHER_OPEN;
            return Err(Batch { to: address, packets: smallvec![sockjs::close(code, reason).into()], last: true });
        }
        self.receiver = Some(Receiver { address, stream, sent_bytes: 0, sending: false });
        Ok(())
    }

    /// Queues a message, written by [`sockjs::element`].
    pub fn push(&mut self, element: Bytes) {
        if self.closed.is_none() {
            self.bytes += element.len();
            self.queue.push_back(element);
        }
    }

    /// A heart-beat is due, unless other packets are waiting.
    pub fn beat(&mut self) {
        self.beat = true;
    }

    /// Bytes that wait for a receiver.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Closes the session once the waiting messages are sent.
    pub fn close(&mut self, code: u16, reason: Cow<'static, str>) {
        self.closed.get_or_insert((code, reason));
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Drops the waiting messages: the client reads too slowly.
    pub fn cut(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }

    /// The packets that the receiver gets now.
    pub fn next(&mut self, now: Mono, stream_bytes: usize) -> Option<Batch> {
        let receiver = self.receiver.as_mut().filter(|receiver| !receiver.sending)?;
        let mut packets: SmallVec<[Bytes; 2]> = SmallVec::new();
        let more = |packets: &SmallVec<[Bytes; 2]>| receiver.stream || packets.is_empty();
        if !self.opened {
            self.opened = true;
            packets.push(Bytes::from_static(sockjs::OPEN));
        }
        if more(&packets) && !self.queue.is_empty() {
            let mut array = Vec::with_capacity(self.bytes + self.queue.len() + 2);
            sockjs::array(self.queue.iter().map(|element| &element[..]), &mut array);
            self.queue = VecDeque::new();
            self.bytes = 0;
            packets.push(array.into());
        }
        let mut last = !receiver.stream;
        if let Some((code, reason)) = &self.closed
            && more(&packets)
        {
            packets.push(sockjs::close(*code, reason).into());
            last = true;
        }
        if packets.is_empty() && self.beat {
            packets.push(Bytes::from_static(sockjs::HEART_BEAT));
        }
        if packets.is_empty() {
            return None;
        }
        self.beat = false;
        receiver.sent_bytes += packets.iter().map(Bytes::len).sum::<usize>();
        receiver.sending = true;
        let to = receiver.address;
        if last || stream_bytes <= receiver.sent_bytes {
            last = true;
            self.receiver = None;
            self.previous = Some(to);
            self.alone_since = now;
        }
        Some(Batch { to, packets, last })
    }

    /// The receiver's packets have been written.
    pub fn written(&mut self, address: RequestAddress) {
        if let Some(receiver) = &mut self.receiver
            && receiver.address == address
        {
            receiver.sending = false;
        }
    }

    /// The session is over: the last packets of a waiting receiver, if any.
    pub fn end(&mut self) -> Option<Batch> {
        let to = self.receiver.take()?.address;
        let (code, reason) = sockjs::CLOSE_INTERRUPTED;
        Some(Batch { to, packets: smallvec![sockjs::close(code, reason).into()], last: true })
    }

    /// Whether the session ends with the loss of this receiver.
    #[must_use]
    pub fn lost(&self, address: RequestAddress) -> bool {
        self.previous == Some(address) || self.receiver.as_ref().is_some_and(|receiver| receiver.address == address)
    }

    /// The time since when no receiver has been waiting.
    #[must_use]
    pub fn alone_since(&self) -> Option<Mono> {
        self.receiver.is_none().then_some(self.alone_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64;

    fn address(number: u32) -> RequestAddress {
        RequestAddress { shard: ShardId(0), connection: ConnectionId { index: 0, generation: 0 }, number }
    }

    fn texts(batch: Option<Batch>) -> (Vec<String>, bool) {
        let batch = batch.expect("there is something to send");
        (batch.packets.iter().map(|packet| String::from_utf8(packet.to_vec()).unwrap()).collect(), batch.last)
    }

    fn element(text: &str) -> Bytes {
        format!("\"{text}\"").into()
    }

    fn check(batch: Option<Batch>, packets: &[&str], last: bool) {
        assert_eq!(texts(batch), (packets.iter().map(ToString::to_string).collect(), last));
    }

    #[test]
    fn polls_get_one_packet_each() {
        let mut channel = Channel::new(Mono(0));
        channel.push(element("a"));
        assert_eq!(channel.next(Mono(1), LIMIT), None);
        channel.attach(address(1), false).unwrap();
        check(channel.next(Mono(1), LIMIT), &["o"], true);
        assert_eq!(channel.alone_since(), Some(Mono(1)));
        channel.push(element("b"));
        channel.attach(address(2), false).unwrap();
        check(channel.next(Mono(2), LIMIT), &["a[\"a\",\"b\"]"], true);
        channel.attach(address(3), false).unwrap();
        assert_eq!(channel.next(Mono(3), LIMIT), None);
        assert_eq!((channel.alone_since(), channel.bytes()), (None, 0));
    }

    #[test]
    fn a_stream_waits_until_its_last_batch_is_written() {
        let mut channel = Channel::new(Mono(0));
        channel.attach(address(1), true).unwrap();
        channel.push(element("a"));
        check(channel.next(Mono(0), LIMIT), &["o", "a[\"a\"]"], false);
        channel.push(element("b"));
        channel.push(element("c"));
        assert_eq!(channel.next(Mono(0), LIMIT), None);
        channel.written(address(9));
        assert_eq!(channel.next(Mono(0), LIMIT), None);
        channel.written(address(1));
        check(channel.next(Mono(0), LIMIT), &["a[\"b\",\"c\"]"], false);
        channel.written(address(1));
        channel.push(element(&"x".repeat(LIMIT)));
        assert!(texts(channel.next(Mono(0), LIMIT)).1, "over the limit the response ends");
    }

    #[test]
    fn one_receiver_at_a_time() {
        let mut channel = Channel::new(Mono(0));
        channel.attach(address(1), false).unwrap();
        let refused = channel.attach(address(2), false).unwrap_err();
        check(Some(refused), &["c[2010,\"Another connection still open\"]"], true);
        assert!(channel.lost(address(1)) && !channel.lost(address(2)));
    }

    #[test]
    fn a_close_follows_the_queue_and_is_repeated() {
        let mut channel = Channel::new(Mono(0));
        channel.push(element("a"));
        channel.close(3000, "Go away!".into());
        channel.close(1000, "".into());
        channel.push(element("too late"));
        channel.attach(address(1), true).unwrap();
        check(channel.next(Mono(0), LIMIT), &["o", "a[\"a\"]", "c[3000,\"Go away!\"]"], true);
        for number in 2..4 {
            channel.attach(address(number), false).unwrap();
            check(channel.next(Mono(0), LIMIT), &["c[3000,\"Go away!\"]"], true);
        }
    }

    #[test]
    fn messages_replace_a_beat() {
        let mut channel = Channel::new(Mono(0));
        channel.attach(address(1), true).unwrap();
        check(channel.next(Mono(0), LIMIT), &["o"], false);
        channel.written(address(1));
        channel.beat();
        check(channel.next(Mono(0), LIMIT), &["h"], false);
        channel.written(address(1));
        channel.beat();
        channel.push(element("a"));
        check(channel.next(Mono(0), LIMIT), &["a[\"a\"]"], false);
        channel.written(address(1));
        assert_eq!(channel.next(Mono(0), LIMIT), None);
    }
}
