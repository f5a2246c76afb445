//! **The history has it all.** A page is a gapless part of the log as it was at some time between question and answer; what
//! a device knows in the end, from deliveries and from the history, is all there is.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::command::Position;
use crate::model::{ConversationId, MessageId, Mono, UserId};
use crate::sim::facts::{Dto, Entry};
use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "a page is a gapless part of the log, and with deliveries shows all there is";

/// A page that was asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Asked {
    pub(in crate::sim) user: UserId,
    pub(in crate::sim) conversation: ConversationId,
    pub(in crate::sim) from: Position,
    pub(in crate::sim) limit: usize,
    pub(in crate::sim) at: Mono,
    /// Messages that the conversation had then.
    pub(in crate::sim) length: usize,
}

impl Oracle {
    pub(in crate::sim) fn length(&self, conversation: ConversationId) -> usize {
        self.log.get(&conversation).map_or(0, Vec::len)
    }

    pub(in crate::sim) fn check_page(&mut self, asked: Asked, page: &[Dto], has_more: bool) {
        self.check_page_is_theirs(asked);
        let empty = Vec::new();
        let log = self.log.get(&asked.conversation).unwrap_or(&empty);
        if let Some(what) = fault_of_page(log, asked, page, has_more) {
            self.break_promise(Promise::History, format!("{asked:?}: {what}"));
        }
    }

    /// A 200 has come, and its body is no page.
    pub(in crate::sim) fn no_page(&mut self, asked: Asked) {
        self.break_promise(Promise::History, format!("{asked:?} was answered with no page"));
    }

    /// What a device knows of a conversation, from deliveries and history, must be all there is.
    pub(in crate::sim) fn finish_device(
        &mut self,
        device: usize,
        user: UserId,
        known: &BTreeMap<ConversationId, BTreeSet<MessageId>>,
    ) {
        for (conversation, log) in &self.log {
            let Some(inside) = self.inside_since(*conversation, user) else { continue };
            let known = known.get(conversation);
            let lost = log
                .iter()
                .filter(|entry| inside < entry.at && self.sends[entry.send].device != device)
                .find(|entry| known.is_none_or(|known| !known.contains(&entry.message.id)));
            if let Some(lost) = lost {
                let what = format!("device {device} of user {user} never learned of {:?}", lost.message);
                return self.break_promise(Promise::History, what);
            }
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
