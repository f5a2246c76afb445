//! Compares the store on a database with the bare driver and the same statements: sends and pages of history a second,
//! their latency, and the CPU time of the one thread that does all work, by the kernel's accounting.
//!
//!     tests/run cqlbench
//!     TIDINGS_CQL=host:port cargo bench --bench store_scylla [-- NUMBER...]
//!
//! Both sides take turns on one thread, with equal sessions, profiles and statement texts, against keyspaces of one server.
//! A send writes the index concurrently with the claim of its client message id, if it has one, then the message with the
//! sender's read mark. A page reads the directory concurrently with the bucket in which the page begins. As in the server, a
//! task for each request asks the store, and a lost database would end it. The rows that both have written are counted at the
//! end. With numbers, only the levels with that many in flight are measured.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlTimeuuid, MaybeUnset, Row};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use tidings::model::ids::{ConversationId, MessageId, MessageIds, ShardId, UserId};
use tidings::model::message::{Conversation, ConversationKind, Draft, Head, Participant, ParticipantRole};
use tidings::model::time::Wall;
use tidings::store::conversations::CreateConversation;
use tidings::store::log::{Append, Appended, Messages, NewMessage, ReadBefore};
use tidings::store::scylla::{Connected, Options, Scylla, migrate, session, statement};
use tidings::store::{Call, Failure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Operations in flight, and operations of one round.
const LEVELS: [(usize, usize); 3] = [(1, 500), (64, 4_000), (512, 8_000)];
const KINDS: [Kind; 3] = [Kind::Send, Kind::KeyedSend, Kind::Page];
/// Rounds that count; one more runs before them.
const ROUNDS: usize = 5;
const PAGE: u16 = 20;
/// Messages of a conversation at first: more than a page.
const MESSAGES: u64 = 30;
/// CPU time of the store at most, as a multiple of the driver's.
const GOAL: f64 = 1.3;
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Send,
    KeyedSend,
    Page,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Send => "sends",
            Self::KeyedSend => "sends with a client message id",
            Self::Page => "pages of 20",
        }
    }
}

fn main() -> ExitCode {
    let Ok(nodes) = std::env::var("TIDINGS_CQL") else {
        eprintln!("store_scylla: skipped, nothing was measured: set TIDINGS_CQL to the host:port of a CQL server.");
        eprintln!("`tests/run cqlbench` starts one and runs this against it.");
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, run(&nodes))
}

async fn run(nodes: &str) -> ExitCode {
    let options = Options {
        nodes: nodes.split(',').map(String::from).collect(),
        keyspace: format!("bench_{}", std::process::id()),
        request_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        speculative_delay: Duration::from_secs(5),
        ..Options::default()
    };
    migrate(&options).await.expect("a schema");
    let ours = Rc::new(Ours::open(&options).await);
    let bare = Rc::new(Bare::open(&options).await);
    let logs =
        [1, 2].map(|side| (0..LEVELS[2].0 as u64).map(|number| Rc::new(Log::new(side << 20 | number))).collect::<Vec<_>>());
    for log in logs.iter().flatten() {
        prepare(&ours, log).await;
    }
    println!(
        "{:>9}  {:30} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8} {:>15}",
        "in flight", "", "", "a second", "p50 us", "p99 us", "p99.9 us", "CPU us", "least to most"
    );
    let (mut passed, mut failed) = (0, 0);
    // Cargo passes `--bench` on.
    let chosen: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    for (in_flight, operations) in LEVELS {
        if !chosen.is_empty() && !chosen.contains(&in_flight) {
            continue;
        }
        for kind in KINDS {
            let ratio = compare(kind, in_flight, operations, &ours, &bare, &logs).await;
            if ratio <= GOAL { passed += 1 } else { failed += 1 }
        }
    }
    for log in logs.iter().flatten() {
        match verify(&bare.session, log).await {
            Ok(()) => passed += 1,
            Err(what) => {
                eprintln!("conversation {}: {what}", log.id);
                failed += 1;
            }
        }
    }
    bare.session.query_unpaged(format!("DROP KEYSPACE {}", options.keyspace), ()).await.expect("the keyspace is dropped");
    println!(
        "goal: at most {GOAL} times the CPU of the bare driver; {} conversations hold what was written",
        logs.len() * logs[0].len()
    );
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The measurements of one side.
struct Measured {
    latencies: Histogram<u64>,
    rates: Vec<f64>,
    /// Microseconds of an operation.
    cpu: Vec<f64>,
}

impl Measured {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3).expect("sound bounds");
        Self { latencies, rates: Vec::new(), cpu: Vec::new() }
    }

    fn print(&self, in_flight: usize, kind: Kind, side: &str) {
        let quantile = |quantile| self.latencies.value_at_quantile(quantile);
        let (least, median, most) = spread(&self.cpu);
        println!(
            "{in_flight:>9}  {:30} {side:>6} {:>9.0} {:>9} {:>9} {:>9} {median:>8.1} {least:>6.1} to {most:>5.1}",
            kind.name(),
            spread(&self.rates).1,
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
        );
    }
}

