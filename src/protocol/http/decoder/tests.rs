use proptest::prelude::*;

use super::*;
use crate::model::Wall;
use crate::protocol::fuzz::{self, Random};
use crate::protocol::http::{Method, Response};

fn limits() -> Limits {
    Limits { http_line_bytes: 64, http_header_bytes: 256, http_headers: 8, http_body_bytes: 32, ..Limits::default() }
}

/// The events of `bytes` cut at `cuts`, and the refusal that ended them.
fn decode(bytes: &[u8], cuts: &[usize], limits: &Limits) -> (Vec<Event>, Option<Refusal>) {
    let (mut decoder, mut events) = (Decoder::new(), Vec::new());
    for cut in cuts.windows(2) {
        let mut input = &bytes[cut[0]..cut[1]];
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(refusal) => {
                    assert!(input.is_empty(), "the rest is discarded");
                    return (events, Some(refusal));
                }
            }
        }
        assert!(input.is_empty() || decoder.state == StreamState::Upgrade, "all input was consumed");
    }
    (events, None)
}

/// Decodes whole, at every cut and byte by byte: the result must not change.
fn decode_all_cuts(bytes: &[u8], limits: &Limits) -> (Vec<Event>, Option<Refusal>) {
    let whole = decode(bytes, &[0, bytes.len()], limits);
    let each: Vec<usize> = (0..=bytes.len()).collect();
    for cuts in (0..=bytes.len()).map(|cut| vec![0, cut, bytes.len()]).chain([each]) {
        assert_eq!(decode(bytes, &cuts, limits), whole, "{:?} cut at {cuts:?}", bytes.escape_ascii().to_string());
    }
    whole
}

fn requests(input: &str) -> Vec<Request> {
    let (events, refusal) = decode_all_cuts(input.as_bytes(), &limits());
    assert_eq!(refusal, None, "{input:?}");
    events.into_iter().filter_map(|event| if let Event::Request(request) = event { Some(request) } else { None }).collect()
}

fn request(input: &str) -> Request {
    let mut requests = requests(input);
    assert_eq!(requests.len(), 1, "{input:?}");
    requests.remove(0)
}

fn check_refusal(input: impl AsRef<[u8]>, status: u16) {
    let input = input.as_ref();
    let (_, refusal) = decode_all_cuts(input, &limits());
    assert_eq!(refusal.map(|refusal| refusal.code.status()), Some(status), "{:?}", input.escape_ascii().to_string());
}

