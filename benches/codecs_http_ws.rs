//! The cost of the HTTP and WebSocket codecs: `cargo bench --bench codecs_http_ws`.
//!
//! WebSocket decoding unmasks in place, so each round copies its frames anew. Subtract `copy`, which is that copy alone.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidings::model::{Limits, Wall};
use tidings::protocol::http::{self, Event, Response};
use tidings::protocol::websocket::{self, Kind, MessageLimits, Packet};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FRAMES: u64 = 64;

fn websocket_decode(criterion: &mut Criterion) {
    let ascii = "SEND\ndestination:/app/send\n\n{\"conversationId\":1,\"content\":\"Test message\"} and what fills 100 bytes..";
    let greek = "κόσμε ".repeat(10);
    let limits = MessageLimits { message_bytes: 64 * 1024, fragments: 1_024 };
    let mut group = criterion.benchmark_group("websocket/decode");
    group.throughput(Throughput::Elements(FRAMES));
    for (name, kind, payload) in [
        ("text 100 B", Kind::Text, ascii.as_bytes()),
        ("text 110 B of two-byte characters", Kind::Text, greek.as_bytes()),
        ("binary 100 B", Kind::Binary, ascii.as_bytes()),
        ("text 4 KiB", Kind::Text, &[b'a'; 4_096]),
        ("ping 4 B", Kind::Ping, b"ping"),
    ] {
        let mut frames = Vec::new();
        for _ in 0..FRAMES {
            websocket::masked_frame(kind, MASK, payload, &mut frames);
        }
        let mut buffer = frames.clone();
        let mut decoder = websocket::Decoder::server();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                buffer.copy_from_slice(&frames);
                let mut input = buffer.as_mut_slice();
                while let Some(packet) = decoder.next(&mut input, limits).expect("the frames are valid") {
                    match packet {
                        Packet::Data { bytes, .. } | Packet::Ping(bytes) | Packet::Pong(bytes) => black_box(bytes),
                        Packet::Close { .. } => &[],
                    };
                }
            });
        });
        if payload.len() == ascii.len() && kind == Kind::Text {
            group.bench_function("copy of text 100 B", |bencher| {
                bencher.iter(|| {
                    buffer.copy_from_slice(&frames);
                    black_box(&mut buffer);
                });
            });
        }
    }
    group.finish();
}

fn websocket_encode(criterion: &mut Criterion) {
    let payload = [b'a'; 100];
    let mut group = criterion.benchmark_group("websocket/encode");
    let mut out = Vec::with_capacity(256);
    group.bench_function("header", |bencher| {
        let mut header = [0; 10];
        bencher.iter(|| websocket::header(Kind::Text, black_box(300), &mut header));
    });
    group.bench_function("frame of 100 B", |bencher| {
        bencher.iter(|| {
            out.clear();
            websocket::frame(Kind::Text, black_box(&payload), &mut out);
        });
    });
    group.bench_function("masked frame of 100 B", |bencher| {
        bencher.iter(|| {
            out.clear();
            websocket::masked_frame(Kind::Text, black_box(MASK), black_box(&payload), &mut out);
        });
    });
    group.finish();
}

fn http_requests() -> [(&'static str, String); 3] {
    let browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
                   Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nCache-Control: no-cache\r\n\
                   Origin: https://chat.example.com\r\nPragma: no-cache\r\n";
    let body = "{\"content\":\"Test message\",\"clientMessageId\":\"0190f5b2-6a3c-7c1e-8b1a-2f6a7c9d0e1f\"}";
    [
        ("GET, 2 headers", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".into()),
        (
            "POST of 85 B, 4 headers",
            format!(
                "POST /conversations/1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                "x".repeat(200),
                body.len()
            ),
        ),
        (
            "upgrade of a browser, 13 headers",
            format!(
                "GET /ws?token={} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{browser}\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: v12.stomp, v11.stomp\r\n\r\n",
                "x".repeat(200)
            ),
        ),
    ]
}

fn decode_http(bytes: &[u8], limits: &Limits) -> http::Request {
    match http::Decoder::new().next(&mut &*bytes, limits) {
        Ok(Some(Event::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

fn http_decode(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("http/decode");
    for (name, request) in http_requests() {
        group.bench_function(name, |bencher| bencher.iter(|| decode_http(black_box(request.as_bytes()), &limits)));
    }
    group.finish();
}

fn http_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http/encode");
    let now = Wall::from_unix_seconds(1_767_225_599);
    let mut out = Vec::with_capacity(512);
    let response = Response::new(201).header("Location", "/conversations/1/messages/x").body("application/json", vec![b'x'; 200]);
    group.bench_function("201 with 200 B", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&response).encode(false, true, now, &mut out);
        });
    });
    let [.., (_, upgrade)] = http_requests();
    let request = decode_http(upgrade.as_bytes(), &Limits::default());
    group.bench_function("handshake and 101", |bencher| {
        bencher.iter(|| {
            out.clear();
            let accept = websocket::handshake::accept(black_box(&request)).expect("a valid handshake");
            let chosen = websocket::handshake::choose_stomp(&accept.protocols);
            websocket::handshake::response(&accept, chosen).encode(false, true, now, &mut out);
        });
    });
    group.finish();
}

criterion_group!(benches, websocket_decode, websocket_encode, http_decode, http_encode);
criterion_main!(benches);
