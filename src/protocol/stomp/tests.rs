//! The codec as a whole: written frames are read back, however they are cut, and other input is refused.

use proptest::prelude::*;

use super::*;
use crate::fuzz;
use crate::model::{Close, Fault, Limits};

/// An [`Item`] that outlives its input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    HeartBeat,
    Frame { command: Command, headers: Vec<(String, String)>, body: Vec<u8> },
}

impl From<Item<'_>> for Owned {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::HeartBeat => Self::HeartBeat,
            Item::Frame(Frame { command, headers, body }) => Self::Frame {
                command,
                headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                body: body.to_vec(),
            },
        }
    }
}

fn frame(command: Command, headers: &[(&str, &str)], body: &[u8]) -> Owned {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Owned::Frame { command, headers, body: body.to_vec() }
}

/// The decoded items, the fault that ended them, and the receipt that the faulty frame asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decoded {
    items: Vec<Owned>,
    fault: Option<Fault>,
    receipt: Option<String>,
}

fn decode_pieces<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    side: Side,
    version: Version,
    limits: &Limits,
) -> (Decoded, Decoder) {
    let mut decoder = Decoder::new(side);
    decoder.set_version(version);
    let mut decoded = Decoded { items: Vec::new(), fault: None, receipt: None };
    'pieces: for mut piece in pieces {
        loop {
            match decoder.next(&mut piece, limits) {
                Ok(Some(item)) => decoded.items.push(item.into()),
                Ok(None) => break,
                Err(fault) => {
                    decoded.fault = Some(fault);
                    break 'pieces;
                }
            }
        }
        assert!(piece.is_empty());
        assert!(decoder.heap_bytes() <= limits.frame_bytes + 1, "{decoder:?}");
        assert!(!decoder.is_between_frames() || decoder.heap_bytes() == 0, "{decoder:?}");
    }
    decoded.receipt = decoder.faulty_receipt().map(Into::into);
    (decoded, decoder)
}

/// Whole, split in two at every byte, and byte by byte: always the same.
fn decode(bytes: &[u8], side: Side, version: Version, limits: &Limits) -> Decoded {
    let (whole, _) = decode_pieces([bytes], side, version, limits);
    // Splitting costs the square of the length; one such point in seven is enough for the long ones.
    let step = if bytes.len() < 512 { 1 } else { 1 + bytes.len() / 73 };
    for at in (0..=bytes.len()).step_by(step) {
        let (first, second) = bytes.split_at(at);
        assert_eq!(decode_pieces([first, second], side, version, limits).0, whole, "split at {at}");
    }
    assert_eq!(decode_pieces(bytes.chunks(1), side, version, limits).0, whole, "byte by byte");
    assert_eq!(decode_pieces(bytes.chunks(3), side, version, limits).0, whole, "three bytes at a time");
    whole
}

fn check_items(bytes: &[u8], version: Version, expect: &[Owned]) {
    let decoded = decode(bytes, Side::Server, version, &Limits::default());
    assert_eq!(decoded, Decoded { items: expect.to_vec(), fault: None, receipt: None }, "{}", bytes.escape_ascii());
}

#[track_caller]
fn check_fault(bytes: &[u8], version: Version, limits: &Limits, close: Close, message: &str) {
    let fault = decode(bytes, Side::Server, version, limits).fault;
    let Some(fault) = fault else { panic!("no fault: {}", bytes.escape_ascii()) };
    assert_eq!(fault.close, close, "{fault:?}");
    assert!(fault.message.contains(message), "{fault:?}");
}

use Version::{V10, V11, V12};

