use proptest::prelude::*;

use super::*;
use crate::protocol::fuzz::{self, Random};
use crate::protocol::websocket::{Kind, close, frame, masked_frame};

const LIMITS: MessageLimits = MessageLimits { message_bytes: 64 * 1024, fragments: 8 };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A packet that owns its bytes, with the pieces of a message joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whole {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// The result of `bytes` cut at `cuts`, until a violation.
fn decode(mut decoder: Decoder, bytes: &[u8], cuts: &[usize], limits: MessageLimits) -> (Vec<Whole>, Option<Violation>) {
    let (mut wholes, mut message) = (Vec::new(), Vec::new());
    for cut in cuts.windows(2) {
        let mut piece = bytes[cut[0]..cut[1]].to_vec();
        let mut input = piece.as_mut_slice();
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(Packet::Data { text, bytes, end_of_message })) => {
                    assert!(end_of_message || !bytes.is_empty());
                    message.extend_from_slice(bytes);
                    if end_of_message {
                        wholes.push(Whole::Message(text, std::mem::take(&mut message)));
                    }
                }
                Ok(Some(Packet::Ping(bytes))) => wholes.push(Whole::Ping(bytes.to_vec())),
                Ok(Some(Packet::Pong(bytes))) => wholes.push(Whole::Pong(bytes.to_vec())),
                Ok(Some(Packet::Close { code, reason })) => wholes.push(Whole::Close(code, reason.to_owned())),
                Ok(None) => break,
                Err(violation) => {
                    assert!(input.is_empty(), "the rest is discarded");
                    return (wholes, Some(violation));
                }
            }
        }
        assert!(input.is_empty(), "all input was consumed");
    }
    (wholes, None)
}

fn raw(first: u8, mask: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if mask { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => bytes.push(bit | len as u8),
        len @ 126..65_536 => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(bit | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if mask {
        bytes.extend_from_slice(&MASK);
    }
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    if mask {
        apply_mask(&mut bytes[start..], MASK);
    }
    bytes
}

/// Frames of a client given as first byte and payload: the same result at every cut, and byte by byte.
fn check(frames: &[(u8, &[u8])], expect: &[Whole], close: Option<Close>) {
    let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| raw(*first, true, payload)).collect();
    check_bytes(Decoder::server, &bytes, expect, close);
}

fn check_bytes(decoder: fn() -> Decoder, bytes: &[u8], expect: &[Whole], close: Option<Close>) {
    let each: Vec<usize> = (0..=bytes.len()).collect();
    let all_cuts = (0..=bytes.len()).map(|cut| vec![0, cut, bytes.len()]).chain([each]);
    for cuts in all_cuts {
        let (wholes, violation) = decode(decoder(), bytes, &cuts, LIMITS);
        assert_eq!(violation.map(|violation| violation.close), close, "{violation:?} {bytes:x?} cut at {cuts:?}");
        assert_eq!(wholes, expect, "{bytes:x?} cut at {cuts:?}");
    }
}

fn text(content: &str) -> Whole {
    Whole::Message(true, content.into())
}

#[test]
fn decodes_the_examples_of_the_standard() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check_bytes(Decoder::server, &hello, &[text("Hello")], None);
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    check_bytes(Decoder::client, &fragmented, &[text("Hello")], None);
    check_bytes(Decoder::client, b"\x89\x05Hello", &[Whole::Ping(b"Hello".into())], None);
    check_bytes(Decoder::client, &raw(0x82, false, &[9; 256]), &[Whole::Message(false, vec![9; 256])], None);
}

#[test]
fn decodes_messages_and_control_frames_between_their_fragments() {
    check(&[(0x81, b"")], &[text("")], None);
    check(&[(0x01, b""), (0x00, b""), (0x80, b"")], &[text("")], None);
    check(&[(0x82, &[0xff; 200])], &[Whole::Message(false, vec![0xff; 200])], None);
    check(
        &[
            (0x01, "κό".as_bytes()),
            (0x89, &[1; 125]),
            (0x00, &"σμε".as_bytes()[..3]),
            (0x8a, b""),
            (0x80, &"σμε".as_bytes()[3..]),
        ],
        &[Whole::Ping(vec![1; 125]), Whole::Pong(vec![]), text("κόσμε")],
        None,
    );
    check(&[(0x88, b""), (0x81, b"ignored")], &[Whole::Close(None, String::new())], None);
    check(&[(0x88, b"\x03\xe8bye")], &[Whole::Close(Some(1000), "bye".into())], None);
}

