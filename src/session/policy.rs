//! The configuration that every session obeys: limits, keys, origins.

use std::time::Duration;

use crate::access::origins::Origins;
use crate::access::token::Keys;
use crate::model::Limits;
use crate::session::endpoints::Endpoints;

/// The same for all shards of a node. A running shard takes another one by `Input::Policy`.
#[derive(Debug)]
pub struct Policy {
    pub limits: Limits,
    pub keys: Keys,
    /// Origins that browsers may come from, besides the server's own.
    pub origins: Origins,
    /// The applications and their paths.
    pub endpoints: Endpoints,
    /// Development only: a one-time code that always works.
    pub fixed_code: Option<crate::model::Redacted<Box<str>>>,
    /// The server has a sender for one-time codes.
    pub sends_codes: bool,
    /// Phones whose users get role admin at login.
    pub admin_phones: Vec<crate::model::Redacted<Box<str>>>,
    /// Whether content is sanitised.
    pub sanitize: bool,
    /// Greatest age of messages: whether an older message still exists, only the store knows.
    pub retention: Option<Duration>,
    /// Whether the page at `/` is served.
    pub page: bool,
}