#[test]
fn frames_are_read() {
    let send = |headers: &[(&str, &str)], body: &[u8]| frame(Command::Send, headers, body);
    check_items(b"SEND\ndestination:/app/send\n\nhello\0", V12, &[send(&[("destination", "/app/send")], b"hello")]);
    check_items(b"SEND\r\na:b\r\n\r\nhello\0", V12, &[send(&[("a", "b")], b"hello")]);
    check_items(b"SEND\n\n\0", V12, &[send(&[], b"")]);
    check_items(b"SEND\na:\nb:c:d\n\n\0", V12, &[send(&[("a", ""), ("b", "c:d")], b"")]);
    check_items(b"SEND\na:1\na:2\n\n\0", V12, &[send(&[("a", "1"), ("a", "2")], b"")]);
    check_items(b"SEND\ncontent-length:3\n\n\0\n\0\0", V12, &[send(&[("content-length", "3")], b"\0\n\0")]);
    check_items(b"SEND\ncontent-length:0\n\n\0", V12, &[send(&[("content-length", "0")], b"")]);
    check_items(
        b"SEND\ncontent-length:2\ncontent-length:7\n\na\0\0",
        V12,
        &[send(&[("content-length", "2"), ("content-length", "7")], b"a\0")],
    );
    check_items(
        b"STOMP\naccept-version:1.2\nhost:a\n\n\0",
        V10,
        &[frame(Command::Connect, &[("accept-version", "1.2"), ("host", "a")], b"")],
    );
    check_items(
        b"SUBSCRIBE\ndestination: /a \n\nignored\0",
        V10,
        &[frame(Command::Subscribe, &[("destination", "/a")], b"ignored")],
    );
    check_items("SEND\nklé:wértß€🦀\n\n\0".as_bytes(), V12, &[send(&[("klé", "wértß€🦀")], b"")]);
}

#[test]
fn eols_between_frames_are_heart_beats() {
    use Owned::HeartBeat;
    let ack = frame(Command::Ack, &[("id", "1")], b"");
    check_items(b"\n\r\n\n", V12, &[HeartBeat, HeartBeat, HeartBeat]);
    check_items(b"\nACK\nid:1\n\n\0\r\n\nACK\nid:1\n\n\0", V12, &[HeartBeat, ack.clone(), HeartBeat, HeartBeat, ack]);
    let many = vec![b'\n'; 1_000_000];
    let (decoded, decoder) = decode_pieces([many.as_slice()], Side::Server, V12, &Limits::default());
    assert_eq!((decoded.items.len(), decoder.heap_bytes()), (1_000_000, 0));
}

#[test]
fn escapes_are_those_of_the_version() {
    let check = |version, line: &str, expect: Option<(&str, &str)>| {
        let bytes = format!("SEND\n{line}\n\n\0");
        let decoded = decode(bytes.as_bytes(), Side::Server, version, &Limits::default());
        let expect = expect.map(|header| frame(Command::Send, &[header], b""));
        assert_eq!(decoded.items.first(), expect.as_ref(), "{line:?} in {version:?}");
        assert_eq!(decoded.fault.is_some(), expect.is_none());
    };
    check(V12, r"a\cb:\n\r\c\\", Some(("a:b", "\n\r:\\")));
    check(V11, r"a\cb:\n\c\\x", Some(("a:b", "\n:\\x")));
    check(V10, r"a\cb:\n\r\c\\\t", Some((r"a\cb", r"\n\r\c\\\t")));
    check(V12, r"a:\\n\\\n", Some(("a", "\\n\\\n")));
    check(V11, r"a:\r", None);
    for undefined in [r"a:\t", r"a:\", r"a:x\", r"a:\\\", r"\:b", r"a:\C", r"a:\é", "a:\\\r"] {
        check(V11, undefined, None);
        check(V12, undefined, None);
    }
    // Spaces are trimmed where the standard's own examples pad, and nowhere else.
    check(V10, "a: \t b ", Some(("a", "b")));
    check(V11, "a: b ", Some(("a", " b ")));
    check(V12, " a : b ", Some((" a ", " b ")));
    // CR.
    check(V10, "a:b\rc", Some(("a", "b\rc")));
    check(V11, "a:b\rc\r", Some(("a", "b\rc")));
    check(V12, "a:b\rc", None);
    check(V12, "a\rb:c", None);
    check(V12, "a:b\r\r", None);
    check(V12, "a:b\r", Some(("a", "b")));
}

#[test]
fn greetings_are_never_unescaped() {
    for version in [V10, V11, V12] {
        let bytes = b"CONNECT\naccept-version:1.2\nlogin: a\\c\\n:b\\t\n\n\0";
        let expect = frame(Command::Connect, &[("accept-version", "1.2"), ("login", r" a\c\n:b\t")], b"");
        check_items(bytes, version, &[expect]);
        check_items(b"CONNECT\nlogin: x \n\n\0", version, &[frame(Command::Connect, &[("login", "x")], b"")]);
        check_fault(b"CONNECT\nlogin:a\rb\n\n\0", version, &Limits::default(), Close::Protocol, "CR");
    }
    let bytes = b"CONNECTED\nversion:1.2\nserver:a\\cb \n\n\0";
    let decoded = decode(bytes, Side::Client, V12, &Limits::default());
    assert_eq!(decoded.items, [frame(Command::Connected, &[("version", "1.2"), ("server", r"a\cb ")], b"")]);
}

