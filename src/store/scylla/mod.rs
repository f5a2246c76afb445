//! The contract on ScyllaDB, and on Apache Cassandra, which speaks the same protocol.
//!
//! Flows in: one request at a time, any number of them at once. Flows out: its reply. Never imports a session or a
//! shard; the thread and the runtime that it lives on are given to it, and so is the decision when it is lost.
//!
//! Invariants:
//! - a message is stored by its row, together with the other messages of its append in the same time bucket. The rows that are
//!   written before it (`append.rs`) are not seen without it, and a repetition repairs the rows that are written with it;
//! - writes with one order key are carried out in the order of their requests (`order.rs`);
//! - light-weight transactions decide which of several requests is first, for a client message id, a pair, a login, a code, a
//!   token or an id. Other writes read first only in order to answer;
//! - a request whose time is over is answered. The outcome of a write is then unknown, and a message that may be stored is
//!   settled before its conversation goes on (`known.rs`).
//!
//! `docs/decisions/0010-scylla.md` lists the rows that a crash between any two writes leaves.

mod accounts;
mod append;
mod connect;
mod conversations;
mod dispatch;
mod erase;
mod history;
mod known;
mod latency;
mod order;
mod schema;
mod statements;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::row::SerializeRow;

use crate::store::{Failure, Reply, Request, Write, log};

use known::Conversations;
use order::Queues;
use statements::{Kind, Statement, Statements};

pub use connect::{OpenError, migrate, session};
pub use latency::Latencies;
pub use tls::{Tls, TlsFault};

/// How to reach the database and what to ask of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of some nodes; the others are learnt from them.
    pub nodes: Vec<String>,
    pub keyspace: String,
    /// The map of `CREATE KEYSPACE ... WITH replication =`, for the migration that makes it.
    pub replication: String,
    /// What follows it, such as `tablets = {'enabled': false}`.
    pub keyspace_options: String,
    /// Whether reads and writes ask for a quorum of this datacenter or of all.
    pub local: bool,
    pub datacenter: Option<String>,
    pub user: Option<(String, String)>,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
    pub connect_timeout: Duration,
    /// For a whole request of the contract, however many statements it takes.
    pub request_timeout: Duration,
    /// A statement without an answer for this long is given to another replica too, if it may be carried out twice.
    pub speculative_delay: Duration,
    /// Time that one partition of a new conversation's messages covers.
    pub bucket: Duration,
    /// Messages of this age are gone; of those sent from now on. `None`: never.
    pub retention: Option<Duration>,
    /// Conversations about which something is kept in memory.
    pub conversations_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            keyspace: "tidings".into(),
            replication: "{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}".into(),
            keyspace_options: String::new(),
            local: true,
            datacenter: None,
            user: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_millis(900),
            speculative_delay: Duration::from_millis(100),
            bucket: Duration::from_secs(10 * 86_400),
            retention: None,
            conversations_max: 100_000,
        }
    }
}

/// A session with its prepared statements. Lifetime: until the database is lost. Owner: the bridge's thread.
pub struct Connected {
    session: Session,
    statements: Statements,
}

/// The store. Lifetime: the node's. Owner: the bridge's thread. View: node.
pub struct Scylla {
    options: Options,
    connected: RefCell<Rc<Connected>>,
    conversations: RefCell<Conversations>,
    queues: Queues,
    /// When the database last answered anything.
    answered: Cell<tokio::time::Instant>,
}

/// Why a request came to no end.
#[derive(Debug)]
enum Fault {
    /// The statement did nothing.
    Refused(String),
    /// It may have been carried out.
    Unknown(String),
    /// A row has values that the store never wrote.
    Corrupt,
    /// Too many others wanted the same at once.
    Contended,
    /// The id of a message is neither new nor stored.
    NotNew,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) | Self::Unknown(reason) => f.write_str(reason),
            Self::Corrupt => f.write_str("a row cannot be understood"),
            Self::Contended => f.write_str("too many want the same at once"),
            Self::NotNew => f.write_str("a message id is neither new nor stored"),
        }
    }
}

/// One request under way.
struct Work<'a> {
    store: &'a Scylla,
    connected: Rc<Connected>,
    /// Whether something that can be seen was written, or may have been.
    wrote: Cell<bool>,
}

/// The text of a statement by the name in its latencies, for a comparison with the driver alone.
#[must_use]
pub fn statement(name: &str) -> Option<&'static str> {
    Statements::text(name)
}

