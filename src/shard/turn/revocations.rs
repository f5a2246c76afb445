//! Logins whose tokens no longer count. Every shard knows all of them.

use crate::model::map::{self, Map};
use crate::model::{Refusal, RefusalCode, Wall};
use crate::store::accounts::FamilyId;

/// Owner: the shard. View: node.
#[derive(Debug)]
pub(in crate::shard) struct Revocations {
    /// Until when a revoked login's access tokens would still be in date.
    until: Map<FamilyId, Wall>,
    /// The store has listed what was revoked before this start; until then no login is believed.
    loaded: bool,
}

impl Revocations {
    pub(super) fn new(seed: u64) -> Self {
        Self { until: map::map(seed), loaded: false }
    }

    pub(in crate::shard) fn set_loaded(&mut self) {
        self.loaded = true;
    }

    pub(in crate::shard) fn insert(&mut self, family: FamilyId, until: Wall) {
        self.until.insert(family, until);
    }

    /// Forgets logins whose tokens are out of date anyway.
    pub(in crate::shard) fn sweep(&mut self, now: Wall) {
        self.until.retain(|_, until| now < *until);
    }

    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// # Errors
    /// A refusal when the login was revoked, or when that is not known yet. Tokens made elsewhere have no login.
    pub(in crate::shard) fn check(&self, family: Option<FamilyId>) -> Result<(), Refusal> {
        match family {
            None => Ok(()),
            Some(_) if !self.loaded => {
                Err(Refusal::new(RefusalCode::StoreUnavailable, "logins cannot be checked yet").retry_after(1))
            }
            Some(family) if self.until.contains_key(&family) => {
                Err(Refusal::new(RefusalCode::Unauthorized, "the token has been revoked"))
            }
            Some(_) => Ok(()),
        }
    }
}
