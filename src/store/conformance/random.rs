//! Long random sequences of requests, compared with the model: with repetitions, restarts and purges in between.

use std::time::Duration;

use crate::fuzz;
use crate::model::ids::{ConversationId, MessageId, MessageIds, ShardId, UserId};
use crate::model::message::{Draft, Head, Participant, ParticipantRole, ReadMark};
use crate::model::time::Wall;
use crate::store::accounts::{
    FamilyId, ListRevoked, LoginUser, PutCode, PutRefresh, ReadUser, RevokeRefresh, RotateRefresh, TakeCode,
};
use crate::store::conversations::{
    CreateConversation, ListBlocks, ListConversations, LoadConversation, PutParticipant, ReadConversation, RemoveParticipant,
    SetBlock,
};
use crate::store::log::{
    self, Append, FindMessage, ListReadMarks, NewMessage, REPEAT_WINDOW, ReadAfter, ReadBefore, ReadMessage, SetReadMark,
};
use crate::store::memory::Memory;
use crate::store::{Request, Write};

use super::conversations::{direct, group};
use super::erasure::erase;
use super::server::OnServer;
use super::{OnDisk, Store, at, conversation_id, options, server, user};

/// A source of numbers from a seed; good enough to choose requests.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

fn hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    hash
}

/// Makes requests in a world so small that they often meet.
struct World {
    random: Random,
    ids: MessageIds,
    now: Wall,
    /// The last appends and the last rotation, to be repeated. An append is repeated within its window only: what has
    /// become of it later depends on what was purged.
    appends: Vec<Append>,
    rotation: Option<RotateRefresh>,
    /// How many refresh tokens were made.
    tokens: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let ids = MessageIds::new(ShardId(0), 0, 1);
        Self { random: Random(seed), ids, now: at(0), appends: Vec::new(), rotation: None, tokens: 0 }
    }

    fn user(&mut self) -> UserId {
        user(1 + self.random.below(4))
    }

    fn conversation(&mut self) -> ConversationId {
        conversation_id(1 + self.random.below(6))
    }

    /// A token that was made lately, or one that will be.
    fn token(&mut self) -> [u8; 32] {
        hash(self.tokens.saturating_sub(self.random.below(12)))
    }

    fn new_token(&mut self) -> [u8; 32] {
        self.tokens += 1;
        hash(self.tokens)
    }

    /// Expiry of tokens is left to a test of its own: what has expired may be purged here and not in the model.
    fn refresh(&mut self) -> Request {
        let (now, user) = (self.now, self.user());
        let expires = now.after(Duration::from_secs(1_000_000));
        match self.random.below(8) {
            0 | 1 => {
                let token = self.new_token();
                PutRefresh { token, user, family: FamilyId(self.tokens), now, expires }.into()
            }
            2 => RevokeRefresh { token: self.token(), now }.into(),
            3 => self.rotation.clone().map_or_else(|| self.read(), Request::from),
            _ => {
                let request = RotateRefresh { token: self.token(), next: self.new_token(), now, expires };
                self.rotation = Some(request.clone());
                request.into()
            }
        }
    }

    fn login(&mut self) -> Box<str> {
        format!("login {}", self.random.below(3)).into()
    }

    fn message(&mut self) -> MessageId {
        match self.random.below(8) {
            0 => MessageId::MIN,
            1 => MessageId::MAX,
            // One that was lately sent, or some time near one.
            2..=4 => self.appended().unwrap_or(MessageId::MIN),
            _ => MessageId::from_parts(Wall(at(0).0 + self.random.below(self.now.0 - at(0).0 + 1)), 0, 1),
        }
    }

    fn appended(&mut self) -> Option<MessageId> {
        let which = self.random.below(4) as usize;
        self.appends.get(which)?.messages.last().map(|message| message.id)
    }

    fn request(&mut self) -> Request {
        self.now = self.now.after(Duration::from_micros(self.random.below(2_000_000)));
        if self.random.one_in(100) {
            // Long enough for what has expired to be purged.
            self.now = self.now.after(REPEAT_WINDOW);
            self.appends.clear();
        }
        let now = self.now;
        let expires = now.after(Duration::from_secs(self.random.below(20)));
        let (user, login, code) = (self.user(), self.login(), hash(self.random.below(3)));
        match self.random.below(21) {
            0..=5 => self.append(),
            6 => self.random_repetition(),
            7 => self.create(),
            8 => self.participant(),
            9 => SetBlock { user, other: self.user(), blocked: self.random.one_in(2) }.into(),
            10 => PutCode { login, code, now, expires, per_hour: 3 }.into(),
            11 => TakeCode { login, code, now, attempts_max: 2 }.into(),
            12 => {
                let roles = if self.random.one_in(2) { vec!["admin".into()] } else { Vec::new() };
                LoginUser { login, candidate: user, roles, now }.into()
            }
            13 | 14 => self.refresh(),
            15 => self.mark(),
            _ => self.read(),
        }
    }

    fn append(&mut self) -> Request {
        let messages = (0..1 + self.random.below(3)).map(|_| {
            let client_id = self.random.one_in(2).then(|| format!("key {}", self.random.below(4)).into());
            let content = format!("content {}", self.random.below(2)).into();
            let draft = Draft { content, client_id, headers: Vec::new() };
            NewMessage { id: self.ids.next_id(self.now, None), sender: self.user(), draft }
        });
        let messages = messages.collect();
        let (conversation, keys_expire) = (self.conversation(), self.now.after(Duration::from_secs(10)));
        let append = Append { conversation, head: Head::default(), messages, keys_expire, now: self.now };
        self.appends.truncate(3);
        self.appends.insert(0, append.clone());
        append.into()
    }

    /// Of a message that was sent, as a shard asks only for these. Its sequence grows with it.
    fn mark(&mut self) -> Request {
        let (user, which) = (self.user(), self.random.below(4) as usize);
        let Some(Append { conversation, messages, .. }) = self.appends.get(which) else { return self.read() };
        let (conversation, message) = (*conversation, messages.last().map_or(MessageId::MIN, |message| message.id));
        let sequence = message.at().0.saturating_sub(at(0).0);
        SetReadMark { conversation, mark: ReadMark { user, message, sequence } }.into()
    }

    fn random_repetition(&mut self) -> Request {
        let which = self.random.below(self.appends.len().max(1) as u64) as usize;
        self.appends.get(which).cloned().map_or_else(|| self.read(), Request::from)
    }

    fn create(&mut self) -> Request {
        let (id, first, second) = (self.conversation().value(), self.user().value(), self.user().value());
        let conversation = match self.random.one_in(2) {
            true if first != second => direct(id, [first, second]),
            _ => group(id, &[first]),
        };
        CreateConversation { conversation }.into()
    }

    fn participant(&mut self) -> Request {
        let (conversation, user) = (self.conversation(), self.user());
        let role = if self.random.one_in(2) { ParticipantRole::Admin } else { ParticipantRole::Member };
        match self.random.one_in(2) {
            true => RemoveParticipant { conversation, user }.into(),
            false => {
                let participant = Participant { user, role, joined_at: self.now };
                PutParticipant { conversation, participant }.into()
            }
        }
    }

    fn read(&mut self) -> Request {
        let (conversation, message, user) = (self.conversation(), self.message(), self.user());
        let limit = self.random.below(6) as u16;
        match self.random.below(9) {
            0 if self.random.one_in(2) => LoadConversation { conversation }.into(),
            0 => ReadConversation { conversation }.into(),
            1 => {
                let after = self.random.one_in(2).then(|| self.conversation());
                ListConversations { user, after, limit }.into()
            }
            2 => ReadBefore { conversation, before: message, limit }.into(),
            3 => ReadAfter { conversation, after: message, limit }.into(),
            4 => ListReadMarks { conversation }.into(),
            5 => ListBlocks { user }.into(),
            6 => ReadUser { user }.into(),
            7 => ListRevoked { since: at(self.random.below(60)) }.into(),
            _ => FindMessage { message }.into(),
        }
    }
}