impl Scylla {
    #[must_use]
    pub fn new(options: Options, connected: Connected) -> Self {
        let conversations = RefCell::new(Conversations::new(options.conversations_max));
        Self {
            options,
            connected: RefCell::new(Rc::new(connected)),
            conversations,
            queues: Queues::default(),
            answered: Cell::new(tokio::time::Instant::now()),
        }
    }

    /// How long ago the database last answered anything.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.answered.get().elapsed()
    }

    /// The session, for another thread to go on with.
    ///
    /// # Panics
    /// While a request is under way.
    #[must_use]
    pub fn into_connected(self) -> Connected {
        Rc::into_inner(self.connected.into_inner()).expect("no request is under way")
    }

    /// Goes on with another session. Requests under way end on the old one.
    pub fn replace(&self, connected: Connected) {
        // Opening it took an answer, which was not counted here.
        self.answered.set(tokio::time::Instant::now());
        self.connected.replace(Rc::new(connected));
    }

    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Takes the next epoch of a node, from 1: durable, and given out once.
    ///
    /// # Errors
    /// When the database does not answer, or too many nodes start under this number.
    pub async fn next_epoch(&self, node: u16) -> Result<u64, Box<dyn Error + Send + Sync>> {
        let work = self.work();
        let statements = &work.connected.statements;
        let node = i32::from(node);
        for _ in 0..16 {
            let there: Option<(i64,)> = work.first(&statements.read_epoch, (node,)).await.map_err(|fault| fault.to_string())?;
            let (next, taken) = match there {
                None => (1, work.decide(&statements.claim_epoch, (node, 1_i64)).await),
                Some((epoch,)) => (epoch + 1, work.decide(&statements.next_epoch, (epoch + 1, node, epoch)).await),
            };
            if taken.map_err(|fault| fault.to_string())? {
                return Ok(u64::try_from(next).unwrap_or(1));
            }
        }
        Err("too many nodes start under the same number".into())
    }

    /// Whether the database answers, within `patience`.
    pub async fn ping(&self, patience: Duration) -> bool {
        let work = self.work();
        let ping = work.first::<(i32,)>(&work.connected.statements.ping, ());
        matches!(tokio::time::timeout(patience, ping).await, Ok(Ok(Some(_))))
    }

    /// Carries a request out. It enters the queue of its key now, not when it is first polled.
    ///
    /// When `given_up` ends first, the request ends too, as if its time were over.
    pub fn ask(
        self: &Rc<Self>,
        request: Request,
        given_up: impl Future<Output = ()> + 'static,
    ) -> impl Future<Output = Reply> + 'static {
        let mut permit = self.queues.enter(&request);
        let store = Rc::clone(self);
        async move {
            let work = store.work();
            let answer = async {
                permit.granted().await;
                work.answer(&request).await
            };
            // A ready answer counts, and in this order most requests look at nothing else.
            let outcome = tokio::select! {
                biased;
                outcome = answer => Some(outcome),
                () = tokio::time::sleep(store.options.request_timeout) => None,
                () = given_up => None,
            };
            let is_read = request.is_read();
            match outcome {
                Some(Ok(reply)) => reply,
                // Certain, so that no message is in doubt: an earlier one of the same request may well be stored.
                Some(Err(Fault::NotNew)) => Reply::Failed(Failure::Unavailable),
                Some(Err(fault)) => {
                    tracing::warn!(%fault, "a request to the store failed");
                    store.doubt(&request);
                    match fault {
                        Fault::Contended => Reply::Failed(Failure::Busy),
                        Fault::Unknown(_) if !is_read => Reply::Failed(Failure::Unknown),
                        _ if work.wrote.get() => Reply::Failed(Failure::Unknown),
                        _ => Reply::Failed(Failure::Unavailable),
                    }
                }
                None => {
                    store.doubt(&request);
                    Reply::Failed(if is_read { Failure::Unavailable } else { Failure::Unknown })
                }
            }
        }
    }

    /// A request is given up whose write may yet arrive.
    fn doubt(&self, request: &Request) {
        if let Request::Write(Write::Log(log::Write::Append(append))) = request {
            self.conversations.borrow_mut().doubt(append.conversation, &append.messages);
        }
    }

    /// How long each statement took since the session was made.
    #[must_use]
    pub fn latencies(&self) -> Vec<Latencies> {
        let connected = Rc::clone(&self.connected.borrow());
        connected.statements.all().into_iter().map(|statement| statement.latency.read(statement.name)).collect()
    }

    /// How long each statement took since this was last asked for.
    #[must_use]
    pub fn new_latencies(&self) -> Vec<Latencies> {
        let connected = Rc::clone(&self.connected.borrow());
        connected.statements.all().into_iter().map(|statement| statement.latency.read_new(statement.name)).collect()
    }

    #[cfg(test)]
    pub(crate) async fn drop_keyspace(&self) {
        let session = &self.connected.borrow().clone().session;
        let dropped = session.query_unpaged(format!("DROP KEYSPACE {}", self.options.keyspace), ()).await;
        assert!(std::thread::panicking() || dropped.is_ok(), "{dropped:?}");
    }

    /// Forgets the facts about conversations.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.conversations.replace(Conversations::new(self.options.conversations_max));
    }

    fn work(&self) -> Work<'_> {
        Work { store: self, connected: Rc::clone(&self.connected.borrow()), wrote: Cell::new(false) }
    }
}

