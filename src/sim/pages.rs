//! What must hold of the answers over REST: pages of history, and changes of participants and blocks.

use crate::model::command::Position;
use crate::model::{ConversationId, MessageId, Mono, UserId};
use crate::sim::facts::{Dto, Entry};
use crate::sim::oracle::{Moment, Oracle};

/// A page that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) user: UserId,
    pub(super) conversation: ConversationId,
    pub(super) from: Position,
    pub(super) limit: usize,
    pub(super) at: Mono,
    /// Messages that the conversation had then.
    pub(super) length: usize,
}

impl Oracle {
    pub(super) fn length(&self, conversation: ConversationId) -> usize {
        self.log.get(&conversation).map_or(0, Vec::len)
    }

    /// A page is a gapless part of the log as it was at some time between question and answer.
    pub(super) fn check_page(&mut self, asked: Asked, page: &[Dto], has_more: bool) {
        let member = self.members.get(&(asked.conversation, asked.user));
        if member.and_then(|member| member.outside_since).is_some_and(|since| since < asked.at) {
            return self.violate(format!("{asked:?} was answered after the user's removal"));
        }
        let empty = Vec::new();
        let log = self.log.get(&asked.conversation).unwrap_or(&empty);
        if let Some(what) = fault_of_page(log, asked, page, has_more) {
            self.violate(format!("{asked:?}: {what}"));
        }
    }

    fn is_stored(&self, conversation: ConversationId, user: UserId) -> bool {
        self.members.get(&(conversation, user)).is_some_and(|member| member.stored)
    }

    pub(super) fn participant_stored(&mut self, conversation: ConversationId, user: UserId, inside: bool) {
        let member = self.members.entry((conversation, user)).or_default();
        member.stored = inside;
        if inside { member.outside_since = None } else { member.inside_since = None }
    }

    pub(super) fn version_of_member(&self, conversation: ConversationId, user: UserId) -> u64 {
        self.members.get(&(conversation, user)).map_or(0, |member| member.version)
    }

    pub(super) fn changing(&mut self, conversation: ConversationId, user: UserId, adding: bool) {
        let member = self.members.entry((conversation, user)).or_default();
        member.changing += 1;
        member.version += 1;
        if !adding {
            member.inside_since = None;
        }
    }

    /// The answer to a change that began at `version`. `done`: it says that the user is now what was asked for; else it may
    /// be so or not.
    pub(super) fn changed(
        &mut self,
        moment: Moment,
        (conversation, user): (ConversationId, UserId),
        adding: bool,
        done: bool,
        version: u64,
    ) {
        let stored = self.is_stored(conversation, user);
        let member = self.members.entry((conversation, user)).or_default();
        let alone = member.changing == 1 && member.version == version;
        member.changing = member.changing.saturating_sub(1);
        member.version += 1;
        if !done || !alone {
            return;
        }
        if stored != adding {
            let verb = if adding { "added to" } else { "removed from" };
            return self.violate(format!("user {user} was {verb} {conversation}, says the answer, and the store does not"));
        }
        if adding {
            member.inside_since.get_or_insert(moment.mono);
        } else {
            member.outside_since.get_or_insert(moment.mono);
        }
    }

    pub(super) fn version_of_block(&self, by: UserId, of: UserId) -> u64 {
        self.blocks.get(&(by, of)).map_or(0, |block| block.version)
    }

    pub(super) fn block_stored(&mut self, by: UserId, of: UserId, blocked: bool) {
        let block = self.blocks.entry((by, of)).or_default();
        block.stored = blocked;
        if !blocked {
            block.since = None;
        }
    }

    pub(super) fn blocking(&mut self, by: UserId, of: UserId, blocked: bool) {
        let block = self.blocks.entry((by, of)).or_default();
        block.changing += 1;
        block.version += 1;
        if !blocked {
            block.since = None;
        }
    }

    pub(super) fn blocked(&mut self, moment: Moment, (by, of): (UserId, UserId), blocked: bool, done: bool, version: u64) {
        let block = self.blocks.entry((by, of)).or_default();
        let alone = block.changing == 1 && block.version == version;
        block.changing = block.changing.saturating_sub(1);
        block.version += 1;
        if !done || !alone {
            return;
        }
        if block.stored != blocked {
            self.violate(format!("user {by} blocks {of}: {blocked}, says the answer, and the store does not"));
        } else if blocked {
            block.since.get_or_insert(moment.mono);
        }
    }

    /// The node is gone: nothing that was asked of it is under way.
    pub(super) fn forget_requests(&mut self) {
        for member in self.members.values_mut() {
            member.changing = 0;
            member.version += 1;
        }
        for block in self.blocks.values_mut() {
            block.changing = 0;
            block.version += 1;
        }
    }
}

fn fault_of_page(log: &[Entry], asked: Asked, page: &[Dto], has_more: bool) -> Option<String> {
    let position = |id: MessageId| log.partition_point(|entry| entry.message.id < id);
    let forward = matches!(asked.from, Position::After(_));
    let range = match asked.from {
        Position::After(after) => {
            let start = log.partition_point(|entry| entry.message.id <= after);
            let least = asked.length.saturating_sub(start).min(asked.limit);
            if page.len() < least {
                return Some(format!("{} messages, at least {least} were there", page.len()));
            }
            start..start + page.len()
        }
        Position::Before(_) | Position::Newest => {
            let first = page.first().and_then(|first| first.id.parse::<MessageId>().ok()).map(position);
            let end = first.map_or(0, |first| first + 1);
            let least = if let Position::Before(before) = asked.from { position(before) } else { asked.length };
            let exact = matches!(asked.from, Position::Before(_));
            if end < least.min(asked.length) || (exact && end > least) {
                return Some(format!("begins at {end}, {least} were there"));
            }
            if page.len() != end.min(asked.limit) {
                return Some(format!("{} messages of {end}", page.len()));
            }
            end - page.len()..end
        }
    };
    if page.len() > asked.limit || range.end > log.len() {
        return Some(format!("{} messages of {}", page.len(), log.len()));
    }
    let more = if forward { range.end < log.len() } else { range.start > 0 };
    // The log may have grown since a forward page was read.
    if has_more != more && (!forward || has_more || range.end < asked.length) {
        return Some(format!("hasMore is {has_more}"));
    }
    let entries = &log[range];
    let alike = |(entry, dto): (&Entry, &Dto)| dto.is_of(&entry.message);
    let same = if forward { entries.iter().zip(page).all(alike) } else { entries.iter().rev().zip(page).all(alike) };
    (!same).then(|| "not the log's messages, or with a gap".to_owned())
}
