//! The client against the server's own codecs, over every transport, at every cut, and against hostile bytes.

use super::*;
use crate::model::{Limits, Wall};
use crate::protocol::fuzz;
use crate::protocol::http::{self, Response};
use crate::protocol::sockjs as packets;
use crate::protocol::stomp::{Decoder, Item, Side};
use crate::protocol::websocket::{self, MessageLimits, Packet, handshake};

const MESSAGE: [(&str, &str); 3] = [("destination", "/x"), ("message-id", "1"), ("subscription", "s:0")];

fn options() -> Options<'static> {
    Options { query: "?token=t", protocols: "v12.stomp", seed: 7, ..Options::default() }
}

fn frame(command: Command, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    stomp::encode(&mut out, Version::V12, command, headers, body);
    out
}

/// All outputs: opened and closed roles, and the bytes of each.
fn outputs(client: &mut Client) -> (Vec<String>, [Vec<u8>; 2]) {
    let (mut changes, mut bytes) = (Vec::new(), [Vec::new(), Vec::new()]);
    assert_eq!(client.has_output(), client.next_output().is_some_and(|output| note(output, &mut changes, &mut bytes)));
    while let Some(output) = client.next_output() {
        note(output, &mut changes, &mut bytes);
    }
    assert!(!client.has_output());
    (changes, bytes)
}

fn note(output: Output<'_>, changes: &mut Vec<String>, bytes: &mut [Vec<u8>; 2]) -> bool {
    match output {
        Output::Open(role) => changes.push(format!("open {role}")),
        Output::Close(role) => changes.push(format!("close {role}")),
        Output::Write(role, piece) => bytes[role as usize].extend_from_slice(piece),
    }
    true
}

