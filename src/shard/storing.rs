//! Requests under way at the store, and what each of them is for.

use std::time::Duration;

use crate::model::command::{Command, Outcome, Page};
use crate::model::message::ReadMark;
use crate::model::{ConversationId, Mono, Refusal, RefusalCode};
use crate::shard::auth::Login;
use crate::shard::boundary::Effect;
use crate::shard::mail::{Ask, Asker};
use crate::shard::membership::Change;
use crate::shard::timers::Timer;
use crate::shard::{Shard, Turn};
use crate::store::accounts::{ReadUser, User};
use crate::store::conversations::{ListBlocks, ListConversations, SetBlock};
use crate::store::log::{FindMessage, ListReadMarks, ReadMessage, SetReadMark};
use crate::store::{Call, Failure, Reply, Request, Ticket};

/// What to do with a reply.
#[derive(Debug)]
pub(super) enum Errand {
    Load(ConversationId),
    Append(ConversationId),
    /// What became of an append that was given up.
    Settle(ConversationId),
    /// A change of the participants that was given up.
    RepeatChange(ConversationId, Change),
    /// Which conversation a message is in, for a command that did not say.
    Find(Box<Ask>),
    History(ConversationId, Page),
    Message(Asker),
    /// The message that a read mark is to be set to.
    MarkMessage(Asker),
    Mark(Asker, ConversationId),
    Marks(Asker),
    /// The conversation to make, to be tried under another id when this one is taken.
    Create(Box<Ask>, ConversationId),
    Put(Asker, ConversationId),
    Change(Asker, ConversationId, Change),
    Conversations(Asker),
    Block(Asker),
    /// Whether a pair's conversation is blocked now.
    BlockRead(ConversationId),
    Blocks(Asker),
    Me(Asker),
    Login(Box<Login>),
    Revoked,
    /// A write, with what is needed to ask for it again.
    Write(Box<Write>),
}

/// A write whose outcome must be known in the end. Appends have their own, as more of them wait behind.
#[derive(Debug)]
pub(super) struct Write {
    request: Request,
    errand: Errand,
    tries: u32,
    since: Mono,
}

/// Pause before a write of unknown outcome is tried again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// After this long it is given up, if it was tried twice: whoever waits is told that the store is lost within a second.
const PATIENCE: Duration = Duration::from_millis(700);

/// Whether a write of unknown outcome is tried once more.
pub(super) fn is_worth_retrying(reply: &Reply, tries: u32, waited: Duration) -> bool {
    is_unknown(reply, tries) && (tries == 0 || waited < PATIENCE)
}

/// Whether a reply leaves open what became of the write. After one unknown outcome no later failure is certain any more:
/// the first try may have been carried out.
fn is_unknown(reply: &Reply, tries: u32) -> bool {
    matches!(reply, Reply::Failed(failure) if *failure == Failure::Unknown || tries > 0)
}

/// What whoever waits for a write is told in the end.
pub(super) fn last_word(reply: Reply, tries: u32) -> Reply {
    if is_unknown(&reply, tries) { Reply::Failed(Failure::Unknown) } else { reply }
}

impl Shard {
    /// Asks the store. Beyond `limits.store_inflight` the answer comes at once: busy.
    pub(super) fn ask_store(&mut self, turn: &mut Turn<'_>, request: impl Into<Request>, errand: Errand) {
        let request = request.into();
        if self.errands.len() >= self.policy.limits.store_inflight {
            return self.run_errand(turn, errand, Reply::Failed(Failure::Busy));
        }
        let errand = match errand {
            Errand::Append(_) => errand,
            _ if request.is_read() => errand,
            _ => Errand::Write(Box::new(Write { request: request.clone(), errand, tries: 0, since: turn.now.mono })),
        };
        self.insist(turn, request, errand);
    }

    /// Asks the store whatever else is under way: for what has begun and must come to an end.
    pub(super) fn insist(&mut self, turn: &mut Turn<'_>, request: impl Into<Request>, errand: Errand) {
        let request = request.into();
        let ticket = Ticket(self.errands.insert(errand) as u64);
        turn.effects.push(Effect::Store { ticket, request });
    }

    pub(super) fn stored(&mut self, turn: &mut Turn<'_>, ticket: Ticket, reply: Reply) {
        let key = usize::try_from(ticket.0).expect("a ticket is an index of this shard");
        let errand = self.errands.try_remove(key).expect("the store replies once to each ticket");
        self.store_failing = matches!(reply, Reply::Failed(Failure::Unavailable | Failure::Unknown));
        self.run_errand(turn, errand, reply);
    }

