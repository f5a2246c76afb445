//! Negotiation in CONNECT and CONNECTED: the version and the heart-beats.
//!
//! ```text
//! accept-version = version *( "," version )
//! heart-beat     = 1*DIGIT "," 1*DIGIT
//! ```
//!
//! More lenient than the standard: spaces around the entries of both lists are ignored.

use std::fmt;

use crate::model::Fault;
use crate::protocol::stomp::Version;

impl Version {
    /// Best first.
    pub const ALL: [Self; 3] = [Self::V12, Self::V11, Self::V10];

    /// All supported versions, as the `version` header of the ERROR after a failed negotiation lists them
    /// (STOMP 1.2, "Protocol Negotiation").
    pub const SUPPORTED: &'static str = "1.0,1.1,1.2";

    /// The version as `version` and `accept-version` write it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.text() == text)
    }

    /// The WebSocket subprotocol that stands for this version (IANA, WebSocket Subprotocol Name Registry).
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::V10 => "v10.stomp",
            Self::V11 => "v11.stomp",
            Self::V12 => "v12.stomp",
        }
    }

    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.subprotocol() == name)
    }
}

/// The client supports none of [`Version::SUPPORTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCommonVersion;

impl fmt::Display for NoCommonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "supported protocol versions are {}", Version::SUPPORTED)
    }
}

impl std::error::Error for NoCommonVersion {}

impl From<NoCommonVersion> for Fault {
    fn from(none: NoCommonVersion) -> Self {
        Self::protocol(none.to_string())
    }
}

/// The highest version of CONNECT's `accept-version` that the server supports; a client that sends none speaks 1.0
/// (STOMP 1.2, "Protocol Negotiation").
///
/// # Errors
/// No version in common.
pub fn negotiate(accept_version: Option<&str>) -> Result<Version, NoCommonVersion> {
    match accept_version {
        None => Ok(Version::V10),
        Some(list) => list.split(',').filter_map(|entry| Version::parse(entry.trim())).max().ok_or(NoCommonVersion),
    }
}

/// `heart-beat`: the shortest interval, in milliseconds, at which the sender of the frame promises to send, and the interval
/// at which it wants to receive; 0 for never. Without the header, both are 0 (STOMP 1.2, "Heart-beating").
///
/// # Errors
/// A fault unless it is two numbers below 2^32.
pub fn parse_heart_beat(value: Option<&str>) -> Result<(u32, u32), Fault> {
    let Some(value) = value else { return Ok((0, 0)) };
    let number = |text: &str| {
        let text = text.trim();
        // `u32::from_str` takes a plus sign, the standard does not.
        if text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u32>().ok() } else { None }
    };
    value
        .split_once(',')
        .and_then(|(sends, wants)| Some((number(sends)?, number(wants)?)))
        .ok_or_else(|| Fault::protocol("heart-beat is not two numbers of milliseconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_common_version_is_spoken() {
        let check = |accept, expect| assert_eq!(negotiate(accept), expect, "{accept:?}");
        check(None, Ok(Version::V10));
        check(Some("1.0"), Ok(Version::V10));
        check(Some("1.1"), Ok(Version::V11));
        check(Some("1.2,1.1,1.0"), Ok(Version::V12));
        check(Some("1.0,1.1,2.0"), Ok(Version::V11));
        check(Some(" 1.1 , 1.2 "), Ok(Version::V12));
        for none in ["", ",", "2.0", "1.20", "01.2", "1", "v1.2", "1.0;1.1"] {
            check(Some(none), Err(NoCommonVersion));
        }
        assert_eq!(Fault::from(NoCommonVersion).message, "supported protocol versions are 1.0,1.1,1.2");
    }

    #[test]
    fn texts_and_subprotocols_name_one_version_each() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.text()), Some(version));
            assert_eq!(Version::from_subprotocol(version.subprotocol()), Some(version));
            assert!(Version::SUPPORTED.split(',').any(|text| text == version.text()));
        }
        assert_eq!(Version::from_subprotocol("V12.STOMP"), None);
    }

    #[test]
    fn heart_beats_are_two_numbers() {
        let check = |value, expect: Option<(u32, u32)>| assert_eq!(parse_heart_beat(value).ok(), expect, "{value:?}");
        check(None, Some((0, 0)));
        check(Some("0,0"), Some((0, 0)));
        check(Some("10000,5000"), Some((10_000, 5_000)));
        check(Some(" 1 , 2 "), Some((1, 2)));
        check(Some("4294967295,4294967295"), Some((u32::MAX, u32::MAX)));
        for bad in ["", ",", "1", "1,", ",1", "1,2,3", "-1,0", "+1,0", "1.5,0", "a,b", "4294967296,0", "1;2", "٣,0"] {
            check(Some(bad), None);
        }
    }
}