fn request(bytes: &[u8]) -> http::Request {
    match http::Decoder::new().next(&mut &*bytes, &Limits::default()) {
        Ok(Some(http::Event::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

/// The bytes of a server for a receiver that wrote `asked`: the opening, a few frames, and a close where there is one.
fn server_bytes(transport: Transport, asked: &[u8]) -> Vec<u8> {
    let connected = frame(Command::Connected, &[("version", "1.2"), ("heart-beat", "0,0")], None);
    let message = frame(Command::Message, &MESSAGE, Some("{\"a\":\"é\"}".as_bytes()));
    let receipt = frame(Command::Receipt, &[("receipt-id", "r")], None);
    let texts = [connected, b"\n".to_vec(), message, receipt];
    let mut out = Vec::new();
    if transport == Transport::Tcp {
        return texts.concat();
    }
    if !transport.is_http() {
        let accept = handshake::accept(&request(asked)).unwrap();
        handshake::response(&accept, None).encode(false, true, Wall(0), &mut out);
    }
    if transport == Transport::WebSocket {
        for text in &texts {
            websocket::frame(Kind::Ping, b"p", &mut out);
            websocket::frame(Kind::Text, text, &mut out);
        }
        websocket::frame(Kind::Pong, b"q", &mut out);
        websocket::close(1012, "bye", &mut out);
        return out;
    }
    let mut all = vec![packets::OPEN.to_vec(), packets::HEART_BEAT.to_vec()];
    // Frames may be cut between packets, and several strings may stand in one.
    for text in [&texts[0], &texts[1..].concat()] {
        let (first, second) = text.split_at(3);
        for strings in [vec![first], vec![second, b"\n"]] {
            let strings: Vec<Vec<u8>> = strings.iter().map(|text| element(text)).collect();
            let mut packet = Vec::new();
            packets::array(strings.iter().map(Vec::as_slice), &mut packet);
            all.push(packet);
        }
    }
    all.push(packets::close(1012, "bye"));
    for packet in all {
        http_packet(transport, &packet, &mut out);
    }
    out
}

fn element(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    packets::element(text, &mut out);
    out
}

/// A packet as its transport carries it: in a frame, or in a response of its own.
fn http_packet(transport: Transport, packet: &[u8], out: &mut Vec<u8>) {
    let served = match transport {
        Transport::SockJsWebSocket => return websocket::frame(Kind::Text, packet, out),
        Transport::XhrStreaming => packets::Transport::XhrStreaming,
        Transport::EventSource => packets::Transport::EventSource,
        _ => packets::Transport::Xhr,
    };
    let mut body = packets::prelude(served, "");
    packets::packet(served, "", packet, &mut body);
    if served.is_stream() {
        packets::receiving(served).encode_stream(true, true, Wall(0), out);
        let (first, second) = body.split_at(body.len() / 2);
        http::chunk(first, out);
        http::chunk(second, out);
        out.extend_from_slice(http::LAST_CHUNK);
    } else {
        packets::receiving(served).body("text/plain", body).encode(false, true, Wall(0), out);
    }
}

/// Reads one piece of bytes; each event in a line.
fn read(client: &mut Client, role: Role, bytes: &[u8], seen: &mut Vec<String>) -> Result<(), Error> {
    let mut bytes = bytes.to_vec();
    let mut received = client.receive(role, &mut bytes);
    while let Some(event) = received.next_event()? {
        seen.push(match event {
            Event::Open => "open".into(),
            Event::Frame(frame) => format!("{} {}", frame.command.name(), String::from_utf8_lossy(frame.body)),
            Event::HeartBeat => "beat".into(),
            Event::Ping => "ping".into(),
            Event::Pong(payload) => format!("pong {}", payload.escape_ascii()),
            Event::Closed { code, reason } => format!("closed {code:?} {reason}"),
        });
    }
    Ok(())
}

fn expected(transport: Transport) -> Vec<&'static str> {
    match transport {
        Transport::Tcp => vec!["CONNECTED ", "beat", "MESSAGE {\"a\":\"é\"}", "RECEIPT "],
        Transport::WebSocket => {
            vec![
                "open",
                "ping",
                "CONNECTED ",
                "ping",
                "beat",
                "ping",
                "MESSAGE {\"a\":\"é\"}",
                "ping",
                "RECEIPT ",
                "pong q",
                "closed Some(1012) bye",
            ]
        }
        _ => {
            let frames = ["open", "CONNECTED ", "beat", "beat", "MESSAGE {\"a\":\"é\"}", "RECEIPT ", "beat"];
            frames.into_iter().chain(["closed Some(1012) bye"]).collect()
        }
    }
}

fn started(transport: Transport) -> (Client, Vec<u8>) {
    let mut client = Client::new(transport, &options());
    let (changes, [asked, sent]) = outputs(&mut client);
    assert_eq!(changes, ["open receiver"], "{transport}");
    assert!(sent.is_empty());
    (client, asked)
}

#[test]
fn every_transport_reads_the_same_at_every_cut() {
    for (_, transport) in Transport::ALL {
        let (_, asked) = started(transport);
        let bytes = server_bytes(transport, &asked);
        // Streams begin with long preludes: there, not every cut.
        let step = if bytes.len() > 4_000 { 7 } else { 1 };
        for cut in (0..=bytes.len()).step_by(step) {
            let ((mut client, _), mut seen) = (started(transport), Vec::new());
            for piece in [&bytes[..cut], &bytes[cut..]] {
                read(&mut client, Role::Receiver, piece, &mut seen).unwrap();
            }
            assert_eq!(seen, expected(transport), "{transport} cut at {cut}");
        }
        let ((mut client, _), mut seen) = (started(transport), Vec::new());
        for byte in &bytes {
            read(&mut client, Role::Receiver, &[*byte], &mut seen).unwrap();
        }
        assert_eq!(seen, expected(transport), "{transport} byte by byte");
    }
}

/// The frames of a client as the server's decoder reads them.
fn server_reads(stomp: &[u8]) -> Vec<String> {
    let (mut decoder, mut rest, mut read) = (Decoder::new(Side::Server), stomp, Vec::new());
    decoder.set_version(Version::V12);
    while let Some(item) = decoder.next(&mut rest, &Limits::default()).unwrap() {
        read.push(match item {
            Item::HeartBeat => "beat".to_owned(),
            Item::Frame(frame) => format!("{} {}", frame.command.name(), String::from_utf8_lossy(frame.body)),
        });
    }
    read
}

/// The STOMP in masked WebSocket frames.
fn unmask(bytes: &[u8]) -> Vec<u8> {
    let (mut bytes, mut decoder, mut out) = (bytes.to_vec(), websocket::Decoder::server(), Vec::new());
    let mut input = &mut bytes[..];
    while let Some(packet) = decoder.next(&mut input, MessageLimits { message_bytes: 1 << 20, fragments: 1 }).unwrap() {
        if let Packet::Data { bytes, .. } = packet {
            out.extend_from_slice(bytes);
        }
    }
    out
}

#[test]
fn the_server_reads_what_every_transport_sends() {
    for (_, transport) in Transport::ALL {
        let (mut client, asked) = started(transport);
        let bytes = server_bytes(transport, &asked);
        // Up to the opening, so that nothing has closed the session.
        let mut seen = Vec::new();
        for byte in &bytes {
            if transport == Transport::Tcp || seen == ["open"] {
                break;
            }
            read(&mut client, Role::Receiver, &[*byte], &mut seen).unwrap();
        }
        outputs(&mut client);
        client.send_frame(Command::Send, &[("destination", "/a")], Some("{\"x\":\"é\\n\"}".as_bytes()));
        client.send_heart_beat();
        client.send_messages([b"SEND\ndestination:".as_slice(), b"/b\n\nhi\0"]);
        let (changes, bytes) = outputs(&mut client);
        assert_eq!(changes.is_empty(), !transport.is_http(), "{transport}");
        let sent = &bytes[transport.sender() as usize];
        let stomp = match transport {
            Transport::Tcp => sent.clone(),
            Transport::WebSocket => unmask(sent),
            // Each array is a message of its own.
            Transport::SockJsWebSocket => {
                let arrays = String::from_utf8(unmask(sent)).unwrap();
                arrays
                    .split_inclusive(']')
                    .flat_map(|array| packets::messages(array.as_bytes()).unwrap().bytes().to_vec())
                    .collect()
            }
            _ => {
                let request = request(sent);
                assert!(request.path.ends_with("/xhr_send") && request.query.as_deref() == Some("token=t"));
                packets::messages(&request.body).unwrap().bytes().to_vec()
            }
        };
        assert_eq!(server_reads(&stomp), ["SEND {\"x\":\"é\\n\"}", "beat", "SEND hi"], "{transport}");
    }
}

#[test]
fn pings_are_answered_and_the_rest_is_masked() {
    let mut client = Client::upgraded(&options());
    let mut bytes = Vec::new();
    websocket::frame(Kind::Ping, b"abc", &mut bytes);
    read(&mut client, Role::Receiver, &bytes, &mut Vec::new()).unwrap();
    client.send_packet(Kind::Ping, b"d");
    client.close();
    let (changes, [mut written, _]) = outputs(&mut client);
    assert!(changes.is_empty());
    let (mut decoder, mut input) = (websocket::Decoder::server(), &mut written[..]);
    let limits = MessageLimits { message_bytes: 1, fragments: 1 };
    assert_eq!(decoder.next(&mut input, limits), Ok(Some(Packet::Pong(b"abc"))));
    assert_eq!(decoder.next(&mut input, limits), Ok(Some(Packet::Ping(b"d"))));
    assert_eq!(decoder.next(&mut input, limits), Ok(Some(Packet::Close { code: Some(1000), reason: "" })));
}

#[test]
fn one_seed_gives_one_client() {
    let written = |seed| {
        let mut client = Client::new(Transport::SockJsWebSocket, &Options { seed, ..options() });
        client.send_frame(Command::Connect, &[("host", "x")], None);
        outputs(&mut client).1
    };
    assert_eq!(written(1), written(1));
    assert_ne!(written(1), written(2));
}

fn response(status: u16, keep_alive: bool, body: &'static str) -> Vec<u8> {
    let (mut out, response) = (Vec::new(), Response::new(status));
    let response = if status == 204 { response } else { response.body("text/plain", body) };
    response.encode(false, keep_alive, Wall(0), &mut out);
    out
}

/// A session of polls that is open.
fn polling() -> Client {
    let (mut client, _) = started(Transport::XhrPolling);
    read(&mut client, Role::Receiver, &response(200, true, "o\n"), &mut Vec::new()).unwrap();
    let (_, [asked, _]) = outputs(&mut client);
    assert!(request(&asked).path.ends_with("/xhr"));
    client
}

#[test]
fn messages_wait_while_others_are_on_their_way() {
    let (mut client, _) = started(Transport::XhrPolling);
    client.send_messages([b"a".as_slice(), b"b"]);
    assert!(!client.has_output(), "the session is not open");
    read(&mut client, Role::Receiver, &response(200, true, "o\n"), &mut Vec::new()).unwrap();
    let (changes, [_, sent]) = outputs(&mut client);
    assert_eq!(changes, ["open sender"]);
    assert_eq!(&request(&sent).body[..], b"[\"a\",\"b\"]");
    let long = "c".repeat(48 * 1024);
    client.send_messages([long.as_bytes(), b"d"]);
    for expect in [long.as_str(), "d"] {
        assert!(!client.has_output(), "one request at a time");
        read(&mut client, Role::Sender, &response(204, true, ""), &mut Vec::new()).unwrap();
        let (changes, [_, sent]) = outputs(&mut client);
        assert!(changes.is_empty());
        assert!(String::from_utf8(sent).unwrap().ends_with(&format!("[\"{expect}\"]")));
    }
}

#[test]
fn a_connection_that_ends_between_requests_is_opened_again() {
    let mut client = polling();
    assert_eq!(client.disconnected(Role::Sender), Ok(()));
    client.send_messages([b"a".as_slice()]);
    assert_eq!(outputs(&mut client).0, ["open sender"]);
    read(&mut client, Role::Sender, &response(204, false, ""), &mut Vec::new()).unwrap();
    read(&mut client, Role::Receiver, &response(200, false, "h\n"), &mut Vec::new()).unwrap();
    client.send_messages([b"b".as_slice()]);
    let (changes, [polled, sent]) = outputs(&mut client);
    assert_eq!(changes, ["close receiver", "open receiver", "close sender", "open sender"]);
    assert!(polled.starts_with(b"POST /ws/") && sent.ends_with(b"[\"b\"]"));
    // A server may say why it closes an idle connection.
    read(&mut client, Role::Sender, &response(204, true, ""), &mut Vec::new()).unwrap();
    read(&mut client, Role::Sender, &response(408, false, ""), &mut Vec::new()).unwrap();
    assert_eq!(client.disconnected(Role::Sender), Ok(()));
    assert_eq!(client.disconnected(Role::Receiver), Err(Error::Disconnected { role: Role::Receiver }));
}

#[test]
fn what_ends_a_client() {
    let check = |role, bytes: &[u8], expect: Error| {
        let mut client = polling();
        client.send_messages([b"a".as_slice()]);
        outputs(&mut client);
        assert_eq!(read(&mut client, role, bytes, &mut Vec::new()), Err(expect), "{}", bytes.escape_ascii());
        let mut seen = Vec::new();
        read(&mut client, role, &response(200, true, "h\n"), &mut seen).unwrap();
        assert!(seen.is_empty());
    };
    let refused = |role, status| Error::Refused { role, status };
    check(Role::Receiver, &response(404, true, ""), refused(Role::Receiver, 404));
    check(Role::Receiver, &response(200, true, "o\n"), Error::SessionLost);
    check(Role::Receiver, &response(200, true, "h"), Error::broken("a response of SockJS ended within a packet"));
    check(Role::Receiver, &response(200, true, "x\n"), Error::broken("a SockJS packet of no known kind"));
    check(Role::Sender, &response(404, true, ""), refused(Role::Sender, 404));
    check(Role::Sender, &response(200, true, "ok"), refused(Role::Sender, 200));
    let twice = [response(204, true, ""), response(204, true, "")].concat();
    check(Role::Sender, &twice, Error::broken("a response without a request"));
    let (mut client, _) = started(Transport::WebSocket);
    assert_eq!(
        read(&mut client, Role::Receiver, &response(401, false, "no"), &mut Vec::new()),
        Err(refused(Role::Receiver, 401))
    );
    let (mut client, asked) = started(Transport::WebSocket);
    let bytes = String::from_utf8_lossy(&server_bytes(Transport::WebSocket, &asked)).replace("Accept: ", "Accept: x");
    assert!(matches!(read(&mut client, Role::Receiver, bytes.as_bytes(), &mut Vec::new()), Err(Error::Broken(_))));
    assert_eq!(client.disconnected(Role::Receiver), Err(Error::Disconnected { role: Role::Receiver }));
}

/// Frames that came whole before a violation are not lost by it.
#[test]
fn what_came_before_a_fault_comes_out_first() {
    let mut bytes = Vec::new();
    for _ in 0..2 {
        websocket::frame(Kind::Text, &frame(Command::Receipt, &[("receipt-id", "r")], None), &mut bytes);
    }
    bytes.extend_from_slice(&[0xff, 0x00]);
    let (mut client, mut seen) = (Client::upgraded(&options()), Vec::new());
    assert!(read(&mut client, Role::Receiver, &bytes, &mut seen).is_err());
    assert_eq!(seen, ["RECEIPT ", "RECEIPT "]);
}

#[test]
fn fuzz_hostile_servers() {
    fuzz::rounds(600, |random| {
        let (_, transport) = random.pick(&Transport::ALL);
        let (_, asked) = started(transport);
        let mut bytes = server_bytes(transport, &asked);
        random.damage(&mut bytes);
        let attempt = |cuts: &[usize]| {
            let ((mut client, _), mut seen) = (started(transport), Vec::new());
            let pieces = cuts.windows(2).map(|range| &bytes[range[0]..range[1]]);
            let result = pieces.map(|piece| read(&mut client, Role::Receiver, piece, &mut seen)).find(Result::is_err);
            outputs(&mut client);
            (seen, result.is_some())
        };
        let (whole, whole_failed) = attempt(&[0, bytes.len()]);
        let (cut, cut_failed) = attempt(&random.cuts(bytes.len()));
        // Text before a wrong character may come out when the cut lies between them.
        assert!(cut.starts_with(&whole), "{transport}: {whole:?} {cut:?}");
        assert!(whole == cut || cut_failed, "{transport}: {whole:?} {cut:?}");
        assert_eq!(whole_failed, cut_failed, "{transport}: {whole:?} {cut:?}");
        let (mut client, _) = started(transport);
        let garbage: Vec<u8> = (0..random.length(200)).map(|_| random.next() as u8).collect();
        let role = random.pick(&[Role::Receiver, Role::Sender]);
        let _ = read(&mut client, role, &garbage, &mut Vec::new());
        let _ = client.disconnected(role);
        outputs(&mut client);
    });
}
