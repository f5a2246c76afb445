//! The rules of one-time codes over the row of one login, for stores that keep it as a whole.

use crate::model::time::Wall;
use crate::store::{Reply, SENT_WINDOW, SecretHash};

/// A login's one-time code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CodeRow {
    pub(super) live: Option<LiveCode>,
    /// When codes were sent within the last hour, ascending.
    pub(super) sent: Vec<Wall>,
    /// The last attempt and whether it was right, so that its repetition is not another attempt.
    pub(super) last_attempt: Option<(Wall, SecretHash, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveCode {
    pub(super) code: SecretHash,
    pub(super) expires: Wall,
    pub(super) wrong_attempts: u32,
}

impl CodeRow {
    /// Answers [`Request::PutCode`](crate::store::Request::PutCode); the row is to be written when it says `changed`.
    pub(super) fn put(&mut self, code: &SecretHash, now: Wall, expires: Wall, per_hour: u32) -> Reply {
        if self.live.is_some_and(|live| live.code == *code && live.expires == expires) {
            return Reply::Done { changed: false };
        }
        self.sent.retain(|at| now < at.after(SENT_WINDOW));
        if self.sent.len() >= per_hour as usize {
            let free = self.sent.first().copied().unwrap_or(now).after(SENT_WINDOW);
            let seconds = free.0.saturating_sub(now.0).div_ceil(Wall::TICKS_PER_SECOND);
            return Reply::Limited { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) };
        }
        self.sent.push(now);
        self.live = Some(LiveCode { code: *code, expires, wrong_attempts: 0 });
        self.last_attempt = None;
        Reply::Done { changed: true }
    }

    /// Whether the code is right; the row is to be written whatever the answer.
    pub(super) fn take(&mut self, code: &SecretHash, now: Wall, attempts_max: u32) -> bool {
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
