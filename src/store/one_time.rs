//! The rules of one-time codes over the row of one login, for stores that keep it as a whole.

use crate::model::time::Wall;
use crate::store::accounts::{PutCode, PutCodeAnswer, SENT_WINDOW, SecretHash, TakeCode, TakeCodeAnswer};

/// A login's one-time code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CodeRow {
    pub(super) live: Option<LiveCode>,
    /// When codes were sent within the last hour, ascending.
    pub(super) sent: Vec<Wall>,
    /// The last attempt and whether it was right, so that a repetition does not count as another attempt.
    pub(super) last_attempt: Option<(Wall, SecretHash, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveCode {
    pub(super) code: SecretHash,
    pub(super) expires: Wall,
    pub(super) wrong_attempts: u32,
}

impl CodeRow {
    /// The row must be written when the answer says `changed`.
    pub(super) fn put(&mut self, put: &PutCode) -> PutCodeAnswer {
        let PutCode { login: _, ref code, now, expires, per_hour } = *put;
        if self.live.is_some_and(|live| live.code == *code && live.expires == expires) {
            return PutCodeAnswer::Keep { changed: false };
        }
        self.sent.retain(|at| now < at.after(SENT_WINDOW));
        if self.sent.len() >= per_hour as usize {
            let free = self.sent.first().copied().unwrap_or(now).after(SENT_WINDOW);
            let seconds = free.0.saturating_sub(now.0).div_ceil(Wall::TICKS_PER_SECOND);
            return PutCodeAnswer::Limit { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) };
        }
        self.sent.push(now);
        self.live = Some(LiveCode { code: *code, expires, wrong_attempts: 0 });
        self.last_attempt = None;
        PutCodeAnswer::Keep { changed: true }
    }

    /// The row must be written with every answer.
    pub(super) fn take(&mut self, take: &TakeCode) -> TakeCodeAnswer {
        if self.is_right(take) { TakeCodeAnswer::Accept } else { TakeCodeAnswer::Reject }
    }

    fn is_right(&mut self, take: &TakeCode) -> bool {
        let TakeCode { login: _, ref code, now, attempts_max } = *take;
        if let Some((at, last, right)) = self.last_attempt
            && at == now
            && last == *code
        {
            return right;
        }
        let Some(live) = &mut self.live else { return false };
        if live.expires <= now || live.wrong_attempts >= attempts_max {
            return false;
        }
        let right = live.code == *code;
        if right {
            self.live = None;
        } else {
            live.wrong_attempts += 1;
        }
        self.last_attempt = Some((now, *code, right));
        right
    }
}