#[test]
fn refuses_frames_that_are_not_a_clients() {
    let protocol = Some(Close::Protocol);
    for first in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f, 0x80, 0x00, 0x09, 0x08, 0x0a] {
        check(&[(0x81, b"ok"), (first, b"")], &[text("ok")], protocol);
    }
    check(&[(0x89, &[0; 126])], &[], protocol);
    check(&[(0x88, &[0; 126])], &[], protocol);
    check(&[(0x01, b"a"), (0x81, b"b")], &[], protocol);
    check(&[(0x02, b"a"), (0x02, b"b")], &[], protocol);
    check(&[(0x81, b"a"), (0x80, b"b")], &[text("a")], protocol);
    check_bytes(Decoder::server, b"\x81\x02hi", &[], protocol);
    check_bytes(Decoder::client, &raw(0x81, true, b"hi"), &[], protocol);
    check_bytes(Decoder::client, b"\x82\x7f\x80\0\0\0\0\0\0\0", &[], protocol);
}

#[test]
fn refuses_bad_closes() {
    let protocol = Some(Close::Protocol);
    check(&[(0x88, b"\x03")], &[], protocol);
    check(&[(0x88, b"\x03\xe8\xff")], &[], Some(Close::InvalidText));
    check(&[(0x88, b"\x03\xe8\xe2\x82")], &[], Some(Close::InvalidText));
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
        check(&[(0x88, &code.to_be_bytes())], &[], protocol);
    }
    for code in [1000_u16, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
        check(&[(0x88, &code.to_be_bytes())], &[Whole::Close(Some(code), String::new())], None);
    }
}

#[test]
fn refuses_text_that_is_not_utf_8_at_its_first_wrong_byte() {
    let invalid = Some(Close::InvalidText);
    check(&[(0x81, b"ab\xff")], &[], invalid);
    check(&[(0x01, b"ab\xed"), (0x00, b"\xa0")], &[], invalid);
    check(&[(0x01, "κ".as_bytes()), (0x80, b"\xe2\x82")], &[], invalid);
    check(&[(0x01, b"\xce"), (0x80, b"")], &[], invalid);
    // The frame continues, but its text is already invalid.
    let mut long = raw(0x81, true, &[b"\xf4\x90".as_slice(), &[b'a'; 100]].concat());
    long.truncate(8);
    check_bytes(Decoder::server, &long, &[], invalid);
    // A cut character of one message does not touch the next.
    check(&[(0x82, b"\xce"), (0x81, b"\xce\xba")], &[Whole::Message(false, b"\xce".into()), text("κ")], None);
}

fn check_limits(frames: &[(u8, &[u8])], message_bytes: usize, fragments: usize, expect: Option<Close>) {
    let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| raw(*first, true, payload)).collect();
    let limits = MessageLimits { message_bytes, fragments };
    let (_, violation) = decode(Decoder::server(), &bytes, &[0, bytes.len()], limits);
    assert_eq!(violation.map(|violation| violation.close), expect);
}

#[test]
fn bounds_messages_and_fragments() {
    let too_big = Some(Close::TooBig);
    for (bytes, expect) in [(99, None), (100, None), (101, too_big), (70_000, too_big)] {
        check_limits(&[(0x82, &vec![0; bytes])], 100, 1, expect);
        check_limits(&[(0x02, &[0; 10]), (0x80, &vec![0; bytes - 10])], 100, 2, expect);
    }
    check_limits(&[(0x01, b""), (0x00, b""), (0x80, b"")], 0, 3, None);
    check_limits(&[(0x01, b""), (0x00, b""), (0x80, b"")], 0, 2, too_big);
    check_limits(&[(0x01, b""), (0x00, b""), (0x80, b"")], usize::MAX, usize::MAX, None);
    // Each message is counted anew; control frames are not counted.
    check_limits(&[(0x01, b"ab"), (0x89, b"ping"), (0x80, b"c"), (0x81, b"abc")], 3, 2, None);
    // The length in the header is enough.
    for promise in [b"\x82\xff\0\0\0\0\0\x01\0\x01", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"] {
        check_bytes(Decoder::server, &[promise.as_slice(), &MASK].concat(), &[], too_big);
    }
}

#[test]
fn discards_bytes_after_a_violation() {
    let mut decoder = Decoder::server();
    let mut bytes = raw(0x83, true, b"");
    assert!(decoder.next(&mut bytes.as_mut_slice(), LIMITS).is_err());
    let mut bytes = raw(0x81, true, b"hi");
    assert_eq!(decoder.next(&mut bytes.as_mut_slice(), LIMITS), Ok(None));
}

