//! The world around the nodes: the time, the queue of events, the devices and their network, the store, and the oracle that
//! watches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use crate::model::Mono;
use crate::model::message::{Conversation, ConversationKind, Participant, ParticipantRole};
use crate::shard::Input;
use crate::sim::context::{Ctx, Phase};
use crate::sim::database::Database;
use crate::sim::device::Device;
use crate::sim::network::{Line, ShardAddress, Wire, WireId};
use crate::sim::node::{Node, START};
use crate::sim::oracle::Oracle;
use crate::sim::plan::Plan;
use crate::sim::random::Random;
use crate::sim::trace::Trace;
use crate::sim::{InjectedBug, Options};
use crate::store::accounts::LoginUser;
use crate::store::conversations::CreateConversation;
use crate::store::{self, Reply};

/// Time for every client to come back and finish, and then for what is under way to arrive.
const RECOVERY: Duration = Duration::from_secs(40);
const SETTLING: Duration = Duration::from_secs(25);
/// Slow stores and long conversations may need more; a client that is not done by then never will be.
const SETTLING_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) enum Event {
    /// A device acts.
    Act(usize),
    /// The server looks for bytes, writes what it has; the client looks for bytes.
    Read(WireId),
    Write(WireId),
    Arrive(WireId),
    /// The next envelope from one shard of a node to another arrives.
    Mesh {
        from: ShardAddress,
        to: usize,
        epoch: u64,
    },
    /// The store carries out the writes of a node that wait.
    Commit {
        node: usize,
        epoch: u64,
    },
    ReadStore {
        node: usize,
        epoch: u64,
    },
    Reply {
        at: ShardAddress,
        epoch: u64,
        ticket: store::Ticket,
        reply: Reply,
    },
    /// A late write takes effect, by its number.
    LateWrite(u64),
    /// With an injected fault: the slower disk follows.
    Follow,
    Deadline {
        at: ShardAddress,
        epoch: u64,
        deadline: Mono,
    },
    Trouble,
    /// A node starts again.
    Start(usize),
}

