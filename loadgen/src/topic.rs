//! `loadgen topic`: one conversation, one sender, all other users subscribed to its topic: the cost of a delivery.

use std::collections::BTreeMap;

use clap::Args;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;
use tidings::protocol::stomp::{Command, Frame};

use crate::clock;
use crate::connection::Login;
use crate::engine::{Engine, Proceed, Scenario};
use crate::marker::{Marker, write_body};
use crate::meter::{Meter, Spent};
use crate::random::Random;
use crate::report::{self, Latency};
use crate::run::{RunArgs, put_conversations};
use crate::sequence::{Arrival, Track};
use crate::socket;
use crate::target::Target;

#[derive(Args, Clone, Debug)]
pub struct TopicArgs {
    /// Users subscribed to the topic; the sender is one more.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: u32,
    /// Messages in flight at any time: sent, but not yet at every subscriber.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    inflight: u64,
    /// Messages in all.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,
    /// Bytes of a SEND's JSON body.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(..=4_000))]
    bytes: u16,
    /// The conversation; created with these users if it does not exist.
    #[arg(long)]
    conversation: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub conversation: u64,
    pub first_user: u64,
    pub subscribers: u32,
    pub inflight: u64,
    pub messages: u64,
    pub bytes: usize,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    pub sent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub delivered: u64,
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    pub misdelivered: u64,
    pub disconnected: u64,
}

impl Counts {
    pub fn faults(&self) -> u64 {
        self.lost + self.doubled + self.reordered + self.misdelivered
    }
}

/// The counts and times of a run.
pub struct Outcome {
    pub finished: bool,
    pub counts: Counts,
    pub seconds: f64,
    /// Nanoseconds from the SEND to each subscriber, and to the last one of each message.
    pub delivery: Histogram<u64>,
    pub last_delivery: Histogram<u64>,
    pub spent: Option<Spent>,
    /// The bytes of one delivery on the wire.
    pub delivery_bytes: Option<Vec<u8>>,
    pub reasons: BTreeMap<Box<str>, u64>,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    seed: u64,
    subscribers: u32,
    inflight: u64,
    bytes: u16,
    delivery_bytes: usize,
    finished: bool,
    counts: Counts,
    seconds: f64,
    deliveries_per_second: f64,
    delivery: Latency,
    last_delivery: Latency,
    server: Option<Spent>,
    reasons: BTreeMap<Box<str>, u64>,
}

/// Runs the load and prints its counts and times; true when nothing was lost, doubled or reordered.
///
/// # Errors
/// When the load could not be applied.
pub fn run(args: &TopicArgs, run: &RunArgs, target: &Target) -> Result<bool, String> {
    run.pin()?;
    socket::raise_file_limit();
    let seed = run.seed();
    let plan = Plan {
        conversation: args.conversation,
        first_user: run.first_user,
        subscribers: args.subscribers,
        inflight: args.inflight,
        messages: args.messages,
        bytes: usize::from(args.bytes),
    };
    println!("topic: {} subscribers, {} messages, {} in flight, seed {seed}", args.subscribers, args.messages, args.inflight);
    put(&plan, target)?;
    let outcome = drive(&plan, target, run.server_pid, run.deadline(), Random::new(seed))?;
    let report = Report {
        scenario: "topic",
        seed,
        subscribers: args.subscribers,
        inflight: args.inflight,
        bytes: args.bytes,
        delivery_bytes: outcome.delivery_bytes.as_ref().map_or(0, Vec::len),
        finished: outcome.finished,
        deliveries_per_second: if outcome.seconds > 0.0 { outcome.counts.delivered as f64 / outcome.seconds } else { 0.0 },
        counts: outcome.counts,
        seconds: outcome.seconds,
        delivery: Latency::from(&outcome.delivery),
        last_delivery: Latency::from(&outcome.last_delivery),
        server: outcome.spent,
        reasons: outcome.reasons,
    };
    print(&report);
    run.write_json(&report)?;
    Ok(report.finished && report.counts.faults() == 0)
}

/// Creates the conversation of the sender and the subscribers after it.
///
/// # Errors
/// When the server refuses.
pub fn put(plan: &Plan, target: &Target) -> Result<(), String> {
    let users = plan.first_user..plan.first_user + 1 + u64::from(plan.subscribers);
    put_conversations(target, "group", std::iter::once((plan.conversation, users)))
}

