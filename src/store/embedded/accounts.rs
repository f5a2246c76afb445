//! Writes to logins, one-time codes and refresh tokens.

use crate::model::ids::UserId;
use crate::model::time::Wall;
use crate::store::accounts::{
    FamilyId, LoginAnswer, LoginUser, PutCode, PutCodeAnswer, PutRefresh, RevokeRefresh, RotateAnswer, RotateRefresh, SecretHash,
    TakeCode, TakeCodeAnswer, User, Write,
};
use crate::store::one_time::CodeRow;
use crate::store::{Call, Done, Reply};

use super::tables::{Fault, Pending, Rows};
use super::values::{self, FamilyRow, TokenRow};
use super::{keys, read};

pub(super) fn write(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, write: &Write) -> Result<Reply, Fault> {
    Ok(match write {
        Write::PutCode(put) => put.reply(put_code(rows, scratch, put)?),
        Write::TakeCode(take) => take.reply(take_code(rows, scratch, take)?),
        Write::LoginUser(login) => login.reply(login_user(rows, scratch, login)?),
        Write::PutRefresh(put) => put.reply(put_refresh(rows, scratch, put)?),
        Write::RotateRefresh(rotate) => rotate.reply(rotate_refresh(rows, scratch, rotate)?),
        Write::RevokeRefresh(revoke) => revoke.reply(revoke_refresh(rows, scratch, revoke)?),
    })
}

fn put_code(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, put: &PutCode) -> Result<PutCodeAnswer, Fault> {
    let mut row = find_code(rows, &put.login)?.unwrap_or_default();
    let answer = row.put(put);
    if answer == (PutCodeAnswer::Keep { changed: true }) {
        values::put_code(scratch, &row);
        rows.put(keys::code(&put.login), scratch);
    }
    Ok(answer)
}

fn take_code(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, take: &TakeCode) -> Result<TakeCodeAnswer, Fault> {
    let Some(mut row) = find_code(rows, &take.login)? else { return Ok(TakeCodeAnswer::Reject) };
    let answer = row.take(take);
    values::put_code(scratch, &row);
    rows.put(keys::code(&take.login), scratch);
    Ok(answer)
}

fn find_code(rows: &Pending<'_>, login: &str) -> Result<Option<CodeRow>, Fault> {
    Ok(rows.find(&keys::code(login))?.map(|value| values::code(&value)).transpose()?)
}

fn login_user(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, request: &LoginUser) -> Result<LoginAnswer, Fault> {
    let LoginUser { ref login, candidate, ref roles, now: _ } = *request;
    if let Some(value) = rows.find(&keys::login(login))? {
        let user = UserId::new(values::number(&value)?).map_err(|_| Fault::Corrupt)?;
        let mut user = user_of(rows, user)?;
        if user.roles != *roles {
            user.roles.clone_from(roles);
            values::put_user(scratch, &user);
            rows.put(keys::user(user.user), scratch);
        }
        return Ok(LoginAnswer::User(user));
    }
    if read::find_user(rows, candidate)?.is_some() {
        return Ok(LoginAnswer::CandidateTaken);
    }
    let user = User { user: candidate, roles: roles.clone(), display_name: None };
    values::put_user(scratch, &user);
    rows.put(keys::user(candidate), scratch);
    values::put_number(scratch, candidate.value());
    rows.put(keys::login(login), scratch);
    Ok(LoginAnswer::User(user))
}

/// A token may name a user who never logged in here: such a user has no roles and no name.
fn user_of(rows: &Pending<'_>, user: UserId) -> Result<User, Fault> {
    let there = read::find_user(rows, user)?;
    Ok(there.unwrap_or(User { user, roles: Vec::new(), display_name: None }))
}

/// A token that has not expired.
fn find_token(rows: &Pending<'_>, token: &SecretHash, now: Wall) -> Result<Option<TokenRow>, Fault> {
    let row = rows.find(&keys::token(token))?.map(|value| values::token(&value)).transpose()?;
    Ok(row.filter(|row| now < row.expires))
}

fn find_family(rows: &Pending<'_>, family: FamilyId) -> Result<Option<FamilyRow>, Fault> {
    Ok(rows.find(&keys::family(family))?.map(|value| values::family(&value)).transpose()?)
}

/// Puts a token; its family lives at least as long.
fn put_token(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, token: &SecretHash, row: &TokenRow) -> Result<(), Fault> {
    values::put_token(scratch, row);
    rows.put(keys::token(token), scratch);
    let there = find_family(rows, row.family)?;
    let mut family = there.unwrap_or(FamilyRow { user: row.user, expires: row.expires, revoked: None });
    family.expires = family.expires.max(row.expires);
    if there != Some(family) {
        values::put_family(scratch, &family);
        rows.put(keys::family(row.family), scratch);
    }
    Ok(())
}

fn put_refresh(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, put: &PutRefresh) -> Result<Done, Fault> {
    let PutRefresh { token, user, family, now: _, expires } = *put;
    if rows.find(&keys::token(&token))?.is_some() {
        return Ok(Done { changed: false });
    }
    put_token(rows, scratch, &token, &TokenRow { user, family, expires, next: None })?;
    Ok(Done { changed: true })
}

fn rotate_refresh(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, rotate: &RotateRefresh) -> Result<RotateAnswer, Fault> {
    let RotateRefresh { token, next, now, expires } = *rotate;
    let Some(row) = find_token(rows, &token, now)? else { return Ok(RotateAnswer::Reject { family: None }) };
    let revoked = find_family(rows, row.family)?.is_none_or(|family| family.revoked.is_some());
    match row.next {
        // The same successor: this is the same request once more.
        Some(successor) if successor == next && !revoked => {}
        None if !revoked => {
            put_token(rows, scratch, &token, &TokenRow { next: Some(next), ..row })?;
            put_token(rows, scratch, &next, &TokenRow { expires, next: None, ..row })?;
        }
        Some(_) | None => {
            revoke(rows, scratch, row.family, now)?;
            return Ok(RotateAnswer::Reject { family: Some((row.user, row.family)) });
        }
    }
    Ok(RotateAnswer::Rotate { user: user_of(rows, row.user)?, family: row.family })
}

fn revoke_refresh(
    rows: &mut Pending<'_>,
    scratch: &mut Vec<u8>,
    request: &RevokeRefresh,
) -> Result<Option<(UserId, FamilyId)>, Fault> {
    let Some(row) = find_token(rows, &request.token, request.now)? else { return Ok(None) };
    revoke(rows, scratch, row.family, request.now)?;
    Ok(Some((row.user, row.family)))
}

/// The first revocation counts.
pub(super) fn revoke(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, id: FamilyId, now: Wall) -> Result<(), Fault> {
    let Some(family) = find_family(rows, id)?.filter(|family| family.revoked.is_none()) else { return Ok(()) };
    values::put_family(scratch, &FamilyRow { revoked: Some(now), ..family });
    rows.put(keys::family(id), scratch);
    values::put_number(scratch, family.user.value());
    rows.put(keys::revoked(now, id), scratch);
    Ok(())
}
