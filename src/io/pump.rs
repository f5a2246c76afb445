//! Connects a shard to the system: turns events into inputs, and carries out the effects.
//!
//! A turn: take mail, replies and readable bytes, hand each to the shard, then write the connections that have output, each
//! up to its share. Nothing here waits, and no handler writes to a socket.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg};

use crate::io::clock;
use crate::io::connections::{self, Connections, INDEX_MAX};
use crate::io::listener::{Accepted, Listener};
use crate::io::mesh::{MeshReceiver, MeshSender};
use crate::io::otp_sender::OtpSender;
use crate::io::poller::{Event, Poller};
use crate::io::store_bridge::StoreHandle;
use crate::io::watchdog::Progress;
use crate::model::{ConnectionId, Mono, Now, Redacted, ShardId};
use crate::shard::{Effect, Handover, Input, ListenerKind, Mail, Shard};

/// A message between shards of a node.
#[derive(Debug)]
pub(super) enum Envelope {
    Mail(Mail),
    Connection { socket: OwnedFd, handover: Box<Handover> },
}

/// Bytes of one read, which is all that one connection reads in a turn.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Messages from other shards in one turn, and replies from the store.
const MAIL_MAX: usize = 64;
/// Connections accepted in one turn.
const ACCEPT_MAX: usize = 64;
/// Pause in accepting before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Buffers of one write.
const SLICES_MAX: usize = 64;
/// Writes to one connection in one turn.
const WRITES_MAX: usize = 16;
/// Capacity for effects that is kept between turns.
const EFFECTS_KEPT: usize = 4_096;
/// Consecutive inputs that panic before the shard counts as broken.
const PANICS_MAX: u32 = 8;

/// Counts since the start. View: shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: u64,
    pub(super) adopted: u64,
    /// Times that accepting was paused.
    pub(super) accept_pauses: u64,
    pub(super) panics: u64,
    /// Turns that read no socket because mail was kept back.
    pub(super) held_turns: u64,
    pub(super) writes: u64,
    /// Writes that found the socket's buffer full.
    pub(super) blocked: u64,
}

/// The parts of a pump. Owner: the executor that makes the pump.
pub(super) struct Parts {
    pub(super) id: ShardId,
    pub(super) listeners: Vec<Listener>,
    pub(super) progress: Arc<Progress>,
    pub(super) mesh_receiver: MeshReceiver<Envelope>,
    pub(super) mesh_sender: MeshSender<Envelope>,
    pub(super) store: StoreHandle,
    pub(super) otp_sender: OtpSender,
    /// Connections of the whole node, and their limit.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) open_max: usize,
    /// Connections that this shard accepts at most.
    pub(super) connections_max: usize,
    /// Receives this shard's id when nothing is left after the drain.
    pub(super) drained: Sender<ShardId>,
}

/// Lifetime: from the executor's start to its end. Owner: the executor. View: one shard.
pub(super) struct Pump {
    parts: Parts,
    shard: Shard,
    poller: Rc<Poller>,
    connections: Connections,
    /// Read once a turn.
    now: Now,
    scratch: Box<[u8]>,
    events: Vec<Event>,
    mail: Vec<(ShardId, Envelope)>,
    effects: Vec<Effect>,
    /// Connections to read, each at most once.
    readable: VecDeque<ConnectionId>,
    /// Connections to write, each at most once.
    dirty: VecDeque<ConnectionId>,
    panics_in_a_row: u32,
    /// When accepting was last paused; `None`: not paused.
    accept_paused: Option<Mono>,
    counters: Counters,
}

impl Pump {
    /// # Errors
    /// When the listeners cannot be watched.
    pub(super) fn new(parts: Parts, shard: Shard, poller: Rc<Poller>) -> std::io::Result<Self> {
        for (number, listener) in parts.listeners.iter().enumerate() {
            poller.add_listener(listener, listener_key(number))?;
        }
        Ok(Self {
            parts,
            shard,
            poller,
            connections: Connections::default(),
            now: clock::now(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            events: Vec::new(),
            mail: Vec::new(),
            effects: Vec::new(),
            readable: VecDeque::new(),
            dirty: VecDeque::new(),
            panics_in_a_row: 0,
            accept_paused: None,
            counters: Counters::default(),
        })
    }

    /// The counts of this pump and of its shard.
    pub(super) fn counters(&self) -> (Counters, crate::shard::Counters) {
        (self.counters, self.shard.counters())
    }

    /// Whether mail, a reply of the store, or room for mail that was kept back waits for this shard.
    pub(super) fn has_mail(&self) -> bool {
        !self.parts.mesh_receiver.is_empty() || self.parts.store.has_replies() || self.parts.mesh_sender.has_room()
    }

    /// Time from the last turn to the shard's next deadline.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.shard.next_deadline().map(|due| due.since(self.now.mono))
    }