/// Connects all users, sends all messages, and returns the counts and times.
///
/// # Errors
/// Those of epoll.
pub fn drive(plan: &Plan, target: &Target, pid: Option<u32>, deadline: u64, mut random: Random) -> Result<Outcome, String> {
    let run = random.next_u64() as u32;
    let mut engine = Engine::new(target.clone(), random).map_err(|error| error.to_string())?;
    let topic = format!("/topic/conversation/{}", plan.conversation);
    for slot in 0..=u64::from(plan.subscribers) {
        let destination = if slot == 0 { "/user/queue/errors".to_owned() } else { topic.clone() };
        let slot =
            engine.add(Login { user: plan.first_user + slot, destinations: vec![destination], source: None, ..Login::default() });
        engine.open(slot);
    }
    engine.capture(1);
    let mut load = TopicLoad::new(plan.clone(), run, report::progress(plan.messages, "messages"));
    // The first tenth warms caches and branch predictors on both sides.
    load.meter = pid.filter(|_| plan.messages > 1).map(|pid| Meter::new(pid, plan.messages / 10, plan.messages));
    let finished = engine.run(&mut load, deadline).map_err(|error| error.to_string())? && load.done == plan.messages;
    load.progress.finish_and_clear();
    load.count_lost();
    let per_delivery = |spent: Spent| Spent { count: spent.count * u64::from(plan.subscribers), ..spent };
    Ok(Outcome {
        finished,
        seconds: load.done_at.saturating_sub(load.started_at) as f64 / 1e9,
        spent: load.meter.as_ref().and_then(Meter::spent).map(per_delivery),
        delivery_bytes: engine.captured(1).and_then(first_message).map(<[u8]>::to_vec),
        counts: load.counts,
        delivery: load.delivery,
        last_delivery: load.last_delivery,
        reasons: engine.reasons,
    })
}

struct TopicLoad {
    plan: Plan,
    run: u32,
    counts: Counts,
    meter: Option<Meter>,
    delivery: Histogram<u64>,
    last_delivery: Histogram<u64>,
    progress: ProgressBar,
    tracks: Vec<Track>,
    up: usize,
    sender_up: bool,
    /// Messages that reached every subscriber or were refused.
    done: u64,
    /// How many subscribers each message in the window reached: message `n` at `n % inflight`.
    reached: Vec<u32>,
    started_at: u64,
    done_at: u64,
    body: Vec<u8>,
}

/// The run ends after this long without progress, as something was lost.
const STALL_NS: u64 = 10_000_000_000;
const SENDER: usize = 0;

impl TopicLoad {
    fn new(plan: Plan, run: u32, progress: ProgressBar) -> Self {
        Self {
            run,
            counts: Counts::default(),
            meter: None,
            delivery: report::histogram(),
            last_delivery: report::histogram(),
            progress,
            tracks: vec![Track::from_one(); plan.subscribers as usize],
            up: 0,
            sender_up: false,
            done: 0,
            reached: vec![0; plan.inflight as usize],
            started_at: 0,
            done_at: 0,
            body: Vec::new(),
            plan,
        }
    }

    fn handle_delivery(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        let Some(marker) = Marker::find(frame.body).filter(|marker| marker.run == self.run) else { return };
        let Some(track) =
            slot.checked_sub(1).and_then(|at| self.tracks.get_mut(at)).filter(|_| marker.number <= self.counts.sent)
        else {
            self.counts.misdelivered += 1;
            return;
        };
        self.counts.delivered += 1;
        match track.take(marker.number) {
            Arrival::InOrder | Arrival::Ahead => {}
            Arrival::Late => self.counts.reordered += 1,
            Arrival::Duplicate => {
                self.counts.doubled += 1;
                return;
            }
        }
        let latency = now.saturating_sub(marker.due);
        self.delivery.saturating_record(latency);
        let at = (marker.number % self.plan.inflight) as usize;
        self.reached[at] += 1;
        if self.reached[at] == self.plan.subscribers {
            self.last_delivery.saturating_record(latency);
            self.complete(marker.number, now);
        }
    }

    fn complete(&mut self, number: u64, now: u64) {
        self.reached[(number % self.plan.inflight) as usize] = 0;
        self.done += 1;
        self.done_at = now;
    }

    fn send(&mut self, engine: &mut Engine, now: u64) {
        while self.counts.sent < self.plan.messages && self.counts.sent - self.done < self.plan.inflight {
            self.counts.sent += 1;
            let number = self.counts.sent;
            write_body(Marker { run: self.run, sender: 0, number, due: now }, false, self.plan.bytes, &mut self.body);
            let (destination, receipt) = (format!("/app/conversations/{}/send", self.plan.conversation), format!("m{number}"));
            let headers = [("destination", destination.as_str()), ("content-type", "application/json"), ("receipt", &receipt)];
            engine.send(SENDER, Command::Send, &headers, &self.body);
        }
    }

