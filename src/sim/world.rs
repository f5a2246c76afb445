//! The world around the shards: it plays the part of io, for all shards of one node at once, in the order of events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::model::message::{Conversation, ConversationKind, Participant, ParticipantRole};
use crate::model::{ConnectionId, Mono, Now, ShardId, Wall};
use crate::shard::{Effect, Handover, Input, Mail, Shard, ShardSettings, UserMail};
use crate::sim::device::{Ctx, Device, Season};
use crate::sim::disk::Disk;
use crate::sim::network::{Ids, Line, Place, Wire, WireId};
use crate::sim::oracle::{Moment, Oracle};
use crate::sim::plan::Plan;
use crate::sim::random::Random;
use crate::sim::trace::Trace;
use crate::sim::{InjectedBug, Options};
use crate::store::accounts::LoginUser;
use crate::store::conversations::CreateConversation;
use crate::store::{self, Reply};

/// The wall clock's first reading: in the year 2026.
const START: Wall = Wall(1_770_000_000 * Wall::TICKS_PER_SECOND);

/// Time for everybody to come back and finish, and then for what is under way to arrive.
const RECOVERY: Duration = Duration::from_secs(40);
const REST: Duration = Duration::from_secs(25);
/// Slow stores and long conversations may need more; whoever is not done by then never will be.
const REST_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) enum Event {
    /// A device takes its turn.
    Act(usize),
    /// The server looks for bytes, writes what it has; the client looks for bytes.
    Read(WireId),
    Write(WireId),
    Arrive(WireId),
    /// The next letter from one shard to another arrives.
    Mesh {
        epoch: u64,
        from: usize,
        to: usize,
    },
    Commit {
        epoch: u64,
    },
    ReadStore {
        epoch: u64,
    },
    Reply {
        epoch: u64,
        shard: usize,
        ticket: store::Ticket,
        reply: Reply,
    },
    /// With an injected fault: the slower disk follows.
    Follow,
    Deadline {
        epoch: u64,
        shard: usize,
        at: Mono,
    },
    Trouble,
    Start,
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

/// What shards send each other.
pub(super) enum Letter {
    Mail(Box<Mail>),
    Connection { wire: WireId, handover: Box<Handover> },
}

/// One shard and what io keeps for it.
pub(super) struct Seat {
    pub(super) shard: Shard,
    pub(super) ids: Ids,
    pub(super) wires: BTreeMap<ConnectionId, WireId>,
    armed: Option<Mono>,
    pub(super) drained: bool,
}

/// Lifetime: one run.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    pub(super) disk: Disk,
    pub(super) devices: Vec<Device>,
    pub(super) now: Mono,
    /// Ticks that the wall clock is ahead of its start, beside the time that has passed.
    pub(super) wall_offset: i64,
    pub(super) jumps: u32,
    pub(super) season: Season,
    pub(super) seats: Vec<Seat>,
    pub(super) draining: bool,
    pub(super) epoch: u64,
    pub(super) mesh: Vec<VecDeque<Letter>>,
    mesh_last: Vec<Mono>,
    pub(super) reply_last: Mono,
    pub(super) wires: BTreeMap<WireId, Wire>,
    pub(super) next_wire: u64,
    pub(super) lines: BTreeMap<(usize, Line), WireId>,
    pub(super) commit_due: bool,
    queue: BinaryHeap<Reverse<Due>>,
    next_event: u64,
    pub(super) bug: Option<InjectedBug>,
    pub(super) crashes: u32,
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        let mut random = Random::new(options.seed);
        let plan = Plan::draw(&mut random);
        let users = plan.users.iter();
        let devices = users.flat_map(|user| std::iter::repeat_n(*user, plan.devices)).enumerate();
        let devices: Vec<Device> = devices.map(|(number, user)| Device::new(number, user)).collect();
        let lanes = usize::from(plan.shards) * usize::from(plan.shards);
        let mut world = Self {
            random,
            oracle: Oracle::default(),
            trace: Trace::new(options.print),
            disk: Disk::new(plan.store, options.bug),
            devices,
            now: Mono(0),
            wall_offset: 0,
            jumps: 0,
            season: Season::Storm,
            seats: Vec::new(),
            draining: false,
            epoch: 0,
            mesh: (0..lanes).map(|_| VecDeque::new()).collect(),
            mesh_last: vec![Mono(0); lanes],
            reply_last: Mono(0),
            wires: BTreeMap::new(),
            next_wire: 0,
            lines: BTreeMap::new(),
            commit_due: false,
            queue: BinaryHeap::new(),
            next_event: 0,
            bug: options.bug,
            crashes: 0,
            plan,
        };
        world.prepare();
        world
    }

    /// Users and conversations are there from the beginning; then the node starts.
    fn prepare(&mut self) {
        for user in self.plan.users.clone() {
            let login = Device::phone(user).into();
            self.disk.prepare(&LoginUser { login, candidate: user, roles: Vec::new(), now: START }.into());
        }
        for group in self.plan.conversations.clone() {
            let kind = if group.direct { ConversationKind::Direct } else { ConversationKind::Group };
            let role = |at| if at < 2 && !group.direct { ParticipantRole::Admin } else { ParticipantRole::Member };
            let participants = group.participants.iter().enumerate();
            let participants =
                participants.map(|(at, user)| Participant { user: *user, role: role(at), joined_at: START }).collect();
            let created_by = group.participants[0];
            let conversation = Conversation { id: group.id, kind, title: None, created_by, created_at: START, participants };
            self.disk.prepare(&CreateConversation { conversation }.into());
            if group.direct {
                self.oracle.pairs.insert(group.id, (group.participants[0], group.participants[1]));
                continue;
            }
            for user in &group.participants {
                let member = self.oracle.members.entry((group.id, *user)).or_default();
                (member.stored, member.inside_since) = (true, Some(Mono(0)));
            }
        }
        self.start_node();
        for device in 0..self.devices.len() {
            self.later(Duration::ZERO, Event::Act(device));
        }
        self.later(Duration::from_millis(10), Event::Trouble);
    }

    pub(super) fn start_node(&mut self) {
        self.epoch += 1;
        self.draining = false;
        self.seats.clear();
        for id in 0..self.plan.shards {
            let mut seed = [0; 32];
            for part in seed.chunks_mut(8) {
                part.copy_from_slice(&self.random.bits().to_le_bytes());
            }
            let policy = self.plan.policy.clone();
            let shards = self.plan.shards;
            let shard = Shard::new(ShardSettings { id: ShardId(id), shards, node: 0, epoch: self.epoch, seed, policy });
            let (ids, wires) = (Ids::default(), BTreeMap::new());
            self.seats.push(Seat { shard, ids, wires, armed: None, drained: false });
            self.arm(usize::from(id));
        }
        self.trace.note(self.now, format_args!("start of epoch {}", self.epoch));
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { mono: self.now, wall: self.now().wall, jumps: self.jumps }
    }

    fn now(&self) -> Now {
        let wall = START.0.saturating_add(self.now.0 / 100).saturating_add_signed(self.wall_offset);
        Now { mono: self.now, wall: Wall(wall) }
    }

    pub(super) fn later(&mut self, pause: Duration, event: Event) {
        self.at(self.now.after(pause), event);
    }

    pub(super) fn at(&mut self, at: Mono, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse(Due { at, number: self.next_event, event }));
    }

    /// Runs to the end; the number of events of the storm is given, what follows is as long as it must be.
    pub(super) fn run(&mut self, steps: u64) -> u64 {
        let mut step = 0;
        let (mut until, mut last) = (Mono(u64::MAX), Mono(u64::MAX));
        while let Some(Reverse(due)) = self.queue.pop() {
            self.now = self.now.max(due.at);
            self.step(due.event);
            step += 1;
            if self.oracle.broken().is_some() {
                return step;
            }
            if self.season == Season::Storm && step >= steps {
                self.season = Season::Recovery;
                self.disk.heal();
                until = self.now.after(RECOVERY);
                self.calm_wires();
            } else if self.season == Season::Recovery && self.now >= until {
                self.season = Season::Rest;
                (until, last) = (self.now.after(REST), self.now.after(REST_MAX));
            } else if self.season == Season::Rest && self.now >= until {
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
            self.oracle.violate("the store or the mesh has not come to rest".to_owned());
        }
        for device in &self.devices {
            let (number, user) = (device.number, device.user);
            if let Some(what) = device.unsettled() {
                self.oracle.violate(format!("device {number} of user {user} has not come to rest: {what}"));
            }
            self.oracle.finish_device(number, user, &device.known);
        }
    }

    /// Nothing is under way between the shards and the store.
    fn is_at_rest(&self) -> bool {
        self.disk.is_idle() && self.mesh.iter().all(VecDeque::is_empty)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Act(device) => self.act(device),
            Event::Read(wire) => self.read(wire),
            Event::Write(wire) => self.write(wire),
            Event::Arrive(wire) => self.arrive(wire),
            Event::Mesh { epoch, from, to } if epoch == self.epoch => self.open_letter(from, to),
            Event::Commit { epoch } if epoch == self.epoch => self.commit(),
            Event::ReadStore { epoch } if epoch == self.epoch => self.read_store(),
            Event::Reply { epoch, shard, ticket, reply } if epoch == self.epoch && shard < self.seats.len() => {
                self.trace.note(self.now, format_args!("shard {shard} reply {ticket:?} {reply:?}"));
                self.handle(shard, Input::Stored { ticket, reply });
            }
            Event::Follow => self.follow(),
            Event::Deadline { epoch, shard, at } if epoch == self.epoch && shard < self.seats.len() => {
                if self.seats[shard].armed == Some(at) {
                    self.seats[shard].armed = None;
                    self.trace.note(self.now, format_args!("shard {shard} deadline"));
                    self.handle(shard, Input::Deadline);
                }
            }
            Event::Trouble => self.trouble(),
            Event::Start => self.start_node(),
            Event::Mesh { .. } | Event::Commit { .. } | Event::ReadStore { .. } => {}
            Event::Reply { .. } | Event::Deadline { .. } => {}
        }
    }

    fn act(&mut self, device: usize) {
        self.with_device(device, |device, ctx| device.act(ctx));
        let most = if self.season == Season::Storm { self.plan.pause_ms } else { 200 };
        let pause = self.random.millis(1, 2 * most);
        self.later(pause, Event::Act(device));
    }

    /// Lets a device do something, and carries out what it wants of the network.
    pub(super) fn with_device(&mut self, number: usize, what: impl FnOnce(&mut Device, &mut Ctx<'_>)) {
        let moment = self.moment();
        let mut out = Vec::new();
        let mut ctx = Ctx {
            random: &mut self.random,
            oracle: &mut self.oracle,
            plan: &self.plan,
            moment,
            season: self.season,
            out: &mut out,
        };
        what(&mut self.devices[number], &mut ctx);
        for action in out {
            self.carry_out_for(number, action);
        }
    }

    /// Gives an input to a shard, and carries out its effects.
    pub(super) fn handle(&mut self, seat: usize, input: Input<'_>) {
        let now = self.now();
        let mut effects = Vec::new();
        self.seats[seat].shard.handle(now, input, &mut effects);
        for effect in effects {
            self.carry_out(seat, effect);
        }
        if seat < self.seats.len() {
            self.arm(seat);
        }
    }

    fn arm(&mut self, seat: usize) {
        let Some(deadline) = self.seats[seat].shard.next_deadline() else { return };
        let at = deadline.max(self.now);
        if self.seats[seat].armed.is_none_or(|armed| at < armed) {
            self.seats[seat].armed = Some(at);
            self.at(at, Event::Deadline { epoch: self.epoch, shard: seat, at });
        }
    }

    fn carry_out(&mut self, seat: usize, effect: Effect) {
        match effect {
            Effect::Flush { connection } => self.flush(seat, connection),
            Effect::Pause { connection } => self.pause(seat, connection, true),
            Effect::Resume { connection } => self.pause(seat, connection, false),
            Effect::Shutdown { connection } => self.shut(seat, connection),
            Effect::Close { connection } => self.close(seat, connection),
            Effect::HandOver { connection, to, handover } => {
                let wire = self.release(seat, connection, Place::Moving);
                self.trace.note(self.now, format_args!("shard {seat} hands {wire:?} over to {to:?}"));
                self.post(seat, to, Letter::Connection { wire, handover });
            }
            Effect::Mail { to, mail } => {
                let mail = Box::new(mail);
                self.trace.note(self.now, format_args!("shard {seat} to {to:?} {:?}", std::mem::discriminant(&*mail)));
                self.post(seat, to, Letter::Mail(mail));
            }
            Effect::Store { ticket, request } => self.ask_store(seat, ticket, request),
            Effect::SendOtp { .. } => {}
            Effect::Drained => {
                self.trace.note(self.now, format_args!("shard {seat} has drained"));
                if !self.draining || !self.seats[seat].wires.is_empty() {
                    self.oracle.violate(format!("shard {seat} says that it has drained, and has connections"));
                }
                self.seats[seat].drained = true;
                if self.seats.iter().all(|seat| seat.drained) {
                    self.stop_node(true);
                }
            }
        }
    }

    fn post(&mut self, from: usize, to: ShardId, letter: Letter) {
        let to = to.index();
        assert!(from != to && to < self.seats.len(), "mail goes to another shard");
        let lane = from * usize::from(self.plan.shards) + to;
        if self.bug == Some(InjectedBug::DropDelivery) && is_delivery(&letter) && self.random.percent(2) {
            return;
        }
        if self.bug == Some(InjectedBug::DropExpulsion)
            && matches!(&letter, Letter::Mail(mail) if matches!(**mail, Mail::Users(UserMail::Expel { .. })))
        {
            return;
        }
        if self.bug == Some(InjectedBug::ReorderMesh) && self.random.percent(5) {
            self.mesh[lane].push_front(letter);
        } else {
            self.mesh[lane].push_back(letter);
        }
        let delay = self.random.micros(1, self.plan.mesh_us);
        let at = self.now.after(delay).max(self.mesh_last[lane]);
        self.mesh_last[lane] = at;
        self.at(at, Event::Mesh { epoch: self.epoch, from, to });
    }

    fn open_letter(&mut self, from: usize, to: usize) {
        let lane = from * usize::from(self.plan.shards) + to;
        match self.mesh[lane].pop_front() {
            Some(Letter::Mail(mail)) => {
                self.trace.note(self.now, format_args!("shard {to} gets mail of {from}"));
                self.handle(to, Input::Mail { from: ShardId(from as u16), mail: *mail });
            }
            Some(Letter::Connection { wire, handover }) => self.adopt(to, wire, handover),
            None => {}
        }
    }

    /// The node ends: drained, or in the middle of everything.
    pub(super) fn stop_node(&mut self, drained: bool) {
        self.trace.note(self.now, format_args!("stop, drained: {drained}"));
        self.seats.clear();
        self.epoch += 1;
        self.commit_due = false;
        self.mesh.iter_mut().for_each(VecDeque::clear);
        self.disk.crash();
        self.check_survivors();
        self.break_wires(!drained);
        self.oracle.forget_requests();
        self.oracle.forget_appends();
        self.crashes += u32::from(!drained);
        let pause = self.random.millis(1, 500);
        self.later(pause, Event::Start);
    }
}

fn is_delivery(letter: &Letter) -> bool {
    matches!(letter, Letter::Mail(mail) if matches!(**mail, Mail::Users(UserMail::Deliver(_))))
}
