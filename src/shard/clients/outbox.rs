//! What waits to be written to one connection: whole frames, shared where several connections get the same bytes.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Frames for which an idle connection keeps room: the least that a queue takes at all.
const IDLE_FRAMES_MAX: usize = 4;

/// A queue of byte buffers. Lifetime: its connection's. Owner: the connection's shard. View: one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    /// Bytes in the queue, what the first buffer has already sent not counted.
    bytes: usize,
    /// Part of the first buffer has gone out.
    begun: bool,
}

impl Outbox {
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Heap bytes of the queue itself.
    #[cfg(test)]
    pub(in crate::shard) fn heap_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Bytes>()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Drops everything but the rest of a frame whose beginning has already gone out.
    pub fn cut(&mut self) {
        let begun = if self.begun { self.queue.pop_front() } else { None };
        self.queue.clear();
        self.bytes = 0;
        if let Some(rest) = begun {
            self.push(rest);
        }
    }

    /// The first buffers, at most `slices.len()`, for one gathering write. Returns how many were filled in.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(frame);
            count += 1;
        }
        count
    }

    /// Takes off the first `bytes`, which have been written.
    ///
    /// # Panics
    /// When more was written than was there.
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "{bytes} bytes written of {}", self.bytes);
        self.bytes -= bytes;
        let mut left = bytes;
        while left > 0 {
            let Some(first) = self.queue.front_mut() else { break };
            if first.len() > left {
                first.advance(left);
                self.begun = true;
                break;
            }
            left -= first.len();
            self.begun = false;
            self.queue.pop_front();
        }
        if self.queue.is_empty() && self.queue.capacity() > IDLE_FRAMES_MAX {
            // An idle connection must not keep what a burst needed.
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_writes_keep_the_rest_in_order() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"));
        outbox.push(Bytes::from_static(b"defg"));
        outbox.consume(4);
        assert_eq!(outbox.bytes(), 3);
        let mut slices = [IoSlice::new(b""); 4];
        assert_eq!(outbox.slices(&mut slices), 1);
        assert_eq!(&*slices[0], b"efg");
        outbox.consume(3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_cut_leaves_only_the_frame_that_has_begun() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"));
        outbox.push(Bytes::from_static(b"defg"));
        outbox.consume(1);
        outbox.cut();
        assert_eq!(outbox.bytes(), 2);
        outbox.consume(2);
        outbox.push(Bytes::from_static(b"xyz"));
        outbox.cut();
        assert!(outbox.is_empty());
    }
}