#[test]
fn version_holds_from_the_next_frame_of_the_same_input() {
    let mut input: &[u8] = b"CONNECT\naccept-version:1.2\n\n\0SEND\na:\\c\n\n\0";
    let mut decoder = Decoder::new(Side::Server);
    let limits = Limits::default();
    assert!(decoder.next(&mut input, &limits).unwrap().is_some());
    decoder.set_version(V12);
    let item = decoder.next(&mut input, &limits).unwrap().map(Owned::from);
    assert_eq!(item, Some(frame(Command::Send, &[("a", ":")], b"")));
}

#[test]
fn complete_frames_are_borrowed_and_not_kept() {
    let bytes = b"SEND\ndestination:/app/send\n\nhello\0";
    let mut input: &[u8] = bytes;
    let mut decoder = Decoder::new(Side::Server);
    let limits = Limits::default();
    let Ok(Some(Item::Frame(frame))) = decoder.next(&mut input, &limits) else { panic!() };
    assert!(bytes.as_ptr_range().contains(&frame.body.as_ptr()));
    assert!(frame.headers.iter().all(|header| matches!(header, (Cow::Borrowed(_), Cow::Borrowed(_)))));
    drop(frame);
    assert_eq!(decoder.heap_bytes(), 0);
    assert!(size_of::<Decoder>() <= 160, "{}", size_of::<Decoder>());
}

#[test]
fn malformed_frames_are_faults() {
    let limits = Limits::default();
    let check = |bytes: &[u8], message| check_fault(bytes, V12, &limits, Close::Protocol, message);
    for unknown in ["SENT\n\n\0", "send\n\n\0", "SEND \n\n\0", " SEND\n\n\0", "GET / HTTP/1.1\r\n", "\u{feff}SEND\n\n\0", "\0"] {
        check(unknown.as_bytes(), "unknown command");
    }
    check(b"SE\rND\n\n\0", "unknown command");
    check(b"SEND\0", "unknown command");
    check(b"SEND\r\r\n\n\0", "unknown command");
    check(&[b'A'; 12], "unknown command");
    check(b"MESSAGE\n\n\0", "MESSAGE is not a command of this side");
    check(b"SEND\nabc\n\n\0", "without a colon");
    check(b"SEND\n \n\n\0", "without a colon");
    check(b"SEND\n:abc\n\n\0", "empty name");
    check(b"SEND\na:b\0\n\n\0", "NUL before");
    check(b"SEND\n\r\r\n\n\0", "without a colon");
    check(b"SEND\na:\r\r\n\n\0", "CR within");
    check(b"\rSEND\n\n\0", "CR without LF");
    check(b"\r\r\n", "CR without LF");
    check(b"SEND\n\n\0\rx", "CR without LF");
    for number in ["-1", "+1", "", " 1", "1 ", "0x1", "1.0", "a", "1,1", "\u{0661}"] {
        check(format!("SEND\ncontent-length:{number}\n\na\0").as_bytes(), "content-length is not a number");
    }
    check(b"SEND\ncontent-length:2\n\nabc\0", "no NUL where");
    check(b"SEND\ncontent-length:0\n\nabc\0", "no NUL where");
    for bodiless in ["CONNECT", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT"] {
        check(format!("{bodiless}\n\nx").as_bytes(), "must not have a body");
        check(format!("{bodiless}\ncontent-length:1\n\n").as_bytes(), "must not have a body");
    }
    check_fault(b"SEND\na:\xff\n\n\0", V12, &limits, Close::InvalidText, "UTF-8");
    check_fault(b"SEND\n\xc3:a\n\n\0", V10, &limits, Close::InvalidText, "UTF-8");
    check_fault(b"SEND\na:\xed\xa0\x80\n\n\0", V11, &limits, Close::InvalidText, "UTF-8");
}

#[test]
fn truncated_frames_are_neither_returned_nor_refused() {
    let bytes = b"SEND\r\ndestination:/app/send\r\ncontent-length:5\r\n\r\nhel\0o\0";
    for end in 1..bytes.len() {
        let decoded = decode(&bytes[..end], Side::Server, V12, &Limits::default());
        assert_eq!(decoded, Decoded { items: Vec::new(), fault: None, receipt: None }, "first {end} bytes");
    }
}