/// Runs both sides in turn, and returns the median ratio of their CPU times.
async fn compare(
    kind: Kind,
    in_flight: usize,
    operations: usize,
    ours: &Rc<Ours>,
    bare: &Rc<Bare>,
    logs: &[Vec<Rc<Log>>; 2],
) -> f64 {
    let (mut of_ours, mut of_bare) = (Measured::new(), Measured::new());
    for round in 0..=ROUNDS {
        let (mut unmeasured_ours, mut unmeasured_bare) = (Measured::new(), Measured::new());
        let counts = round > 0;
        let into_ours = if counts { &mut of_ours } else { &mut unmeasured_ours };
        let into_bare = if counts { &mut of_bare } else { &mut unmeasured_bare };
        // The first side finds the database in another state, so alternate the order.
        if round % 2 == 0 {
            measure(ours, kind, in_flight, operations, &logs[0], into_ours).await;
            measure(bare, kind, in_flight, operations, &logs[1], into_bare).await;
        } else {
            measure(bare, kind, in_flight, operations, &logs[1], into_bare).await;
            measure(ours, kind, in_flight, operations, &logs[0], into_ours).await;
        }
    }
    of_ours.print(in_flight, kind, "store");
    of_bare.print(in_flight, kind, "driver");
    let ratios: Vec<f64> = of_ours.cpu.iter().zip(&of_bare.cpu).map(|(ours, bare)| ours / bare).collect();
    let (least, median, most) = spread(&ratios);
    println!("{:>75} {median:>20.2} {least:>6.2} to {most:>5.2}", "times the driver's CPU");
    median
}

async fn measure<S: Side + 'static>(
    side: &Rc<S>,
    kind: Kind,
    in_flight: usize,
    operations: usize,
    logs: &[Rc<Log>],
    measured: &mut Measured,
) {
    let left = Rc::new(Cell::new(operations));
    let (began, cpu) = (Instant::now(), thread_cpu());
    let workers = logs[..in_flight].iter().map(|log| {
        let (side, log, left) = (Rc::clone(side), Rc::clone(log), Rc::clone(&left));
        spawn_local(async move {
            let mut took = Vec::with_capacity(operations / in_flight * 2);
            while left.get() > 0 {
                left.set(left.get() - 1);
                let began = Instant::now();
                match kind {
                    Kind::Send => side.send(&log, None).await,
                    Kind::KeyedSend => {
                        let client_id = format!("{}-{}", log.id, log.head.get().sequence);
                        side.send(&log, Some(&client_id)).await;
                        log.last_key.replace(Some((client_id, log.last())));
                    }
                    Kind::Page => side.page(&log).await,
                }
                took.push(began.elapsed());
            }
            took
        })
    });
    let took = try_join_all(workers).await.expect("no worker panics");
    let (wall, cpu) = (began.elapsed(), thread_cpu() - cpu);
    for took in took.into_iter().flatten() {
        measured.latencies.record(took.as_micros() as u64).expect("below a minute");
    }
    measured.rates.push(operations as f64 / wall.as_secs_f64());
    measured.cpu.push(cpu.as_secs_f64() * 1e6 / operations as f64);
}

/// Least, median and greatest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

