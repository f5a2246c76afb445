//! Carries out writes with the same key one after the other, in the order of their requests; all others at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tokio::sync::oneshot;

use crate::store::{OrderKey, Request};

/// The writes that wait, by key; a key without a write under way has no entry.
type Waiting = BTreeMap<OrderKey, VecDeque<oneshot::Sender<()>>>;

/// Lifetime and owner: the store's.
#[derive(Debug, Default)]
pub(super) struct Queues {
    waiting: Rc<RefCell<Waiting>>,
}

/// Allows a request to begin, once it is granted. Dropping it, granted or not, lets the next request begin.
#[derive(Debug)]
pub(super) struct Permit {
    queues: Rc<RefCell<Waiting>>,
    key: Option<OrderKey>,
    grant: Option<oneshot::Receiver<()>>,
}

impl Queues {
    /// Reads never wait: a read sees what was replied to before it was asked.
    pub(super) fn enter(&self, request: &Request) -> Permit {
        let key = match request {
            Request::Read(_) => None,
            Request::Write(write) => write.order(),
        };
        let mut grant = None;
        if let Some(key) = &key {
            let mut queues = self.waiting.borrow_mut();
            match queues.get_mut(key) {
                Some(queue) => {
                    let (sender, receiver) = oneshot::channel();
                    queue.push_back(sender);
                    grant = Some(receiver);
                }
                None => _ = queues.insert(key.clone(), VecDeque::new()),
            }
        }
        Permit { queues: Rc::clone(&self.waiting), key, grant }
    }
}

impl Permit {
    /// Waits until all requests before this one are done.
    pub(super) async fn granted(&mut self) {
        if let Some(grant) = &mut self.grant {
            // The sender is dropped only with the whole queue.
            let _granted = grant.await;
            self.grant = None;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        // Dropped while it waited: the request before it skips it, as nobody receives.
        if self.grant.as_mut().is_some_and(|grant| grant.try_recv().is_err()) {
            return;
        }
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(key) else { return };
        while let Some(next) = queue.pop_front() {
            if next.send(()).is_ok() {
                return;
            }
        }
        queues.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{ConversationId, UserId};
    use crate::store::conversations::RemoveParticipant;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn write(conversation: u64, user: u64) -> Request {
        let (conversation, user) = (ConversationId::new(conversation).unwrap(), UserId::new(user).unwrap());
        RemoveParticipant { conversation, user }.into()
    }

    fn is_granted(permit: &mut Permit) -> bool {
        pin!(permit.granted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn one_key_is_served_in_order_and_others_at_once() {
        let queues = Queues::default();
        let permits: Vec<_> = (0..3).map(|_| queues.enter(&write(1, 1))).collect();
        let [mut first, mut second, mut third] = permits.try_into().unwrap();
        assert!(is_granted(&mut queues.enter(&write(1, 2))) && is_granted(&mut first));
        assert!(!is_granted(&mut second) && !is_granted(&mut third));
        drop(first);
        assert!(is_granted(&mut second) && !is_granted(&mut third));
        drop(second);
        assert!(is_granted(&mut third));
        drop(third);
        assert!(queues.waiting.borrow().is_empty());
    }

    #[test]
    fn a_dropped_permit_is_skipped() {
        let queues = Queues::default();
        let permits: Vec<_> = (0..4).map(|_| queues.enter(&write(1, 1))).collect();
        let [mut first, second, third, mut fourth] = permits.try_into().unwrap();
        drop(second);
        assert!(is_granted(&mut first));
        drop(first);
        // Granted, and dropped before it began: the grant goes on to the next.
        drop(third);
        assert!(is_granted(&mut fourth));
        drop(fourth);
        assert!(queues.waiting.borrow().is_empty());
    }
}
