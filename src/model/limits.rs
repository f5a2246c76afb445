//! Every limit of the server with its default: the `limits.*` and `auth.*` numbers of the configuration.
//! Each comment says what happens at its limit.

use std::time::Duration;

/// The longest time to live of anything that expires: twenty years, the maximum of CQL.
pub const LIFE_MAX: Duration = Duration::from_secs(20 * 365 * 86_400);

/// Bounds that the pure rooms keep. Units are in the names; durations are exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    // HTTP
    /// Request line, longer: 414.
    pub http_line_bytes: usize,
    /// All header lines together, longer: 431.
    pub http_header_bytes: usize,
    /// Number of header lines, more: 431.
    pub http_headers: usize,
    /// Request body, longer: 413.
    pub http_body_bytes: usize,
    /// Requests of one connection that wait for their response; at the limit the connection is not read.
    pub http_pipelined: usize,
    /// A connection that sent no whole request for this long is closed; with a partial one, after 408.
    pub http_idle: Duration,

    // WebSocket and STOMP
    /// A STOMP frame from command to NUL; longer: ERROR, close 1009.
    pub frame_bytes: usize,
    /// A WebSocket message, which may hold many STOMP frames or a part of one; longer: close 1009. The server never keeps
    /// a whole message: it decodes messages as they arrive.
    pub message_bytes: usize,
    /// Headers of one STOMP frame; more: ERROR, close 1009.
    pub frame_headers: usize,
    /// One STOMP header line; longer: ERROR, close 1009.
    pub frame_header_bytes: usize,
    /// Fragments of one WebSocket message; more: close 1009.
    pub message_fragments: usize,
    /// From the upgrade to the first STOMP frame; later: close.
    pub first_frame: Duration,
    /// Subscriptions of one session; more: ERROR, close 1008.
    pub subscriptions: usize,
    /// Open transactions of one session, more: ERROR; and frames in one, more: ERROR.
    pub transactions: usize,
    pub transaction_frames: usize,
    /// Commands of one session that wait for their outcome; at the limit the connection is not read.
    pub session_inflight: usize,
    /// Bytes queued for one session; more: close 4500.
    pub outbox_bytes: usize,
    /// A write that makes no progress for this long: close 4500.
    pub write_blocked: Duration,
    /// The server's offer in CONNECTED's `heart-beat`, both ways, in milliseconds; 0 turns them off.
    pub heartbeat_ms: u32,
    /// The shortest heart-beat interval, in milliseconds, that the server agrees to send at.
    pub heartbeat_ms_min: u32,
    /// Interval of WebSocket pings, independent of STOMP.
    pub ping: Duration,
    /// From a close frame or ERROR to the end of the TCP connection.
    pub linger: Duration,
    /// Bytes of packets of one SockJS streaming response; then it ends and the client opens another.
    pub sockjs_stream_bytes: usize,
    /// How long a SockJS session lives without a receiver (its protocol: 5 s).
    pub sockjs_disconnect: Duration,
    /// SockJS sessions over HTTP of one shard; more are refused with 503.
    pub sockjs_sessions: usize,

    // Connections
    /// Connections of one shard; at the limit accepting pauses.
    pub connections_per_shard: usize,
    /// Sessions of one user on this node; more: the new one is refused with ERROR, close 1008.
    pub sessions_per_user: usize,

    // Messaging
    /// Messages a user may send per minute in the long run, and at once.
    pub messages_per_minute: u32,
    pub messages_burst: u32,
    /// Length of a message's content in characters (Unicode scalar values).
    pub content_chars: usize,
    /// A client message id, in bytes.
    pub client_message_id_bytes: usize,
    /// How long a client message id is remembered.
    pub idempotency_ttl: Duration,
    /// Bytes of client headers passed on with a message; more: the SEND is refused.
    pub passed_header_bytes: usize,
    /// Sends of one conversation that wait for the store; more are refused: store busy.
    pub conversation_pending: usize,
    /// Messages of one conversation that one store request appends.
    pub append_batch: usize,
    /// Store requests of one shard in flight, plus the requests that wait for pages of history, however few reads they share;
    /// more are refused: store busy.
    pub store_inflight: usize,
    /// Participants of a group.
    pub participants: usize,
    /// A conversation's title in characters.
    pub title_chars: usize,
    /// History and list pages: default and greatest `limit`.
    pub page_default: u16,
    pub page_max: u16,
    /// Conversations kept in a shard's memory; the least recently used is dropped.
    pub conversations_cached: usize,
    /// Newest messages of a conversation kept in its shard's memory, so that its first page needs no store read;
    /// 0: none. And the bytes of all that a shard keeps; the least recently used conversations are dropped.
    pub recent_messages: usize,
    pub recent_bytes: usize,

    // Login
    /// Life of a one-time code, and the wrong attempts after which it is void.
    pub otp_ttl: Duration,
    pub otp_attempts: u32,
    /// Codes sent to one phone within an hour, and login requests of one address within a minute; more: 429.
    pub otp_per_phone_hour: u32,
    pub auth_per_address_minute: u32,
    /// Life of an access token and of a refresh token.
    pub access_ttl: Duration,
    pub refresh_ttl: Duration,
    /// How long past its `exp` a token is still valid.
    pub token_leeway: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http_line_bytes: 8 * 1024,
            http_header_bytes: 16 * 1024,
            http_headers: 64,
            http_body_bytes: 128 * 1024,
            http_pipelined: 16,
            http_idle: Duration::from_secs(60),
            frame_bytes: 64 * 1024,
            message_bytes: 1024 * 1024,
            frame_headers: 64,
            frame_header_bytes: 8 * 1024,
            message_fragments: 1_024,
            first_frame: Duration::from_secs(30),
            subscriptions: 256,
            transactions: 8,
            transaction_frames: 64,
            session_inflight: 256,
            outbox_bytes: 512 * 1024,
            write_blocked: Duration::from_secs(20),
            heartbeat_ms: 10_000,
            heartbeat_ms_min: 1_000,
            ping: Duration::from_secs(25),
            linger: Duration::from_secs(5),
            sockjs_stream_bytes: 128 * 1024,
            sockjs_disconnect: Duration::from_secs(5),
            sockjs_sessions: 100_000,
            connections_per_shard: 1_000_000,
            sessions_per_user: 100,
            messages_per_minute: 60,
            messages_burst: 20,
            content_chars: 4_000,
            client_message_id_bytes: 128,
            idempotency_ttl: Duration::from_secs(24 * 3_600),
            passed_header_bytes: 2_048,
            conversation_pending: 1_024,
            append_batch: 256,
            store_inflight: 8_192,
            participants: 10_000,
            title_chars: 200,
            page_default: 20,
            page_max: 100,
            conversations_cached: 100_000,
            recent_messages: 50,
            recent_bytes: 32 * 1024 * 1024,
            otp_ttl: Duration::from_secs(300),
            otp_attempts: 5,
            otp_per_phone_hour: 10,
            auth_per_address_minute: 60,
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(30 * 24 * 3_600),
            token_leeway: Duration::ZERO,
        }
    }
}