#[test]
fn reads_a_request() {
    let read = request("POST /a%20b?x=1?2 HTTP/1.1\r\nHost: h:80\r\nX-Twice:  a \r\nx-twice:\tb\r\nContent-Length: 2\r\n\r\nhi");
    let expect = Request {
        method: Method::Post,
        path: "/a%20b".into(),
        query: Some("x=1?2".into()),
        version_minor: 1,
        headers: [("host", "h:80"), ("x-twice", "a"), ("x-twice", "b"), ("content-length", "2")]
            .map(|(name, value)| (name.into(), value.as_bytes().into()))
            .into(),
        body: Bytes::from_static(b"hi"),
        keep_alive: true,
        upgrade: false,
    };
    assert_eq!(read, expect);
    assert_eq!(request("GET / HTTP/1.1\nHost:\n\n").path, "/".into());
    for (method, expect) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("PUT", Method::Put),
        ("PATCH", Method::Patch),
        ("DELETE", Method::Delete),
        ("get", Method::Other),
        ("BREW", Method::Other),
    ] {
        assert_eq!(request(&format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n")).method, expect);
    }
}

#[test]
fn reads_pipelined_requests() {
    let get = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = "POST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n";
    let read = requests(&format!("\r\n\n{get}{post}\r\n\r\n\r\n\r\n{get}"));
    assert_eq!(read.iter().map(|request| &*request.path).collect::<Vec<_>>(), ["/1", "/2", "/1"]);
    assert_eq!(read[1].body, "hello");
    check_refusal("\r\n\r\n\r\n\r\n\n", 400);
    check_refusal("\r\rGET / HTTP/1.1\r\n", 400);
}

#[test]
fn reads_targets() {
    fn check(method: &str, target: &str, path: &str, query: Option<&str>) {
        let read = request(&format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!((&*read.path, read.query.as_deref()), (path, query), "{target}");
    }
    check("GET", "/?", "/", Some(""));
    check("GET", "//x", "//x", None);
    check("GET", "http://h:1/p?q", "/p", Some("q"));
    check("GET", "HTTPS://h", "/", None);
    check("GET", "http://h?q", "/", Some("q"));
    check("OPTIONS", "*", "*", None);
    for target in ["*", "h:443", "/a#b", "ftp://h/", "http:///p", "http://u@h/", "/é", "x"] {
        check_refusal(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    }
    check_refusal("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
}

#[test]
fn keep_alive_follows_version_and_connection() {
    fn check(minor: u8, connection: &str, expect: bool) {
        let read = request(&format!("GET / HTTP/1.{minor}\r\nHost: h\r\nConnection: {connection}\r\n\r\n"));
        assert_eq!(read.keep_alive, expect, "1.{minor} {connection}");
    }
    check(1, "x", true);
    check(1, "Close", false);
    check(1, "x, close", false);
    check(0, "x", false);
    check(0, "keep-alive", true);
    check(0, "keep-alive, close", false);
    assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive);
}

#[test]
fn stops_before_the_bytes_after_an_upgrade() {
    let head = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: x, Upgrade\r\nUpgrade: h2c, WebSocket\r\n\r\n";
    let bytes = format!("{head}\0GET");
    let mut input = bytes.as_bytes();
    let mut decoder = Decoder::new();
    let Ok(Some(Event::Request(read))) = decoder.next(&mut input, &limits()) else { panic!() };
    assert!(read.upgrade && read.keep_alive);
    assert_eq!(decoder.next(&mut input, &limits()), Ok(None));
    assert_eq!(input, b"\0GET");
    assert!(requests(&bytes)[0].upgrade);

    decoder.decline_upgrade();
    let mut input = head.as_bytes();
    assert!(matches!(decoder.next(&mut input, &limits()), Ok(Some(_))));

    assert!(!request("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n").upgrade);
    assert!(!request("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").upgrade);
    assert!(!request("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade);
}

#[test]
fn reports_requests_that_wait_for_100_continue() {
    fn check(head: &str, body: &str, expect: &[bool]) {
        let (events, refusal) = decode_all_cuts(format!("POST / HTTP/1.{head}\r\n\r\n{body}").as_bytes(), &limits());
        assert_eq!(refusal, None);
        let continues: Vec<bool> = events.iter().map(|event| *event == Event::Continue).collect();
        assert_eq!(continues, expect, "{head}");
    }
    check("1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2", "hi", &[true, false]);
    check("1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked", "0\r\n\r\n", &[true, false]);
    check("1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0", "", &[false]);
    check("0\r\nExpect: 100-continue\r\nContent-Length: 2", "hi", &[false]);
    check_refusal("POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\nhi", 417);
    check_refusal("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 33\r\n\r\n", 413);
}

#[test]
fn refuses_anything_but_http_1_1() {
    for line in
        ["GET /", "GET  / HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.1 ", "GET / http/1.1", "GET / HTTP/x.y", "G@T / HTTP/1.1"]
    {
        check_refusal(format!("{line}\r\n"), 400);
    }
    check_refusal("\x16\x03\x01", 400);
    check_refusal("GET /\0 HTTP/1.1\r\n", 400);
    check_refusal("GET / HTTP/1.1\rX\r\n", 400);
    check_refusal("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    check_refusal("GET / HTTP/3.0\r\n", 505);
    check_refusal("GET / HTTP/1.2\r\n", 505);
}

#[test]
fn refuses_headers_that_can_be_read_in_two_ways() {
    for headers in [
        "",
        "Host: a\r\nHost: a",
        "Host: a, b",
        "Host: a/b",
        "Host: h\r\nName : x",
        "Host: h\r\n: x",
        "Host: h\r\nnocolon",
        "Host: h\r\n folded",
        "Host: h\r\nX: a\r\n folded",
        "Host: h\r\nX: a\rb",
        "Host: h\r\nX: a\0b",
        "Host: h\r\nX: a\x7fb",
        "Host: h\r\nX\0: a",
        "Host: h\r\nContent-Length: 1\r\nContent-Length: 2",
        "Host: h\r\nContent-Length: 1\r\nContent-Length: 1",
        "Host: h\r\nContent-Length: 1, 1",
        "Host: h\r\nContent-Length: +1",
        "Host: h\r\nContent-Length: -1",
        "Host: h\r\nContent-Length: 0x1",
        "Host: h\r\nContent-Length: 1 1",
        "Host: h\r\nContent-Length:",
        "Host: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "Host: h\r\nTransfer-Encoding: chunked, chunked",
        "Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Host: h\r\nTransfer-Encoding:",
    ] {
        check_refusal(format!("POST / HTTP/1.1\r\n{headers}\r\n\r\nx"), 400);
    }
    check_refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    check_refusal("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    for coding in ["gzip", "gzip, chunked", "chunked, identity", "xchunked"] {
        check_refusal(format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {coding}\r\n\r\n"), 501);
    }
    check_refusal("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400);
}

/// Each limit one under, at it, one over and far over.
#[test]
fn keeps_the_limits() {
    fn check(input: String, within: bool, status: u16) {
        let (events, refusal) = decode_all_cuts(input.as_bytes(), &limits());
        assert_eq!(refusal.map(|refusal| refusal.code.status()), (!within).then_some(status), "{input}");
        assert_eq!(events.len(), usize::from(within));
    }
    let within_and_over = |limit: usize| [(limit - 1, true), (limit, true), (limit + 1, false), (limit * 8, false)];
    for (bytes, within) in within_and_over(64) {
        let path = "p".repeat(bytes - "GET / HTTP/1.1".len());
        check(format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n"), within, 414);
        check(format!("GET /{path} HTTP/1.1\nHost: h\n\n"), within, 414);
    }
    for (bytes, within) in within_and_over(256) {
        let value = "v".repeat(bytes - "Host: h\r\nX: \r\n".len());
        check(format!("GET / HTTP/1.1\r\nHost: h\r\nX: {value}\r\n\r\n"), within, 431);
        check(format!("GET / HTTP/1.1\nHost: h\nX: vv{value}\n\n"), within, 431);
    }
    for (lines, within) in within_and_over(8) {
        check(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X:\r\n".repeat(lines - 1)), within, 431);
    }
    for (bytes, within) in within_and_over(32) {
        let body = "b".repeat(bytes);
        check(format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n{body}"), within, 413);
        check(
            format!("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n"),
            within,
            413,
        );
    }
    for huge in ["18446744073709551615", "18446744073709551616", "99999999999999999999999999"] {
        check_refusal(format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {huge}\r\n\r\n"), 413);
    }
}

#[test]
fn is_idle_only_between_requests() {
    assert!(size_of::<Decoder>() <= 24, "{}", size_of::<Decoder>());
    let mut decoder = Decoder::new();
    let bytes = b"\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
    for (index, byte) in bytes.iter().enumerate() {
        assert_eq!(decoder.is_idle(), index <= 2, "before byte {index}");
        let event = decoder.next(&mut [*byte].as_slice(), &limits()).unwrap();
        assert_eq!(event.is_some(), index + 1 == bytes.len());
    }
    assert!(decoder.is_idle());
}

#[test]
fn never_reserves_the_length_that_a_head_promises() {
    let head = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc";
    let mut decoder = Decoder::new();
    let limits = Limits { http_body_bytes: 1_000_000, ..limits() };
    assert_eq!(decoder.next(&mut head.as_bytes(), &limits), Ok(None));
    let Some(Partial::Body(body)) = &decoder.partial else { panic!() };
    assert!(body.bytes.capacity() < 64);
}

proptest! {
    #[test]
    fn round_trips_at_any_cuts(
        path in "/[a-z0-9/%._-]{0,20}",
        query in proptest::option::of("[ -~&&[^# ]]{0,20}"),
        value in "([!-~]([ -~]{0,20}[!-~])?)?",
        body in proptest::collection::vec(any::<u8>(), 0..=32),
        sizes in proptest::collection::vec(1_usize..20, 0..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let target = query.as_ref().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut bytes = format!("PUT {target} HTTP/1.1\r\nHost: h\r\nX-Value: {value}\r\n").into_bytes();
        if sizes.is_empty() {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(&body);
        } else {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut rest = body.as_slice();
            for size in sizes.iter().cycle() {
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
                rest = after;
                if chunk.is_empty() {
                    break;
                }
            }
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let (events, refusal) = decode(&bytes, &cuts, &limits());
        prop_assert_eq!(refusal, None);
        let [Event::Request(read)] = events.as_slice() else { panic!("{events:?}") };
        prop_assert_eq!(&*read.path, path);
        prop_assert_eq!(read.query.as_deref(), query.as_deref());
        prop_assert_eq!(read.header("x-value"), Some(value.as_str()));
        prop_assert_eq!(&read.body, &body);
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        decode(&bytes, &[0, bytes.len()], &limits());
    }
}

fn random_stream(random: &mut Random) -> Vec<u8> {
    const LINES: [&str; 8] = [
        "GET / HTTP/1.1",
        "POST /p?q HTTP/1.1",
        "PUT /p HTTP/1.0",
        "OPTIONS * HTTP/1.1",
        "GET http://h/ HTTP/1.1",
        "GET /pppppppppppppppppppppppppppppppppppppppppppppppppppppppp HTTP/1.1",
        "PRI * HTTP/2.0",
        "",
    ];
    const HEADERS: [&str; 14] = [
        "Host: h",
        "Host: h",
        "Host: h",
        "Content-Length: 5",
        "Content-Length: 0",
        "Content-Length: 50",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Expect: 100-continue",
        "Connection: close",
        "Connection: upgrade",
        "Upgrade: websocket",
        "X: vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv",
        " folded",
    ];
    const BODIES: [&str; 6] = ["", "hello", "5\r\nhello\r\n0\r\n\r\n", "0\r\nA: b\r\n\r\n", "21\r\n", "1;x\r\na\r\n0\r\n\r\n"];
    let mut text = String::new();
    for _ in 0..=random.below(3) {
        text.push_str(random.pick(&LINES));
        let end = random.pick(&["\r\n", "\r\n", "\r\n", "\n"]);
        text.push_str(end);
        for _ in 0..random.below(10) {
            text.push_str(random.pick(&HEADERS));
            text.push_str(end);
        }
        text.push_str(end);
        text.push_str(random.pick(&BODIES));
    }
    let mut bytes = text.into_bytes();
    random.damage(&mut bytes);
    bytes
}

/// Nothing panics, no cut changes the result, and every refusal can be encoded.
#[test]
fn fuzz() {
    fuzz::rounds(3_000, |random| {
        let bytes = random_stream(random);
        let whole = decode(&bytes, &[0, bytes.len()], &limits());
        let cuts = random.cuts(bytes.len());
        assert_eq!(decode(&bytes, &cuts, &limits()), whole, "{:?} cut at {cuts:?}", bytes.escape_ascii().to_string());
        if let Some(refusal) = whole.1 {
            Response::refusal(&refusal).encode(false, false, Wall(0), &mut Vec::new());
        }
    });
}
