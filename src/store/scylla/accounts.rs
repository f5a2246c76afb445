//! Logins, one-time codes and refresh tokens.
//!
//! In all of them the first one wins, so the deciding write of each is a light-weight transaction. A plain write never deletes
//! or rewrites a row that a transaction has written.

use std::collections::BTreeSet;

use scylla::value::MaybeUnset;

use crate::model::ids::UserId;
use crate::model::time::Wall;
use crate::store::Done;
use crate::store::accounts::{
    FamilyId, LoginAnswer, LoginUser, PutCode, PutCodeAnswer, PutRefresh, RevokeRefresh, RotateAnswer, RotateRefresh,
    SENT_WINDOW, SecretHash, TakeCode, TakeCodeAnswer, User,
};
use crate::store::one_time::{CodeRow, LiveCode};

use super::values::{self, bigint, family_value, seconds_to_live};
use super::{Fault, Work};

/// Tries to change a login's code while others change it at the same time.
const CODE_TRIES: u32 = 8;

const TICKS_PER_DAY: u64 = 86_400 * Wall::TICKS_PER_SECOND;

/// In the order of the columns.
type CodeColumns = (i32, Option<Vec<u8>>, Option<i64>, Option<i32>, Option<Vec<i64>>, Option<i64>, Option<Vec<u8>>, Option<bool>);

#[derive(Clone, Copy, Debug)]
struct Token {
    user: UserId,
    family: FamilyId,
    expires: Wall,
    next: Option<SecretHash>,
}

fn hash(value: Vec<u8>) -> Result<SecretHash, Fault> {
    value.try_into().map_err(|_| Fault::Corrupt)
}

fn code_row(columns: CodeColumns) -> Result<(i32, CodeRow), Fault> {
    let (version, code, expires, wrong_attempts, sent, attempted_at, attempted_code, attempted_right) = columns;
    let live = match (code, expires) {
        (Some(code), Some(expires)) => Some(LiveCode {
            code: hash(code)?,
            expires: values::wall(expires)?,
            wrong_attempts: u32::try_from(wrong_attempts.unwrap_or(0)).map_err(|_| Fault::Corrupt)?,
        }),
        _ => None,
    };
    let sent = sent.unwrap_or_default().into_iter().map(values::wall).collect::<Result<_, _>>()?;
    let last_attempt = match (attempted_at, attempted_code, attempted_right) {
        (Some(at), Some(code), Some(right)) => Some((values::wall(at)?, hash(code)?, right)),
        _ => None,
    };
    Ok((version, CodeRow { live, sent, last_attempt }))
}

