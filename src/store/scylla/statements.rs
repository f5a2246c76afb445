//! Every statement that requests use, prepared once.
//!
//! Columns are named, so that a later migration may add some. A message and a read mark carry the time of their id as
//! the time of the write: a repetition writes the same cells, and of two marks the later one stays, in whatever order
//! they arrive.

use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use super::latency::Latency;

/// How a statement may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing.
    Read,
    /// Sees the outcome of every light-weight transaction before it, also of one whose coordinator has died.
    SerialRead,
    /// May be carried out twice: given to a second replica when the first is slow, as reads are.
    Write,
    /// A light-weight transaction: its first outcome must not be hidden by a second try.
    Transaction,
}

/// One prepared statement, with how long it takes.
pub(super) struct Statement {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) prepared: PreparedStatement,
    pub(super) latency: Latency,
}

/// How statements are carried out.
pub(super) struct Profile {
    pub(super) profile: ExecutionProfileHandle,
    /// Of [`Kind::SerialRead`].
    pub(super) serial: Consistency,
    pub(super) timeout: Duration,
}

impl Statement {
    async fn prepare(
        session: &Session,
        profile: &Profile,
        name: &'static str,
        kind: Kind,
        cql: &str,
    ) -> Result<Self, PrepareError> {
        let mut prepared = session.prepare(cql).await?;
        prepared.set_execution_profile_handle(Some(profile.profile.clone()));
        prepared.set_is_idempotent(kind != Kind::Transaction);
        prepared.set_request_timeout(Some(profile.timeout));
        if kind == Kind::SerialRead {
            prepared.set_consistency(profile.serial);
        }
        Ok(Self { name, kind, prepared, latency: Latency::default() })
    }
}

macro_rules! statements {
    ($($name:ident: $kind:ident $cql:expr;)+) => {
        /// Each in a box of its own: all of them together, and what prepares them, would not fit on a thread's stack.
        pub(super) struct Statements {
            $(pub(super) $name: Box<Statement>,)+
        }

        impl Statements {
            pub(super) async fn prepare(session: &Session, profile: &Profile) -> Result<Self, PrepareError> {
                Ok(Self {
                    $($name: Box::pin(Statement::prepare(session, profile, stringify!($name), Kind::$kind, $cql)).await?.into(),)+
                })
            }

            /// The text of a statement.
            pub(super) fn text(name: &str) -> Option<&'static str> {
                match name {
                    $(stringify!($name) => Some($cql),)+
                    _ => None,
                }
            }

            pub(super) fn all(&self) -> Vec<&Statement> {
                vec![$(&*self.$name,)+]
            }
        }
    };
}

/// In the order of `values::MessageRow`.
macro_rules! messages {
    ($rest:literal) => {
        concat!("SELECT id, sender_id, sequence, prev, client_id, headers, content FROM messages WHERE conversation_id = ? AND bucket = ? ", $rest)
    };
}

