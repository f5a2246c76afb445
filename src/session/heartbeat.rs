//! Heart-beats: those of STOMP as negotiated, and WebSocket pings independent of STOMP.

use std::time::Duration;

use crate::model::{Limits, Mono};

/// Both directions of one session. Lifetime: the session's.
#[derive(Clone, Copy, Debug)]
pub struct HeartBeats {
    /// The server sends at least this often; zero: no promise.
    send_every: Duration,
    /// The client promised to send at least this often; zero: no promise.
    expect_every: Duration,
    /// Zero: the transport has no pings.
    ping_every: Duration,
    last_sent: Mono,
    last_heard: Mono,
    last_ping: Mono,
}

/// A beat that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// An EOL to the client.
    Send,
    /// A WebSocket ping.
    Ping,
    /// The client has been silent for three intervals: it is gone.
    Silent,
}

/// Intervals without a sign of life after which the client counts as dead.
const SILENT_INTERVALS: u32 = 3;

const NEVER: Mono = Mono(u64::MAX);

impl HeartBeats {
    #[must_use]
    pub fn new(now: Mono, ping_every: Duration) -> Self {
        Self {
            send_every: Duration::ZERO,
            expect_every: Duration::ZERO,
            ping_every,
            last_sent: now,
            last_heard: now,
            last_ping: now,
        }
    }

    /// STOMP 1.2, "Heart-beating": each direction beats at the slower of one side's ability and the other's wish;
    /// zero on either side turns it off. `client` is from CONNECT: (can send every, wants every), in ms.
    /// Returns the values for CONNECTED: (the server can, the server wants).
    pub fn negotiate(&mut self, client: (u32, u32), limits: &Limits) -> (u32, u32) {
        let ours = limits.heartbeat_ms;
        let (can, wants) = client;
        if ours > 0 && wants > 0 {
            self.send_every = Duration::from_millis(u64::from(wants.max(ours).max(limits.heartbeat_ms_min)));
        }
        if ours > 0 && can > 0 {
            self.expect_every = Duration::from_millis(u64::from(can.max(ours)));
        }
        (ours, ours)
    }

    /// The client sent something at this time; an earlier time than a known one changes nothing.
    pub fn heard(&mut self, at: Mono) {
        self.last_heard = self.last_heard.max(at);
    }

    /// Sent bytes have left the server: the only sign of life of a client that just listens and has no pings to
    /// answer. It does not excuse a client that promised beats.
    pub fn delivered(&mut self, at: Mono) {
        if self.expect_every.is_zero() {
            self.heard(at);
        }
    }

    /// Whether the server sends STOMP beats.
    #[must_use]
    pub fn are_sent(&self) -> bool {
        !self.send_every.is_zero()
    }

    /// Something was sent to the client.
    pub fn sent(&mut self, now: Mono) {
        self.last_sent = now;
    }

    /// When to call [`due`](Self::due) next.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        let send = self.send_at().unwrap_or(NEVER);
        send.min(self.silent_at()).min(self.ping_at())
    }

    /// The beats due at `now`, the most urgent first; call it until it returns `None`. A ping includes a beat: they leave in one
    /// packet, and the next beat is due later.
    pub fn due(&mut self, now: Mono) -> Option<Beat> {
        if now >= self.silent_at() {
            return Some(Beat::Silent);
        }
        let ping = now >= self.ping_at();
        if self.send_at().is_some_and(|at| now >= at || ping && self.last_sent < now) {
            self.last_sent = now;
            return Some(Beat::Send);
        }
        if ping {
            self.last_ping = now;
            return Some(Beat::Ping);
        }
        None
    }

    /// A tenth early, so that the beat arrives within the promised interval.
    fn send_at(&self) -> Option<Mono> {
        (!self.send_every.is_zero()).then(|| self.last_sent.after(self.send_every * 9 / 10))
    }

    fn ping_at(&self) -> Mono {
        if self.ping_every.is_zero() { NEVER } else { self.last_ping.after(self.ping_every) }
    }

    /// A client that promised nothing still answers pings.
    fn silent_at(&self) -> Mono {
        let every = if self.expect_every.is_zero() { self.ping_every } else { self.expect_every };
        if every.is_zero() { NEVER } else { self.last_heard.after(every * SILENT_INTERVALS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn beats(client: (u32, u32)) -> HeartBeats {
        let mut beats = HeartBeats::new(Mono(0), Duration::from_secs(25));
        assert_eq!(beats.negotiate(client, &Limits::default()), (10_000, 10_000));
        beats
    }

    #[test]
    fn each_direction_takes_the_slower_side() {
        let check = |client, send_ms, silent_ms| {
            let beats = beats(client);
            assert_eq!(beats.send_at(), Some(Mono(send_ms * MS)), "{client:?}");
            assert_eq!(beats.silent_at(), Mono(silent_ms * MS), "{client:?}");
        };
        check((10_000, 10_000), 9_000, 30_000);
        check((500, 500), 9_000, 30_000);
        check((20_000, 40_000), 36_000, 60_000);
    }

    /// A poll of SockJS is a sign of life, and packets that went out before it must not make it forgotten.
    #[test]
    fn an_earlier_sign_of_life_changes_nothing() {
        let mut beats = beats((0, 0));
        beats.heard(Mono(9));
        beats.delivered(Mono(3));
        let silent_at = beats.silent_at();
        beats.heard(Mono(2));
        assert_eq!(beats.silent_at(), silent_at);
        beats.delivered(Mono(12));
        assert!(silent_at < beats.silent_at());
    }

    #[test]
    fn no_promise_leaves_only_pings() {
        let mut beats = beats((0, 0));
        assert_eq!(beats.send_at(), None);
        assert_eq!(beats.next_deadline(), Mono(25_000 * MS));
        assert_eq!(beats.due(Mono(25_000 * MS)), Some(Beat::Ping));
        assert_eq!(beats.due(Mono(25_000 * MS)), None);
        assert_eq!(beats.due(Mono(75_000 * MS)), Some(Beat::Silent));
    }

    #[test]
    fn a_ping_includes_a_beat() {
        let mut beats = beats((10_000, 10_000));
        for at in [9_000, 18_000] {
            beats.heard(Mono(at * MS));
            assert_eq!(beats.due(Mono(at * MS)), Some(Beat::Send));
            assert_eq!(beats.due(Mono(at * MS)), None);
        }
        assert_eq!(beats.next_deadline(), Mono(25_000 * MS));
        let due = std::iter::from_fn(|| beats.due(Mono(25_000 * MS))).collect::<Vec<_>>();
        assert_eq!(due, [Beat::Send, Beat::Ping]);
        assert_eq!(beats.next_deadline(), Mono(34_000 * MS));
    }

    #[test]
    fn traffic_postpones_beats() {
        let mut beats = beats((10_000, 10_000));
        beats.sent(Mono(5_000 * MS));
        beats.heard(Mono(5_000 * MS));
        assert_eq!(beats.due(Mono(9_000 * MS)), None);
        assert_eq!(beats.due(Mono(14_000 * MS)), Some(Beat::Send));
        assert_eq!(beats.due(Mono(35_000 * MS)), Some(Beat::Silent));
    }
}