    /// The first half of a turn: everything but writing to sockets. Returns whether anything happened, which makes
    /// another turn due.
    pub(super) fn take_turn(&mut self) -> bool {
        self.parts.progress.took_turn();
        self.now = clock::now();
        self.parts.mesh_sender.retry();
        self.resume_accepting();
        let mailed = self.take_mail();
        let polled = self.take_events();
        let read = self.read_ready();
        self.deadline();
        self.parts.store.commit();
        mailed || polled || read || self.has_mail()
    }

    /// Writes at most `count_max` connections. Returns whether any are left.
    pub(super) fn flush(&mut self, count_max: usize) -> bool {
        for _ in 0..count_max {
            let Some(connection) = self.dirty.pop_front() else { break };
            self.write(connection);
        }
        self.parts.store.commit();
        !self.dirty.is_empty()
    }

    /// Accepts every waiting connection, closes the listeners and starts the shard's drain. So each client that connected
    /// before gets an answer, and closing resets no connection in the backlog.
    pub(super) fn drain(&mut self) {
        self.now = clock::now();
        let listeners = std::mem::take(&mut self.parts.listeners);
        for listener in &listeners {
            while self.accept_one(listener).unwrap_or(false) {}
        }
        drop(listeners);
        self.handle(None, Input::Drain);
    }

    fn take_mail(&mut self) -> bool {
        let mut mail = std::mem::take(&mut self.mail);
        self.parts.mesh_receiver.take(MAIL_MAX, &mut mail);
        let mut any = !mail.is_empty();
        for (from, envelope) in mail.drain(..) {
            match envelope {
                Envelope::Mail(mail) => self.handle(None, Input::Mail { from, mail }),
                Envelope::Connection { socket, handover } => self.adopt(socket, handover),
            }
        }
        self.mail = mail;
        if let Some(up) = self.parts.store.next_change() {
            self.handle(None, Input::StoreReachable { up });
        }
        for _ in 0..MAIL_MAX {
            let Some((ticket, reply)) = self.parts.store.next_reply() else { break };
            any = true;
            self.handle(None, Input::Stored { ticket, reply });
        }
        any
    }

