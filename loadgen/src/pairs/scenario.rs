//! Users in pairs who send to each other: the load itself, as frames in and frames out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tidings::model::MessageId;
use tidings::protocol::stomp::{Command, Frame};

use super::catch_up::CatchUp;
use super::mix::Mix;
use super::user::PairedUser;
use crate::engine::{Engine, Proceed, Scenario};
use crate::marker::{Marker, write_body};
use crate::meter::Meter;
use crate::random::Random;
use crate::report;
use crate::sequence::Arrival;

/// How messages are paced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Pace {
    /// Messages a second, whether or not the server keeps up.
    Rate(f64),
    /// Messages without their receipt at any time.
    Inflight(u64),
}

/// One thread's share of the load.
#[derive(Clone, Debug)]
pub struct Plan {
    pub run: u32,
    /// Index of this thread's first user over the whole run; even.
    pub first_sender: u32,
    pub users: u32,
    pub first_user: u64,
    pub first_conversation: u64,
    pub messages: u64,
    /// Length of a SEND's JSON body, or as short as its marker allows.
    pub bytes: usize,
    /// Each message has a client id, which allows repeating one whose receipt was lost.
    pub client_ids: bool,
    pub pace: Pace,
    /// Connections dropped a second.
    pub churn: f64,
    /// Open ended connections again.
    pub reconnect: bool,
    pub mix: Mix,
    /// Nanoseconds to wait at the end for acknowledged messages.
    pub drain_ns: u64,
}

impl Plan {
    pub fn user(&self, slot: usize) -> u64 {
        self.first_user + u64::from(self.first_sender) + slot as u64
    }

    pub fn conversation(&self, slot: usize) -> u64 {
        self.first_conversation + (u64::from(self.first_sender) + slot as u64) / 2
    }

    pub fn sender(&self, slot: usize) -> u32 {
        self.first_sender + slot as u32
    }
}

/// Counts of events.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    pub assigned: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    pub caught_up: u64,
    /// Refused by the server, by code.
    pub refused: BTreeMap<String, u64>,
    /// Twice on one connection.
    pub doubled: u64,
    /// After a later one of the same conversation, on one connection.
    pub reordered: u64,
    /// Delivered to the wrong user, or never sent.
    pub misdelivered: u64,
    /// Acknowledged, but neither delivered nor in the history.
    pub lost: u64,
    /// Acknowledged, but skipped by a subscribed connection.
    pub skipped: u64,
    /// Neither acknowledged nor refused at the end.
    pub unsettled: u64,
    /// Connections dropped by the churn, and connections that ended otherwise.
    pub churned: u64,
    pub disconnected: u64,
    /// Reads of the history that failed and were repeated.
    pub history_failed: u64,
}

impl Counts {
    pub fn faults(&self) -> u64 {
        self.doubled + self.reordered + self.misdelivered + self.lost + self.skipped
    }

    pub fn add(&mut self, other: &Self) {
        for (code, count) in &other.refused {
            *self.refused.entry(code.clone()).or_insert(0) += count;
        }
        self.assigned += other.assigned;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.caught_up += other.caught_up;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.misdelivered += other.misdelivered;
        self.lost += other.lost;
        self.skipped += other.skipped;
        self.unsettled += other.unsettled;
        self.churned += other.churned;
        self.disconnected += other.disconnected;
        self.history_failed += other.history_failed;
    }
}

pub struct Pairs {
    pub plan: Plan,
    pub users: Vec<PairedUser>,
    pub counts: Counts,
    /// Nanoseconds from when a message was due to its delivery, and to its RECEIPT.
    pub delivery: Histogram<u64>,
    pub receipt: Histogram<u64>,
    pub meter: Option<Meter>,
    /// From the first message due to the last one settled.
    pub started_at: Option<u64>,
    pub settled_at: u64,
    up: Vec<bool>,
    up_count: usize,
    /// Users with messages to write.
    writable: Vec<usize>,
    reopen: BinaryHeap<Reverse<(u64, usize)>>,
    settled: u64,
    /// Messages assigned to earlier sets of connections.
    assigned_before: u64,
    next_slot: usize,
    churn_at: u64,
    drained_at: Option<u64>,
    catch_up: CatchUp,
    destinations: Vec<String>,
    random: Random,
    progress: ProgressBar,
    body: Vec<u8>,
}

