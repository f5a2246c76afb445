//! `loadgen --profile guide`: the load profile of the guide that clients were written for: ten connections a second for a
//! minute, each sending "Test message" to conversation 1.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;
use tidings::protocol::stomp::{Command, Frame};

use crate::connection::Login;
use crate::engine::{Engine, Proceed, Scenario};
use crate::random::Random;
use crate::report::{self, Latency};
use crate::run::{RunArgs, put_conversations};
use crate::target::Target;

const SECONDS: u64 = 60;
const PER_SECOND: u64 = 10;
const CONVERSATION: u64 = 1;
const BODY: &[u8] = br#"{"conversationId":1,"content":"Test message"}"#;

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    connections: u64,
    acknowledged: u64,
    refused: u64,
    failed: u64,
    finished: bool,
    /// From the time when a connection was due to its session, and to the RECEIPT of its message.
    ready: Latency,
    receipt: Latency,
    reasons: BTreeMap<Box<str>, u64>,
}

/// Runs the profile; true when every message was acknowledged.
///
/// # Errors
/// When the load could not be applied.
pub fn run(run: &RunArgs, target: &Target) -> Result<bool, String> {
    run.pin()?;
    let connections = SECONDS * PER_SECOND;
    println!("guide: {PER_SECOND} connections/s for {SECONDS} s, each sends one message to conversation {CONVERSATION}");
    let users = run.first_user..run.first_user + connections;
    put_conversations(target, "group", std::iter::once((CONVERSATION, users.clone())))?;
    let mut engine = Engine::new(target.clone(), Random::new(run.seed())).map_err(|error| error.to_string())?;
    for user in users {
        let destinations = ["/user/queue/messages", "/user/queue/errors"].map(String::from).to_vec();
        engine.add(Login { user, destinations, source: None, ..Login::default() });
    }
    let mut guide = Guide::new(connections);
    let finished = engine.run(&mut guide, run.deadline()).map_err(|error| error.to_string())?;
    guide.progress.finish_and_clear();
    let report = Report {
        scenario: "guide",
        connections,
        acknowledged: guide.acknowledged,
        refused: guide.refused,
        failed: guide.failed,
        finished,
        ready: Latency::from(&guide.ready),
        receipt: Latency::from(&guide.receipt),
        reasons: engine.reasons,
    };
    println!("  acknowledged {}, refused {}, failed {}", report.acknowledged, report.refused, report.failed);
    println!("  connected {}", report.ready);
    println!("  receipt   {}", report.receipt);
    if !report.reasons.is_empty() {
        println!("  reasons: {}", report::describe_reasons(&report.reasons));
    }
    run.write_json(&report)?;
    Ok(finished && report.acknowledged == connections)
}

struct Guide {
    connections: u64,
    started_at: Option<u64>,
    opened: u64,
    unsent: Vec<usize>,
    answered: Vec<usize>,
    acknowledged: u64,
    refused: u64,
    failed: u64,
    ready: Histogram<u64>,
    receipt: Histogram<u64>,
    progress: ProgressBar,
}

impl Guide {
    fn new(connections: u64) -> Self {
        Self {
            connections,
            started_at: None,
            opened: 0,
            unsent: Vec::new(),
            answered: Vec::new(),
            acknowledged: 0,
            refused: 0,
            failed: 0,
            ready: report::histogram(),
            receipt: report::histogram(),
            progress: report::progress(connections, "connections"),
        }
    }

    /// When the connection should begin.
    fn due(&self, index: u64) -> u64 {
        self.started_at.unwrap_or(0) + index * 1_000_000_000 / PER_SECOND
    }
}

impl Scenario for Guide {
    fn ready(&mut self, slot: usize, now: u64) {
        self.ready.saturating_record(now.saturating_sub(self.due(slot as u64)));
        self.unsent.push(slot);
    }

    fn frame(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        let refusal = frame.command == Command::Message && frame.header("subscription") == Some("1");
        if frame.command == Command::Receipt {
            self.acknowledged += 1;
            self.receipt.saturating_record(now.saturating_sub(self.due(slot as u64)));
            self.answered.push(slot);
        } else if refusal {
            self.refused += 1;
            self.answered.push(slot);
        }
    }

    fn closed(&mut self, _slot: usize, _why: &str, _now: u64) {
        self.failed += 1;
    }

    fn act(&mut self, engine: &mut Engine, now: u64) -> Proceed {
        self.started_at.get_or_insert(now);
        while self.opened < self.connections && self.due(self.opened) <= now {
            engine.open(self.opened as usize);
            self.opened += 1;
        }
        for slot in self.unsent.drain(..) {
            let headers = [("destination", "/app/send"), ("content-type", "application/json"), ("receipt", "m")];
            engine.send(slot, Command::Send, &headers, BODY);
        }
        for slot in self.answered.drain(..) {
            engine.drop_connection(slot, false);
        }
        let settled = self.acknowledged + self.refused + self.failed;
        self.progress.set_position(settled);
        match self.opened {
            opened if opened < self.connections => Proceed::Until(self.due(opened)),
            _ if settled >= self.connections => Proceed::Done,
            _ => Proceed::Until(u64::MAX),
        }
    }
}