    fn take_events(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.events);
        if let Err(error) = self.poller.poll(&mut events) {
            // The descriptor is ours and open, so the kernel lacks memory, which may pass.
            tracing::error!(shard = self.parts.id.0, %error, "epoll failed");
        }
        let any = !events.is_empty();
        for event in events.drain(..) {
            let id = connections::id(event.key);
            if id.index >= INDEX_MAX {
                self.accept(id.index - INDEX_MAX);
            } else {
                self.mark(id, event);
            }
        }
        self.events = events;
        any
    }

    /// Notes what a connection is ready for; reads and writes follow later in the turn.
    fn mark(&mut self, id: ConnectionId, event: Event) {
        let Some(connection) = self.connections.find(id) else { return };
        let state = &mut connection.state;
        state.readable |= event.readable;
        state.ending |= event.ending;
        if event.writable && state.blocked {
            state.blocked = false;
            if !std::mem::replace(&mut state.dirty, true) {
                self.dirty.push_back(id);
            }
        }
        if event.gone && state.paused {
            // A paused connection is not read, so no read would find its end.
            self.lose(id);
            return;
        }
        self.queue_reading(id);
    }

    fn queue_reading(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        let state = &mut connection.state;
        if state.readable && !state.paused && !std::mem::replace(&mut state.queued, true) {
            self.readable.push_back(id);
        }
    }

    /// Reads each connection that was ready at the start once. While mail is kept back it reads none, as their input would
    /// only make more mail.
    fn read_ready(&mut self) -> bool {
        if self.parts.mesh_sender.waiting() > 0 {
            self.counters.held_turns += u64::from(!self.readable.is_empty());
            return false;
        }
        let count = self.readable.len();
        for _ in 0..count {
            let Some(id) = self.readable.pop_front() else { break };
            self.read(id);
        }
        count > 0
    }

    fn read(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.state.queued = false;
        if connection.state.paused || !connection.state.readable {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = recv(&connection.socket, &mut *scratch, RecvFlags::empty());
        match outcome {
            Ok((0, _)) => self.lose(id),
            Ok((count, _)) => {
                // A short read means that the socket is empty, and epoll reports new bytes. It reports the end of the
                // stream only once, so keep reading for that.
                connection.state.readable = count == scratch.len() || connection.state.ending;
                self.handle(Some(id), Input::Received { connection: id, bytes: &mut scratch[..count] });
                self.queue_reading(id);
            }
            Err(Errno::AGAIN) => connection.state.readable = false,
            Err(Errno::INTR) => self.queue_reading(id),
            Err(_) => self.lose(id),
        }
        self.scratch = scratch;
    }

    /// Writes a connection's outbox, up to a share that leaves the others their turn.
    fn write(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.state.dirty = false;
        for _ in 0..WRITES_MAX {
            let Some(connection) = self.connections.find(id) else { return };
            // Dirty again: a handler has queued it anew. Blocked: epoll reports when it is writable.
            if connection.state.dirty || connection.state.blocked {
                return;
            }
            let Some(outbox) = self.shard.outbox(id) else { return };
            if outbox.is_empty() {
                return;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut slices);
            let nothing = &mut SendAncillaryBuffer::default();
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            self.counters.writes += 1;
            match sendmsg(&connection.socket, &slices[..count], nothing, flags) {
                Ok(bytes) => self.handle(Some(id), Input::Written { connection: id, bytes, blocked: false }),
                Err(Errno::AGAIN) => {
                    connection.state.blocked = true;
                    self.counters.blocked += 1;
                    self.handle(Some(id), Input::Written { connection: id, bytes: 0, blocked: true });
                    return;
                }
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.lose(id);
                    return;
                }
            }
        }
        self.queue_writing(id);
    }

    fn queue_writing(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        if !connection.state.blocked && !std::mem::replace(&mut connection.state.dirty, true) {
            self.dirty.push_back(id);
        }
    }

    fn deadline(&mut self) {
        if self.shard.next_deadline().is_some_and(|due| due <= self.now.mono) {
            self.handle(None, Input::Deadline);
        }
    }

    fn adopt(&mut self, socket: OwnedFd, handover: Box<Handover>) {
        self.counters.adopted += 1;
        let Some(id) = self.register(socket) else { return };
        self.handle(Some(id), Input::Adopted { connection: id, handover });
    }

    /// Registers a socket under a new id. epoll then reports what the socket received before.
    fn register(&mut self, socket: OwnedFd) -> Option<ConnectionId> {
        let id = self.connections.insert(socket);
        let connection = self.connections.find(id)?;
        if let Err(error) = self.poller.add_connection(&connection.socket, connections::key(id)) {
            // The user's limit of watches is reached (fs.epoll.max_user_watches), or the kernel lacks memory.
            tracing::warn!(shard = self.parts.id.0, %error, "a connection cannot be watched and is closed");
            self.close(id);
            return None;
        }
        Some(id)
    }

    fn accept(&mut self, number: u32) {
        let mut listeners = std::mem::take(&mut self.parts.listeners);
        if let Some(listener) = listeners.get_mut(number as usize) {
            for _ in 0..ACCEPT_MAX {
                match self.accept_one(listener) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(reason) => {
                        self.pause_accepting(listener, &reason);
                        break;
                    }
                }
            }
        }
        self.parts.listeners = listeners;
    }

    /// Returns false when no connection waits, and the reason as an error when no more can be accepted.
    fn accept_one(&mut self, listener: &Listener) -> Result<bool, String> {
        if self.is_full() {
            return Err("the limit of connections is reached".into());
        }
        match listener.accept() {
            Accepted::Connection { socket, peer } => {
                self.open(socket, peer, listener.kind);
                Ok(true)
            }
            Accepted::WouldBlock => Ok(false),
            Accepted::Vanished => Ok(true),
            Accepted::Exhausted(error) | Accepted::Failed(error) => Err(error.to_string()),
        }
    }

    fn open(&mut self, socket: OwnedFd, peer: IpAddr, kind: ListenerKind) {
        self.counters.accepted += 1;
        self.parts.open.fetch_add(1, Ordering::Relaxed);
        let Some(id) = self.register(socket) else { return };
        self.handle(Some(id), Input::Opened { connection: id, peer: Redacted::new(peer), kind });
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.parts.connections_max || self.parts.open.load(Ordering::Relaxed) >= self.parts.open_max
    }

    /// Pauses a listener. Its connections wait in the backlog until a turn finds room.
    fn pause_accepting(&mut self, listener: &mut Listener, reason: &str) {
        if !std::mem::replace(&mut listener.paused, true) {
            let _unwatched = self.poller.remove(&*listener);
            if self.counters.accept_pauses == 0 {
                tracing::warn!(shard = self.parts.id.0, reason, "accepting is paused until connections end; logged once");
            }
            self.counters.accept_pauses += 1;
            self.accept_paused = Some(self.now.mono);
        }
    }

    /// Watches the listeners again when connections have ended.
    fn resume_accepting(&mut self) {
        let is_over = |paused: Mono| paused.after(ACCEPT_PAUSE) <= self.now.mono;
        if !self.accept_paused.is_some_and(is_over) || self.is_full() {
            return;
        }
        for (number, listener) in self.parts.listeners.iter_mut().enumerate() {
            if listener.paused && self.poller.add_listener(&*listener, listener_key(number)).is_ok() {
                listener.paused = false;
            }
        }
        if self.parts.listeners.iter().all(|listener| !listener.paused) {
            self.accept_paused = None;
        }
    }

    /// The peer is gone: closes the descriptor and reports it to the shard.
    fn lose(&mut self, id: ConnectionId) {
        self.close(id);
        self.handle(None, Input::Lost { connection: id });
    }

    fn close(&mut self, id: ConnectionId) {
        // Closing removes it from epoll, as no other copy of the descriptor exists.
        if self.connections.remove(id).is_some() {
            self.parts.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Hands one input to the shard and carries out its effects. `about` is the connection to blame for a panic.
    fn handle(&mut self, about: Option<ConnectionId>, input: Input<'_>) {
        let (shard, effects, now) = (&mut self.shard, &mut self.effects, self.now);
        let outcome = catch_unwind(AssertUnwindSafe(|| shard.handle(now, input, effects)));
        // After a panic too: the effects up to then belong to the changes up to then.
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        effects.shrink_to(EFFECTS_KEPT);
        self.effects = effects;
        match outcome {
            Ok(()) => self.panics_in_a_row = 0,
            Err(_) => self.contain(about),
        }
    }

    /// A handler has panicked. Closes the connection at fault and reports it to the shard, which then drops any half-done
    /// state of it. The shard's other state changed one step at a time, and stays. A shard that keeps panicking is broken,
    /// which ends the process.
    fn contain(&mut self, about: Option<ConnectionId>) {
        self.counters.panics += 1;
        self.panics_in_a_row += 1;
        tracing::error!(shard = self.parts.id.0, connection = ?about, "a panic was contained");
        assert!(self.panics_in_a_row < PANICS_MAX, "shard {} panics at every input", self.parts.id.0);
        if let Some(id) = about {
            self.lose(id);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Flush { connection } => self.queue_writing(connection),
            Effect::Pause { connection } => {
                if let Some(connection) = self.connections.find(connection) {
                    connection.state.paused = true;
                }
            }
            Effect::Resume { connection } => self.resume(connection),
            Effect::Shutdown { connection } => {
                if let Some(connection) = self.connections.find(connection) {
                    // Fails only when the peer is already gone, which the next read reports.
                    let _gone = rustix::net::shutdown(&connection.socket, Shutdown::Write);
                }
            }
            Effect::Close { connection } => self.close(connection),
            Effect::HandOver { connection, to, handover } => self.hand_over(connection, to, handover),
            Effect::Mail { to, mail } => self.parts.mesh_sender.send(to, Envelope::Mail(mail)),
            Effect::Store { ticket, request } => self.parts.store.submit(ticket, request),
            Effect::SendOtp { phone, code } => self.parts.otp_sender.send(phone, code),
            Effect::Drained => {
                // The node has dropped the receiver if the start of another shard failed.
                let _sent = self.parts.drained.send(self.parts.id);
            }
        }
    }

    fn resume(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.state.paused = false;
        self.queue_reading(id);
        // This may be a turn of mail or of a timer. The bytes are already there, and epoll does not report them again.
        if !self.readable.is_empty() {
            self.poller.nudge();
        }
    }

    fn hand_over(&mut self, id: ConnectionId, to: ShardId, handover: Box<Handover>) {
        let Some(connection) = self.connections.remove(id) else { return };
        if let Err(error) = self.poller.remove(&connection.socket) {
            // Both shards would get its events.
            tracing::error!(shard = self.parts.id.0, %error, "a connection could not be handed over and is closed");
            self.parts.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.parts.mesh_sender.send(to, Envelope::Connection { socket: connection.socket, handover });
    }
}

fn listener_key(number: usize) -> u64 {
    let number = u32::try_from(number).unwrap_or(u32::MAX - INDEX_MAX);
    connections::key(ConnectionId { index: INDEX_MAX.saturating_add(number), generation: 0 })
}
