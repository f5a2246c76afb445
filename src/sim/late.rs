//! Writes that may still take effect after the store has answered that their outcome is not known.
//!
//! The contract bounds how late: writes about one subject take effect in the order in which they were given, so a late write
//! takes effect before a later one about its subject does, or never. Of a late append the next load of its conversation
//! decides. Every other late write takes effect within some seconds, and before its node starts again: a store forgets a
//! request that it has not carried out within its own timeout, which is shorter than a restart.

use crate::model::{ConversationId, UserId};
use crate::store::{Request, SecretHash};

/// What a write is about: writes about the same keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Log(ConversationId),
    Participant(ConversationId, UserId),
    Pair(UserId, UserId),
    Login(Box<str>),
    Token(SecretHash),
}

impl Subject {
    /// `None`: the write is about several, which no shard asks for here.
    pub(super) fn of(request: &Request) -> Option<Self> {
        Some(match request {
            Request::Append { conversation, .. } => Self::Log(*conversation),
            Request::PutParticipant { conversation, participant } => Self::Participant(*conversation, participant.user),
            Request::RemoveParticipant { conversation, user } => Self::Participant(*conversation, *user),
            Request::Mark { conversation, mark } => Self::Participant(*conversation, mark.user),
            Request::SetBlock { user, other, .. } => Self::Pair(*user.min(other), *user.max(other)),
            Request::PutCode { login, .. } | Request::TakeCode { login, .. } | Request::LoginUser { login, .. } => {
                Self::Login(login.clone())
            }
            Request::PutRefresh { token, .. } | Request::RotateRefresh { token, .. } | Request::RevokeRefresh { token, .. } => {
                Self::Token(*token)
            }
            _ => return None,
        })
    }
}

#[derive(Debug)]
pub(super) struct LateWrite {
    number: u64,
    /// The node and its epoch.
    pub(super) asked_by: (usize, u64),
    pub(super) request: Request,
}

impl LateWrite {
    fn is_about(&self, subject: &Subject) -> bool {
        Subject::of(&self.request).as_ref() == Some(subject)
    }

    fn is_append(&self) -> bool {
        matches!(self.request, Request::Append { .. })
    }
}

/// In the order in which they were given. Lifetime: the run's.
#[derive(Debug, Default)]
pub(super) struct LateWrites {
    writes: Vec<LateWrite>,
    next: u64,
}

impl LateWrites {
    /// Returns the number of the new one.
    pub(super) fn add(&mut self, asked_by: (usize, u64), request: &Request) -> u64 {
        self.next += 1;
        self.writes.push(LateWrite { number: self.next, asked_by, request: request.clone() });
        self.next
    }

    pub(super) fn take(&mut self, number: u64) -> Option<LateWrite> {
        let at = self.writes.iter().position(|write| write.number == number)?;
        Some(self.writes.remove(at))
    }

    pub(super) fn take_about(&mut self, subject: &Subject) -> Vec<LateWrite> {
        self.writes.extract_if(.., |write| write.is_about(subject)).collect()
    }

    /// Takes those about the same subject that were given before `late`.
    pub(super) fn take_before(&mut self, late: &LateWrite) -> Vec<LateWrite> {
        let Some(subject) = Subject::of(&late.request) else { return Vec::new() };
        self.writes.extract_if(.., |write| write.number < late.number && write.is_about(&subject)).collect()
    }

    /// Takes all of a node but its appends.
    pub(super) fn take_of_node(&mut self, node: usize) -> Vec<LateWrite> {
        self.writes.extract_if(.., |write| write.asked_by.0 == node && !write.is_append()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(conversation: u64, user: u64) -> Request {
        let (conversation, user) = (ConversationId::new(conversation).unwrap(), UserId::new(user).unwrap());
        Request::RemoveParticipant { conversation, user }
    }

    #[test]
    fn late_writes_about_one_subject_keep_their_order() {
        let mut late = LateWrites::default();
        let numbers = [put(1, 1), put(1, 2), put(1, 1)].map(|request| late.add((0, 1), &request));
        let last = late.take(numbers[2]).unwrap();
        let before: Vec<u64> = late.take_before(&last).iter().map(|write| write.number).collect();
        assert_eq!(before, [numbers[0]]);
        assert!(late.take_about(&Subject::of(&put(2, 1)).unwrap()).is_empty());
        assert_eq!(late.take_of_node(0).len(), 1);
        assert!(late.is_empty());
    }
}