/// User and system time of this thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec`, which the call fills.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert!(status == 0, "every kernel has the clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later than 1970");
    Wall::from_unix_seconds(0).after(since)
}

/// One conversation; one worker of one side writes to it.
struct Log {
    id: ConversationId,
    users: [UserId; 2],
    ids: RefCell<MessageIds>,
    head: Cell<Head>,
    last_key: RefCell<Option<(String, MessageId)>>,
}

impl Log {
    fn new(number: u64) -> Self {
        // Spread over their range, as real ones are.
        let spread = |number: u64, by: u64| number.wrapping_mul(by) >> 12 | 1;
        let user = |which| UserId::new(spread(number * 2 + which, 0xD1B5_4A32_D192_ED03)).expect("in range");
        Self {
            id: ConversationId::new(spread(number, 0x9E37_79B9_7F4A_7C15)).expect("in range"),
            users: [user(0), user(1)],
            ids: RefCell::new(MessageIds::new(ShardId(0), 0, 1)),
            head: Cell::new(Head::default()),
            last_key: RefCell::new(None),
        }
    }

    fn last(&self) -> MessageId {
        self.head.get().last.expect("a message was written")
    }

    fn sender(&self) -> UserId {
        self.users[0]
    }

    fn next_id(&self, now: Wall) -> MessageId {
        self.ids.borrow_mut().next_id(now, self.head.get().last)
    }

    fn advance(&self, id: MessageId) {
        self.head.set(Head { last: Some(id), sequence: self.head.get().sequence + 1 });
    }

    /// About 150 bytes that begin with the message's sequence.
    fn content(&self) -> String {
        format!("{:>10} {}", self.head.get().sequence + 1, "and seven words of it are like these".repeat(4))
    }
}

/// Creates the conversation and its first messages.
async fn prepare(ours: &Ours, log: &Log) {
    let now = now();
    let mut participants = log.users.map(|user| Participant { user, role: ParticipantRole::Member, joined_at: now });
    participants.sort_by_key(|participant| participant.user);
    let conversation = Conversation {
        id: log.id,
        kind: ConversationKind::Group,
        title: None,
        created_by: log.sender(),
        created_at: now,
        participants: participants.to_vec(),
    };
    assert!(ours.ask(CreateConversation { conversation }).await.expect("a working store").created);
    let messages = (0..MESSAGES).map(|_| {
        let draft = Draft { content: log.content().into(), client_id: None, headers: Vec::new() };
        let message = NewMessage { id: log.next_id(now), sender: log.sender(), draft };
        log.advance(message.id);
        message
    });
    let messages = messages.collect();
    let append = Append { conversation: log.id, head: Head::default(), messages, keys_expire: now.after(DAY), now };
    let answer = ours.ask(append).await.expect("a working store").expect("a conversation");
    assert!(answer.head == log.head.get(), "{answer:?}");
}

/// Carries out operations, and checks their results.
trait Side {
    async fn send(&self, log: &Log, client_id: Option<&str>);
    async fn page(&self, log: &Log);
}

/// The store, called as the server's bridge calls it.
struct Ours {
    store: Rc<Scylla>,
    lost: watch::Receiver<bool>,
    _lose: watch::Sender<bool>,
}

impl Ours {
    async fn open(options: &Options) -> Self {
        let connected = Connected::open(options).await.expect("a session");
        let (lose, lost) = watch::channel(false);
        Self { store: Rc::new(Scylla::new(options.clone(), connected)), lost, _lose: lose }
    }

    async fn ask<C: Call>(&self, call: C) -> Result<C::Answer, Failure> {
        let mut lost = self.lost.clone();
        let given_up = async move { _ = lost.wait_for(|lost| *lost).await };
        C::answer(spawn_local(self.store.ask(call.into(), given_up)).await.expect("the store does not panic"))
    }
}

