//! The plan of one run: sizes, limits and rates of faults, drawn from the seed, so that runs differ in more than luck.

use std::sync::Arc;
use std::time::Duration;

use crate::access::origins::Origins;
use crate::access::token::Keys;
use crate::model::{ConversationId, Limits, Redacted, UserId};
use crate::session::Policy;
use crate::session::endpoints::Endpoints;
use crate::sim::random::Random;

/// The one-time code that every login accepts, so that clients need no phone.
pub(super) const CODE: &str = "000000";

/// How many of a thousand requests fail in each way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreFaults {
    pub(super) unavailable: u32,
    pub(super) busy: u32,
    /// The reply is lost, and the write happened.
    pub(super) unknown_done: u32,
    /// The reply is lost, and the write did not happen.
    pub(super) unknown_undone: u32,
    /// The reply is lost, and the write may take effect later.
    pub(super) unknown_late: u32,
    pub(super) reads: u32,
}

/// How many of a thousand [`Trouble`](crate::sim::world::Event::Trouble) events bring each fault.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Troubles {
    pub(super) crash: u32,
    pub(super) drain: u32,
    pub(super) wall_jump: u32,
    pub(super) reset: u32,
    pub(super) outage: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: ConversationId,
    pub(super) participants: Vec<UserId>,
    /// The conversation of a pair: its participants do not change.
    pub(super) direct: bool,
}

pub(super) struct Plan {
    pub(super) nodes: u16,
    /// Shards of each node.
    pub(super) shards: u16,
    pub(super) users: Vec<UserId>,
    /// Devices of each user.
    pub(super) devices: usize,
    pub(super) conversations: Vec<Group>,
    pub(super) policy: Arc<Policy>,
    pub(super) store: StoreFaults,
    pub(super) troubles: Troubles,
    /// The longest time that mail between two shards takes, in microseconds.
    pub(super) mesh_us: u64,
    pub(super) store_us: u64,
    /// Replies of the store come in the order of the requests.
    pub(super) replies_in_order: bool,
    /// Pause between two actions of a device, in milliseconds.
    pub(super) pause_ms: u64,
    /// Participants come and go and block each other so often that several changes are under way at once.
    pub(super) quarrels: bool,
    /// How many of a hundred tokens expire within seconds.
    pub(super) short_tokens: u32,
}

impl Plan {
    pub(super) fn draw(random: &mut Random) -> Self {
        let shards = random.between(2, 4) as u16;
        let users: Vec<UserId> =
            (0..random.between(4, 6)).filter_map(|at| UserId::new(1 + at as u64 * 7 + random.below(7) as u64).ok()).collect();
        let mild = random.percent(30);
        let rate = |random: &mut Random, most: usize| if mild || random.percent(30) { 0 } else { random.below(most) as u32 };
        let store = StoreFaults {
            unavailable: rate(random, 40),
            busy: rate(random, 40),
            unknown_done: rate(random, 80),
            unknown_undone: rate(random, 80),
            unknown_late: rate(random, 250),
            reads: rate(random, 60),
        };
        let troubles = Troubles {
            crash: rate(random, 40),
            drain: rate(random, 20),
            wall_jump: rate(random, 80),
            reset: rate(random, 400),
            outage: rate(random, 40),
        };
        Self {
            nodes: 1,
            shards,
            conversations: conversations(random, &users),
            users,
            devices: random.between(1, 3),
            policy: Arc::new(policy(random)),
            store,
            troubles,
            mesh_us: random.pick(&[5, 200, 2_000, 30_000]),
            store_us: random.pick(&[100, 2_000, 20_000, 100_000]),
            replies_in_order: random.percent(50),
            pause_ms: random.pick(&[5, 30, 100]),
            quarrels: random.percent(40),
            short_tokens: random.pick(&[0, 0, 10, 40]),
        }
    }
}

fn conversations(random: &mut Random, users: &[UserId]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut add = |random: &mut Random, participants: Vec<UserId>, direct| {
        let id = 1 + groups.len() as u64 * 11 + random.below(11) as u64;
        groups.extend(ConversationId::new(id).map(|id| Group { id, participants, direct }));
    };
    add(random, users.to_vec(), false);
    add(random, users[..users.len() - 1].to_vec(), false);
    if random.percent(60) {
        add(random, users[1..].to_vec(), false);
    }
    for pair in users.windows(2) {
        if random.percent(70) {
            add(random, pair.to_vec(), true);
        }
    }
    groups
}

/// Limits that are small enough for a run to reach them.
fn policy(random: &mut Random) -> Policy {
    let default = Limits::default();
    let limits = Limits {
        http_pipelined: random.pick(&[1, 2, 16]),
        session_inflight: random.pick(&[1, 3, 256]),
        outbox_bytes: random.pick(&[12 * 1024, 64 * 1024, default.outbox_bytes]),
        write_blocked: Duration::from_secs(random.pick(&[2, 20])),
        ping: Duration::from_secs(random.pick(&[2, 25])),
        linger: Duration::from_secs(random.pick(&[1, 5])),
        first_frame: Duration::from_secs(random.pick(&[5, 30])),
        messages_per_minute: random.pick(&[60, 6_000, 60_000]),
        messages_burst: random.pick(&[20, 1_000]),
        conversation_pending: random.pick(&[2, 1_024]),
        append_batch: random.pick(&[1, 3, 256]),
        store_inflight: random.pick(&[4, 64, 8_192]),
        conversations_cached: random.pick(&[1, 3, 100]),
        recent_messages: random.pick(&[0, 3, 50]),
        recent_bytes: random.pick(&[2_000, default.recent_bytes]),
        auth_per_address_minute: 60_000,
        ..default
    };
    Policy {
        limits,
        keys: Keys::hs256(b"a secret of thirty-two bytes, or more"),
        origins: Origins::all(),
        endpoints: Endpoints::messaging("/sockjs.js".into(), true, false),
        fixed_code: Some(Redacted::new(CODE.into())),
        sends_codes: true,
        admin_phones: Vec::new(),
        sanitize: true,
        retention: None,
        page: true,
    }
}