#[test]
fn faulty_frames_report_their_receipt() {
    let check = |bytes: &[u8], version, expect: Option<&str>| {
        let decoded = decode(bytes, Side::Server, version, &Limits::default());
        assert!(decoded.fault.is_some());
        assert_eq!(decoded.receipt.as_deref(), expect, "{}", bytes.escape_ascii());
    };
    check(b"SEND\nreceipt:r\\c1\nreceipt:2\ncontent-length:-1\n\n\0", V12, Some("r:1"));
    check(b"SEND\r\nreceipt:r1\r\ncontent-length:100000\r\n\r\n", V12, Some("r1"));
    check(b"SEND\ncontent-length:1\nreceipt:r1\n\nabc\0", V12, Some("r1"));
    check(b"SUBSCRIBE\nreceipt: r1\nabc\n\n\0", V10, Some("r1"));
    check(b"SEND\ncontent-length:-1\nreceipt:r1\n\n\0", V12, None);
    check(b"SEND\ncontent-length:1\n\nreceipt:r1\n\0", V12, None);
    check(b"SEND\nreceipt:\\t\n\n\0", V12, None);
    check(b"SEND\nreceipt:\xff\n\n\0", V12, None);
    check(b"receipt:r1\n\n\0", V12, None);
}

/// A SEND of exactly `size` bytes from command to NUL.
fn send_of(size: usize, with_length: bool) -> Vec<u8> {
    let overhead = |digits: usize| "SEND\n\n\0".len() + if with_length { "content-length:\n".len() + digits } else { 0 };
    let digits = (1..20).find(|digits| (size - overhead(*digits)).to_string().len() == *digits).unwrap();
    let length = size - overhead(digits);
    let header = if with_length { format!("content-length:{length}\n") } else { String::new() };
    let bytes = [format!("SEND\n{header}\n").as_bytes(), &vec![b'x'; length], b"\0"].concat();
    assert_eq!(bytes.len(), size);
    bytes
}

#[test]
fn frame_size_is_limited() {
    for frame_bytes in [100, 65_536] {
        let limits = Limits { frame_bytes, ..Limits::default() };
        let named = format!("{frame_bytes} bytes (limits.frame_bytes)");
        for with_length in [true, false] {
            for size in [frame_bytes - 1, frame_bytes] {
                let bytes = [send_of(size, with_length), b"\n".to_vec(), send_of(size, with_length)].concat();
                let decoded = decode(&bytes, Side::Server, V12, &limits);
                assert_eq!((decoded.items.len(), decoded.fault), (3, None));
            }
            for size in [frame_bytes + 1, 10 * frame_bytes] {
                check_fault(&send_of(size, with_length), V12, &limits, Close::TooBig, &named);
            }
        }
        // The head alone.
        let head = "a:123456\n".repeat(frame_bytes / 9 + 1);
        let limits = Limits { frame_headers: usize::MAX, ..limits };
        check_fault(format!("SEND\n{head}").as_bytes(), V12, &limits, Close::TooBig, &named);
    }
}

#[test]
fn excessive_content_length_is_refused_before_buffering() {
    let limits = Limits::default();
    for length in ["65536", "4294967296", "18446744073709551615", "18446744073709551616", "99999999999999999999999999"] {
        let head = format!("SEND\ncontent-length:{length}\n\n");
        check_fault(head.as_bytes(), V12, &limits, Close::TooBig, "limits.frame_bytes");
    }
    // A promised body that is not sent takes no memory.
    let (decoded, decoder) = decode_pieces([b"SEND\ncontent-length:65000\n\n".as_slice()], Side::Server, V12, &limits);
    assert_eq!(decoded.fault, None);
    assert!(decoder.heap_bytes() <= 256, "{decoder:?}");
}

#[test]
fn limit_that_shrinks_under_a_partial_frame_holds() {
    for partial in
        ["SEND\na:bbbbbbbbbbbbbbbbbbbbbbbbbbbb", "SEND\ncontent-length:40\n\nbbbbbbbb", "SEND\n\nbbbbbbbbbbbbbbbbbbbbbbbb"]
    {
        let mut decoder = Decoder::new(Side::Server);
        let mut input = partial.as_bytes();
        assert_eq!(decoder.next(&mut input, &Limits::default()), Ok(None));
        let limits = Limits { frame_bytes: 20, ..Limits::default() };
        let mut input: &[u8] = b"b";
        assert_eq!(decoder.next(&mut input, &limits).map_err(|fault| fault.close), Err(Close::TooBig), "{partial:?}");
    }
}

