//! Erasing a user.

use std::sync::Arc;

use crate::model::ids::UserId;
use crate::model::message::ConversationKind;
use crate::model::time::Wall;
use crate::store::erasure::{EraseAnswer, Erased, Write};
use crate::store::{Call, Reply};

use super::Memory;

impl Memory {
    pub(super) fn write_erasure(&mut self, write: &Write) -> Reply {
        match write {
            Write::EraseUser(erase) => erase.reply(EraseAnswer { erased: self.erase_user(erase.user, erase.now), next: None }),
        }
    }

    /// All in one step.
    fn erase_user(&mut self, user: UserId, now: Wall) -> Erased {
        let mut erased = Erased::default();
        let logins: Vec<_> = self.logins.iter().filter(|(_, of)| **of == user).map(|(login, _)| login.clone()).collect();
        for login in logins {
            self.logins.remove(&login);
            self.codes.remove(&login);
            erased.logins += 1;
        }
        let families: Vec<_> = self.families.iter().filter(|(_, family)| family.user == user).map(|(id, _)| *id).collect();
        for family in &families {
            erased.families += u64::from(self.families[family].revoked.is_none());
            self.revoke(*family, now);
        }
        let blocks: Vec<_> = self.blocks.keys().filter(|(by, _)| *by == user).copied().collect();
        for block in &blocks {
            self.blocks.remove(block);
            erased.blocks += 1;
        }
        let listed: Vec<_> = self.conversations_of.keys().filter(|(of, _)| *of == user).copied().collect();
        for (_, id) in &listed {
            if self.conversations[id].kind == ConversationKind::Group {
                self.participants.remove(&(*id, user));
            }
            self.conversations_of.remove(&(user, *id));
            self.marks.remove(&(*id, user));
            erased.conversations += 1;
        }
        self.keys.retain(|(_, sender, _), _| *sender != user);
        for message in self.log.values_mut().filter(|message| message.sender == user) {
            erased.found += 1;
            if !message.is_erased() {
                *message = Arc::new(message.erased());
                erased.messages += 1;
            }
        }
        let users = u64::from(self.users.remove(&user).is_some());
        erased.found += users + erased.logins + families.len() as u64 + erased.blocks + erased.conversations;
        erased
    }
}