struct Due {
    at: Mono,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Lifetime: one run.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    pub(super) nodes: Vec<Node>,
    /// All nodes have the same.
    pub(super) database: Database,
    pub(super) devices: Vec<Device>,
    pub(super) now: Mono,
    /// How often a wall clock has jumped.
    pub(super) jumps: u32,
    pub(super) phase: Phase,
    pub(super) wires: BTreeMap<WireId, Wire>,
    pub(super) next_wire: u64,
    pub(super) lines: BTreeMap<(usize, Line), WireId>,
    queue: BinaryHeap<Reverse<Due>>,
    next_event: u64,
    pub(super) bug: Option<InjectedBug>,
    pub(super) crashes: u32,
    /// Late writes that have taken effect.
    pub(super) late_writes: u32,
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        let mut random = Random::new(options.seed);
        let plan = Plan::draw(&mut random);
        let users = plan.users.iter();
        let devices = users.flat_map(|user| std::iter::repeat_n(*user, plan.devices)).enumerate();
        let nodes = usize::from(plan.nodes);
        let devices: Vec<Device> = devices.map(|(number, user)| Device::new(number, user, number % nodes)).collect();
        let mut world = Self {
            random,
            oracle: Oracle::default(),
            trace: Trace::new(options.print),
            nodes: (0..plan.nodes).map(Node::new).collect(),
            database: Database::new(plan.store, options.bug),
            devices,
            now: Mono(0),
            jumps: 0,
            phase: Phase::Faults,
            wires: BTreeMap::new(),
            next_wire: 0,
            lines: BTreeMap::new(),
            queue: BinaryHeap::new(),
            next_event: 0,
            bug: options.bug,
            crashes: 0,
            late_writes: 0,
            plan,
        };
        world.prepare();
        world
    }

    /// Users and conversations exist from the beginning; then the nodes start.
    fn prepare(&mut self) {
        for user in self.plan.users.clone() {
            let login = Device::phone(user).into();
            self.database.prepare(&LoginUser { login, candidate: user, roles: Vec::new(), now: START }.into());
        }
        for group in self.plan.conversations.clone() {
            let kind = if group.direct { ConversationKind::Direct } else { ConversationKind::Group };
            let role = |at| if at < 2 && !group.direct { ParticipantRole::Admin } else { ParticipantRole::Member };
            let participants = group.participants.iter().enumerate();
            let participants =
                participants.map(|(at, user)| Participant { user: *user, role: role(at), joined_at: START }).collect();
            let created_by = group.participants[0];
            let conversation = Conversation { id: group.id, kind, title: None, created_by, created_at: START, participants };
            self.database.prepare(&CreateConversation { conversation }.into());
            if group.direct {
                self.oracle.pairs.insert(group.id, (group.participants[0], group.participants[1]));
                continue;
            }
            for user in &group.participants {
                let member = self.oracle.members.entry((group.id, *user)).or_default();
                (member.stored, member.inside_since) = (true, Some(Mono(0)));
            }
        }
        for node in 0..self.nodes.len() {
            self.start_node(node);
        }
        for device in 0..self.devices.len() {
            self.later(Duration::ZERO, Event::Act(device));
        }
        self.later(Duration::from_millis(10), Event::Trouble);
    }

    pub(super) fn later(&mut self, pause: Duration, event: Event) {
        self.at(self.now.after(pause), event);
    }

    pub(super) fn at(&mut self, at: Mono, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse(Due { at, number: self.next_event, event }));
    }

    /// Runs to the end; `steps` is the number of events with faults, and the rest takes as long as it must.
    pub(super) fn run(&mut self, steps: u64) -> u64 {
        let mut step = 0;
        let (mut until, mut last) = (Mono(u64::MAX), Mono(u64::MAX));
        while let Some(Reverse(due)) = self.queue.pop() {
            self.now = self.now.max(due.at);
            self.take_place(due.event);
            step += 1;
            if self.oracle.broken().is_some() {
                return step;
            }
            if self.phase == Phase::Faults && step >= steps {
                self.phase = Phase::Recovery;
                self.heal_store();
                until = self.now.after(RECOVERY);
                self.calm_wires();
            } else if self.phase == Phase::Recovery && self.now >= until {
                self.phase = Phase::Settling;
                (until, last) = (self.now.after(SETTLING), self.now.after(SETTLING_MAX));
            } else if self.phase == Phase::Settling && self.now >= until {
                let settled = self.devices.iter().all(|device| device.unsettled().is_none()) && self.is_at_rest();
                if settled || self.now >= last {
                    break;
                }
                until = self.now.after(Duration::from_secs(1));
            }
        }
        self.finish();
        step
    }

    fn finish(&mut self) {
        self.check_survivors();
        self.oracle.finish();
        if !self.is_at_rest() {
            self.oracle.unsettled("the store or the mesh has not come to rest".to_owned());
        }
        for device in &self.devices {
            let (number, user) = (device.number, device.user);
            if let Some(what) = device.unsettled() {
                self.oracle.unsettled(format!("device {number} of user {user} has not come to rest: {what}"));
            }
            self.oracle.finish_device(number, user, &device.known);
        }
    }

    fn is_at_rest(&self) -> bool {
        self.database.is_idle() && self.nodes.iter().all(Node::is_at_rest)
    }

    /// An event takes place, unless it belongs to an epoch of its node that is over.
    fn take_place(&mut self, event: Event) {
        match event {
            Event::Act(device) => self.act(device),
            Event::Read(wire) => self.read(wire),
            Event::Write(wire) => self.write(wire),
            Event::Arrive(wire) => self.arrive(wire),
            Event::Mesh { from, to, epoch } => {
                if self.is_current(from.node, epoch) {
                    self.open_envelope(from, to);
                }
            }
            Event::Commit { node, epoch } => {
                if self.is_current(node, epoch) {
                    self.commit(node);
                }
            }
            Event::ReadStore { node, epoch } => {
                if self.is_current(node, epoch) {
                    self.read_store(node);
                }
            }
            Event::Reply { at, epoch, ticket, reply } => {
                if self.is_current(at.node, epoch) {
                    self.trace.note(self.now, format_args!("{at} reply {ticket:?} {reply:?}"));
                    self.handle(at, Input::Stored { ticket, reply });
                }
            }
            Event::LateWrite(number) => self.late_write(number),
            Event::Follow => self.follow(),
            Event::Deadline { at, epoch, deadline } => {
                if self.is_current(at.node, epoch) {
                    self.deadline(at, deadline);
                }
            }
            Event::Trouble => self.trouble(),
            Event::Start(node) => self.start_node(node),
        }
    }

    fn is_current(&self, node: usize, epoch: u64) -> bool {
        self.nodes[node].epoch == epoch
    }

    fn act(&mut self, device: usize) {
        self.with_device(device, |device, ctx| device.act(ctx));
        let most = if self.phase == Phase::Faults { self.plan.pause_ms } else { 200 };
        let pause = self.random.millis(1, 2 * most);
        self.later(pause, Event::Act(device));
    }

    /// Lets a device do something, and carries out what it wants of the network.
    pub(super) fn with_device(&mut self, number: usize, what: impl FnOnce(&mut Device, &mut Ctx<'_>)) {
        let moment = self.moment(self.devices[number].node);
        let mut out = Vec::new();
        let mut ctx = Ctx {
            random: &mut self.random,
            oracle: &mut self.oracle,
            plan: &self.plan,
            moment,
            phase: self.phase,
            out: &mut out,
        };
        what(&mut self.devices[number], &mut ctx);
        for action in out {
            self.carry_out_for(number, action);
        }
    }
}
