//! STOMP codec: a SEND as clients write it, and the MESSAGE that goes to one of its receivers.
//! `cargo bench --bench codec_stomp`

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use tidings::model::Limits;
use tidings::protocol::stomp::{Command, Decoder, HEART_BEAT, Item, Side, Version, begin, encode, finish, header};

const BODY: &[u8] = br#"{"conversationId":7,"content":"Test message"}"#;

const SEND_HEADERS: [(&str, &str); 3] =
    [("destination", "/app/conversations/7/send"), ("content-type", "application/json"), ("receipt", "message-12345")];

const MESSAGE_HEADERS: [(&str, &str); 5] = [
    ("subscription", "sub-0"),
    ("destination", "/user/queue/messages"),
    ("message-id", "c232ab00-9414-11ec-b3c8-9f6bdeced846"),
    ("content-type", "application/json"),
    ("x-trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
];

fn decoder() -> Decoder {
    let mut decoder = Decoder::new(Side::Server);
    decoder.set_version(Version::V12);
    decoder
}

/// Decodes all items of `bytes`, and returns their number.
fn drain(decoder: &mut Decoder, mut bytes: &[u8], limits: &Limits) -> usize {
    let mut items = 0;
    while let Some(item) = decoder.next(&mut bytes, limits).expect("the frames are valid") {
        if let Item::Frame(frame) = &item {
            black_box(frame.header("destination"));
        }
        items += 1;
    }
    items
}

fn decode(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut send = Vec::new();
    encode(&mut send, Version::V12, Command::Send, &SEND_HEADERS, Some(BODY));
    let mut escaped = Vec::new();
    let headers = [SEND_HEADERS.as_slice(), &[("note", "a:b\\c")]].concat();
    encode(&mut escaped, Version::V12, Command::Send, &headers, Some(BODY));
    let many = send.repeat(64);

    let mut group = criterion.benchmark_group("stomp/decode");
    for (name, bytes) in [("send", &send), ("send_escaped", &escaped), ("send_x64", &many)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut decoder = decoder();
        group.bench_function(name, |bencher| bencher.iter(|| drain(&mut decoder, black_box(bytes), &limits)));
    }
    group.throughput(Throughput::Bytes(send.len() as u64));
    group.bench_function("send_in_two_pieces", |bencher| {
        let (first, second) = send.split_at(send.len() / 2);
        bencher.iter_batched_ref(
            decoder,
            |decoder| drain(decoder, black_box(first), &limits) + drain(decoder, black_box(second), &limits),
            BatchSize::SmallInput,
        );
    });
    let heart_beats = HEART_BEAT.repeat(1_000);
    group.throughput(Throughput::Elements(1_000));
    let mut decoder = decoder();
    group.bench_function("heart_beats_x1000", |bencher| bencher.iter(|| drain(&mut decoder, black_box(&heart_beats), &limits)));
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(1_024);
    let mut group = criterion.benchmark_group("stomp/encode");
    encode(&mut out, Version::V12, Command::Message, &MESSAGE_HEADERS, Some(BODY));
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("message", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&mut out), Version::V12, Command::Message, black_box(&MESSAGE_HEADERS), Some(black_box(BODY)));
        });
    });

    // The cost of one more receiver of a shared message.
    let mut shared = Vec::new();
    for (name, value) in &MESSAGE_HEADERS[2..] {
        header(&mut shared, Version::V12, name, value);
    }
    finish(&mut shared, Some(BODY));
    group.bench_function("message_of_shared_tail", |bencher| {
        bencher.iter(|| {
            out.clear();
            begin(&mut out, Command::Message);
            for (name, value) in black_box(&MESSAGE_HEADERS[..2]) {
                header(&mut out, Version::V12, name, value);
            }
            out.extend_from_slice(black_box(&shared));
            black_box(&out);
        });
    });
    group.finish();
}

criterion_group!(benches, decode, write);
criterion_main!(benches);
