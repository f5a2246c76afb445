//! Accounts: one-time codes, the user of a login, and families of refresh tokens.
//!
//! Invariants:
//! - a login has one user, and a user id is given to one login;
//! - a one-time code is accepted once, within its time, and after a bounded number of wrong attempts;
//! - a refresh token is replaced once. Using it again, other than by a repetition, revokes its family;
//! - a revoked family stays revoked; the time of its first revocation counts.
//!
//! Order: the writes about one login take effect in the order given, and so do those about one refresh token.

use std::time::Duration;

use crate::model::ids::UserId;
use crate::model::time::Wall;

use super::call::subject;
use super::{Done, OrderKey};

/// Sliding window in which [`PutCode`] counts the codes of a login.
pub const SENT_WINDOW: Duration = Duration::from_secs(3_600);

/// Hash of a secret (one-time code, refresh token): the store never sees the secret.
pub type SecretHash = [u8; 32];

/// The refresh tokens that descend from one login: random, 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub user: UserId,
    pub roles: Vec<Box<str>>,
    pub display_name: Option<Box<str>>,
}

/// Keeps a new one-time code for a login; the earlier code becomes void. A login gets at most `per_hour` codes within
/// [`SENT_WINDOW`]. The live code with the same expiry is a repetition.
#[derive(Clone, Debug)]
pub struct PutCode {
    pub login: Box<str>,
    pub code: SecretHash,
    pub now: Wall,
    pub expires: Wall,
    pub per_hour: u32,
}

/// The answer to [`PutCode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutCodeAnswer {
    /// The code is in force.
    Keep { changed: bool },
    /// The login got too many codes: seconds until it gets the next one.
    Limit { retry_after: u32 },
}

/// Uses up a code, or counts a wrong attempt; after `attempts_max` wrong ones the code is void. The last attempt again, at
/// the same `now`, is a repetition.
#[derive(Clone, Debug)]
pub struct TakeCode {
    pub login: Box<str>,
    pub code: SecretHash,
    pub now: Wall,
    pub attempts_max: u32,
}

/// The answer to [`TakeCode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeCodeAnswer {
    Accept,
    /// The code is wrong, used or expired.
    Reject,
}

/// Finds the user of a login, or creates it as `candidate`. `roles` replace the user's roles: the configuration grants them at
/// each login.
#[derive(Clone, Debug)]
pub struct LoginUser {
    pub login: Box<str>,
    pub candidate: UserId,
    pub roles: Vec<Box<str>>,
    pub now: Wall,
}

/// The answer to [`LoginUser`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginAnswer {
    User(User),
    /// The candidate id belongs to another login: the shard asks again with another candidate.
    CandidateTaken,
}

/// Keeps the first refresh token of a family.
#[derive(Clone, Debug)]
pub struct PutRefresh {
    pub token: SecretHash,
    pub user: UserId,
    pub family: FamilyId,
    pub now: Wall,
    pub expires: Wall,
}

/// Replaces a refresh token by the next one of its family. A token that was replaced before revokes the family, unless it was
/// replaced by the same `next`: that is a repetition.
#[derive(Clone, Debug)]
pub struct RotateRefresh {
    pub token: SecretHash,
    pub next: SecretHash,
    pub now: Wall,
    pub expires: Wall,
}

/// The answer to [`RotateRefresh`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotateAnswer {
    Rotate {
        user: User,
        family: FamilyId,
    },
    /// `None`: the token never existed or has expired. `Some`: it was replaced or revoked before, so this family is revoked.
    Reject {
        family: Option<(UserId, FamilyId)>,
    },
}

/// Revokes the family of a refresh token. The answer is the family, or `None` when the token does not exist.
#[derive(Clone, Debug)]
pub struct RevokeRefresh {
    pub token: SecretHash,
    pub now: Wall,
}

/// A user that has logged in; `None` when no login made it.
#[derive(Clone, Debug)]
pub struct ReadUser {
    pub user: UserId,
}

/// Families revoked at or after `since`, in the order of that time: a starting shard must not accept their access tokens. A
/// family whose tokens have all expired may be missing.
#[derive(Clone, Debug)]
pub struct ListRevoked {
    pub since: Wall,
}

subject! {
    Accounts:
    writes {
        PutCode => PutCodeAnswer,
        TakeCode => TakeCodeAnswer,
        LoginUser => LoginAnswer,
        PutRefresh => Done,
        RotateRefresh => RotateAnswer,
        RevokeRefresh => Option<(UserId, FamilyId)>,
    }
    reads {
        ReadUser => Option<User>,
        ListRevoked => Vec<(UserId, FamilyId)>,
    }
}

impl Write {
    /// The key of the writes that must keep their order with this one.
    pub(super) fn order(&self) -> OrderKey {
        match self {
            Self::PutCode(put) => OrderKey::Login(put.login.clone()),
            Self::TakeCode(take) => OrderKey::Login(take.login.clone()),
            Self::LoginUser(login) => OrderKey::Login(login.login.clone()),
            Self::PutRefresh(put) => OrderKey::Token(put.token),
            Self::RotateRefresh(rotate) => OrderKey::Token(rotate.token),
            Self::RevokeRefresh(revoke) => OrderKey::Token(revoke.token),
        }
    }
}
