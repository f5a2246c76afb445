//! The shards of the nodes, to which the world is what io is otherwise: it starts and ends them, gives them their inputs, and
//! carries out their effects and brings their mail.

use crate::model::{Mono, Now, ShardId};
use crate::shard::{Effect, Input, Mail, Shard, ShardSettings, UserMail};
use crate::sim::InjectedBug;
use crate::sim::network::{ServerEnd, ShardAddress};
use crate::sim::node::{Envelope, SimShard};
use crate::sim::oracle::Moment;
use crate::sim::world::{Event, World};

impl World {
    pub(super) fn start_node(&mut self, number: usize) {
        self.settle_late_writes(number);
        let node = &mut self.nodes[number];
        assert!(node.shards.is_empty(), "a node starts when it is down");
        node.epoch += 1;
        node.draining = false;
        for id in 0..self.plan.shards {
            let mut seed = [0; 32];
            for part in seed.chunks_mut(8) {
                part.copy_from_slice(&self.random.bits().to_le_bytes());
            }
            let settings = ShardSettings {
                id: ShardId(id),
                shards: self.plan.shards,
                node: node.number,
                epoch: node.epoch,
                seed,
                policy: self.plan.policy.clone(),
            };
            node.shards.push(SimShard::new(Shard::new(settings)));
        }
        let epoch = node.epoch;
        for shard in 0..usize::from(self.plan.shards) {
            self.arm(ShardAddress { node: number, shard });
        }
        self.trace.note(self.now, format_args!("node {number} starts epoch {epoch}"));
    }

    /// The node ends: drained, or in the middle of everything.
    pub(super) fn stop_node(&mut self, number: usize, drained: bool) {
        self.trace.note(self.now, format_args!("node {number} stops, drained: {drained}"));
        self.lose_requests(number);
        self.nodes[number].end();
        self.check_survivors();
        self.break_wires(number, !drained);
        self.oracle.forget_requests(number);
        self.oracle.forget_appends(number);
        self.crashes += u32::from(!drained);
        let pause = self.random.millis(1, 500);
        self.later(pause, Event::Start(number));
    }

    /// Tells every shard of the node to drain.
    pub(super) fn drain_node(&mut self, number: usize) {
        self.nodes[number].draining = true;
        for shard in 0..usize::from(self.plan.shards) {
            let at = ShardAddress { node: number, shard };
            self.trace.note(self.now, format_args!("{at} is to drain"));
            self.handle(at, Input::Drain);
        }
    }

    pub(super) fn shard(&mut self, at: ShardAddress) -> &mut SimShard {
        &mut self.nodes[at.node].shards[at.shard]
    }

    pub(super) fn moment(&self, node: usize) -> Moment {
        Moment { mono: self.now, wall: self.nodes[node].wall(self.now), jumps: self.jumps }
    }

    /// Gives an input to a shard, and carries out its effects.
    pub(super) fn handle(&mut self, at: ShardAddress, input: Input<'_>) {
        let now = Now { mono: self.now, wall: self.nodes[at.node].wall(self.now) };
        let mut effects = Vec::new();
        self.shard(at).shard.handle(now, input, &mut effects);
        for effect in effects {
            self.carry_out(at, effect);
        }
        // The last shard that has drained has ended its node.
        if at.shard < self.nodes[at.node].shards.len() {
            self.arm(at);
        }
    }

    fn arm(&mut self, at: ShardAddress) {
        let now = self.now;
        let epoch = self.nodes[at.node].epoch;
        let shard = self.shard(at);
        let Some(deadline) = shard.shard.next_deadline() else { return };
        let deadline = deadline.max(now);
        if shard.armed.is_none_or(|armed| deadline < armed) {
            shard.armed = Some(deadline);
            self.at(deadline, Event::Deadline { at, epoch, deadline });
        }
    }