impl Work<'_> {
    async fn run(&self, statement: &Statement, values: impl SerializeRow) -> Result<QueryResult, Fault> {
        let began = tokio::time::Instant::now();
        // In a box: the driver's future has some thousand bytes, which every caller would move.
        let outcome = Box::pin(self.connected.session.execute_unpaged(&statement.prepared, values)).await;
        let ended = tokio::time::Instant::now();
        statement.latency.record(ended - began, outcome.is_err());
        if outcome.is_ok() {
            self.store.answered.set(ended);
        }
        outcome.map_err(|error| fault(error, statement.kind))
    }

    async fn result(&self, statement: &Statement, values: impl SerializeRow) -> Result<QueryRowsResult, Fault> {
        self.run(statement, values).await?.into_rows_result().map_err(|_| Fault::Corrupt)
    }

    async fn rows<R>(&self, statement: &Statement, values: impl SerializeRow) -> Result<Vec<R>, Fault>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let result = self.result(statement, values).await?;
        let rows = result.rows::<R>().map_err(|_| Fault::Corrupt)?;
        rows.collect::<Result<_, _>>().map_err(|_| Fault::Corrupt)
    }

    async fn first<R>(&self, statement: &Statement, values: impl SerializeRow) -> Result<Option<R>, Fault>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        self.result(statement, values).await?.maybe_first_row::<R>().map_err(|_| Fault::Corrupt)
    }

    /// A write that is seen by itself.
    async fn write(&self, statement: &Statement, values: impl SerializeRow) -> Result<(), Fault> {
        self.note(self.prepare(statement, values).await)
    }

    /// A write that is not seen without another one after it.
    async fn prepare(&self, statement: &Statement, values: impl SerializeRow) -> Result<(), Fault> {
        assert!(statement.kind == Kind::Write, "{} is no plain write", statement.name);
        self.run(statement, values).await.map(drop)
    }

    /// Remembers that something was written, or may have been.
    fn note<T>(&self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        if !matches!(outcome, Err(Fault::Refused(_))) {
            self.wrote.set(true);
        }
        outcome
    }

    /// A light-weight transaction: whether it applied. The row that was in its way comes back in different forms from
    /// different databases, so it is read where it matters.
    async fn decide(&self, statement: &Statement, values: impl SerializeRow) -> Result<bool, Fault> {
        assert!(statement.kind == Kind::Transaction, "{} is no transaction", statement.name);
        let result = self.result(statement, values).await?;
        let (at, _) = result.column_specs().get_by_name("[applied]").ok_or(Fault::Corrupt)?;
        let row = result.single_row::<scylla::value::Row>().map_err(|_| Fault::Corrupt)?;
        row.columns.get(at).and_then(Option::as_ref).and_then(|value| value.as_boolean()).ok_or(Fault::Corrupt)
    }
}

/// Whether a failed statement can have changed anything. The driver reports the last node that it tried; if the statement may be
/// tried twice, an earlier node may have carried it out.
fn fault(error: ExecutionError, kind: Kind) -> Fault {
    let certain = match &error {
        ExecutionError::EmptyPlan | ExecutionError::BadQuery(_) | ExecutionError::PrepareError(_) => true,
        _ if kind == Kind::Write => false,
        ExecutionError::ConnectionPoolError(_) => true,
        ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId) => true,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => matches!(
            error,
            DbError::Unavailable { .. }
                | DbError::Overloaded
                | DbError::IsBootstrapping
                | DbError::SyntaxError
                | DbError::Invalid
                | DbError::Unauthorized
                | DbError::RateLimitReached { .. }
        ),
        _ => false,
    };
    if certain { Fault::Refused(error.to_string()) } else { Fault::Unknown(error.to_string()) }
}