/// Subscriptions by their ids.
const MESSAGES: &str = "0";
const ERRORS: &str = "1";
pub const DESTINATIONS: [&str; 2] = ["/user/queue/messages", "/user/queue/errors"];

/// A dropped connection is opened again within this many nanoseconds.
const REOPEN_NS: u64 = 200_000_000;
/// Nanoseconds between looks for pages from the other thread.
const POLL_NS: u64 = 5_000_000;

impl Pairs {
    pub fn new(plan: Plan, catch_up: CatchUp, random: Random, progress: ProgressBar) -> Self {
        assert!(plan.users > 0 && plan.users.is_multiple_of(2));
        let users = plan.users as usize;
        let destinations = (0..users).map(|slot| format!("/app/conversations/{}/send", plan.conversation(slot))).collect();
        Self {
            users: (0..users).map(|_| PairedUser::default()).collect(),
            counts: Counts::default(),
            delivery: report::histogram(),
            receipt: report::histogram(),
            meter: None,
            started_at: None,
            settled_at: 0,
            up: vec![false; users],
            up_count: 0,
            writable: Vec::new(),
            reopen: BinaryHeap::new(),
            settled: 0,
            assigned_before: 0,
            next_slot: 0,
            churn_at: 0,
            drained_at: None,
            catch_up,
            destinations,
            random,
            progress,
            body: Vec::new(),
            plan,
        }
    }

    /// A new set of connections continues where the last one ended, up to `messages` in all.
    pub fn resume(&mut self, messages: u64) {
        assert!(messages >= self.counts.assigned);
        self.plan.messages = messages;
        self.assigned_before = self.counts.assigned;
        self.started_at = None;
        self.drained_at = None;
        self.reopen.clear();
        self.writable.clear();
        self.up.fill(false);
        self.up_count = 0;
    }

    /// The sums that need a walk over everything, once at the end.
    pub fn finish(&mut self) {
        let lost = |slot: usize| self.users[slot].lost_of(&self.users[slot ^ 1]);
        let skipped = |slot: usize| self.users[slot].skipped_of(&self.users[slot ^ 1]);
        self.counts.lost = (0..self.users.len()).map(lost).sum();
        self.counts.skipped = (0..self.users.len()).map(skipped).sum();
        self.counts.unsettled = self.users.iter().map(|client| client.unsettled() as u64).sum();
        self.progress.finish_and_clear();
    }

    pub fn is_up(&self) -> bool {
        self.up_count == self.up.len()
    }

    fn handle_receipt(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        let number = frame.header("receipt-id").and_then(|id| id.strip_prefix('m')?.parse().ok());
        let Some(due) = number.and_then(|number| self.users[slot].acknowledge(number)) else {
            self.counts.misdelivered += 1;
            return;
        };
        self.counts.acknowledged += 1;
        self.settle(now);
        self.receipt.saturating_record(now.saturating_sub(due));
    }

    fn settle(&mut self, now: u64) {
        self.settled += 1;
        self.settled_at = now;
    }

