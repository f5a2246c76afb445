//! Opening a session of the database, and bringing its schema up to date.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::PoolSize;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::ExecutionError;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::policies::timestamp_generator::MonotonicTimestampGenerator;
use scylla::statement::{Consistency, SerialConsistency};

use super::statements::{Kind, Profile, Statements};
use super::{Connected, Fault, Options, Tls, fault, schema};

/// How long a migration waits for a sign of life.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(30);

/// The reason that no session could be opened.
#[derive(Debug)]
pub enum OpenError {
    /// No node answers, or not in time: another try may succeed.
    Unreachable(String),
    /// The schema is older than this build needs, or does not exist: `tidings migrate` creates it.
    Schema { found: i32, needed: i32 },
    /// The database or this server refuses the other: a wrong password, a wrong option, a certificate that is not trusted.
    Refused(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "the database cannot be reached: {reason}"),
            Self::Schema { found: 0, needed } => {
                write!(f, "there is no schema yet, version {needed} is needed: run `tidings migrate`")
            }
            Self::Schema { found, needed } => {
                write!(f, "the schema has version {found}, {needed} is needed: run `tidings migrate`")
            }
            Self::Refused(reason) => write!(f, "the database cannot be used: {reason}"),
        }
    }
}

impl Error for OpenError {}

/// A session as the store has it and the profile of its statements, for the same comparison.
///
/// # Errors
/// [`OpenError`].
pub async fn session(options: &Options) -> Result<(Session, ExecutionProfileHandle), OpenError> {
    Ok((connect(options, true).await?, profile(options).profile))
}

/// Makes the keyspace and brings its schema up to what this build needs. Returns from and to which version.
///
/// # Errors
/// [`OpenError`]; the finished part stays, and the next run skips it.
pub async fn migrate(options: &Options) -> Result<(i32, i32), OpenError> {
    // Making tables takes a busy database longer than any request may.
    let patient = Options { connect_timeout: options.connect_timeout.max(MIGRATION_PATIENCE), ..options.clone() };
    let session = connect(&patient, false).await?;
    schema::make_keyspace(&session, &options.keyspace, &options.replication, &options.keyspace_options).await.map_err(refused)?;
    session.use_keyspace(&options.keyspace, true).await.map_err(|error| OpenError::Refused(error.to_string()))?;
    schema::migrate(&session).await.map_err(refused)
}

fn refused(error: ExecutionError) -> OpenError {
    match fault(error, Kind::Transaction) {
        Fault::Unknown(reason) => OpenError::Unreachable(reason),
        other => OpenError::Refused(other.to_string()),
    }
}

async fn connect(options: &Options, use_keyspace: bool) -> Result<Session, OpenError> {
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.nodes)
        .connection_timeout(options.connect_timeout)
        .pool_size(PoolSize::PerShard(std::num::NonZeroUsize::MIN))
        .timestamp_generator(Arc::new(MonotonicTimestampGenerator::new()))
        // A node that hangs is found out by these, also where no request waits for it.
        .keepalive_interval(Duration::from_secs(1))
        .keepalive_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .keyspaces_to_fetch([&options.keyspace]);
    if use_keyspace {
        builder = builder.use_keyspace(&options.keyspace, true);
    }
    if let Some((user, password)) = &options.user {
        builder = builder.user(user, password);
    }
    if let Some(Tls(config)) = &options.tls {
        builder = builder.tls_context(Some(Arc::clone(config)));
    }
    if let Some(datacenter) = &options.datacenter {
        builder = builder.prefer_datacenter(datacenter.clone());
    }
    // A peer that accepts and stays silent would hold this up for ever.
    match tokio::time::timeout(options.connect_timeout * 2, builder.build()).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(no_session(error.to_string())),
        Err(_) => Err(OpenError::Unreachable("a node accepts connections and does not answer".into())),
    }
}

/// Whether another try may succeed: the driver describes its errors in words only.
fn no_session(text: String) -> OpenError {
    let says = |part: &str| text.contains(part);
    let why = if says("uthentication") || says("credentials") {
        ""
    } else if says("invalid peer certificate") {
        "a node's certificate is not trusted (scylla.tls_ca, scylla.tls_name): "
    } else if says("received fatal alert") {
        "a node does not accept this server's TLS (scylla.tls_certificate): "
    } else if says("received corrupt message") {
        "a node does not speak TLS (scylla.tls): "
    } else {
        return OpenError::Unreachable(text);
    };
    OpenError::Refused(format!("{why}{text}"))
}

impl Connected {
    /// A session of the keyspace, whose schema is at least what this build needs.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        let session = connect(options, true).await;
        let session = session.map_err(|error| match error {
            // The keyspace is made by the migration.
            OpenError::Unreachable(text) if text.contains("does not exist") => {
                OpenError::Schema { found: 0, needed: schema::VERSION }
            }
            other => other,
        })?;
        let prepared = async {
            let found = schema::version(&session).await.unwrap_or(0);
            if found < schema::VERSION {
                return Err(OpenError::Schema { found, needed: schema::VERSION });
            }
            let statements = Statements::prepare(&session, &profile(options)).await;
            statements.map_err(|error| OpenError::Unreachable(error.to_string()))
        };
        match tokio::time::timeout(options.connect_timeout * 2, prepared).await {
            Ok(statements) => Ok(Self { statements: statements?, session }),
            Err(_) => Err(OpenError::Unreachable("a node does not answer".into())),
        }
    }
}

fn profile(options: &Options) -> Profile {
    let (consistency, serial, serial_read) = if options.local {
        (Consistency::LocalQuorum, SerialConsistency::LocalSerial, Consistency::LocalSerial)
    } else {
        (Consistency::Quorum, SerialConsistency::Serial, Consistency::Serial)
    };
    let speculative = SimpleSpeculativeExecutionPolicy { max_retry_count: 2, retry_interval: options.speculative_delay };
    let profile = ExecutionProfile::builder()
        .consistency(consistency)
        .serial_consistency(Some(serial))
        .request_timeout(Some(options.request_timeout))
        .speculative_execution_policy(Some(Arc::new(speculative)));
    Profile { profile: profile.build().into_handle(), serial: serial_read, timeout: options.request_timeout }
}