    fn run_errand(&mut self, turn: &mut Turn<'_>, errand: Errand, reply: Reply) {
        match errand {
            Errand::Load(conversation) => self.conversation_loaded(turn, conversation, reply),
            Errand::Append(conversation) => self.appended(turn, conversation, reply),
            Errand::Settle(conversation) => self.append_settled(turn, conversation, reply),
            Errand::RepeatChange(conversation, change) => self.change_repeated(turn, conversation, change, reply),
            Errand::Find(ask) => self.message_found(turn, *ask, reply),
            Errand::History(conversation, page) => self.history_read(turn, conversation, page, reply),
            Errand::Message(asker) => self.message_read(turn, asker, reply),
            Errand::MarkMessage(asker) => self.mark_message(turn, asker, reply),
            Errand::Mark(asker, conversation) => self.marked(turn, asker, conversation, reply),
            Errand::Marks(asker) => {
                let refused = || Outcome::Refused(missing());
                self.pass_on::<ListReadMarks>(turn, asker, reply, |marks| marks.map_or_else(refused, Outcome::ReadMarks));
            }
            Errand::Create(ask, candidate) => self.created(turn, *ask, candidate, reply),
            Errand::Put(asker, conversation) => self.put(turn, asker, conversation, reply),
            Errand::Change(asker, conversation, change) => self.changed(turn, asker, conversation, change, reply),
            Errand::Conversations(asker) => self.conversations_read(turn, asker, reply),
            Errand::Block(asker) => self.block_set(turn, asker, reply),
            Errand::BlockRead(conversation) => self.block_read(turn, conversation, reply),
            Errand::Blocks(asker) => self.pass_on::<ListBlocks>(turn, asker, reply, Outcome::Blocks),
            Errand::Me(asker) => self.me_read(turn, asker, reply),
            Errand::Login(login) => self.login_goes_on(turn, *login, reply),
            Errand::Revoked => self.revoked_loaded(turn, reply),
            Errand::Write(mut write) => {
                if is_worth_retrying(&reply, write.tries, turn.now.mono.since(write.since)) {
                    write.tries += 1;
                    let key = self.repeats.insert(write);
                    self.timers.schedule(turn.now.mono.after(RETRY_PAUSE), Timer::Repeat(key));
                } else {
                    self.run_errand(turn, write.errand, last_word(reply, write.tries));
                }
            }
        }
    }

    /// The outcome of a write is not known: the same request again, which gives the result of having done it once.
    pub(super) fn repeat_write(&mut self, turn: &mut Turn<'_>, key: usize) {
        let Some(write) = self.repeats.try_remove(key) else { return };
        let request = write.request.clone();
        self.insist(turn, request, Errand::Write(write));
    }

    fn pass_on<C: Call>(&mut self, turn: &mut Turn<'_>, asker: Asker, reply: Reply, outcome: impl FnOnce(C::Answer) -> Outcome) {
        let outcome = C::answer(reply).map_or_else(|failure| Outcome::Refused(Self::failed(failure)), outcome);
        self.answer(turn, asker, outcome);
    }

    /// The refusal for a request that the store could not carry out.
    pub(super) fn failed(failure: Failure) -> Refusal {
        match failure {
            Failure::Busy => Refusal::new(RefusalCode::StoreBusy, "too many requests wait for the store").retry_after(1),
            Failure::Unavailable | Failure::Unknown => {
                Refusal::new(RefusalCode::StoreUnavailable, "the store cannot be reached").retry_after(2)
            }
        }
    }

    fn message_found(&mut self, turn: &mut Turn<'_>, ask: Ask, reply: Reply) {
        let Ask { asker, command } = ask;
        match (FindMessage::answer(reply), command) {
            (Ok(Some(conversation)), Command::MarkRead { message, .. }) => {
                let command = Command::MarkRead { conversation: Some(conversation), message };
                self.route(turn, Ask { asker, command });
            }
            (Ok(Some(_)), _) => unreachable!("only a mark is set by a message alone"),
            // Nobody learns whether a message exists that is not theirs.
            (Ok(None), _) => {
                let refusal = Refusal::new(RefusalCode::NotParticipant, "you are not a participant of its conversation");
                self.answer(turn, asker, Outcome::Refused(refusal));
            }
            (Err(failure), _) => self.answer(turn, asker, Outcome::Refused(Self::failed(failure))),
        }
    }

