//! Services for protocol test suites, on the server's own stack: `cargo run --release --example conformance`, listening
//! on `TIDINGS_LISTEN` (127.0.0.1:8081).
//!
//! ```text
//! /echo, /disabled_websocket_echo, /cookie_needed_echo   SockJS: each message comes back
//! /close      closes each session at once: 3000 "Go away!"
//! /amplify    the number n comes back as 2^n times "x", n at most 20
//! /ws-echo    the same as /echo; meant for plain WebSockets, with messages of up to 16 MiB
//! /           any method: 200 with the request's body
//! ```

use std::error::Error;
use std::sync::Arc;

use tidings::config::{Profile, Settings};
use tidings::io::node::{self, NodeOptions};
use tidings::model::{Limits, Redacted};
use tidings::protocol::http::{Request, Response};
use tidings::session::Policy;
use tidings::session::endpoints::{Application, Endpoint, Endpoints, Plain, PlainMessage, PlainReply};
use tidings::shard::ListenerKind;
use tidings::store::embedded::{self, Embedded};

/// The WebSocket suite sends messages of this size, whole and in fragments of any number.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// The SockJS suite needs a stream that ends early.
const STREAM_BYTES: usize = 4_096;
const AMPLIFY_MAX: u32 = 20;

const ECHO: Plain = Plain { opened: || PlainReply::Nothing, message: echo };
const CLOSE: Plain = Plain { opened: || PlainReply::Close { code: 3000, reason: "Go away!".into() }, message: echo };
const AMPLIFY: Plain = Plain { opened: || PlainReply::Nothing, message: amplify };

fn echo(content: PlainMessage<'_>) -> PlainReply {
    PlainReply::Send { text: content.text, bytes: content.bytes.to_vec() }
}

fn amplify(content: PlainMessage<'_>) -> PlainReply {
    let number = std::str::from_utf8(content.bytes).ok().and_then(|text| text.parse::<u32>().ok());
    let number = number.filter(|number| *number <= AMPLIFY_MAX).unwrap_or(1);
    PlainReply::Send { text: true, bytes: vec![b'x'; 1 << number] }
}

fn give_back(request: &Request) -> Response {
    Response::new(200).body("application/octet-stream", request.body.clone())
}

fn endpoints() -> Endpoints {
    let endpoint = |prefix: &str, application, websocket, cookie_needed| Endpoint {
        prefix: prefix.into(),
        application: Application::Plain(application),
        websocket,
        cookie_needed,
    };
    let endpoints = vec![
        endpoint("/echo", ECHO, true, false),
        endpoint("/disabled_websocket_echo", ECHO, false, false),
        endpoint("/cookie_needed_echo", ECHO, true, true),
        endpoint("/close", CLOSE, true, false),
        endpoint("/amplify", AMPLIFY, true, false),
        endpoint("/ws-echo", ECHO, true, false),
    ];
    Endpoints { endpoints, fallback: Some(give_back), client_url: "/sockjs.js".into() }
}

fn policy(settings: &Settings) -> Policy {
    let secret = Redacted::new("nobody logs in here, and no token is looked at".into());
    let limits = Limits {
        message_bytes: MESSAGE_BYTES,
        message_fragments: usize::MAX,
        http_body_bytes: MESSAGE_BYTES,
        outbox_bytes: 4 * MESSAGE_BYTES,
        sockjs_stream_bytes: STREAM_BYTES,
        ..settings.limits.clone()
    };
    Policy { limits, endpoints: endpoints(), ..settings.policy(&secret) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::defaults(Profile::Development);
    let address = std::env::var("TIDINGS_LISTEN").unwrap_or_else(|_| "127.0.0.1:8081".to_owned()).parse()?;
    // A node has a store; this one stays empty.
    let directory = tempfile::tempdir()?;
    let data_dir = directory.path().to_path_buf();
    let options = NodeOptions {
        listen: vec![(address, ListenerKind::Http)],
        shards: settings.shards,
        cpus: None,
        node: settings.node,
        policy: Arc::new(policy(&settings)),
        store: Box::new(move || Embedded::open(&data_dir, &embedded::Options::default()).map_err(Into::into)),
        connections: settings.limits.connections_per_shard,
        send_otp: Box::new(|_, _| {}),
        on_ready: Box::new(|ready| {
            for address in &ready.addresses {
                println!("serving on http://{address}");
            }
        }),
    };
    Ok(node::run(options)?)
}