#[test]
fn headers_are_limited_in_number_and_length() {
    let limits = Limits { frame_headers: 10, frame_header_bytes: 100, ..Limits::default() };
    let headers = |count| format!("SEND\n{}\n\0", "a:b\r\n".repeat(count));
    let line = |bytes: usize, eol| format!("SEND\na:{}{eol}\n\0", "b".repeat(bytes - 2));
    for passes in [headers(9), headers(10), line(99, "\n"), line(100, "\n"), line(100, "\r\n")] {
        let decoded = decode(passes.as_bytes(), Side::Server, V12, &limits);
        assert_eq!((decoded.items.len(), decoded.fault), (1, None));
    }
    for fails in [headers(11), headers(10_000)] {
        check_fault(fails.as_bytes(), V12, &limits, Close::TooBig, "10 headers (limits.frame_headers)");
    }
    let long = [line(101, "\n"), line(101, "\r\n"), line(100, "\rx\n"), line(1 << 20, ""), format!("SEND\n{}", "a".repeat(101))];
    for fails in long {
        check_fault(fails.as_bytes(), V12, &limits, Close::TooBig, "100 bytes (limits.frame_header_bytes)");
    }
}

#[test]
fn text_cannot_break_out_of_its_line() {
    let check = |version, name: &str, value: &str, expect: &str| {
        let mut out = Vec::new();
        header(&mut out, version, name, value);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    };
    check(V12, "a:b", "c:d\r\n\\\0", "a\\cb:c\\cd\\r\\n\\\\ \n");
    check(V11, "a:b", "c:d\r\n\\\0", "a\\cb:c\\cd \\n\\\\ \n");
    check(V10, "a:b\n", "c:d\r\n\\\0", "a b :c:d  \\ \n");
    let mut out = Vec::new();
    encode(&mut out, V12, Command::Connected, &[("version", "1.2"), ("server", "a:b\\\nc:d")], None);
    assert_eq!(String::from_utf8(out).unwrap(), "CONNECTED\nversion:1.2\nserver:a:b\\ c:d\n\n\0");
}

#[test]
fn parts_of_a_frame_join_to_a_whole() {
    let mut whole = Vec::new();
    encode(&mut whole, V12, Command::Message, &[("subscription", "s"), ("message-id", "1")], Some(b"\0\xff"));
    let mut own = Vec::new();
    begin(&mut own, Command::Message);
    header(&mut own, V12, "subscription", "s");
    let mut shared = Vec::new();
    header(&mut shared, V12, "message-id", "1");
    finish(&mut shared, Some(b"\0\xff"));
    assert_eq!(whole, [own, shared].concat());
    assert_eq!(whole, b"MESSAGE\nsubscription:s\nmessage-id:1\ncontent-length:2\n\n\0\xff\0");
}

fn side_of(command: Command) -> Side {
    if command.comes_in_at(Side::Server) { Side::Server } else { Side::Client }
}

const COMMANDS: [Command; 14] = [
    Command::Connect,
    Command::Send,
    Command::Subscribe,
    Command::Unsubscribe,
    Command::Ack,
    Command::Nack,
    Command::Begin,
    Command::Commit,
    Command::Abort,
    Command::Disconnect,
    Command::Connected,
    Command::Message,
    Command::Receipt,
    Command::Error,
];

#[test]
fn commands_have_one_word_and_one_side() {
    for command in COMMANDS {
        assert_eq!(Command::parse(command.name().as_bytes()), Some(command));
        assert_ne!(command.comes_in_at(Side::Server), command.comes_in_at(Side::Client));
        assert!(command.name().len() <= 11);
    }
}