    pub(super) fn deadline(&mut self, at: ShardAddress, deadline: Mono) {
        let shard = self.shard(at);
        // An earlier deadline has taken its place otherwise.
        if shard.armed == Some(deadline) {
            shard.armed = None;
            self.trace.note(self.now, format_args!("{at} deadline"));
            self.handle(at, Input::Deadline);
        }
    }

    fn carry_out(&mut self, at: ShardAddress, effect: Effect) {
        match effect {
            Effect::Flush { connection } => self.flush(at, connection),
            Effect::Pause { connection } => self.pause(at, connection, true),
            Effect::Resume { connection } => self.pause(at, connection, false),
            Effect::Shutdown { connection } => self.shut(at, connection),
            Effect::Close { connection } => self.close(at, connection),
            Effect::HandOver { connection, to, handover } => {
                let wire = self.release(at, connection, ServerEnd::HandedOver);
                self.trace.note(self.now, format_args!("{at} hands {wire:?} over to {to:?}"));
                self.post(at, to, Envelope::Connection { wire, handover });
            }
            Effect::Mail { to, mail } => {
                let mail = Box::new(mail);
                self.trace.note(self.now, format_args!("{at} to {to:?} {:?}", std::mem::discriminant(&*mail)));
                self.post(at, to, Envelope::Mail(mail));
            }
            Effect::Store { ticket, request } => self.ask_store(at, ticket, request),
            Effect::SendOtp { .. } => {}
            Effect::Drained => self.drained(at),
        }
    }

    fn drained(&mut self, at: ShardAddress) {
        self.trace.note(self.now, format_args!("{at} has drained"));
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        shard.drained = true;
        if !node.draining || !shard.wires.is_empty() {
            self.oracle.boundary_broken(format!("{at} reports that it has drained, and has connections"));
        }
        if self.nodes[at.node].shards.iter().all(|shard| shard.drained) {
            self.stop_node(at.node, true);
        }
    }

    fn post(&mut self, from: ShardAddress, to: ShardId, envelope: Envelope) {
        let to = to.index();
        assert!(from.shard != to && to < self.nodes[from.node].shards.len(), "mail goes to another shard of the node");
        let lost = match (self.bug, envelope.mail()) {
            (Some(InjectedBug::DropDelivery), Some(Mail::Users(UserMail::Deliver(_)))) => self.random.percent(2),
            (Some(InjectedBug::DropExpulsion), Some(Mail::Users(UserMail::Expel { .. }))) => true,
            _ => false,
        };
        if lost {
            return;
        }
        let overtakes = self.bug == Some(InjectedBug::ReorderMesh) && self.random.percent(5);
        let delay = self.random.micros(1, self.plan.mesh_us);
        let node = &mut self.nodes[from.node];
        let at = node.post((from.shard, to), envelope, overtakes, self.now.after(delay));
        let epoch = node.epoch;
        self.at(at, Event::Mesh { from, to, epoch });
    }

    /// The next envelope from one shard to another arrives.
    pub(super) fn open_envelope(&mut self, from: ShardAddress, to: usize) {
        let envelope = self.nodes[from.node].next_envelope(from.shard, to);
        let to = ShardAddress { node: from.node, shard: to };
        match envelope {
            Some(Envelope::Mail(mail)) => {
                self.trace.note(self.now, format_args!("{to} gets mail of {}", from.shard));
                self.handle(to, Input::Mail { from: ShardId(from.shard as u16), mail: *mail });
            }
            Some(Envelope::Connection { wire, handover }) => self.adopt(to, wire, handover),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Options;
    use crate::sim::node::Node;

    /// Faults strike either node; the clients of one do not notice those of the other.
    #[test]
    fn a_node_starts_and_ends_without_the_others() {
        for seed in 1..=4 {
            let mut world = World::new(&Options { seed, steps: 0, bug: None, print: false });
            world.nodes.push(Node::new(1));
            world.start_node(1);
            world.run(4_000);
            let broken = world.oracle.broken();
            assert!(broken.is_none(), "seed {seed}: {broken:?}");
            assert!(0 < world.oracle.delivered, "seed {seed}: nothing was delivered");
        }
    }
}