    fn count_lost(&mut self) {
        if self.done == self.plan.messages {
            return;
        }
        let here = |track: &Track| (1..=self.counts.sent).filter(|number| !track.has(*number)).count() as u64;
        let missing: u64 = self.tracks.iter().map(here).sum();
        self.counts.lost = missing.saturating_sub(self.counts.refused * u64::from(self.plan.subscribers));
    }
}

impl Scenario for TopicLoad {
    fn ready(&mut self, slot: usize, _now: u64) {
        self.up += 1;
        self.sender_up |= slot == SENDER;
    }

    fn frame(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        match frame.command {
            Command::Message if slot != SENDER => self.handle_delivery(slot, frame, now),
            // One refusal makes the run useless: its number will reach no subscriber.
            Command::Message => self.counts.refused += 1,
            Command::Receipt => self.counts.acknowledged += 1,
            _ => self.counts.misdelivered += 1,
        }
    }

    fn closed(&mut self, _slot: usize, _why: &str, _now: u64) {
        self.counts.disconnected += 1;
    }

    fn act(&mut self, engine: &mut Engine, now: u64) -> Proceed {
        if self.started_at == 0 {
            if self.counts.disconnected > 0 {
                return Proceed::Done;
            }
            if self.up <= self.plan.subscribers as usize {
                return Proceed::Until(u64::MAX);
            }
            (self.started_at, self.done_at) = (now, now);
        }
        if let Some(meter) = &mut self.meter {
            meter.observe(self.done);
        }
        self.progress.set_position(self.done);
        let all_acknowledged = self.counts.acknowledged + self.counts.refused >= self.counts.sent;
        let complete = self.done == self.plan.messages && all_acknowledged;
        if complete || self.counts.refused > 0 || self.counts.disconnected > 0 || now > self.done_at + STALL_NS {
            return Proceed::Done;
        }
        self.send(engine, now);
        Proceed::Until(clock::mono_ns() + STALL_NS)
    }
}

fn print(report: &Report) {
    let Report { counts, seconds, deliveries_per_second, delivery_bytes, .. } = report;
    println!("  {} deliveries of {delivery_bytes} bytes in {seconds:.2} s: {deliveries_per_second:.0}/s", counts.delivered);
    println!("  to each        {}", report.delivery);
    println!("  to the last    {}", report.last_delivery);
    if let Some(spent) = report.server {
        println!("  server CPU {:.3} us a delivery, {:.0} % of a core", spent.cpu_us_each(), spent.cpu_share() * 100.0);
    }
    println!(
        "  lost {}, doubled {}, reordered {}, misdelivered {}, refused {}, disconnected {}",
        counts.lost, counts.doubled, counts.reordered, counts.misdelivered, counts.refused, counts.disconnected
    );
    if !report.reasons.is_empty() {
        println!("  reasons: {}", report::describe_reasons(&report.reasons));
    }
    if !report.finished {
        println!("  NOT FINISHED: {} sent, {} acknowledged", counts.sent, counts.acknowledged);
    }
}

/// The first whole MESSAGE among raw bytes of a server, with its WebSocket header: one delivery on the wire.
fn first_message(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (header, payload) = match *bytes {
            [_, short @ 0..=125, ..] => (2, usize::from(short)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
            // Incomplete, or longer than any delivery measured here.
            _ => return None,
        };
        let frame = bytes.get(..header + payload)?;
        if frame.get(header..).is_some_and(|payload| payload.starts_with(b"MESSAGE\n")) {
            return Some(frame);
        }
        bytes = bytes.get(header + payload..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings::protocol::websocket::{self, Kind};

    #[test]
    fn finds_the_bytes_of_a_delivery() {
        let mut bytes = Vec::new();
        websocket::frame(Kind::Ping, b"p", &mut bytes);
        websocket::frame(Kind::Text, b"\n", &mut bytes);
        let (from, message) = (bytes.len(), format!("MESSAGE\nsubscription:0\n\n{}\0", "x".repeat(200)));
        websocket::frame(Kind::Text, message.as_bytes(), &mut bytes);
        let to = bytes.len();
        websocket::close(1012, "bye", &mut bytes);
        assert_eq!(first_message(&bytes), bytes.get(from..to));
        assert_eq!(first_message(&bytes[..to - 1]), None);
        assert_eq!(first_message(b""), None);
    }
}
