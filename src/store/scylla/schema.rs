//! The tables, as numbered migrations.
//!
//! A migration never changes after its release. Its statements may be carried out again, so that an interrupted run can be
//! repeated, and two runs at once do not harm each other. Times are ticks of 100 ns since 1970, as in
//! the model.

use scylla::client::session::Session;
use scylla::errors::ExecutionError;

/// The statements of each version, from 1.
const MIGRATIONS: &[&[&str]] = &[FIRST, ERASURE];

const FIRST: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS nodes (node int PRIMARY KEY, epoch bigint)",
    // Those who take part, and those who did: `departures` counts how often a user has left, and only the mark of the
    // present stay counts. So nothing has to be deleted, and no old mark can come back.
    "CREATE TABLE IF NOT EXISTS participants (conversation_id bigint, user_id bigint, role text, joined_at bigint, \
     departures int, read_marks map<int, frozen<tuple<bigint, timeuuid>>>, PRIMARY KEY (conversation_id, user_id))",
    "CREATE TABLE IF NOT EXISTS conversations (conversation_id bigint PRIMARY KEY, kind text, title text, \
     created_by bigint, created_at bigint, bucket_seconds int, complete boolean)",
    "CREATE TABLE IF NOT EXISTS conversations_by_user (user_id bigint, conversation_id bigint, \
     PRIMARY KEY (user_id, conversation_id))",
    "CREATE TABLE IF NOT EXISTS direct_pairs (first_user bigint, second_user bigint, conversation_id bigint, \
     PRIMARY KEY ((first_user, second_user)))",
    "CREATE TABLE IF NOT EXISTS messages (conversation_id bigint, bucket int, id timeuuid, sender_id bigint, \
     sequence bigint, prev timeuuid, client_id text, headers frozen<list<frozen<tuple<text, text>>>>, content text, \
     PRIMARY KEY ((conversation_id, bucket), id)) WITH CLUSTERING ORDER BY (id DESC)",
    "CREATE TABLE IF NOT EXISTS conversation_buckets (conversation_id bigint, bucket int, \
     PRIMARY KEY (conversation_id, bucket)) WITH CLUSTERING ORDER BY (bucket DESC)",
    "CREATE TABLE IF NOT EXISTS message_index (id timeuuid PRIMARY KEY, conversation_id bigint)",
    "CREATE TABLE IF NOT EXISTS message_keys (conversation_id bigint, sender_id bigint, client_id text, id timeuuid, \
     expires bigint, PRIMARY KEY ((conversation_id, sender_id, client_id)))",
    "CREATE TABLE IF NOT EXISTS blocks (user_id bigint, blocked_id bigint, PRIMARY KEY (user_id, blocked_id))",
    "CREATE TABLE IF NOT EXISTS users (user_id bigint PRIMARY KEY, login text, roles frozen<list<text>>, \
     display_name text, created_at bigint)",
    "CREATE TABLE IF NOT EXISTS users_by_login (login text PRIMARY KEY, user_id bigint)",
    "CREATE TABLE IF NOT EXISTS one_time_codes (login text PRIMARY KEY, version int, code blob, code_expires bigint, \
     wrong_attempts int, sent frozen<list<bigint>>, attempted_at bigint, attempted_code blob, attempted_right boolean)",
    "CREATE TABLE IF NOT EXISTS refresh_tokens (hash blob PRIMARY KEY, user_id bigint, family bigint, expires bigint, \
     next blob)",
    // A family is revoked by removing its row: what has expired and what was revoked are alike.
    "CREATE TABLE IF NOT EXISTS refresh_families (family bigint PRIMARY KEY, user_id bigint)",
    "CREATE TABLE IF NOT EXISTS revocation_days (part int, day int, PRIMARY KEY (part, day))",
    "CREATE TABLE IF NOT EXISTS revocations (day int, revoked_at bigint, family bigint, user_id bigint, \
     PRIMARY KEY (day, revoked_at, family))",
];

/// Tables that lead from a user to its conversations and its families of tokens.
const ERASURE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS conversations_left (user_id bigint, conversation_id bigint, \
     PRIMARY KEY (user_id, conversation_id))",
    "CREATE TABLE IF NOT EXISTS refresh_families_by_user (user_id bigint, family bigint, expires bigint, \
     PRIMARY KEY (user_id, family))",
];

/// The version that this build needs.
pub(super) const VERSION: i32 = MIGRATIONS.len() as i32;

/// Makes the keyspace unless it is there. `replication` is the map of CREATE KEYSPACE; `options` what follows it.
pub(super) async fn make_keyspace(
    session: &Session,
    keyspace: &str,
    replication: &str,
    options: &str,
) -> Result<(), ExecutionError> {
    let options = if options.is_empty() { String::new() } else { format!(" AND {options}") };
    let cql = format!("CREATE KEYSPACE IF NOT EXISTS \"{keyspace}\" WITH replication = {replication}{options}");
    session.query_unpaged(cql, ()).await.map(drop)
}

/// Carries out the missing migrations, and returns from and to which version. The session uses the keyspace.
pub(super) async fn migrate(session: &Session) -> Result<(i32, i32), ExecutionError> {
    session.query_unpaged("CREATE TABLE IF NOT EXISTS schema_version (part int PRIMARY KEY, version int)", ()).await?;
    let from = version(session).await?;
    for (number, statements) in (1..).zip(MIGRATIONS) {
        if number > from {
            for statement in *statements {
                session.query_unpaged(*statement, ()).await?;
            }
            session.query_unpaged("INSERT INTO schema_version (part, version) VALUES (0, ?)", (number,)).await?;
        }
    }
    Ok((from, VERSION.max(from)))
}

/// The version in force; 0 when no migration was carried out, an error when the table does not exist.
pub(super) async fn version(session: &Session) -> Result<i32, ExecutionError> {
    let result = session.query_unpaged("SELECT version FROM schema_version WHERE part = 0", ()).await?;
    let rows = result.into_rows_result().ok();
    Ok(rows.and_then(|rows| rows.maybe_first_row::<(i32,)>().ok().flatten()).map_or(0, |(version,)| version))
}