    fn message_read(&mut self, turn: &mut Turn<'_>, asker: Asker, reply: Reply) {
        self.pass_on::<ReadMessage>(turn, asker, reply, |message| message.map_or_else(no_message, Outcome::Message));
    }

    fn mark_message(&mut self, turn: &mut Turn<'_>, asker: Asker, reply: Reply) {
        let outcome = match ReadMessage::answer(reply) {
            Ok(Some(message)) => {
                let mark = ReadMark { user: asker.user, message: message.id, sequence: message.sequence };
                let conversation = message.conversation;
                return self.ask_store(turn, SetReadMark { conversation, mark }, Errand::Mark(asker, conversation));
            }
            Ok(None) => no_message(),
            Err(failure) => Outcome::Refused(Self::failed(failure)),
        };
        self.answer(turn, asker, outcome);
    }

    /// As the user's shard, or the one that accepted its request: commands without a conversation.
    pub(super) fn ask_about_user(&mut self, turn: &mut Turn<'_>, ask: Ask) {
        let Ask { asker, command } = ask;
        let user = asker.user;
        match command {
            Command::CreateConversation { .. } => self.create_conversation(turn, Ask { asker, command }),
            Command::ListConversations { after, limit } => {
                self.ask_store(turn, ListConversations { user, after, limit }, Errand::Conversations(asker));
            }
            Command::SetBlock { user: other, .. } if other == user => {
                let refusal = Refusal::new(RefusalCode::BadRequest, "you cannot block yourself");
                self.answer(turn, asker, Outcome::Refused(refusal));
            }
            Command::SetBlock { user: other, blocked } => {
                self.ask_store(turn, SetBlock { user, other, blocked }, Errand::Block(asker));
            }
            Command::ListBlocks => self.ask_store(turn, ListBlocks { user }, Errand::Blocks(asker)),
            Command::ReadMe => self.ask_store(turn, ReadUser { user }, Errand::Me(asker)),
            _ => unreachable!("commands of conversations are routed to their shard"),
        }
    }

    fn conversations_read(&mut self, turn: &mut Turn<'_>, asker: Asker, reply: Reply) {
        self.pass_on::<ListConversations>(turn, asker, reply, |list| {
            let next = list.summaries.last().filter(|_| list.more).map(|last| last.conversation.id);
            Outcome::Conversations { summaries: list.summaries, next }
        });
    }

    fn me_read(&mut self, turn: &mut Turn<'_>, asker: Asker, reply: Reply) {
        self.pass_on::<ReadUser>(turn, asker, reply, |user| match user {
            Some(User { user, roles, display_name }) => Outcome::Me { user, roles, display_name },
            // A token made elsewhere names a user that never logged in here.
            None => Outcome::Me { user: asker.user, roles: roles(&asker), display_name: None },
        });
    }
}

/// The refusal for a request about a conversation that does not exist.
pub(super) fn missing() -> Refusal {
    Refusal::new(RefusalCode::NotFound, "there is no such thing")
}

fn no_message() -> Outcome {
    Outcome::Refused(Refusal::new(RefusalCode::NotFound, "there is no such message in this conversation"))
}

fn roles(asker: &Asker) -> Vec<Box<str>> {
    if asker.admin { vec!["admin".into()] } else { Vec::new() }
}

/// Kept small: thousands are under way at a busy store.
const _: () = assert!(size_of::<Errand>() <= 80);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;

    #[test]
    fn no_failure_is_certain_after_an_unknown_outcome() {
        let check = |failure, tries, expect| assert_eq!(is_unknown(&Reply::Failed(failure), tries), expect, "{failure:?}");
        check(Failure::Unknown, 0, true);
        for failure in [Failure::Busy, Failure::Unavailable] {
            check(failure, 0, false);
            check(failure, 1, true);
        }
        let reply = ListBlocks { user: UserId::new(1).unwrap() }.reply(Vec::new());
        assert!(!is_unknown(&reply, 1));
    }

    #[test]
    fn a_write_is_tried_twice_at_least_and_not_for_long() {
        let unknown = Reply::Failed(Failure::Unknown);
        let check = |tries, waited, expect| assert_eq!(is_worth_retrying(&unknown, tries, waited), expect, "{tries} {waited:?}");
        check(0, PATIENCE * 2, true);
        check(1, PATIENCE - Duration::from_millis(1), true);
        check(9, PATIENCE - Duration::from_millis(1), true);
        check(1, PATIENCE, false);
        assert!(!is_worth_retrying(&Reply::Failed(Failure::Busy), 0, Duration::ZERO));
    }
}
