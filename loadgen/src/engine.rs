//! The loop of one thread: sockets, readiness, deadlines. The load itself is a [`Scenario`], which sees no socket.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use tidings::client::Role;
use tidings::protocol::stomp::{Command, Frame};

use crate::clock;
use crate::connection::{Connection, Login, LoginState, Watch};
use crate::random::Random;
use crate::socket::{self, Epoll};
use crate::target::Target;

/// Connections that log in at the same time: fewer than the shortest usual accept queue.
const OPENING_MAX: usize = 64;
/// From the TCP connect to the last subscription's receipt.
const OPENING_NS_MAX: u64 = 20_000_000_000;
/// A peer that promised heart-beats is dead after this many without a byte.
const SILENT_BEATS: u64 = 3;
/// Interval of checks of deadlines and heart-beats.
const SWEEP_NS: u64 = 100_000_000;
const SCRATCH_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1_024;

/// What the engine does after a call of [`Scenario::act`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proceed {
    /// Calls again when something arrives, or at this monotonic time at the latest.
    Until(u64),
    Done,
}

/// The load itself. Frames come in one by one; frames are sent in [`act`](Self::act), after each batch.
pub trait Scenario {
    /// The session is CONNECTED and every subscription has its receipt.
    fn ready(&mut self, slot: usize, now: u64);
    fn frame(&mut self, slot: usize, frame: &Frame<'_>, now: u64);
    /// The connection ended, or could not be opened; the engine does not open it again by itself.
    fn closed(&mut self, slot: usize, why: &str, now: u64);
    fn act(&mut self, engine: &mut Engine, now: u64) -> Proceed;
}

pub struct Engine {
    epoll: Epoll,
    target: Target,
    connections: Vec<Connection>,
    dirty: Vec<usize>,
    waiting: VecDeque<usize>,
    opening: usize,
    random: Random,
    /// How many connections ended for each reason, for at most `REASONS_MAX` reasons.
    pub reasons: BTreeMap<Box<str>, u64>,
    closed: Vec<(usize, Box<str>)>,
}

const REASONS_MAX: usize = 16;

impl Engine {
    /// # Errors
    /// When no epoll descriptor can be made.
    pub fn new(target: Target, random: Random) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            target,
            connections: Vec::new(),
            dirty: Vec::new(),
            waiting: VecDeque::new(),
            opening: 0,
            random,
            reasons: BTreeMap::new(),
            closed: Vec::new(),
        })
    }

    /// Adds a slot for a connection, without opening it.
    pub fn add(&mut self, login: Login) -> usize {
        self.connections.push(Connection::new(login));
        self.connections.len() - 1
    }

    /// Logs in when its turn comes: at most `OPENING_MAX` do at a time.
    pub fn open(&mut self, slot: usize) {
        assert_eq!(self.connections[slot].state, LoginState::Down);
        self.waiting.push_back(slot);
    }

    /// Makes a connected socket, whose peer already sends frames, the slot's connection.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn adopt(&mut self, slot: usize, fd: OwnedFd) -> io::Result<()> {
        let connection = &mut self.connections[slot];
        let raw = fd.as_raw_fd();
        connection.adopt(fd, clock::mono_ns());
        self.epoll.add(raw, token(slot, connection.generation, Role::Receiver), false)
    }

    /// Queues a frame. All frames that one turn queues for a connection leave in one write.
    pub fn send(&mut self, slot: usize, command: Command, headers: &[(&str, &str)], body: &[u8]) {
        let connection = &mut self.connections[slot];
        assert_eq!(connection.state, LoginState::Ready);
        let body = (command == Command::Send).then_some(body);
        connection.client().send_frame(command, headers, body);
        mark(&mut self.dirty, slot, connection);
    }

    /// Drops the connection, by a reset or a clean close. Does not call the scenario's `closed`, as the scenario asked for it.
    pub fn drop_connection(&mut self, slot: usize, reset: bool) {
        let connection = &mut self.connections[slot];
        if reset {
            connection.reset();
        } else if connection.state == LoginState::Ready && !connection.login.transport.is_http() {
            connection.client().close();
            // A socket without room, or one that has ended, closes without the close frame.
            let _ = connection.flush(&self.target, 0, |_, _, _| Ok(()));
        }
        self.end(slot);
    }

    /// Captures the first bytes that this connection reads from now on.
    pub fn capture(&mut self, slot: usize) {
        self.connections[slot].capture = Some(Vec::new());
    }

    pub fn captured(&self, slot: usize) -> Option<&[u8]> {
        self.connections[slot].capture.as_deref()
    }

    /// Runs until the scenario is done; false when `deadline` passes first.
    ///
    /// # Errors
    /// Those of epoll. Faults of one connection go to the scenario.
    pub fn run(&mut self, scenario: &mut impl Scenario, deadline: u64) -> io::Result<bool> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut sweep_at = 0;
        loop {
            let now = clock::mono_ns();
            if now >= deadline {
                return Ok(false);
            }
            if now >= sweep_at {
                self.sweep(now);
                sweep_at = now + SWEEP_NS;
            }
            self.report_closed(scenario, now);
            let Proceed::Until(next) = scenario.act(self, now) else {
                self.flush_dirty(now);
                return Ok(true);
            };
            self.open_waiting(now);
            self.flush_dirty(now);
            let until = if self.closed.is_empty() { next.min(sweep_at).min(deadline) } else { 0 };
            let wait_ns = until.saturating_sub(clock::mono_ns());
            let count = self.epoll.wait(&mut events, i32::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(i32::MAX))?;
            for event in events.iter().take(count) {
                self.handle_event(event.u64, event.events, &mut scratch, scenario);
            }
        }
    }

    fn handle_event(&mut self, token: u64, flags: u32, scratch: &mut [u8], scenario: &mut impl Scenario) {
        let slot = (token & SLOT_MASK) as usize;
        let role = if token & SENDER_BIT == 0 { Role::Receiver } else { Role::Sender };
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.generation != (token >> 32) as u32 || connection.state == LoginState::Down {
            return;
        }
        let readable = flags & !(libc::EPOLLOUT as u32) != 0;
        let result = if readable { self.read(slot, role, scratch, scenario) } else { Ok(()) };
        if let Err(why) = result {
            self.fail(slot, why);
        } else if self.connections[slot].wants_flush() {
            mark(&mut self.dirty, slot, &mut self.connections[slot]);
        }
    }

    /// Reads once an event: remaining bytes make the descriptor ready again, and no connection waits behind a busy one.
    fn read(&mut self, slot: usize, role: Role, scratch: &mut [u8], scenario: &mut impl Scenario) -> Result<(), Box<str>> {
        let connection = &mut self.connections[slot];
        let Some(fd) = connection.fd(role) else { return Ok(()) };
        let count = match socket::receive(fd, scratch) {
            Ok(0) => return connection.disconnected(role),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string().into()),
        };
        let now = clock::mono_ns();
        connection.read_at = now;
        let was_ready = connection.state == LoginState::Ready;
        let bytes = scratch.get_mut(..count).unwrap_or_default();
        let mut on_frame = |frame: &Frame<'_>| scenario.frame(slot, frame, now);
        let result = connection.receive(role, bytes, &self.target, &mut on_frame);
        if !was_ready && connection.state == LoginState::Ready {
            self.opening -= 1;
            scenario.ready(slot, now);
        }
        result
    }

    fn open_waiting(&mut self, now: u64) {
        while self.opening < OPENING_MAX {
            let Some(slot) = self.waiting.pop_front() else { return };
            let connection = &mut self.connections[slot];
            if let Err(why) = connection.open(&self.target, &mut self.random, now) {
                self.note(slot, why);
                continue;
            }
            self.opening += 1;
            mark(&mut self.dirty, slot, connection);
        }
    }

    /// Checks deadlines of logins, heart-beats due and silent peers.
    fn sweep(&mut self, now: u64) {
        for slot in 0..self.connections.len() {
            let connection = &mut self.connections[slot];
            if connection.state == LoginState::Down {
                continue;
            }
            if connection.state != LoginState::Ready {
                if now.saturating_sub(connection.opened_at) > OPENING_NS_MAX {
                    let why = format!("login timed out: {:?}", connection.state);
                    self.fail(slot, why.into());
                }
                continue;
            }
            let [heart_beat_out_ns, heart_beat_in_ns] =
                [connection.heart_beat.out_ms, connection.heart_beat.in_ms].map(|ms| u64::from(ms) * 1_000_000);
            // Early by a sweep, so that a heart-beat is never late.
            let quiet = now.saturating_sub(connection.written_at) + 2 * SWEEP_NS;
            if heart_beat_out_ns > 0 && quiet >= heart_beat_out_ns && !connection.wants_flush() {
                connection.client().send_heart_beat();
                mark(&mut self.dirty, slot, connection);
            }
            if heart_beat_in_ns > 0 && now.saturating_sub(connection.read_at) > SILENT_BEATS * heart_beat_in_ns {
                self.fail(slot, "the server's heart-beats stopped".into());
            }
        }
    }

    fn flush_dirty(&mut self, now: u64) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let connection = &mut self.connections[slot];
            connection.dirty = false;
            let (epoll, generation) = (&self.epoll, connection.generation);
            let result =
                connection.flush(&self.target, now, |role, fd, change| watch(epoll, fd, token(slot, generation, role), change));
            if let Err(error) = result {
                self.fail(slot, error.to_string().into());
            }
        }
        // Flushing queues nothing, so keep the list's memory for the next turn.
        self.dirty = dirty;
    }

    fn fail(&mut self, slot: usize, why: Box<str>) {
        self.end(slot);
        self.note(slot, why);
    }

    fn note(&mut self, slot: usize, why: Box<str>) {
        let room = self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&why);
        *self.reasons.entry(if room { why.clone() } else { "other".into() }).or_insert(0) += 1;
        self.closed.push((slot, why));
    }

    fn end(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        match connection.state {
            LoginState::Down => self.waiting.retain(|waiting| *waiting != slot),
            LoginState::Ready => {}
            LoginState::Opening | LoginState::Connecting | LoginState::Subscribing { .. } => self.opening -= 1,
        }
        connection.close();
    }

    fn report_closed(&mut self, scenario: &mut impl Scenario, now: u64) {
        for (slot, why) in std::mem::take(&mut self.closed) {
            scenario.closed(slot, &why, now);
        }
    }
}

/// A token is the generation, one bit for the role of the socket, and the slot.
const SENDER_BIT: u64 = 1 << 31;
const SLOT_MASK: u64 = SENDER_BIT - 1;

fn token(slot: usize, generation: u32, role: Role) -> u64 {
    u64::from(generation) << 32 | if role == Role::Sender { SENDER_BIT } else { 0 } | slot as u64
}

fn mark(dirty: &mut Vec<usize>, slot: usize, connection: &mut Connection) {
    if !connection.dirty {
        connection.dirty = true;
        dirty.push(slot);
    }
}

fn watch(epoll: &Epoll, fd: RawFd, token: u64, change: Watch) -> io::Result<()> {
    match change {
        Watch::Add { writable } => epoll.add(fd, token, writable),
        Watch::Change { writable } => epoll.change(fd, token, writable),
    }
}
