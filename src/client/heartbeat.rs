//! Heart-beats as a client offers and agrees on them (STOMP 1.2, "Heart-beating").

use std::fmt;

use crate::protocol::stomp::parse_heart_beat;

/// Milliseconds between two heart-beats of the client and of the server; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartBeat {
    pub out_ms: u32,
    pub in_ms: u32,
}

impl HeartBeat {
    /// The heart-beats after the server's `heart-beat` header: in each direction the slower of both, or none. A header that cannot
    /// be read asks for none.
    #[must_use]
    pub fn agree(self, header: Option<&str>) -> Self {
        let (sends, wants) = parse_heart_beat(header).unwrap_or_default();
        let slower = |ours: u32, theirs: u32| if ours == 0 || theirs == 0 { 0 } else { ours.max(theirs) };
        Self { out_ms: slower(self.out_ms, wants), in_ms: slower(self.in_ms, sends) }
    }
}

/// As CONNECT's header has it.
impl fmt::Display for HeartBeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.out_ms, self.in_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_both_holds() {
        let check = |header: Option<&str>, expect: (u32, u32)| {
            let agreed = HeartBeat { out_ms: 5, in_ms: 5 }.agree(header);
            assert_eq!((agreed.out_ms, agreed.in_ms), expect, "{header:?}");
        };
        check(Some("10,3"), (5, 10));
        check(Some("0,0"), (0, 0));
        check(Some("garbage"), (0, 0));
        check(None, (0, 0));
        assert_eq!(HeartBeat { out_ms: 0, in_ms: 7 }.agree(Some("7,7")), HeartBeat { out_ms: 0, in_ms: 7 });
    }
}
