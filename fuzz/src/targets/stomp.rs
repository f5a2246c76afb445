use tidings::model::{Fault, Limits};
use tidings::protocol::stomp::{Command, Decoder, Item, Side, Version, encode};

use super::split;

/// An item that outlives its input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    HeartBeat,
    Frame { command: Command, headers: Vec<(String, String)>, body: Vec<u8> },
}

/// Frames, heart-beats, the fault that ended them, and the receipt that the faulty frame asked for.
type Decoded = (Vec<Owned>, Option<Fault>, Option<String>);

/// STOMP in each version, on either side: no cut changes what comes out; memory keeps its limit; a frame that is written again is read as
/// the same.
pub fn stomp(data: &[u8]) {
    let (first, bytes) = split(data);
    let version = Version::ALL[usize::from(first & 3).min(2)];
    let side = if first & 4 == 0 { Side::Server } else { Side::Client };
    let limits = Limits { frame_bytes: 200, frame_headers: 6, frame_header_bytes: 60, ..Limits::default() };
    let whole = decode([bytes], side, version, &limits);
    let pieces = decode(bytes.chunks(1 + usize::from(first >> 3)), side, version, &limits);
    assert_eq!(pieces, whole, "in pieces, and whole");
    if version == Version::V12 {
        let frames = whole.0.iter().filter(|item| **item != Owned::HeartBeat);
        frames.for_each(|frame| read_back(frame, side));
    }
}

/// Only 1.2 has an escape for every octet that a header may hold; CONNECT and CONNECTED have none.
fn read_back(frame: &Owned, side: Side) {
    let Owned::Frame { command, headers, body } = frame else { return };
    if matches!(command, Command::Connect | Command::Connected) {
        return;
    }
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "content-length")
        .collect();
    let mut bytes = Vec::new();
    encode(&mut bytes, Version::V12, *command, &headers, (!body.is_empty()).then_some(body));
    // Written anew, a frame may be longer than what it was read from.
    let (items, fault, _) = decode([bytes.as_slice()], side, Version::V12, &Limits::default());
    assert_eq!(fault, None, "{}", bytes.escape_ascii());
    let [Owned::Frame { command: read, headers: again, body: body_again }] = items.as_slice() else {
        panic!("one frame was written: {items:?}")
    };
    let again = again.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    assert!(again.filter(|(name, _)| *name != "content-length").eq(headers), "{}", bytes.escape_ascii());
    assert_eq!((read, body_again), (command, body));
}

fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, side: Side, version: Version, limits: &Limits) -> Decoded {
    let mut decoder = Decoder::new(side);
    decoder.set_version(version);
    let (mut items, mut fault) = (Vec::new(), None);
    'pieces: for mut piece in pieces {
        loop {
            match decoder.next(&mut piece, limits) {
                Ok(Some(Item::HeartBeat)) => items.push(Owned::HeartBeat),
                Ok(Some(Item::Frame(frame))) => items.push(Owned::Frame {
                    command: frame.command,
                    headers: frame.headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                    body: frame.body.to_vec(),
                }),
                Ok(None) => break,
                Err(found) => {
                    fault = Some(found);
                    break 'pieces;
                }
            }
        }
        assert!(piece.is_empty(), "all input was consumed");
        assert!(decoder.heap_bytes() <= limits.frame_bytes + 1, "memory keeps its limit");
    }
    (items, fault, decoder.faulty_receipt().map(Into::into))
}