impl Work<'_> {
    pub(super) async fn put_code(&self, put: &PutCode) -> Result<PutCodeAnswer, Fault> {
        for _ in 0..CODE_TRIES {
            let there = self.find_code(&put.login).await?;
            let (version, mut row) = there.unwrap_or_default();
            let answer = row.put(put);
            let is_new = answer == PutCodeAnswer::Keep { changed: true };
            if !is_new || self.change_code(&put.login, version, &row, put.now).await? {
                return Ok(answer);
            }
        }
        Err(Fault::Contended)
    }

    pub(super) async fn take_code(&self, take: &TakeCode) -> Result<TakeCodeAnswer, Fault> {
        for _ in 0..CODE_TRIES {
            let Some((version, mut row)) = self.find_code(&take.login).await? else { return Ok(TakeCodeAnswer::Reject) };
            let answer = row.take(take);
            if self.change_code(&take.login, version, &row, take.now).await? {
                return Ok(answer);
            }
        }
        Err(Fault::Contended)
    }

    async fn find_code(&self, login: &str) -> Result<Option<(i32, CodeRow)>, Fault> {
        let row: Option<CodeColumns> = self.first(&self.connected.statements.read_code, (login,)).await?;
        row.map(code_row).transpose()
    }

    /// Writes the row unless it has changed since `version`; with 0, unless it exists.
    async fn change_code(&self, login: &str, version: i32, row: &CodeRow, now: Wall) -> Result<bool, Fault> {
        let statements = &self.connected.statements;
        // As long as the code lives, and the window in which it counts.
        let until = row.live.map_or(now, |live| live.expires).max(now.after(SENT_WINDOW));
        let seconds = seconds_to_live(now, until);
        let next = version.wrapping_add(1).max(1);
        let code = row.live.map(|live| live.code.to_vec());
        let expires = row.live.map(|live| bigint(live.expires.0));
        let wrong = row.live.map(|live| i32::try_from(live.wrong_attempts).unwrap_or(i32::MAX));
        let sent: Vec<i64> = row.sent.iter().map(|at| bigint(at.0)).collect();
        let attempt = row.last_attempt;
        let at = attempt.map(|(at, _, _)| bigint(at.0));
        let (attempted, right) = (attempt.map(|(_, code, _)| code.to_vec()), attempt.map(|(_, _, right)| right));
        let changed = if version == 0 {
            let unset = MaybeUnset::from_option;
            let values = (login, next, unset(code), expires, wrong, sent, at, attempted, right, seconds);
            self.decide(&statements.make_code, values).await
        } else {
            let values = (seconds, next, code, expires, wrong, sent, at, attempted, right, login, version);
            self.decide(&statements.change_code, values).await
        };
        self.note(changed)
    }

    pub(super) async fn login_user(&self, request: &LoginUser) -> Result<LoginAnswer, Fault> {
        let LoginUser { ref login, candidate, ref roles, now } = *request;
        let user = match self.user_of(login).await? {
            Some(user) => user,
            None => {
                let statements = &self.connected.statements;
                // The user first: a login must never lead to an id that another login could still take.
                let row = (bigint(candidate.value()), &**login, bigint(now.0));
                let made = self.decide(&statements.make_user, row).await?;
                if !made && self.user(candidate).await?.is_none_or(|(of, _)| of.as_deref() != Some(&**login)) {
                    return Ok(LoginAnswer::CandidateTaken);
                }
                match self.decide(&statements.claim_login, (&**login, bigint(candidate.value()))).await? {
                    true => candidate,
                    false => self.user_of(login).await?.ok_or(Fault::Contended)?,
                }
            }
        };
        let there = self.user(user).await?.map(|(_, user)| user);
        let mut known = there.unwrap_or(User { user, roles: Vec::new(), display_name: None });
        if known.roles != *roles {
            let texts: Vec<&str> = roles.iter().map(|role| &**role).collect();
            self.write(&self.connected.statements.put_roles, (texts, bigint(user.value()))).await?;
            known.roles.clone_from(roles);
        }
        Ok(LoginAnswer::User(known))
    }

    async fn user_of(&self, login: &str) -> Result<Option<UserId>, Fault> {
        let row: Option<(i64,)> = self.first(&self.connected.statements.read_login, (login,)).await?;
        row.map(|(user,)| values::user_id(user)).transpose()
    }

    /// The login that made the user, and the user.
    pub(super) async fn user(&self, user: UserId) -> Result<Option<(Option<String>, User)>, Fault> {
        type Row = (Option<String>, Option<Vec<String>>, Option<String>);
        let row: Option<Row> = self.first(&self.connected.statements.read_user, (bigint(user.value()),)).await?;
        Ok(row.map(|(login, roles, display_name)| {
            let roles = roles.unwrap_or_default().into_iter().map(Into::into).collect();
            (login, User { user, roles, display_name: display_name.map(Into::into) })
        }))
    }

    pub(super) async fn read_user(&self, user: UserId) -> Result<Option<User>, Fault> {
        Ok(self.user(user).await?.map(|(_, user)| user))
    }

    pub(super) async fn put_refresh(&self, put: &PutRefresh) -> Result<Done, Fault> {
        let PutRefresh { ref token, user, family, now, expires } = *put;
        if self.token(token).await?.is_some() {
            return Ok(Done { changed: false });
        }
        let seconds = seconds_to_live(now, expires);
        self.note_family(user, family, expires, seconds).await?;
        let made = (family_value(family), bigint(user.value()), seconds);
        self.decide(&self.connected.statements.make_family, made).await?;
        self.put_token(token, user, family, expires, seconds).await?;
        Ok(Done { changed: true })
    }

    /// So that the user's families are found when they are to be revoked together.
    async fn note_family(&self, user: UserId, family: FamilyId, expires: Wall, seconds: i32) -> Result<(), Fault> {
        let row = (bigint(user.value()), family_value(family), bigint(expires.0), seconds);
        self.prepare(&self.connected.statements.note_family, row).await
    }

    async fn put_token(
        &self,
        token: &SecretHash,
        user: UserId,
        family: FamilyId,
        expires: Wall,
        seconds: i32,
    ) -> Result<(), Fault> {
        let row = (&token[..], bigint(user.value()), family_value(family), bigint(expires.0), seconds);
        self.write(&self.connected.statements.put_token, row).await
    }

    async fn token(&self, token: &SecretHash) -> Result<Option<Token>, Fault> {
        type Row = (Option<i64>, Option<i64>, Option<i64>, Option<Vec<u8>>);
        let row: Option<Row> = self.first(&self.connected.statements.read_token, (&token[..],)).await?;
        let Some((Some(user), Some(family), Some(expires), next)) = row else { return Ok(None) };
        Ok(Some(Token {
            user: values::user_id(user)?,
            family: values::family_id(family),
            expires: values::wall(expires)?,
            next: next.map(hash).transpose()?,
        }))
    }

    async fn is_alive(&self, family: FamilyId) -> Result<bool, Fault> {
        let row: Option<(Option<i64>,)> = self.first(&self.connected.statements.read_family, (family_value(family),)).await?;
        Ok(row.is_some_and(|(user,)| user.is_some()))
    }

    pub(super) async fn rotate_refresh(&self, rotate: &RotateRefresh) -> Result<RotateAnswer, Fault> {
        let RotateRefresh { ref token, ref next, now, expires } = *rotate;
        let statements = &self.connected.statements;
        let Some(row) = self.token(token).await?.filter(|row| now < row.expires) else {
            return Ok(RotateAnswer::Reject { family: None });
        };
        let alive = self.is_alive(row.family).await?;
        let seconds = seconds_to_live(now, expires);
        let rotated = match row.next {
            _ if !alive => false,
            // The same successor: this is the same request once more.
            Some(successor) => successor == *next,
            None => {
                // Nobody has the new token before the old one is used up, and that decides.
                self.note_family(row.user, row.family, expires, seconds).await?;
                self.put_token(next, row.user, row.family, expires, seconds).await?;
                let user = bigint(row.user.value());
                let prolong = (seconds, user, family_value(row.family), user);
                let old = seconds_to_live(now, row.expires);
                let used = self.decide(&statements.prolong_family, prolong).await?
                    && self.note(self.decide(&statements.use_token, (old, &next[..], &token[..], user)).await)?;
                // Not applied: another rotation came first, or this one did, with its reply lost.
                let used = used || self.token(token).await?.is_some_and(|row| row.next == Some(*next));
                if !used {
                    self.write(&statements.remove_token, (&next[..],)).await?;
                }
                used
            }
        };
        if !rotated {
            self.revoke(row, now).await?;
            return Ok(RotateAnswer::Reject { family: Some((row.user, row.family)) });
        }
        let user = self.user(row.user).await?.map(|(_, user)| user);
        let user = user.unwrap_or(User { user: row.user, roles: Vec::new(), display_name: None });
        Ok(RotateAnswer::Rotate { user, family: row.family })
    }

    pub(super) async fn revoke_refresh(&self, request: &RevokeRefresh) -> Result<Option<(UserId, FamilyId)>, Fault> {
        let Some(row) = self.token(&request.token).await?.filter(|row| request.now < row.expires) else { return Ok(None) };
        self.revoke(row, request.now).await?;
        Ok(Some((row.user, row.family)))
    }

    async fn revoke(&self, token: Token, now: Wall) -> Result<(), Fault> {
        self.revoke_family(token.family, token.user, token.expires, now).await.map(drop)
    }

    /// Returns whether the family had not been revoked before: the first revocation counts. The revocation is listed first. If it
    /// is interrupted there, a starting shard refuses the access tokens of the family, while its refresh tokens still work.
    pub(super) async fn revoke_family(&self, family: FamilyId, user: UserId, expires: Wall, now: Wall) -> Result<bool, Fault> {
        if !self.is_alive(family).await? {
            return Ok(false);
        }
        let statements = &self.connected.statements;
        let day = i32::try_from(now.0 / TICKS_PER_DAY).unwrap_or(i32::MAX);
        let seconds = seconds_to_live(now, expires);
        self.write(&statements.put_revocation_day, (day, seconds.saturating_add(2 * 86_400))).await?;
        let row = (day, bigint(now.0), family_value(family), bigint(user.value()), seconds);
        self.write(&statements.put_revocation, row).await?;
        self.decide(&statements.revoke_family, (family_value(family),)).await
    }

    pub(super) async fn list_revoked(&self, since: Wall) -> Result<Vec<(UserId, FamilyId)>, Fault> {
        let first = i32::try_from(since.0 / TICKS_PER_DAY).unwrap_or(i32::MAX);
        let mut revoked = Vec::new();
        for (day,) in self.rows::<(i32,)>(&self.connected.statements.read_revocation_days, (first,)).await? {
            let rows = self.rows::<(i64, i64, i64)>(&self.connected.statements.read_revocations, (day, bigint(since.0))).await?;
            for (at, family, user) in rows {
                revoked.push((values::wall(at)?, values::family_id(family), values::user_id(user)?));
            }
        }
        revoked.sort_unstable();
        // Two that revoked it at once have both listed it.
        let mut seen = BTreeSet::new();
        revoked.retain(|(_, family, _)| seen.insert(*family));
        Ok(revoked.into_iter().map(|(_, family, user)| (user, family)).collect())
    }
}