#[test]
fn is_small_and_keeps_no_heap_between_frames() {
    assert!(size_of::<Decoder>() <= 96, "{}", size_of::<Decoder>());
    let mut decoder = Decoder::server();
    let mut ping = raw(0x89, true, b"ping");
    let (first, second) = ping.split_at_mut(7);
    let (mut first, mut second) = (first, second);
    assert_eq!(decoder.next(&mut first, LIMITS), Ok(None));
    assert!(decoder.control.is_some());
    assert_eq!(decoder.next(&mut second, LIMITS), Ok(Some(Packet::Ping(b"ping"))));
    assert_eq!(decoder.next(&mut second, LIMITS), Ok(None));
    assert!(decoder.control.is_none());
}

#[derive(Clone, Debug)]
enum Sent {
    Message(bool, Vec<Vec<u8>>),
    Control(Kind, Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let pieces = |text: bool| {
        proptest::collection::vec(
            if text { any::<String>().prop_map(String::into_bytes).boxed() } else { any::<Vec<u8>>().boxed() },
            1..8,
        )
        .prop_map(move |pieces| Sent::Message(text, pieces))
    };
    let control = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..=125))
        .prop_map(|(ping, payload)| Sent::Control(if ping { Kind::Ping } else { Kind::Pong }, payload));
    prop_oneof![pieces(true), pieces(false), control]
}

/// The client's bytes for the sent items, each message in its fragments, and the expected result.
fn encode(sent: &[Sent]) -> (Vec<u8>, Vec<Whole>) {
    let (mut bytes, mut expect) = (Vec::new(), Vec::new());
    for one in sent {
        match one {
            Sent::Control(kind, payload) => {
                masked_frame(*kind, MASK, payload, &mut bytes);
                expect.push(if *kind == Kind::Ping { Whole::Ping(payload.clone()) } else { Whole::Pong(payload.clone()) });
            }
            Sent::Message(text, pieces) => {
                for (index, piece) in pieces.iter().enumerate() {
                    let opcode = if index > 0 {
                        0
                    } else if *text {
                        1
                    } else {
                        2
                    };
                    let last = if index + 1 == pieces.len() { 0x80 } else { 0 };
                    bytes.extend(raw(last | opcode, true, piece));
                }
                expect.push(Whole::Message(*text, pieces.concat()));
            }
        }
    }
    (bytes, expect)
}

proptest! {
    #[test]
    fn round_trips_at_any_cuts(
        sent in proptest::collection::vec(sent(), 0..6),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (bytes, expect) = encode(&sent);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode(Decoder::server(), &bytes, &cuts, LIMITS), (expect, None));
    }

    #[test]
    fn unmasked_frames_round_trip(payload in proptest::collection::vec(any::<u8>(), 0..70_000), code in 3000_u16..5000, reason in ".{0,30}") {
        let mut bytes = Vec::new();
        frame(Kind::Binary, &payload, &mut bytes);
        close(code, &reason, &mut bytes);
        let limits = MessageLimits { message_bytes: 70_000, fragments: 1 };
        let expect = vec![Whole::Message(false, payload), Whole::Close(Some(code), reason)];
        prop_assert_eq!(decode(Decoder::client(), &bytes, &[0, bytes.len()], limits), (expect, None));
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        decode(Decoder::server(), &bytes, &[0, bytes.len()], LIMITS);
        decode(Decoder::client(), &bytes, &[0, bytes.len()], LIMITS);
    }

    #[test]
    fn masks_like_the_standard(mut bytes: Vec<u8>, mask: [u8; 4]) {
        let expect: Vec<u8> = bytes.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
        apply_mask(&mut bytes, mask);
        prop_assert_eq!(bytes, expect);
    }
}

fn random_stream(random: &mut Random) -> Vec<u8> {
    const FIRST: [u8; 16] = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x00, 0x80, 0x89, 0x8a, 0x89, 0x88, 0x81, 0x01, 0xc1, 0x83];
    let mut bytes = Vec::new();
    for _ in 0..random.below(6) {
        let payload: Vec<u8> = match random.below(3) {
            0 => "aκ𝄞".bytes().cycle().take(random.length(300)).collect(),
            1 => (0..random.length(300)).map(|_| random.next() as u8).collect(),
            _ => vec![b'a'; random.length(200)],
        };
        bytes.extend(raw(random.pick(&FIRST), true, &payload));
    }
    random.damage(&mut bytes);
    bytes
}

/// Nothing panics, and no cut changes the result before a violation, nor the violation.
#[test]
fn fuzz() {
    fuzz::rounds(3_000, |random| {
        let bytes = random_stream(random);
        let limits = MessageLimits { message_bytes: 250, fragments: 3 };
        let whole = decode(Decoder::server(), &bytes, &[0, bytes.len()], limits);
        let cuts = random.cuts(bytes.len());
        assert_eq!(decode(Decoder::server(), &bytes, &cuts, limits), whole, "{bytes:x?} cut at {cuts:?}");
    });
}
