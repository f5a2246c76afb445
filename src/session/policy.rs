//! What the configuration asks of every session: limits, keys, origins.

use std::time::Duration;

use crate::access::origins::Origins;
use crate::access::token::Keys;
use crate::model::Limits;
use crate::session::endpoints::Endpoints;

/// The same for all shards of a node, from its start to its end.
#[derive(Debug)]
pub struct Policy {
    pub limits: Limits,
    pub keys: Keys,
    /// Origins that browsers may come from, beside the server's own.
    pub origins: Origins,
    /// What is served at which path.
    pub endpoints: Endpoints,
    /// Development only: a one-time code that always works.
    pub fixed_code: Option<crate::model::Redacted<Box<str>>>,
    /// There is a sender for one-time codes.
    pub sends_codes: bool,
    /// Phones whose users get role admin at login.
    pub admin_phones: Vec<crate::model::Redacted<Box<str>>>,
    /// Whether content is sanitised.
    pub sanitize: bool,
    /// How old messages get: what is older is told from the store alone, which has it or not.
    pub retention: Option<Duration>,
    /// Whether the page at `/` is served.
    pub page: bool,
}
