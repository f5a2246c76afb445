//! The one table of every key: name, type of value, field in [`Settings`], and a line of documentation.

use config::Config;

use super::kinds::{
    Address, Code, ConsistencyName, Count, Cql, Directory, File, HostName, LogFormat, LogLevel, Millis, Name, NodeList,
    NodeNumber, Number, OptionalAddress, OriginList, Period, PhoneList, ProfileName, Secret, Size, StoreName, Switch, Tolerance,
    Url, ValueType, read,
};
use super::settings::Settings;
use crate::model::Limits;

/// One row of the table.
#[derive(Debug)]
pub struct Key {
    /// Dotted, as in the file.
    pub name: &'static str,
    /// The form of its values.
    pub kind: &'static str,
    pub doc: &'static str,
    /// The value must not be printed.
    pub secret: bool,
    read: fn(&mut Settings, &Config) -> Result<(), String>,
    show: fn(&Settings) -> String,
}

impl Key {
    /// The variable of the environment: `limits.frame_bytes` is `TIDINGS_LIMITS_FRAME_BYTES`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("TIDINGS_{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }

    /// The value in `settings` as TOML; a secret as `"[redacted]"`.
    #[must_use]
    pub fn show(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }

    /// Sets the field in `settings` to the value of the sources, if they have one.
    pub(super) fn read(&self, settings: &mut Settings, merged: &Config) -> Result<(), String> {
        (self.read)(settings, merged)
    }
}

macro_rules! key {
    ($name:expr, $($field:ident).+, $kind:ty, $doc:expr) => {
        key!($name, $($field).+, $kind, $doc, secret: false)
    };
    ($name:expr, $($field:ident).+, $kind:ty, $doc:expr, secret: $secret:literal) => {
        Key {
            name: $name,
            kind: <$kind as ValueType>::EXPECTED,
            doc: $doc,
            secret: $secret,
            read: |settings, merged| {
                if let Some(value) = read::<$kind>(merged, $name, $secret)? {
                    settings.$($field).+ = value;
                }
                Ok(())
            },
            show: |settings| <$kind as ValueType>::show(&settings.$($field).+),
        }
    };
}

/// The rows of `limits.*`, one for each field of [`Limits`] but the three that are `auth.*`: a field without a row, or a
/// row without a field, does not compile.
macro_rules! table {
    ([$($row:expr),+ $(,)?] limits: $($field:ident: $kind:ty, $doc:literal;)+) => {
        /// Every key, in the order of the reference.
        pub const KEYS: &[Key] = &[
            $($row,)+
            $(key!(concat!("limits.", stringify!($field)), limits.$field, $kind, $doc),)+
        ];

        const _: fn(Limits) = |limits| {
            let Limits { access_ttl: _, refresh_ttl: _, token_leeway: _, $($field: _),+ } = limits;
        };
    };
}

