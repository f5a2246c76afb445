//! Writes to the same subject one after the other, in the order of their requests; all others at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tokio::sync::oneshot;

use crate::model::ids::{ConversationId, UserId};
use crate::store::{Request, SecretHash};

/// What writes of a kind must not overtake each other about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Its messages, and its making.
    Log(ConversationId),
    /// A participant's place and mark in it.
    Member(ConversationId, UserId),
    Pair(UserId, UserId),
    Login(Box<str>),
    Token(SecretHash),
}

impl Subject {
    /// `None` for reads, which wait for nobody: a read sees what was replied to before it was asked.
    fn of(request: &Request) -> Option<Self> {
        Some(match request {
            Request::Append { conversation, .. } => Self::Log(*conversation),
            Request::CreateConversation { conversation } => Self::Log(conversation.id),
            Request::PutParticipant { conversation, participant } => Self::Member(*conversation, participant.user),
            Request::RemoveParticipant { conversation, user } => Self::Member(*conversation, *user),
            Request::Mark { conversation, mark } => Self::Member(*conversation, mark.user),
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

/// Who waits, by subject; a subject without work has no entry.
type Queues = Rc<RefCell<BTreeMap<Subject, VecDeque<oneshot::Sender<()>>>>>;

/// Lifetime and owner: the store's.
#[derive(Debug, Default)]
pub(super) struct Orders {
    queues: Queues,
}

/// A place in a queue; given up when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    queues: Queues,
    subject: Option<Subject>,
    waiting: Option<oneshot::Receiver<()>>,
}

impl Orders {
    pub(super) fn enter(&self, request: &Request) -> Turn {
        let subject = Subject::of(request);
        let mut waiting = None;
        if let Some(subject) = &subject {
            let mut queues = self.queues.borrow_mut();
            match queues.get_mut(subject) {
                Some(queue) => {
                    let (call, called) = oneshot::channel();
                    queue.push_back(call);
                    waiting = Some(called);
                }
                None => _ = queues.insert(subject.clone(), VecDeque::new()),
            }
        }
        Turn { queues: Rc::clone(&self.queues), subject, waiting }
    }
}

impl Turn {
    /// Waits until all before it are done.
    pub(super) async fn begin(&mut self) {
        if let Some(called) = &mut self.waiting {
            // The sender is dropped only with the whole queue.
            let _called = called.await;
            self.waiting = None;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(subject) = &self.subject else { return };
        // Given up while it waited: whoever is before it passes it over, as nobody receives.
        if self.waiting.as_mut().is_some_and(|waiting| waiting.try_recv().is_err()) {
            return;
        }
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(subject) else { return };
        while let Some(next) = queue.pop_front() {
            if next.send(()).is_ok() {
                return;
            }
        }
        queues.remove(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn write(conversation: u64, user: u64) -> Request {
        let (conversation, user) = (ConversationId::new(conversation).unwrap(), UserId::new(user).unwrap());
        Request::RemoveParticipant { conversation, user }
    }

    fn begins(turn: &mut Turn) -> bool {
        pin!(turn.begin()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn one_subject_is_served_in_order_and_others_at_once() {
        let orders = Orders::default();
        let turns: Vec<_> = (0..3).map(|_| orders.enter(&write(1, 1))).collect();
        let [mut first, mut second, mut third] = turns.try_into().unwrap();
        assert!(begins(&mut orders.enter(&write(1, 2))) && begins(&mut first));
        assert!(!begins(&mut second) && !begins(&mut third));
        drop(first);
        assert!(begins(&mut second) && !begins(&mut third));
        drop(second);
        assert!(begins(&mut third));
        drop(third);
        assert!(orders.queues.borrow().is_empty());
    }

    #[test]
    fn who_gives_up_is_passed_over() {
        let orders = Orders::default();
        let turns: Vec<_> = (0..4).map(|_| orders.enter(&write(1, 1))).collect();
        let [mut first, second, third, mut fourth] = turns.try_into().unwrap();
        drop(second);
        assert!(begins(&mut first));
        drop(first);
        // Called, and given up before it began: its call goes on to the next.
        drop(third);
        assert!(begins(&mut fourth));
        drop(fourth);
        assert!(orders.queues.borrow().is_empty());
    }
}
