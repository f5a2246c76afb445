//! The transports of a load's users.

use std::collections::BTreeMap;

use tidings::client::Transport;

/// The number of users of each transport. In the order given, the first half is in pairs with the second half.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mix(Vec<(Transport, u32)>);

impl Mix {
    pub fn all(transport: Transport, users: u32) -> Self {
        Self(vec![(transport, users)])
    }

    pub fn users(&self) -> u32 {
        self.0.iter().map(|(_, users)| users).sum()
    }

    /// The transport of a sender; WebSocket beyond the mix. Senders 0 and 1 are a pair, 2 and 3, and so on.
    pub fn of(&self, sender: u32) -> Transport {
        let mut place = sender / 2 + sender % 2 * (self.users() / 2);
        for (transport, users) in &self.0 {
            match place.checked_sub(*users) {
                Some(behind) => place = behind,
                None => return *transport,
            }
        }
        Transport::WebSocket
    }

    pub fn sums(&self) -> BTreeMap<Transport, u32> {
        let mut sums = BTreeMap::new();
        for (transport, users) in &self.0 {
            *sums.entry(*transport).or_insert(0) += users;
        }
        sums
    }
}

/// A transport that the target's address serves: all but TCP, which has a listener of its own.
pub fn parse_transport(name: &str) -> Result<Transport, String> {
    match name.parse()? {
        Transport::Tcp => Err("a load cannot use tcp".into()),
        transport => Ok(transport),
    }
}

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| {
            let (name, users) = part.split_once('=').ok_or_else(|| format!("`{part}` is not TRANSPORT=USERS"))?;
            let transport = parse_transport(name.trim())?;
            let users = users.trim().parse().map_err(|_| format!("`{users}` is not a number of users"))?;
            Ok::<_, String>((transport, users))
        };
        let shares = text.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        let users = shares.iter().try_fold(0u32, |sum, (_, users)| sum.checked_add(*users));
        match users {
            Some(2..=100_000) if users.is_some_and(|users| users.is_multiple_of(2)) => Ok(Self(shares)),
            _ => Err("a mix has an even number of users, 2 to 100,000".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_in_pairs() {
        let mix: Mix = "websocket=4,xhr-streaming=2,xhr-polling=2".parse().unwrap();
        let transports: Vec<_> = (0..8).map(|sender| mix.of(sender)).collect();
        let (w, s, p) = (Transport::WebSocket, Transport::XhrStreaming, Transport::XhrPolling);
        assert_eq!(transports, [w, s, w, s, w, p, w, p]);
        assert_eq!(mix.sums(), [(w, 4), (s, 2), (p, 2)].into());
        assert_eq!(Mix::all(p, 2).of(1), p);
        assert_eq!(Mix::default().of(7), w);
    }

    #[test]
    fn bad_mixes_are_refused() {
        for text in [
            "",
            "websocket",
            "websocket=",
            "carrier-pigeon=2",
            "websocket=1",
            "tcp=2",
            "websocket=0",
            "websocket=4294967295,xhr-polling=3",
        ] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
