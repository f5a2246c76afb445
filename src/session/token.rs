//! Access tokens: signed, and verified by a pure function with the time as argument.

use crate::model::{UserId, Wall};
use crate::store::FamilyId;

/// Signing and verification keys, each with its algorithm pinned.
#[derive(Debug)]
pub struct Keys {}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub user: UserId,
    pub roles: Vec<Box<str>>,
    /// `exp`, without leeway.
    pub expires: Wall,
    /// The login that the token came from; tokens made elsewhere have none.
    pub family: Option<FamilyId>,
}
