//! The sockets of the world: bytes between devices and shards, and the faults of the network and the nodes.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::model::{ConnectionId, Redacted};
use crate::shard::{Handover, Input};
use crate::sim::context::{Do, Phase};
use crate::sim::network::{Line, ServerEnd, ShardAddress, Wire, WireId};
use crate::sim::world::{Event, World};

/// An outbox may exceed its limit by the last frames of a session (an ERROR, a RECEIPT, a close frame), or by the prelude of a
/// SockJS stream.
const LAST_WORDS_BYTES: usize = 4_096;
/// The time that bytes take through the network, in microseconds.
const NETWORK_US: (u64, u64) = (20, 3_000);

impl World {
    /// Carries out an action of a device on the network.
    pub(super) fn carry_out_for(&mut self, device: usize, action: Do) {
        match action {
            Do::Open(line, kind) => {
                let id = WireId(self.next_wire);
                self.next_wire += 1;
                let node = self.devices[device].node;
                let mut wire = Wire::new(&mut self.random, (device, node), line, kind);
                if self.phase != Phase::Faults {
                    wire.calm(self.now);
                }
                self.wires.insert(id, wire);
                self.lines.insert((device, line), id);
                self.trace.note(self.now, format_args!("device {device} opens {line:?} as {id:?}"));
                self.read_soon(id);
            }
            Do::Send(line, bytes) => {
                let Some(&id) = self.lines.get(&(device, line)) else { return };
                let Some(wire) = self.wires.get_mut(&id) else { return };
                if !wire.up_ends {
                    wire.up.extend(bytes);
                    self.read_soon(id);
                }
            }
            Do::Finish(line) => {
                let Some(&id) = self.lines.get(&(device, line)) else { return };
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.up_ends = true;
                    self.read_soon(id);
                }
            }
            Do::Close(line) => {
                let Some(id) = self.lines.remove(&(device, line)) else { return };
                let by_reset = self.random.percent(40);
                let Some(wire) = self.wires.get_mut(&id) else { return };
                (wire.client_gone, wire.up_ends, wire.reset) = (true, true, by_reset);
                self.read_soon(id);
                self.write_soon(id);
            }
            Do::Stall(line, pause) => {
                let until = self.now.after(pause);
                let Some(id) = self.lines.get(&(device, line)) else { return };
                if let Some(wire) = self.wires.get_mut(id) {
                    wire.stalled_until = until;
                }
            }
        }
    }

    fn soon(&mut self) -> Duration {
        self.random.micros(NETWORK_US.0, NETWORK_US.1)
    }

    fn read_soon(&mut self, id: WireId) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.read_due) else { return };
        wire.read_due = true;
        let pause = self.soon();
        self.later(pause, Event::Read(id));
    }

    fn write_soon(&mut self, id: WireId) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.write_due) else { return };
        wire.write_due = true;
        // A shard's writes go out after its handler has returned.
        self.later(Duration::from_micros(1), Event::Write(id));
    }

    fn arrive_soon(&mut self, id: WireId) {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.arrive_due) else { return };
        wire.arrive_due = true;
        let stall = wire.stalled_until.since(now);
        let pause = self.soon();
        self.later(pause.max(stall), Event::Arrive(id));
    }

    /// The server's end looks for bytes.
    pub(super) fn read(&mut self, id: WireId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.read_due = false;
        let reset = wire.reset;
        match wire.server_end {
            ServerEnd::Unaccepted => self.accept(id),
            ServerEnd::HandedOver => {}
            ServerEnd::Closed => {
                if wire.client_gone {
                    self.wires.remove(&id);
                }
            }
            ServerEnd::At(..) if wire.paused => {}
            ServerEnd::At(at, connection) if reset || (wire.up.is_empty() && wire.up_ends) => {
                self.lose(id, at, connection);
            }
            ServerEnd::At(at, connection) if !wire.up.is_empty() => {
                let count = wire.piece(&mut self.random, wire.up.len());
                let mut bytes = Wire::take(&mut wire.up, count);
                let more = !wire.up.is_empty() || wire.up_ends;
                self.trace.bytes(self.now, format_args!("{at} reads {connection:?}"), &bytes);
                self.handle(at, Input::Received { connection, bytes: &mut bytes });
                if more {
                    self.read_soon(id);
                }
            }
            ServerEnd::At(..) => {}
        }
    }

    fn accept(&mut self, id: WireId) {
        let Some(node) = self.wires.get(&id).map(|wire| wire.node) else { return };
        if !self.nodes[node].is_listening() {
            return self.refuse(id);
        }
        let at = ShardAddress { node, shard: self.random.below(self.nodes[node].shards.len()) };
        let connection = self.shard(at).connection_ids.take();
        self.shard(at).wires.insert(connection, id);
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.server_end = ServerEnd::At(at, connection);
        let kind = wire.kind;
        let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, wire.device as u8));
        self.trace.note(self.now, format_args!("{at} accepts {id:?} as {connection:?}"));
        self.handle(at, Input::Opened { connection, peer: Redacted::new(peer), kind });
        self.read_soon(id);
    }

    fn refuse(&mut self, id: WireId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        (wire.server_end, wire.reset) = (ServerEnd::Closed, true);
        self.arrive_soon(id);
    }

    /// Takes a connection off its shard: its index is free again.
    pub(super) fn release(&mut self, at: ShardAddress, connection: ConnectionId, server_end: ServerEnd) -> WireId {
        let wire = self.shard(at).wires.remove(&connection).expect("a shard names connections that it has");
        self.shard(at).connection_ids.release(connection);
        if let Some(wire) = self.wires.get_mut(&wire) {
            (wire.server_end, wire.paused, wire.flushing) = (server_end, false, false);
        }
        wire
    }

    fn lose(&mut self, id: WireId, at: ShardAddress, connection: ConnectionId) {
        self.trace.note(self.now, format_args!("{at} loses {connection:?}"));
        self.release(at, connection, ServerEnd::Closed);
        if let Some(wire) = self.wires.get_mut(&id) {
            // Bytes that were under way when the socket was closed may arrive or not.
            if wire.reset || self.random.percent(50) {
                wire.down.clear();
            }
            wire.down_ends = true;
        }
        self.handle(at, Input::Lost { connection });
        self.arrive_soon(id);
    }

    pub(super) fn adopt(&mut self, at: ShardAddress, id: WireId, handover: Box<Handover>) {
        let connection = self.shard(at).connection_ids.take();
        self.shard(at).wires.insert(connection, id);
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.server_end = ServerEnd::At(at, connection);
        }
        self.trace.note(self.now, format_args!("{at} adopts {id:?} as {connection:?}"));
        self.handle(at, Input::Adopted { connection, handover });
        self.read_soon(id);
    }

    fn wire_of(&mut self, at: ShardAddress, connection: ConnectionId) -> Option<(WireId, &mut Wire)> {
        let id = *self.shard(at).wires.get(&connection)?;
        self.wires.get_mut(&id).map(|wire| (id, wire))
    }

    pub(super) fn flush(&mut self, at: ShardAddress, connection: ConnectionId) {
        let Some((id, wire)) = self.wire_of(at, connection) else {
            return self.oracle.boundary_broken(format!("{at} flushes {connection:?}, which it does not have"));
        };
        let twice = std::mem::replace(&mut wire.flushing, true);
        if twice {
            self.oracle.boundary_broken(format!("{at} flushes {connection:?} while a flush is under way"));
        }
        self.write_soon(id);
    }

    pub(super) fn pause(&mut self, at: ShardAddress, connection: ConnectionId, paused: bool) {
        let Some((id, wire)) = self.wire_of(at, connection) else { return };
        wire.paused = paused;
        if !paused {
            self.read_soon(id);
        }
    }

    pub(super) fn shut(&mut self, at: ShardAddress, connection: ConnectionId) {
        self.trace.note(self.now, format_args!("{at} shuts {connection:?}"));
        let Some((id, wire)) = self.wire_of(at, connection) else { return };
        wire.down_ends = true;
        self.arrive_soon(id);
    }

    pub(super) fn close(&mut self, at: ShardAddress, connection: ConnectionId) {
        self.trace.note(self.now, format_args!("{at} closes {connection:?}"));
        let id = self.release(at, connection, ServerEnd::Closed);
        if let Some(wire) = self.wires.get_mut(&id) {
            // Closing with unread bytes resets.
            wire.reset |= !wire.up.is_empty();
            wire.down_ends = true;
        }
        self.arrive_soon(id);
        self.read_soon(id);
    }

    /// The server's end writes bytes of its outbox, as far as the stream has room.
    pub(super) fn write(&mut self, id: WireId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.write_due = false;
        let ServerEnd::At(at, connection) = wire.server_end else { return };
        if !wire.flushing {
            return;
        }
        if wire.reset || wire.client_gone {
            return self.lose(id, at, connection);
        }
        let Some(outbox) = self.nodes[at.node].shards[at.shard].shard.outbox(connection) else {
            return self.oracle.boundary_broken(format!("{at} has forgotten {connection:?}, and did not say so"));
        };
        let waiting = outbox.bytes();
        let mut slices = [IoSlice::new(&[]); 8];
        let count = outbox.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let offered = bytes.len();
        bytes.truncate(wire.room());
        let piece = wire.piece(&mut self.random, bytes.len());
        bytes.truncate(piece);
        wire.down.extend(&bytes);
        let blocked = bytes.len() < offered && wire.room() == 0;
        wire.flushing = bytes.len() < waiting;
        let goes_on = wire.flushing && !blocked;
        self.check_outbox(waiting, connection, at);
        self.trace.bytes(self.now, format_args!("{at} writes {connection:?} of {waiting}, blocked {blocked}:"), &bytes);
        self.handle(at, Input::Written { connection, bytes: bytes.len(), blocked });
        self.arrive_soon(id);
        if goes_on {
            self.write_soon(id);
        }
    }

    fn check_outbox(&mut self, waiting: usize, connection: ConnectionId, at: ShardAddress) {
        let limits = &self.plan.policy.limits;
        // A page of history for each pipelined request of a REST connection.
        let pages = limits.http_pipelined * usize::from(limits.page_max) * 4_000;
        let is_rest = self.wire_of(at, connection).is_some_and(|(_, wire)| wire.line == Line::Rest);
        let most = if is_rest { pages } else { self.plan.policy.limits.outbox_bytes + LAST_WORDS_BYTES };
        if waiting > most {
            self.oracle.boundary_broken(format!("{at}: {waiting} bytes wait for {connection:?}, at most {most} may"));
        }
    }

    /// The client's end looks for bytes.
    pub(super) fn arrive(&mut self, id: WireId) {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.arrive_due = false;
        if wire.client_gone {
            return self.read_soon(id);
        }
        if now < wire.stalled_until && !wire.reset {
            return self.arrive_soon(id);
        }
        let (device, line) = (wire.device, wire.line);
        if wire.reset || (wire.down.is_empty() && wire.down_ends) {
            (wire.client_gone, wire.up_ends) = (true, true);
            self.lines.remove(&(device, line));
            self.trace.note(now, format_args!("device {device} sees the end of {line:?}"));
            self.read_soon(id);
            self.write_soon(id);
            return self.with_device(device, |device, ctx| device.ended(ctx, line));
        }
        if wire.down.is_empty() {
            return;
        }
        let count = wire.piece(&mut self.random, wire.down.len());
        let bytes = Wire::take(&mut wire.down, count);
        let (more, flushing) = (!wire.down.is_empty() || wire.down_ends, wire.flushing);
        self.trace.bytes(now, format_args!("device {device} reads {line:?}"), &bytes);
        if more {
            self.arrive_soon(id);
        }
        if flushing {
            self.write_soon(id);
        }
        self.with_device(device, |device, ctx| device.received(ctx, line, &bytes));
    }

    /// Lets a fault happen now and then.
    pub(super) fn trouble(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let pause = self.random.millis(5, 100);
        self.later(pause, Event::Trouble);
        let troubles = self.plan.troubles;
        if self.random.per_mille(troubles.reset) && !self.wires.is_empty() {
            let ids: Vec<WireId> = self.wires.keys().copied().collect();
            let id = self.random.pick(&ids);
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.reset = true;
                self.read_soon(id);
                self.arrive_soon(id);
            }
        }
        let node = self.random.below(self.nodes.len());
        if self.random.per_mille(troubles.wall_jump) {
            self.jump_wall_clock(node);
        }
        if self.random.per_mille(troubles.outage) {
            self.begin_outage(node);
        }
        if self.nodes[node].shards.is_empty() {
            return;
        }
        if self.random.per_mille(troubles.crash) {
            self.stop_node(node, false);
        } else if self.random.per_mille(troubles.drain) && !self.nodes[node].draining {
            self.drain_node(node);
        }
    }

    fn jump_wall_clock(&mut self, node: usize) {
        let most = self.random.pick(&[1, 60, 3_600]) * 10_000_000;
        let jump = (self.random.bits() % (2 * most as u64)) as i64 - most;
        let offset = &mut self.nodes[node].wall_offset;
        *offset = (*offset + jump).clamp(-72_000_000_000, 72_000_000_000);
        self.jumps += 1;
        self.trace.note(self.now, format_args!("the wall clock of node {node} jumps by {jump}"));
    }

    /// The node is gone, and its end of every stream with it.
    pub(super) fn break_wires(&mut self, node: usize, by_reset: bool) {
        let ids: Vec<WireId> = self.wires.keys().copied().collect();
        for id in ids {
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            if wire.node != node || matches!(wire.server_end, ServerEnd::Closed | ServerEnd::Unaccepted) {
                continue;
            }
            (wire.server_end, wire.down_ends) = (ServerEnd::Closed, true);
            wire.reset |= by_reset;
            self.arrive_soon(id);
        }
    }

    /// From now on every client reads.
    pub(super) fn calm_wires(&mut self) {
        let ids: Vec<WireId> = self.wires.keys().copied().collect();
        for id in ids {
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.calm(self.now);
                wire.arrive_due = false;
                self.arrive_soon(id);
            }
        }
    }
}