/// Everything that a client could read, as text.
fn everything(store: &mut dyn Store) -> Vec<String> {
    let mut requests: Vec<Request> = vec![ListRevoked { since: Wall(0) }.into()];
    for conversation in (1..=6).map(conversation_id) {
        requests.push(ReadConversation { conversation }.into());
        requests.push(ListReadMarks { conversation }.into());
        requests.push(ReadAfter { conversation, after: MessageId::MIN, limit: u16::MAX }.into());
    }
    for user in (1..=4).map(user) {
        requests.push(ListConversations { user, after: None, limit: 100 }.into());
        requests.push(ListBlocks { user }.into());
        requests.push(ReadUser { user }.into());
    }
    requests.into_iter().map(|request| format!("{:?}", store.apply(request))).collect()
}

/// One world on the model and on the embedded store, in batches, with restarts and purges in between.
fn compare(seed: u64, requests: u64) {
    let mut world = World::new(seed);
    let mut model = Memory::new();
    let mut store = OnDisk::open(options());
    let mut done = 0;
    while done < requests {
        // Reads of a batch are answered after its writes: here they come alone, so that both see the same.
        let batch: Vec<Request> = (0..1 + world.random.below(12)).map(|_| world.request()).collect();
        let (reads, writes): (Vec<_>, Vec<_>) = batch.into_iter().partition(Request::is_read);
        for batch in [writes, reads] {
            done += batch.len() as u64;
            let expect: Vec<_> = batch.iter().map(|request| format!("{:?}", model.apply(request))).collect();
            let mut replies = Vec::new();
            store.store().apply(batch.iter().cloned().enumerate(), &mut replies);
            for ((tag, reply), (number, expect)) in replies.iter().zip(expect.iter().enumerate()) {
                assert_eq!((*tag, &format!("{reply:?}")), (number, expect), "seed {seed}: {:?}", batch[number]);
            }
        }
        if world.random.one_in(15) {
            let (user, limit, now) = (world.user(), 1 + world.random.below(9) as u16, world.now);
            let expect = erase(&mut model, user, u16::MAX, now);
            assert_eq!(erase(&mut store, user, limit, now), expect, "seed {seed}: erasure of {user}");
        }
        if world.random.one_in(20) {
            store.store().purge(world.now, world.random.below(30) as usize);
        }
        if world.random.one_in(200) {
            store.reopen();
            assert_eq!(everything(&mut store), everything(&mut model), "seed {seed}");
        }
    }
}