impl Side for Ours {
    async fn send(&self, log: &Log, client_id: Option<&str>) {
        let now = now();
        let draft = Draft { content: log.content().into(), client_id: client_id.map(Into::into), headers: Vec::new() };
        let message = NewMessage { id: log.next_id(now), sender: log.sender(), draft };
        let id = message.id;
        let append =
            Append { conversation: log.id, head: log.head.get(), messages: vec![message], keys_expire: now.after(DAY), now };
        let before = log.head.get();
        let answer = self.ask(append).await.expect("a working store").expect("a conversation");
        let [Appended::Stored(message)] = &answer.results[..] else { panic!("{answer:?}") };
        assert!((message.id, message.prev, message.sequence) == (id, before.last, before.sequence + 1), "{message:?}");
        log.advance(id);
        assert!(answer.head == log.head.get());
    }

    async fn page(&self, log: &Log) {
        let read = ReadBefore { conversation: log.id, before: MessageId::MAX, limit: PAGE };
        let Messages { messages, more } = self.ask(read).await.expect("a working store").expect("a conversation");
        assert!(more && messages.len() == usize::from(PAGE) && messages[0].id == log.last());
        assert!(messages[0].content.starts_with(&format!("{:>10} ", log.head.get().sequence)));
    }
}

/// The driver, with the statements of the store.
struct Bare {
    session: Session,
    claim_key: PreparedStatement,
    put_index: PreparedStatement,
    put_message: PreparedStatement,
    put_mark: PreparedStatement,
    buckets_down: PreparedStatement,
    page_before: PreparedStatement,
    bucket_seconds: u64,
}

type MessageColumns = (CqlTimeuuid, i64, i64, Option<CqlTimeuuid>, Option<String>, Option<Vec<(String, String)>>, String);

impl Bare {
    async fn open(options: &Options) -> Self {
        let (session, profile) = session(options).await.expect("a session");
        let prepare = async |name, idempotent| prepare_statement(&session, &profile, name, idempotent).await;
        Self {
            claim_key: prepare("claim_key", false).await,
            put_index: prepare("put_index", true).await,
            put_message: prepare("put_message", true).await,
            put_mark: prepare("put_mark", true).await,
            buckets_down: prepare("buckets_down", true).await,
            page_before: prepare("page_before", true).await,
            bucket_seconds: options.bucket.as_secs(),
            session,
        }
    }

    fn bucket(&self, id: MessageId) -> i32 {
        i32::try_from(id.at().unix_seconds() / self.bucket_seconds).unwrap_or(i32::MAX)
    }
}

async fn prepare_statement(
    session: &Session,
    profile: &ExecutionProfileHandle,
    name: &str,
    is_idempotent: bool,
) -> PreparedStatement {
    let mut prepared = session.prepare(statement(name).expect("a statement of the store")).await.expect("it is prepared");
    prepared.set_execution_profile_handle(Some(profile.clone()));
    prepared.set_is_idempotent(is_idempotent);
    prepared
}

fn timeuuid(id: MessageId) -> CqlTimeuuid {
    CqlTimeuuid::from_u128(id.to_uuid())
}

/// A time to live without end, in seconds.
const FOR_EVER: i32 = 0;

fn bigint(value: u64) -> i64 {
    i64::try_from(value).expect("below 2^63")
}

impl Side for Bare {
    async fn send(&self, log: &Log, client_id: Option<&str>) {
        let now = now();
        let (id, before, content) = (log.next_id(now), log.head.get(), log.content());
        let (conversation, sender, sequence) =
            (bigint(log.id.value()), bigint(log.sender().value()), bigint(before.sequence + 1));
        let claim = async {
            let Some(client_id) = client_id else { return };
            let expires = now.after(DAY);
            let seconds = 86_400 + 3_600;
            let row = (conversation, sender, client_id, timeuuid(id), bigint(expires.0), seconds);
            let result = self.session.execute_unpaged(&self.claim_key, row).await.expect("it is decided");
            let row: Row = result.into_rows_result().expect("rows").single_row().expect("one row");
            assert!(row.columns[0].as_ref().and_then(scylla::value::CqlValue::as_boolean) == Some(true), "a key is free");
        };
        let index = async {
            self.session.execute_unpaged(&self.put_index, (timeuuid(id), conversation, FOR_EVER)).await.expect("it is written");
        };
        tokio::join!(claim, index);
        let time = bigint(id.at().0 / 10);
        let headers = MaybeUnset::<Vec<(&str, &str)>>::Unset;
        let (prev, client_id) = (MaybeUnset::from_option(before.last.map(timeuuid)), MaybeUnset::from_option(client_id));
        let row =
            (conversation, self.bucket(id), timeuuid(id), sender, sequence, prev, client_id, headers, &*content, time, FOR_EVER);
        let mark = (time, 0_i32, (sequence, timeuuid(id)), conversation, sender);
        let message = self.session.execute_unpaged(&self.put_message, row);
        let mark = self.session.execute_unpaged(&self.put_mark, mark);
        tokio::try_join!(message, mark).expect("they are written");
        log.advance(id);
    }

