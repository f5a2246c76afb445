//! The one table of permissions: actions, and the memberships and roles that allow them.

use crate::access::token::Claims;
use crate::model::message::{Conversation, ConversationKind, ParticipantRole};
use crate::model::{Limits, Refusal, RefusalCode, UserId, Wall};
use crate::store::accounts::FamilyId;

/// The user that a session acts for, and the expiry of its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    pub admin: bool,
    /// `exp` plus the leeway.
    pub expires: Wall,
    pub family: Option<FamilyId>,
}

impl Principal {
    #[must_use]
    pub fn new(claims: &Claims, limits: &Limits) -> Self {
        let Caller { user, admin } = Caller::new(claims);
        Self { user, admin, expires: claims.expires.after(limits.token_leeway), family: claims.family }
    }

    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { user: self.user, admin: self.admin }
    }
}

/// The user who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    /// The token has role admin.
    pub admin: bool,
}

impl Caller {
    #[must_use]
    pub fn new(claims: &Claims) -> Self {
        Self { user: claims.user, admin: claims.roles.iter().any(|role| &**role == "admin") }
    }
}

/// The action of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish to `/topic/announcements`.
    Announce,
    /// Create a conversation under an id of the caller's choice.
    Import,
    Send,
    /// Read the conversation, its messages or its read marks, set one's own mark, or subscribe to its topic.
    Read,
    /// Add this participant or change their role.
    PutParticipant(UserId),
    /// Users who remove themselves leave.
    RemoveParticipant(UserId),
}

/// The caller's membership in the conversation of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub kind: ConversationKind,
    /// `None`: not a participant.
    pub role: Option<ParticipantRole>,
    /// One participant of a direct conversation blocks the other.
    pub blocked: bool,
}

impl Membership {
    #[must_use]
    pub fn of(user: UserId, conversation: &Conversation, blocked: bool) -> Self {
        let role = conversation.participant(user).map(|participant| participant.role);
        Self { kind: conversation.kind, role, blocked }
    }
}

/// Whether `caller` may do `action`. Actions on a conversation need the caller's `membership` of it.
///
/// # Errors
/// The refusal for the client. It is the same for a foreign conversation and for one that does not exist, so that ids
/// reveal nothing.
pub fn may(caller: Caller, action: Action, membership: Option<Membership>) -> Result<(), Refusal> {
    let refuse = |code, message: &'static str| Err(Refusal::new(code, message));
    let takes_part = || membership.filter(|membership| membership.role.is_some()).ok_or_else(not_participant);
    match action {
        Action::Announce if !caller.admin => refuse(RefusalCode::Forbidden, "announcements need role admin"),
        Action::Import if !caller.admin => refuse(RefusalCode::Forbidden, "imports need role admin"),
        Action::Announce | Action::Import => Ok(()),
        Action::Read => takes_part().map(|_| ()),
        Action::Send if takes_part()?.blocked => refuse(RefusalCode::Blocked, "one of you has blocked the other"),
        Action::Send => Ok(()),
        Action::PutParticipant(_) => {
            may_change(caller, membership, false, "only an admin of the group may change its participants")
        }
        Action::RemoveParticipant(user) => {
            may_change(caller, membership, user == caller.user, "only an admin of the group may remove others")
        }
    }
}

/// Role admin sets up groups without taking part: imported ones, and those whose last admin has left.
fn may_change(caller: Caller, membership: Option<Membership>, only_leaves: bool, message: &'static str) -> Result<(), Refusal> {
    let membership = membership.filter(|membership| caller.admin || membership.role.is_some()).ok_or_else(not_participant)?;
    if membership.kind == ConversationKind::Direct {
        return Err(Refusal::new(RefusalCode::Conflict, "the participants of a direct conversation do not change"));
    }
    if only_leaves || caller.admin || membership.role == Some(ParticipantRole::Admin) {
        Ok(())
    } else {
        Err(Refusal::new(RefusalCode::Forbidden, message))
    }
}

/// The refusal for a conversation that is foreign to the caller, or does not exist.
#[must_use]
pub fn not_participant() -> Refusal {
    Refusal::new(RefusalCode::NotParticipant, "you are not a participant of this conversation")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ParticipantRole::{Admin, Member};

    fn user(value: u64) -> UserId {
        UserId::new(value).unwrap()
    }

    fn group(role: Option<ParticipantRole>) -> Option<Membership> {
        Some(Membership { kind: ConversationKind::Group, role, blocked: false })
    }

    fn direct(blocked: bool) -> Option<Membership> {
        Some(Membership { kind: ConversationKind::Direct, role: Some(Member), blocked })
    }

    #[test]
    fn the_table() {
        use RefusalCode::{Blocked, Conflict, Forbidden, NotParticipant};
        let (own, other) = (user(1), user(2));
        let check = |admin, action, membership, expect: Result<(), RefusalCode>| {
            let result = may(Caller { user: own, admin }, action, membership).map_err(|refusal| refusal.code);
            assert_eq!(result, expect, "admin {admin}, {action:?} as {membership:?}");
        };
        for action in [Action::Announce, Action::Import] {
            check(false, action, None, Err(Forbidden));
            check(true, action, None, Ok(()));
        }
        for action in [Action::Read, Action::Send] {
            for admin in [false, true] {
                check(admin, action, None, Err(NotParticipant));
                check(admin, action, group(None), Err(NotParticipant));
            }
            check(false, action, group(Some(Member)), Ok(()));
            check(false, action, direct(false), Ok(()));
        }
        check(false, Action::Send, direct(true), Err(Blocked));
        check(false, Action::Read, direct(true), Ok(()));
        for action in [Action::PutParticipant(other), Action::RemoveParticipant(other), Action::PutParticipant(own)] {
            check(false, action, group(None), Err(NotParticipant));
            check(false, action, group(Some(Member)), Err(Forbidden));
            check(false, action, group(Some(Admin)), Ok(()));
            check(true, action, group(None), Ok(()));
            check(false, action, direct(false), Err(Conflict));
            check(true, action, direct(false), Err(Conflict));
        }
        check(false, Action::RemoveParticipant(own), group(Some(Member)), Ok(()));
        check(false, Action::RemoveParticipant(own), direct(false), Err(Conflict));
    }
}