    fn handle_delivery(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        let Some(marker) = Marker::find(frame.body).filter(|marker| marker.run == self.plan.run) else { return };
        let id = frame.header("message-id").and_then(|id| id.parse::<MessageId>().ok());
        let peer = slot ^ 1;
        if marker.sender == self.plan.sender(slot) && self.users[slot].may_receive(marker.number) {
            return;
        }
        let ours = marker.sender == self.plan.sender(peer) && marker.number < self.users[peer].next();
        let (Some(id), true) = (id, ours) else {
            self.counts.misdelivered += 1;
            return;
        };
        let delivery = self.users[slot].deliver(marker.number, id);
        self.counts.delivered += 1;
        match delivery.arrival {
            Arrival::InOrder | Arrival::Ahead if delivery.id_increases => {}
            Arrival::Duplicate => self.counts.doubled += 1,
            Arrival::InOrder | Arrival::Ahead | Arrival::Late => self.counts.reordered += 1,
        }
        self.delivery.saturating_record(now.saturating_sub(marker.due));
    }

    fn handle_refusal(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        let mut body = frame.body.to_vec();
        let Ok(refusal) = simd_json::from_slice::<Refusal>(&mut body) else {
            self.counts.misdelivered += 1;
            return;
        };
        let number = refusal.receipt.as_deref().and_then(|receipt| receipt.strip_prefix('m')?.parse().ok());
        if number.is_some_and(|number| self.users[slot].refuse(number)) {
            self.settle(now);
        }
        *self.counts.refused.entry(refusal.code).or_insert(0) += 1;
    }

    fn lose_connection(&mut self, slot: usize, at: u64) {
        if self.up[slot] {
            self.up[slot] = false;
            self.up_count -= 1;
        }
        self.users[slot].disconnect();
        if self.plan.reconnect {
            self.reopen.push(Reverse((at, slot)));
        }
    }

    fn churn(&mut self, engine: &mut Engine, now: u64) {
        if self.plan.churn <= 0.0 {
            return;
        }
        let interval = (1e9 / self.plan.churn) as u64;
        if self.churn_at == 0 {
            self.churn_at = now + interval;
        }
        while self.churn_at <= now {
            self.churn_at += interval.max(1);
            let slot = self.random.below(self.users.len() as u64) as usize;
            if !self.up[slot] {
                continue;
            }
            let reset = self.random.below(2) == 0;
            engine.drop_connection(slot, reset);
            self.counts.churned += 1;
            let at = now + self.random.below(REOPEN_NS);
            self.lose_connection(slot, at);
        }
    }

    fn apply_catch_up(&mut self) {
        while let Some(page) = self.catch_up.next_page() {
            let slot = page.slot;
            match page.entries {
                Ok(entries) => {
                    for entry in entries {
                        let Some(marker) = entry.marker.filter(|marker| marker.run == self.plan.run) else { continue };
                        if marker.sender == self.plan.sender(slot ^ 1) {
                            self.users[slot].catch_up(marker.number, entry.id);
                            self.counts.caught_up += 1;
                        }
                    }
                    self.users[slot].caught_up(page.epoch);
                }
                // The connection open then asks again. If no answer ever arrives, the run hits its time limit.
                Err(_) => {
                    self.counts.history_failed += 1;
                    self.ask_history(slot);
                }
            }
        }
    }

    fn ask_history(&mut self, slot: usize) {
        if let Some(position) = self.users[slot].behind().filter(|_| self.up[slot]) {
            self.catch_up.ask(slot, self.plan.user(slot), self.plan.conversation(slot), position);
        }
    }

    /// Assigns the messages that are due; returns when the next one is due.
    fn assign(&mut self, now: u64) -> u64 {
        let Some(started_at) = self.started_at else { return now + POLL_NS };
        while self.counts.assigned < self.plan.messages {
            let due = match self.plan.pace {
                Pace::Rate(rate) => {
                    let due = started_at + ((self.counts.assigned - self.assigned_before) as f64 * 1e9 / rate) as u64;
                    if due > now {
                        return due;
                    }
                    due
                }
                Pace::Inflight(most) if self.counts.assigned - self.settled >= most => return u64::MAX,
                Pace::Inflight(_) => now,
            };
            let Some(slot) = self.next_sender() else { return u64::MAX };
            self.users[slot].assign(due);
            self.counts.assigned += 1;
            self.writable.push(slot);
        }
        u64::MAX
    }