/// A header that `version` can express: any header since 1.2; fewer before.
fn expressible(version: Version, never_escaped: bool) -> impl Strategy<Value = (String, String)> {
    let (name, value) = match version {
        _ if never_escaped => ("[^:\r\n\0]{1,8}", "([^ \t\r\n\0]{0,8})"),
        V10 => ("[^:\r\n\0]{1,8}", "([^ \t\r\n\0]{0,8})"),
        V11 => ("[^\r\0]{1,8}", "[^\r\0]{0,8}"),
        V12 => ("([^\0]|[:\\\\\r\n]){1,8}", "([^\0]|[:\\\\\r\n]){0,8}"),
    };
    (name, value).prop_filter("content-length is the encoder's", |(name, _)| name != "content-length")
}

type AnyFrame = (Version, Command, Vec<(String, String)>, Option<Vec<u8>>);

fn any_frame() -> impl Strategy<Value = AnyFrame> {
    let version = prop::sample::select(Version::ALL.to_vec());
    let command = prop::sample::select(COMMANDS.to_vec());
    (version, command).prop_flat_map(|(version, command)| {
        let headers = prop::collection::vec(expressible(version, command.is_never_escaped()), 0..12);
        let bytes = prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(b'\n')], 0..64);
        let body = if command.may_have_body(version) { prop::option::of(bytes).boxed() } else { Just(None).boxed() };
        (Just(version), Just(command), headers, body)
    })
}

proptest! {
    #[test]
    fn written_frames_are_read_back((version, command, headers, body) in any_frame(), cut in any::<prop::sample::Index>()) {
        let borrowed: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut bytes = Vec::new();
        encode(&mut bytes, version, command, &borrowed, body.as_deref());
        bytes.extend_from_slice(HEART_BEAT);

        let digits = body.as_ref().map(|body| body.len().to_string());
        let written = borrowed.into_iter().chain(digits.as_deref().map(|digits| ("content-length", digits)));
        let sent = frame(command, &written.collect::<Vec<_>>(), body.as_deref().unwrap_or_default());
        let (first, second) = bytes.split_at(cut.index(bytes.len()));
        for pieces in [vec![bytes.as_slice()], vec![first, second], bytes.chunks(1).collect()] {
            let (decoded, _) = decode_pieces(pieces, side_of(command), version, &Limits::default());
            prop_assert_eq!(decoded.fault, None);
            prop_assert_eq!(&decoded.items, &[sent.clone(), Owned::HeartBeat]);
        }
    }
}

/// A small generator of its own, so that a number alone identifies a round.
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// Words that meet each other at every boundary of the grammar.
const SCRAPS: [&[u8]; 26] = [
    b"SEND\n",
    b"SEND\r\n",
    b"CONNECT\n",
    b"SUBSCRIBE\n",
    b"ACK\n",
    b"MESSAGE\n",
    b"a:b\n",
    b"a:\\c\\n\\\\\n",
    b"a:\\r\\t\n",
    b"receipt:1\n",
    b"content-length:0\n",
    b"content-length:5\n",
    b"content-length:80\n",
    b"content-length:",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\0\0",
    b":",
    b"\\",
    b"hello",
    b"\xff\xc3",
    "é🦀".as_bytes(),
    b"0123456789012345678901234567890123456789",
];

/// Any mixture of scraps and bytes is read the same however it is cut, without a panic, within the limits.
#[test]
fn fuzz_splits() {
    let limits = Limits { frame_bytes: 120, frame_headers: 5, frame_header_bytes: 40, ..Limits::default() };
    for seed in fuzz::seeds(2_000) {
        let mut random = Random(seed);
        let mut bytes = Vec::new();
        for _ in 0..=random.below(24) {
            match random.below(12) {
                0 => bytes.push(random.below(256) as u8),
                // Well-formed frames now and then, or most rounds would end at their first byte.
                1..4 => encode(&mut bytes, V12, Command::Send, &[("a", "b:\n"), ("receipt", "1")], Some(b"a\0b")),
                4 => bytes.extend_from_slice(b"SEND\na:b\n"),
                _ => bytes.extend_from_slice(SCRAPS[random.below(SCRAPS.len())]),
            }
        }
        let version = Version::ALL[random.below(3)];
        let side = [Side::Server, Side::Client][usize::from(random.below(8) == 0)];
        let (whole, _) = decode_pieces([bytes.as_slice()], side, version, &limits);
        for size in 1..=1 + random.below(9) {
            let (pieces, _) = decode_pieces(bytes.chunks(size), side, version, &limits);
            assert_eq!(pieces, whole, "seed {seed}, pieces of {size} bytes: {}", bytes.escape_ascii());
        }
    }
}
