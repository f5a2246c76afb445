//! Anything in any order: nothing panics, and when everybody has gone nothing is left.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::harness::{CONNECT, Client, Net, binary_packet, http, packet, upgrade};
use crate::fuzz;
use crate::protocol::websocket::Kind;
use crate::shard::ListenerKind;
use crate::store::Failure;

const USERS: u64 = 5;

struct Random(ChaCha20Rng);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn user(&mut self) -> u64 {
        1 + self.below(USERS as usize) as u64
    }
}

fn frame(random: &mut Random) -> String {
    let conversation = 20 + random.below(4);
    let id = random.below(3);
    let destination =
        *random.pick(&["/topic/a", "/topic/*", "/topic/**", "/user/queue/messages", "/user/queue/errors", "/user/9/queue/x"]);
    let transaction = *random.pick(&["", "", "transaction:t\n"]);
    match random.below(12) {
        0 => format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\nreceipt:s\n\n"),
        1 | 2 => format!("SUBSCRIBE\nid:{id}\ndestination:/topic/conversation/{conversation}\n\n"),
        3 | 4 => format!("UNSUBSCRIBE\nid:{id}\nreceipt:u\n\n"),
        5 => "BEGIN\ntransaction:t\n\n".to_owned(),
        6 => "COMMIT\ntransaction:t\nreceipt:c\n\n".to_owned(),
        7 => random.pick(&["DISCONNECT\nreceipt:d\n\n", "ACK\nid:1\n\n", "NONSENSE\n\n", CONNECT]).to_string(),
        8 => format!("SEND\n{transaction}destination:/app/announcements\nreceipt:a\n\nhello"),
        _ => format!("SEND\n{transaction}destination:/app/conversations/{conversation}/send\nreceipt:r\n\n{{\"content\":\"x\"}}"),
    }
}

fn step(net: &mut Net, random: &mut Random, clients: &mut Vec<Client>) {
    let shard = random.below(net.shards.len());
    match random.below(22) {
        0..3 => {
            let token = net.token_with(random.user(), Duration::from_secs(200), &["admin"], None);
            let client = net.open(shard);
            clients.push(client);
            let connect = CONNECT.replace("\n\n", &format!("\nAuthorization:Bearer {token}\nheart-beat:0,10000\n\n"));
            let query = if random.below(2) == 0 { format!("?token={token}") } else { String::new() };
            let mut bytes = upgrade(&query, "").into_bytes();
            bytes.extend(packet(&[&connect, &frame(random)]));
            let cut = random.below(bytes.len());
            net.write(client, &bytes[..cut]);
            net.write(client, &bytes[cut..]);
        }
        3 => {
            let token = net.token(random.user());
            let (conversation, user) = (20 + random.below(4), random.user());
            let target = random
                .pick(&["GET /conversations/C/messages", "GET /healthz", "DELETE /conversations/C/participants/U"])
                .to_owned();
            let target = target.replace('C', &conversation.to_string()).replace('U', &user.to_string());
            let client = net.open(shard);
            clients.push(client);
            net.write(client, http(&target, &format!("Authorization: Bearer {token}\r\n"), "").repeat(1 + random.below(3)));
        }
        18 => {
            let token = net.token_with(random.user(), Duration::from_secs(200), &["admin"], None);
            let query = if random.below(2) == 0 { format!("?token={token}") } else { String::new() };
            let transport = *random.pick(&["xhr", "xhr", "xhr_streaming", "xhr_send", "xhr_send", "eventsource", "jsonp"]);
            let method = if transport.starts_with("xhr") { "POST" } else { "GET" };
            let connect = CONNECT.replace("\n\n", &format!("\nAuthorization:Bearer {token}\n\n"));
            let frames =
                format!("[\"{}\\u0000\",\"{}\\u0000\"]", connect, frame(random).replace('"', "\\\"")).replace('\n', "\\n");
            let body = if transport == "xhr_send" { frames } else { String::new() };
            let client = net.open(shard);
            clients.push(client);
            let target = format!("{method} /ws/000/s{}/{transport}{query}", random.below(3));
            let header = *random.pick(&["", "", "Connection: close\r\n", "Connection: keep-alive\r\n"]);
            let version = *random.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
            let request = http(&target, header, &body).replace("HTTP/1.1", version);
            net.write(client, request.repeat(1 + random.below(3)));
        }
        19 => {
            let client = net.open_at(shard, ListenerKind::Stomp);
            clients.push(client);
            let token = net.token_with(random.user(), Duration::from_secs(200), &[], None);
            let connect = CONNECT.replace("\n\n", &format!("\nAuthorization:Bearer {token}\n\n"));
            net.write(client, format!("{connect}\0{}\0", frame(random)));
        }
        4 => net.hold_mail(),
        5 | 6 => net.release_mail(),
        7 => net.hold_store(),
        8 | 9 => net.release_store(),
        10 => net.failing = *random.pick(&[None, None, Some(Failure::Unknown), Some(Failure::Unavailable), Some(Failure::Busy)]),
        11 => net.pass(Duration::from_millis(random.below(30_000) as u64)),
        _ if clients.is_empty() => {}
        12 => {
            let client = clients.swap_remove(random.below(clients.len()));
            net.lose(client);
        }
        13 => {
            let room = *random.pick(&[0, 10, 300, usize::MAX]);
            net.take(*random.pick(clients), room);
        }
        14 => net.write(*random.pick(clients), binary_packet(*random.pick(&[Kind::Ping, Kind::Close, Kind::Pong]), b"")),
        _ => {
            let frames: Vec<String> = (0..=random.below(4)).map(|_| frame(random)).collect();
            let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
            let client = *random.pick(clients);
            if net.is_upgraded(client) {
                net.stomp(client, &frames);
            }
        }
    }
}

fn run(seed: u64) {
    let mut random = Random(ChaCha20Rng::seed_from_u64(seed));
    let mut net = Net::with(1 + random.below(4) as u16, |limits| {
        (limits.session_inflight, limits.conversation_pending, limits.append_batch) = (3, 4, 2);
        (limits.http_pipelined, limits.outbox_bytes) = (2, 2_000);
    });
    net.conversation(20, &[1, 2]);
    net.conversation(21, &[1, 2, 3, 4]);
    net.conversation(22, &[2, 3, 4, 5]);
    let mut clients = Vec::new();
    for _ in 0..150 {
        step(&mut net, &mut random, &mut clients);
    }
    let drains = random.below(2) == 0;
    if drains {
        net.drain();
    }
    net.failing = None;
    net.release_mail();
    net.release_store();
    net.pass(Duration::from_millis(200));
    net.release_mail();
    for client in clients {
        net.lose(client);
    }
    net.pass(Duration::from_secs(3_600));
    assert_eq!(net.drained.len(), if drains { net.shards.len() } else { 0 }, "seed {seed}");
    for shard in &net.shards {
        let left = shard.leftovers();
        // A shard that ends leaves writes in doubt to readers of the history.
        let is_left = |(kind, any): &(&str, bool)| *any && !(drains && *kind == "writes in doubt");
        assert!(!left.iter().any(is_left), "seed {seed}: on {:?} there are left {left:?}", shard.turn.id);
    }
}

#[test]
fn nothing_is_left_of_anything() {
    for seed in fuzz::seeds(200) {
        run(seed);
    }
}