table! {
    [
        key!("profile", profile, ProfileName,
            "Which defaults apply. Production refuses to start with settings that are safe only on a developer's machine."),
        key!("listen", listen, Address, "Address of HTTP and WebSocket; port 0 chooses a free one."),
        key!("data_dir", data_dir, Directory, "Directory of the embedded store and of the development secret."),
        key!("shards", shards, Count<u16>, "Executors, each pinned to a core. Default: the cores this process may use."),
        key!("node", node, NodeNumber, "Number of this node, different for each node that shares a store."),
        key!("store", store, StoreName, "Store of the messages."),
        key!("embedded.sync", embedded.sync, Switch,
            "Whether the embedded store syncs to disk before it acknowledges. Off: a crash of the machine loses messages."),
        key!("scylla.nodes", scylla.nodes, NodeList, "Some nodes of the database; they report the others."),
        key!("scylla.keyspace", scylla.keyspace, Name, "Keyspace of the tables. `tidings migrate` creates it."),
        key!("scylla.replication", scylla.replication, Cql,
            "Replication of a new keyspace: the map of `CREATE KEYSPACE ... WITH replication =`."),
        key!("scylla.keyspace_options", scylla.keyspace_options, Cql,
            "Further options of a new keyspace, such as `tablets = {'enabled': false}`."),
        key!("scylla.consistency", scylla.consistency, ConsistencyName,
            "Whose majority must answer: the replicas in the nearest datacenter, or all replicas."),
        key!("scylla.datacenter", scylla.datacenter, Name, "Datacenter whose nodes are asked; empty: any."),
        key!("scylla.user", scylla.user, Cql, "User of the database; empty: none."),
        key!("scylla.password", scylla.password, Secret, "Password of that user.", secret: true),
        key!("scylla.tls", scylla.tls, Switch, "Whether connections to the database are encrypted."),
        key!("scylla.tls_ca", scylla.tls_ca, File,
            "Certificates, in PEM, of the authorities that sign the nodes' certificates. Required with `scylla.tls`."),
        key!("scylla.tls_certificate", scylla.tls_certificate, File,
            "The server's own certificate and the intermediate ones, in PEM, for a database that asks for one."),
        key!("scylla.tls_key", scylla.tls_key, File, "Private key of that certificate, in PEM."),
        key!("scylla.tls_name", scylla.tls_name, HostName,
            "Name that the certificate of each node must bear; empty: the address that the server connects to."),
        key!("scylla.connect_timeout", scylla.connect_timeout, Period, "How long a connection to a node may take."),
        key!("scylla.request_timeout", scylla.request_timeout, Period,
            "How long a request to the store may take, all its statements together; longer: its outcome is unknown."),
        key!("scylla.lost_after", scylla.lost_after, Period,
            "After this long without any answer the database is lost: requests are refused until it answers again."),
        key!("scylla.report_every", scylla.report_every, Tolerance,
            "How often the server logs how long each kind of statement took since the last time; `0s`: only at its end, for all."),
        key!("scylla.speculative_delay", scylla.speculative_delay, Period,
            "After this long without an answer a statement goes to another replica too, if it may be carried out twice."),
        key!("scylla.bucket", scylla.bucket, Period,
            "Time that one partition of a conversation's messages covers, for new conversations; an hour at least."),
        key!("retention.messages", retention.messages, Tolerance,
            "Age at which messages are removed, a day at least; `0s`: never. In a database a message keeps the age that was set \
             when it was sent."),
        key!("auth.secret", auth.secret, Secret,
            "HS256 secret of access tokens, at least 32 bytes. Development: created once and kept in `auth.secret` of the data \
             directory. Production: required.", secret: true),
        key!("auth.fixed_code", auth.fixed_code, Code,
            "A one-time code that always works; empty: none. Production refuses it.", secret: true),
        key!("auth.admin_phones", auth.admin_phones, PhoneList, "Phones whose users get role admin at login.", secret: true),
        key!("auth.access_ttl", limits.access_ttl, Period, "Life of an access token that the server issues."),
        key!("auth.refresh_ttl", limits.refresh_ttl, Period, "Life of a refresh token."),
        key!("auth.leeway", limits.token_leeway, Tolerance, "How long past its expiry, or before its start, a token is valid."),
        key!("cors.origins", cors.origins, OriginList,
            "Pages that may use the server from a browser, besides its own origin. Production refuses `*`."),
        key!("sockjs.websocket", sockjs.websocket, Switch, "Whether SockJS clients are offered WebSockets."),
        key!("sockjs.cookie_needed", sockjs.cookie_needed, Switch,
            "Whether SockJS sets the cookie `JSESSIONID`, by which load balancers can keep a client on one node."),
        key!("sockjs.client_url", sockjs.client_url, Url,
            "Where SockJS's iframe transports load SockJS's client script from; the server does not serve one."),
        key!("stomp.listen", stomp.listen, OptionalAddress,
            "Address of STOMP on plain TCP, without WebSocket and without encryption."),
        key!("content.sanitize", content.sanitize, Switch, "Whether markup in messages is escaped before they are stored."),
        key!("page.enabled", page.enabled, Switch, "Whether the chat page is served at `/`."),
        key!("log.format", log.format, LogFormat, "Form of the log on standard error."),
        key!("log.level", log.level, LogLevel, "Level or filter of the log."),
    ]
    limits:
    http_line_bytes: Size, "Request line of HTTP; longer: 414.";
    http_header_bytes: Size, "All header lines of a request together; longer: 431.";
    http_headers: Count<usize>, "Header lines of a request; more: 431.";
    http_body_bytes: Size, "Body of a request; longer: 413.";
    http_pipelined: Count<usize>, "Requests of one connection without a response yet; at the limit the connection is not read.";
    http_idle: Period, "A connection that sent no complete request for this long is closed; with a partial one, after a 408.";
    frame_bytes: Size, "STOMP frame from command to NUL; longer: ERROR, close 1009.";
    message_bytes: Size, "WebSocket message, which may hold many STOMP frames or part of one; longer: close 1009.";
    frame_headers: Count<usize>, "Headers of a STOMP frame; more: ERROR, close 1009.";
    frame_header_bytes: Size, "One STOMP header line; longer: ERROR, close 1009.";
    message_fragments: Count<usize>, "Fragments of one WebSocket message; more: close 1009.";
    first_frame: Period, "From the upgrade to the first STOMP frame; later: close.";
    subscriptions: Count<usize>, "Subscriptions of one session; more: ERROR, close 1008.";
    transactions: Count<usize>, "Open transactions of one session; more: ERROR.";
    transaction_frames: Count<usize>, "Frames in one transaction; more: ERROR.";
    session_inflight: Count<usize>, "Commands of one session without an outcome yet; at the limit the connection is not read.";
    outbox_bytes: Size, "Bytes queued for one session; more: close 4500.";
    write_blocked: Period, "A write that makes no progress for this long: close 4500.";
    heartbeat_ms: Millis, "The server's offer of STOMP heart-beats, both ways, in milliseconds; 0 turns them off.";
    heartbeat_ms_min: Millis, "The shortest interval of heart-beats, in milliseconds, that the server agrees to send at.";
    ping: Period, "Interval of WebSocket pings, independent of STOMP.";
    sockjs_stream_bytes: Size, "Bytes of one SockJS streaming response; then it ends and the client opens another.";
    sockjs_disconnect: Period, "How long a SockJS session lives without a request that waits for its messages.";
    sockjs_sessions: Count<usize>, "SockJS sessions over HTTP of one shard; more: 503.";
    linger: Period, "From a close frame or ERROR to the end of the TCP connection.";
    connections_per_shard: Count<usize>, "Connections of one shard; at the limit accepting pauses.";
    sessions_per_user: Count<usize>, "Sessions of one user on this node; more: ERROR, close 1008.";
    messages_per_minute: Count<u32>, "Messages a user may send per minute in the long run; more: 429.";
    messages_burst: Count<u32>, "Messages a user may send at once; more: 429.";
    content_chars: Count<usize>, "Length of a message's content in characters; longer: refused.";
    client_message_id_bytes: Count<usize>, "Length of a client message id in bytes; longer: refused.";
    idempotency_ttl: Period, "How long a client message id is remembered.";
    passed_header_bytes: Size, "Bytes of client headers passed on with a message; more: the SEND is refused.";
    conversation_pending: Count<usize>, "Sends of one conversation that wait for the store; more: store busy.";
    append_batch: Count<usize>, "Messages of one conversation that one store request appends.";
    store_inflight: Count<usize>, "Requests of one shard under way at the store, and callers that wait for pages of history; more: store busy.";
    participants: Count<usize>, "Participants of a group; more: refused.";
    title_chars: Count<usize>, "Length of a conversation's title in characters; longer: refused.";
    page_default: Count<u16>, "Entries of a page of history or of a list when the request gives no limit.";
    page_max: Count<u16>, "Entries of a page at most; more: 400.";
    conversations_cached: Count<usize>, "Conversations kept in a shard's memory; the least recently used is dropped.";
    recent_messages: Number, "Newest messages of a conversation kept in its shard's memory for pages of history; 0: none.";
    recent_bytes: Size, "Memory of a shard for the newest messages of conversations; the least recently used are dropped.";
    otp_ttl: Period, "Life of a one-time code.";
    otp_attempts: Count<u32>, "Wrong attempts before a one-time code is void.";
    otp_per_phone_hour: Count<u32>, "One-time codes sent to one phone within an hour; more: 429.";
    auth_per_address_minute: Count<u32>, "Login requests of one address within a minute; more: 429.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_variables_and_prefixes_do_not_clash() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        let variables: BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
        assert_eq!(names.len(), KEYS.len());
        assert_eq!(variables.len(), KEYS.len());
        for name in &names {
            let parents = name.match_indices('.').map(|(at, _)| &name[..at]);
            for parent in parents {
                assert!(!names.contains(parent), "{parent} is a key and the group of {name}");
            }
        }
    }

    #[test]
    fn docs_are_one_line() {
        for key in KEYS {
            assert!(key.doc.ends_with('.') && !key.doc.contains(['\n', '|']), "{}", key.name);
        }
    }
}
