//! Writes to logins, one-time codes and refresh tokens.

use crate::model::ids::UserId;
use crate::model::time::Wall;
use crate::store::one_time::CodeRow;
use crate::store::{FamilyId, Reply, Request, SecretHash, User};

use super::tables::{Fault, Pending, Rows};
use super::values::{self, FamilyRow, TokenRow};
use super::{keys, read};

/// # Panics
/// When the request is another kind of request.
pub(super) fn write(rows: &mut Pending<'_>, scratch: &mut Vec<u8>, request: &Request) -> Result<Reply, Fault> {
    match request {
        Request::PutCode { login, code, now, expires, per_hour } => {
            let mut row = find_code(rows, login)?.unwrap_or_default();
            let reply = row.put(code, *now, *expires, *per_hour);
            if let Reply::Done { changed: true } = reply {
                values::put_code(scratch, &row);
                rows.put(keys::code(login), scratch);
            }
            Ok(reply)
        }
        Request::TakeCode { login, code, now, attempts_max } => {
            let Some(mut row) = find_code(rows, login)? else { return Ok(Reply::CodeWrong) };
            let right = row.take(code, *now, *attempts_max);
            values::put_code(scratch, &row);
            rows.put(keys::code(login), scratch);
            Ok(if right { Reply::CodeTaken } else { Reply::CodeWrong })
        }
        Request::LoginUser { login, candidate, roles, now: _ } => login_user(rows, scratch, login, *candidate, roles),
        Request::PutRefresh { token, user, family, now: _, expires } => {
            if rows.find(&keys::token(token))?.is_some() {
                return Ok(Reply::Done { changed: false });
            }
            put_token(rows, scratch, token, &TokenRow { user: *user, family: *family, expires: *expires, next: None })?;
            Ok(Reply::Done { changed: true })
        }
        Request::RotateRefresh { token, next, now, expires } => rotate(rows, scratch, token, *next, *now, *expires),
        Request::RevokeRefresh { token, now } => {
            let Some(row) = find_token(rows, token, *now)? else { return Ok(Reply::Revoked { family: None }) };
            revoke(rows, scratch, row.family, *now)?;
            Ok(Reply::Revoked { family: Some((row.user, row.family)) })
        }
        other => panic!("neither a write to conversations nor one to logins: {other:?}"),
    }
}

fn find_code(rows: &Pending<'_>, login: &str) -> Result<Option<CodeRow>, Fault> {
    Ok(rows.find(&keys::code(login))?.map(|value| values::code(&value)).transpose()?)
}

fn login_user(
    rows: &mut Pending<'_>,
    scratch: &mut Vec<u8>,
    login: &str,
    candidate: UserId,
    roles: &[Box<str>],
) -> Result<Reply, Fault> {
    if let Some(value) = rows.find(&keys::login(login))? {
        let user = UserId::new(values::number(&value)?).map_err(|_| Fault::Corrupt)?;
        let mut user = user_of(rows, user)?;
        if *user.roles != *roles {
            user.roles = roles.to_vec();
            values::put_user(scratch, &user);
            rows.put(keys::user(user.user), scratch);
        }
        return Ok(Reply::User(user));
    }
    if read::find_user(rows, candidate)?.is_some() {
        return Ok(Reply::Taken);
    }
    let user = User { user: candidate, roles: roles.to_vec(), display_name: None };
    values::put_user(scratch, &user);
    rows.put(keys::user(candidate), scratch);
    values::put_number(scratch, candidate.value());
    rows.put(keys::login(login), scratch);
    Ok(Reply::User(user))
}

/// A token may name a user who never logged in here: such a one has no roles and no name.
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

fn rotate(
    rows: &mut Pending<'_>,
    scratch: &mut Vec<u8>,
    token: &SecretHash,
    next: SecretHash,
    now: Wall,
    expires: Wall,
) -> Result<Reply, Fault> {
    let Some(row) = find_token(rows, token, now)? else { return Ok(Reply::RefreshInvalid { family: None }) };
    let revoked = find_family(rows, row.family)?.is_none_or(|family| family.revoked.is_some());
    match row.next {
        // The same successor: this is the same request once more.
        Some(successor) if successor == next && !revoked => {}
        None if !revoked => {
            put_token(rows, scratch, token, &TokenRow { next: Some(next), ..row })?;
            put_token(rows, scratch, &next, &TokenRow { expires, next: None, ..row })?;
        }
        _ => {
            revoke(rows, scratch, row.family, now)?;
            return Ok(Reply::RefreshInvalid { family: Some((row.user, row.family)) });
        }
    }
    Ok(Reply::Rotated { user: user_of(rows, row.user)?, family: row.family })
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