/// One world on the model and on the real server, one request after the other.
fn compare_server(store: &mut OnServer, seed: u64, requests: u64) {
    let mut world = World::new(seed);
    let mut model = Memory::new();
    for number in 0..requests {
        let request = world.request();
        // Where a log has lost its messages, the end is told by marks: each must be of a stored one, as the contract says.
        if let Request::Write(Write::Log(log::Write::SetReadMark(set))) = &request {
            let marked = ReadMessage { conversation: set.conversation, message: set.mark.message };
            if model.ask(marked) == Ok(None) {
                continue;
            }
        }
        let expect = format!("{:?}", model.apply(&request));
        assert_eq!(format!("{:?}", store.apply(request.clone())), expect, "seed {seed}, request {number}: {request:?}");
        if world.random.one_in(100) {
            // What another node, or the next start, would find.
            store.forget();
        }
    }
    assert_eq!(everything(store), everything(&mut model), "seed {seed}");
}

mod embedded {
    #[test]
    fn random_sequences_agree_with_the_model() {
        for seed in super::fuzz::seeds(1) {
            super::compare(seed, 1_500);
        }
    }
}

mod cql {
    #[test]
    #[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
    fn random_sequences_agree_with_the_model() {
        super::compare_server(&mut super::server::open(), 1, 1_500);
    }
}