statements! {
    ping: Read "SELECT version FROM schema_version WHERE part = 0";

    claim_epoch: Transaction "INSERT INTO nodes (node, epoch) VALUES (?, ?) IF NOT EXISTS";
    read_epoch: SerialRead "SELECT epoch FROM nodes WHERE node = ?";
    next_epoch: Transaction "UPDATE nodes SET epoch = ? WHERE node = ? IF epoch = ?";

    read_conversation: Read "SELECT kind, title, created_by, created_at, bucket_seconds, complete FROM conversations WHERE conversation_id = ?";
    make_conversation: Transaction "INSERT INTO conversations (conversation_id, kind, title, created_by, created_at, bucket_seconds) VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS";
    complete_conversation: Write "UPDATE conversations SET complete = true WHERE conversation_id = ?";
    remove_conversation: Transaction "DELETE FROM conversations WHERE conversation_id = ? IF EXISTS";
    read_pair: SerialRead "SELECT conversation_id FROM direct_pairs WHERE first_user = ? AND second_user = ?";
    claim_pair: Transaction "INSERT INTO direct_pairs (first_user, second_user, conversation_id) VALUES (?, ?, ?) IF NOT EXISTS";

    read_participants: Read "SELECT user_id, role, joined_at, departures, read_marks FROM participants WHERE conversation_id = ?";
    read_participant: Read "SELECT user_id, role, joined_at, departures, read_marks FROM participants WHERE conversation_id = ? AND user_id = ?";
    put_participant: Write "UPDATE participants SET role = ?, joined_at = ? WHERE conversation_id = ? AND user_id = ?";
    remove_participant: Write "UPDATE participants SET role = null, joined_at = null, departures = ? WHERE conversation_id = ? AND user_id = ?";
    put_mark: Write "UPDATE participants USING TIMESTAMP ? SET read_marks[?] = ? WHERE conversation_id = ? AND user_id = ?";

    end_stay: Write "UPDATE participants SET departures = ? WHERE conversation_id = ? AND user_id = ?";
    read_stays: Read "SELECT read_marks FROM participants WHERE conversation_id = ? AND user_id = ?";
    remove_mark: Write "DELETE read_marks[?] FROM participants USING TIMESTAMP ? WHERE conversation_id = ? AND user_id = ?";

    list_conversations: Read "SELECT conversation_id FROM conversations_by_user WHERE user_id = ? AND conversation_id > ? LIMIT ?";
    list_conversation: Write "INSERT INTO conversations_by_user (user_id, conversation_id) VALUES (?, ?)";
    unlist_conversation: Write "DELETE FROM conversations_by_user WHERE user_id = ? AND conversation_id = ?";

    note_left: Write "INSERT INTO conversations_left (user_id, conversation_id) VALUES (?, ?)";
    list_left: Read "SELECT conversation_id FROM conversations_left WHERE user_id = ? AND conversation_id > ? LIMIT ?";

    claim_key: Transaction "INSERT INTO message_keys (conversation_id, sender_id, client_id, id, expires) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS USING TTL ?";
    read_key: SerialRead "SELECT id, expires FROM message_keys WHERE conversation_id = ? AND sender_id = ? AND client_id = ?";
    take_key: Transaction "UPDATE message_keys USING TTL ? SET id = ?, expires = ? WHERE conversation_id = ? AND sender_id = ? AND client_id = ? IF id = ?";
    release_key: Transaction "DELETE FROM message_keys WHERE conversation_id = ? AND sender_id = ? AND client_id = ? IF id = ?";

    put_index: Write "INSERT INTO message_index (id, conversation_id) VALUES (?, ?) USING TTL ?";
    read_index: Read "SELECT conversation_id FROM message_index WHERE id = ?";
    put_bucket: Write "INSERT INTO conversation_buckets (conversation_id, bucket) VALUES (?, ?) USING TTL ?";
    buckets_down: Read "SELECT bucket FROM conversation_buckets WHERE conversation_id = ? AND bucket <= ? LIMIT ?";
    buckets_up: Read "SELECT bucket FROM conversation_buckets WHERE conversation_id = ? AND bucket >= ? ORDER BY bucket ASC LIMIT ?";

    put_message: Write "INSERT INTO messages (conversation_id, bucket, id, sender_id, sequence, prev, client_id, headers, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    bury_message: Write "DELETE FROM messages USING TIMESTAMP ? WHERE conversation_id = ? AND bucket = ? AND id = ?";
    erase_message: Write "DELETE content, client_id, headers FROM messages USING TIMESTAMP ? WHERE conversation_id = ? AND bucket = ? AND id = ?";
    read_message: Read messages!("AND id = ?");
    page_before: Read messages!("AND id < ? LIMIT ?");
    page_after: Read messages!("AND id > ? ORDER BY id ASC LIMIT ?");

    read_blocks: Read "SELECT blocked_id FROM blocks WHERE user_id = ?";
    read_block: Read "SELECT blocked_id FROM blocks WHERE user_id = ? AND blocked_id = ?";
    put_block: Write "INSERT INTO blocks (user_id, blocked_id) VALUES (?, ?)";
    remove_blocks: Write "DELETE FROM blocks WHERE user_id = ?";
    remove_block: Write "DELETE FROM blocks WHERE user_id = ? AND blocked_id = ?";

    make_user: Transaction "INSERT INTO users (user_id, login, created_at) VALUES (?, ?, ?) IF NOT EXISTS";
    read_user: Read "SELECT login, roles, display_name FROM users WHERE user_id = ?";
    put_roles: Write "UPDATE users SET roles = ? WHERE user_id = ?";
    claim_login: Transaction "INSERT INTO users_by_login (login, user_id) VALUES (?, ?) IF NOT EXISTS";
    read_login: SerialRead "SELECT user_id FROM users_by_login WHERE login = ?";

    release_login: Transaction "DELETE FROM users_by_login WHERE login = ? IF user_id = ?";
    remove_user: Transaction "DELETE FROM users WHERE user_id = ? IF EXISTS";

    read_code: SerialRead "SELECT version, code, code_expires, wrong_attempts, sent, attempted_at, attempted_code, attempted_right FROM one_time_codes WHERE login = ?";
    make_code: Transaction "INSERT INTO one_time_codes (login, version, code, code_expires, wrong_attempts, sent, attempted_at, attempted_code, attempted_right) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS USING TTL ?";
    change_code: Transaction "UPDATE one_time_codes USING TTL ? SET version = ?, code = ?, code_expires = ?, wrong_attempts = ?, sent = ?, attempted_at = ?, attempted_code = ?, attempted_right = ? WHERE login = ? IF version = ?";

    remove_code: Transaction "DELETE FROM one_time_codes WHERE login = ? IF EXISTS";

    read_token: SerialRead "SELECT user_id, family, expires, next FROM refresh_tokens WHERE hash = ?";
    put_token: Write "INSERT INTO refresh_tokens (hash, user_id, family, expires) VALUES (?, ?, ?, ?) USING TTL ?";
    remove_token: Write "DELETE FROM refresh_tokens WHERE hash = ?";
    use_token: Transaction "UPDATE refresh_tokens USING TTL ? SET next = ? WHERE hash = ? IF user_id = ? AND next = null";
    make_family: Transaction "INSERT INTO refresh_families (family, user_id) VALUES (?, ?) IF NOT EXISTS USING TTL ?";
    read_family: SerialRead "SELECT user_id FROM refresh_families WHERE family = ?";
    prolong_family: Transaction "UPDATE refresh_families USING TTL ? SET user_id = ? WHERE family = ? IF user_id = ?";
    note_family: Write "INSERT INTO refresh_families_by_user (user_id, family, expires) VALUES (?, ?, ?) USING TTL ?";
    list_families: Read "SELECT family, expires FROM refresh_families_by_user WHERE user_id = ?";
    revoke_family: Transaction "DELETE FROM refresh_families WHERE family = ? IF EXISTS";
    put_revocation_day: Write "INSERT INTO revocation_days (part, day) VALUES (0, ?) USING TTL ?";
    put_revocation: Write "INSERT INTO revocations (day, revoked_at, family, user_id) VALUES (?, ?, ?, ?) USING TTL ?";
    read_revocation_days: Read "SELECT day FROM revocation_days WHERE part = 0 AND day >= ?";
    read_revocations: Read "SELECT revoked_at, family, user_id FROM revocations WHERE day = ? AND revoked_at >= ?";
}
