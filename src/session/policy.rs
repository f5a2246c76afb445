//! What the configuration asks of every session: limits, keys, origins.

use crate::model::Limits;
use crate::session::token::Keys;

/// The same for all shards of a node; replaced whole when the configuration changes.
#[derive(Debug)]
pub struct Policy {
    pub limits: Limits,
    pub keys: Keys,
    /// Origins that browsers may come from, beside the server's own.
    pub origins: Origins,
    /// Development only: a one-time code that always works.
    pub fixed_code: Option<crate::model::Redacted<Box<str>>>,
    /// Phones whose users get role admin at login.
    pub admin_phones: Vec<crate::model::Redacted<Box<str>>>,
    /// Whether content is sanitised.
    pub sanitize: bool,
}

/// `cors.origins`, parsed: exact origins, patterns with `*`, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    entries: Vec<Box<str>>,
}
