//! One-time codes, users and refresh tokens.

use crate::model::ids::UserId;
use crate::model::time::Wall;
use crate::store::accounts::{
    FamilyId, LoginAnswer, LoginUser, PutCode, PutCodeAnswer, PutRefresh, Read, RevokeRefresh, RotateAnswer, RotateRefresh,
    SENT_WINDOW, TakeCode, TakeCodeAnswer, User, Write,
};
use crate::store::{Call, Done, Reply};

use super::{Family, LiveCode, Memory, Token};

impl Memory {
    pub(super) fn write_accounts(&mut self, write: &Write) -> Reply {
        match write {
            Write::PutCode(put) => put.reply(self.put_code(put)),
            Write::TakeCode(take) => {
                let is_right = self.take_code(take);
                take.reply(if is_right { TakeCodeAnswer::Accept } else { TakeCodeAnswer::Reject })
            }
            Write::LoginUser(login) => login.reply(self.login_user(login)),
            Write::PutRefresh(put) => put.reply(self.put_refresh(put)),
            Write::RotateRefresh(rotate) => rotate.reply(self.rotate_refresh(rotate)),
            Write::RevokeRefresh(revoke) => revoke.reply(self.revoke_refresh(revoke)),
        }
    }

    pub(super) fn read_accounts(&self, read: &Read) -> Reply {
        match read {
            Read::ReadUser(read) => read.reply(self.users.get(&read.user).cloned()),
            Read::ListRevoked(list) => list.reply(self.list_revoked(list.since)),
        }
    }

    fn put_code(&mut self, put: &PutCode) -> PutCodeAnswer {
        let PutCode { ref login, ref code, now, expires, per_hour } = *put;
        let row = self.codes.entry(login.clone()).or_default();
        if row.live.is_some_and(|live| live.code == *code && live.expires == expires) {
            return PutCodeAnswer::Keep { changed: false };
        }
        row.sent.retain(|at| now < at.after(SENT_WINDOW));
        if row.sent.len() >= per_hour as usize {
            // With a limit of zero no wait helps; a whole window is as good an answer as any.
            let free = row.sent.first().map_or(now, |at| *at).after(SENT_WINDOW);
            let seconds = free.0.saturating_sub(now.0).div_ceil(Wall::TICKS_PER_SECOND);
            return PutCodeAnswer::Limit { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) };
        }
        row.sent.push(now);
        row.live = Some(LiveCode { code: *code, expires, wrong_attempts: 0 });
        row.last_attempt = None;
        PutCodeAnswer::Keep { changed: true }
    }

    fn take_code(&mut self, take: &TakeCode) -> bool {
        let TakeCode { ref login, ref code, now, attempts_max } = *take;
        let Some(row) = self.codes.get_mut(login) else { return false };
        if let Some((at, last, right)) = row.last_attempt
            && at == now
            && last == *code
        {
            return right;
        }
        let Some(live) = &mut row.live else { return false };
        if live.expires <= now || live.wrong_attempts >= attempts_max {
            return false;
        }
        let right = live.code == *code;
        if right {
            row.live = None;
        } else {
            live.wrong_attempts += 1;
        }
        row.last_attempt = Some((now, *code, right));
        right
    }

    fn login_user(&mut self, request: &LoginUser) -> LoginAnswer {
        let LoginUser { ref login, candidate, ref roles, now: _ } = *request;
        let user = match self.logins.get(login) {
            Some(user) => *user,
            None if self.users.contains_key(&candidate) => return LoginAnswer::CandidateTaken,
            None => {
                self.logins.insert(login.clone(), candidate);
                self.users.insert(candidate, User { user: candidate, roles: Vec::new(), display_name: None });
                candidate
            }
        };
        if let Some(known) = self.users.get_mut(&user) {
            known.roles = roles.clone();
        }
        LoginAnswer::User(self.user(user))
    }

    fn user(&self, user: UserId) -> User {
        self.users.get(&user).cloned().unwrap_or(User { user, roles: Vec::new(), display_name: None })
    }

    fn put_refresh(&mut self, put: &PutRefresh) -> Done {
        let PutRefresh { token, user, family, now: _, expires } = *put;
        if self.tokens.contains_key(&token) {
            return Done { changed: false };
        }
        self.tokens.insert(token, Token { user, family, expires, next: None });
        self.families.entry(family).or_insert(Family { user, revoked: None });
        Done { changed: true }
    }

    fn rotate_refresh(&mut self, rotate: &RotateRefresh) -> RotateAnswer {
        let RotateRefresh { token, next, now, expires } = *rotate;
        let Some(row) = self.tokens.get(&token).copied().filter(|row| now < row.expires) else {
            return RotateAnswer::Reject { family: None };
        };
        let revoked = self.families.get(&row.family).is_none_or(|family| family.revoked.is_some());
        match row.next {
            // The same successor: this is the same request once more.
            Some(successor) if successor == next && !revoked => {}
            None if !revoked => {
                self.tokens.insert(token, Token { next: Some(next), ..row });
                self.tokens.insert(next, Token { user: row.user, family: row.family, expires, next: None });
            }
            Some(_) | None => {
                self.revoke(row.family, now);
                return RotateAnswer::Reject { family: Some((row.user, row.family)) };
            }
        }
        RotateAnswer::Rotate { user: self.user(row.user), family: row.family }
    }

    fn revoke_refresh(&mut self, revoke: &RevokeRefresh) -> Option<(UserId, FamilyId)> {
        let row = self.tokens.get(&revoke.token).copied().filter(|row| revoke.now < row.expires)?;
        self.revoke(row.family, revoke.now);
        Some((row.user, row.family))
    }

    /// The first revocation counts.
    pub(super) fn revoke(&mut self, family: FamilyId, now: Wall) {
        if let Some(family) = self.families.get_mut(&family) {
            family.revoked.get_or_insert(now);
        }
    }

    fn list_revoked(&self, since: Wall) -> Vec<(UserId, FamilyId)> {
        let revoked = self.families.iter().filter_map(|(id, family)| Some((family.revoked?, *id, family.user)));
        let mut revoked: Vec<_> = revoked.filter(|(at, _, _)| since <= *at).collect();
        revoked.sort_unstable();
        revoked.into_iter().map(|(_, id, user)| (user, id)).collect()
    }
}