    /// The users in turn. A closed loop skips those that are not connected.
    fn next_sender(&mut self) -> Option<usize> {
        let users = self.users.len();
        let any = matches!(self.plan.pace, Pace::Rate(_));
        for _ in 0..users {
            let slot = self.next_slot;
            self.next_slot = (slot + 1) % users;
            if any || self.up[slot] {
                return Some(slot);
            }
        }
        None
    }

    fn write(&mut self, engine: &mut Engine) {
        for slot in std::mem::take(&mut self.writable) {
            if !self.up[slot] {
                continue;
            }
            while let Some(pending) = self.users[slot].next_to_write() {
                let Plan { run, bytes, client_ids, .. } = self.plan;
                let marker = Marker { run, sender: self.plan.sender(slot), number: pending.number, due: pending.due };
                write_body(marker, client_ids, bytes, &mut self.body);
                let receipt = format!("m{}", pending.number);
                let headers = [
                    ("destination", self.destinations[slot].as_str()),
                    ("content-type", "application/json"),
                    ("receipt", receipt.as_str()),
                ];
                engine.send(slot, Command::Send, &headers, &self.body);
            }
        }
    }

    /// Whether the run has nothing more to wait for.
    fn is_drained(&mut self, now: u64) -> bool {
        if self.counts.assigned < self.plan.messages || self.users.iter().any(|client| client.unsettled() > 0) {
            return false;
        }
        let drained_at = *self.drained_at.get_or_insert(now + self.plan.drain_ns);
        // Nothing counts as lost before the history was read. If no answer ever arrives, the run hits its time limit.
        if self.catch_up.is_busy() {
            return false;
        }
        let complete = |slot: usize| self.users[slot].has_all_of(&self.users[slot ^ 1]);
        now >= drained_at || (0..self.users.len()).all(complete)
    }
}

/// `{code, message, receipt}` of `/user/queue/errors`.
#[derive(Deserialize)]
struct Refusal {
    code: String,
    receipt: Option<String>,
}

impl Scenario for Pairs {
    fn ready(&mut self, slot: usize, _now: u64) {
        self.up[slot] = true;
        self.up_count += 1;
        self.writable.push(slot);
        self.ask_history(slot);
    }

    fn frame(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        match (frame.command, frame.header("subscription")) {
            (Command::Receipt, _) => self.handle_receipt(slot, frame, now),
            (Command::Message, Some(MESSAGES)) => self.handle_delivery(slot, frame, now),
            (Command::Message, Some(ERRORS)) => self.handle_refusal(slot, frame, now),
            _ => self.counts.misdelivered += 1,
        }
    }

    fn closed(&mut self, slot: usize, _why: &str, now: u64) {
        self.counts.disconnected += 1;
        self.lose_connection(slot, now + REOPEN_NS);
    }

    fn act(&mut self, engine: &mut Engine, now: u64) -> Proceed {
        self.apply_catch_up();
        while let Some(Reverse((_, slot))) = self.reopen.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.reopen.pop();
            engine.open(slot);
        }
        if self.started_at.is_none() && self.is_up() {
            self.started_at = Some(now);
        }
        if self.started_at.is_some() && self.drained_at.is_none() {
            self.churn(engine, now);
        }
        let due = self.assign(now);
        self.write(engine);
        self.progress.set_position(self.settled);
        if let Some(meter) = &mut self.meter {
            meter.observe(self.settled);
        }
        let all_assigned = self.started_at.is_some() && self.counts.assigned == self.plan.messages;
        if all_assigned && self.settled == self.counts.assigned && self.is_drained(now) {
            return Proceed::Done;
        }
        let busy = self.plan.churn > 0.0 || self.catch_up.is_busy() || !self.reopen.is_empty() || all_assigned;
        Proceed::Until(if busy { due.min(now + POLL_NS) } else { due })
    }
}