    async fn page(&self, log: &Log) {
        let conversation = bigint(log.id.value());
        let list = (conversation, self.bucket(MessageId::MAX), 64_i32);
        let page = (conversation, self.bucket(log.last()), timeuuid(MessageId::MAX), i32::from(PAGE) + 1);
        let (listed, page) = tokio::try_join!(
            self.session.execute_unpaged(&self.buckets_down, list),
            self.session.execute_unpaged(&self.page_before, page)
        )
        .expect("they are read");
        let (listed, page) = (listed.into_rows_result().expect("rows"), page.into_rows_result().expect("rows"));
        let buckets: Vec<(i32,)> = listed.rows().expect("buckets").collect::<Result<_, _>>().expect("buckets");
        let messages: Vec<MessageColumns> = page.rows().expect("messages").collect::<Result<_, _>>().expect("messages");
        assert!(buckets[0].0 == self.bucket(log.last()));
        assert!(messages.len() == usize::from(PAGE) + 1 && messages[0].0 == timeuuid(log.last()));
        assert!(messages[0].6.starts_with(&format!("{:>10} ", log.head.get().sequence)));
    }
}

/// Checks that the database has everything written to a conversation.
async fn verify(session: &Session, log: &Log) -> Result<(), String> {
    let head = log.head.get();
    let id = bigint(log.id.value());
    let bucket: (i32,) = first(session, "SELECT bucket FROM conversation_buckets WHERE conversation_id = ?", (id,)).await?;
    let counted: (i64, i64, CqlTimeuuid) = first(
        session,
        "SELECT count(*), max(sequence), max(id) FROM messages WHERE conversation_id = ? AND bucket = ?",
        (id, bucket.0),
    )
    .await?;
    if counted != (bigint(head.sequence), bigint(head.sequence), timeuuid(log.last())) {
        return Err(format!("{counted:?} and not {head:?}"));
    }
    let index: (i64,) = first(session, "SELECT conversation_id FROM message_index WHERE id = ?", (timeuuid(log.last()),)).await?;
    let cql = "SELECT read_marks FROM participants WHERE conversation_id = ? AND user_id = ?";
    let marks: (BTreeMap<i32, (i64, CqlTimeuuid)>,) = first(session, cql, (id, bigint(log.sender().value()))).await?;
    let mark = marks.0.get(&0);
    if index != (id,) || mark != Some(&(bigint(head.sequence), timeuuid(log.last()))) {
        return Err(format!("index {index:?}, mark {mark:?}"));
    }
    let Some((client_id, message)) = log.last_key.borrow().clone() else { return Ok(()) };
    let cql = "SELECT id FROM message_keys WHERE conversation_id = ? AND sender_id = ? AND client_id = ?";
    let key: (CqlTimeuuid,) = first(session, cql, (id, bigint(log.sender().value()), client_id)).await?;
    if key.0 == timeuuid(message) { Ok(()) } else { Err("the last client message id has another message".to_owned()) }
}

async fn first<R>(session: &Session, cql: &str, values: impl scylla::serialize::row::SerializeRow) -> Result<R, String>
where
    R: for<'f, 'm> scylla::deserialize::row::DeserializeRow<'f, 'm>,
{
    let result = session.query_unpaged(cql, values).await.map_err(|error| error.to_string())?;
    let rows = result.into_rows_result().map_err(|error| error.to_string())?;
    rows.first_row::<R>().map_err(|error| format!("{cql}: {error}"))
}
