//! A store without a server around it: for commands that carry many requests out, and wait for them.

use std::error::Error;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::io::{clock, scylla};
use crate::store::embedded::{self, Embedded};
use crate::store::scylla::{Options, Scylla};
use crate::store::{Call, Failure, Reply, Request};

/// Chains that a database carries out side by side: enough to hide its answers' way, few enough that each is soon done.
const CHAINS_MAX: usize = 128;

/// How long one request may take, and how long one that failed is tried again. Nobody waits for an answer: a database
/// that is busy with what it was given needs time more than it needs repetitions.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A store, opened by its only user. Lifetime: the command's. Owner: its thread, which waits.
pub enum Bulk {
    Embedded(Box<Embedded>),
    Database { runtime: Runtime, store: Rc<Scylla> },
}

impl Bulk {
    /// # Errors
    /// [`embedded::OpenError`]: a server that uses the directory, for one.
    pub fn open_embedded(directory: &Path, options: &embedded::Options) -> Result<Self, embedded::OpenError> {
        Embedded::open(directory, options).map(|store| Self::Embedded(Box::new(store)))
    }

    /// Reaches the database; `migrates`: after its schema was brought up to date. A request may take longer than a server
    /// would wait.
    ///
    /// # Errors
    /// When the system refuses a runtime, or the database cannot be reached or refuses.
    pub fn open_database(options: Options, migrates: bool) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let runtime = scylla::runtime()?;
        let request_timeout = options.request_timeout.max(REQUEST_TIMEOUT);
        // A second try of a read beside the first would only add to the work.
        let options = Options { request_timeout, speculative_delay: request_timeout, ..options };
        let connected = runtime.block_on(scylla::reach(&options, migrates))?;
        let store = Rc::new(Scylla::new(options, connected));
        Ok(Self::Database { runtime, store })
    }

    /// Carries one request out.
    ///
    /// # Errors
    /// The last failure, when the store could not.
    pub fn ask<C: Call>(&mut self, call: C) -> Result<C::Answer, Failure> {
        let replies = self.carry_out(vec![vec![call.into()]]).pop();
        C::answer(replies.and_then(|mut replies| replies.pop()).expect("a request has a reply"))
    }

    /// Makes sure that no file of the embedded store has rows any more that were removed or replaced. False: the store is
    /// none of files, and sees to that itself.
    ///
    /// # Errors
    /// What the engine or the disk says; nothing is lost by it.
    pub fn compact(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        match self {
            Self::Embedded(store) => store.compact().map(|()| true),
            Self::Database { .. } => Ok(false),
        }
    }

    /// Carries out chains of requests: those of a chain in their order, each after the outcome of the one before is known.
    /// Gives the replies of each chain. One that fails for good is its last.
    pub fn carry_out(&mut self, chains: Vec<Vec<Request>>) -> Vec<Vec<Reply>> {
        match self {
            Self::Embedded(store) => carry_out_embedded(store, chains),
            Self::Database { runtime, store } => {
                let chains = stream::iter(chains).map(|chain| carry_out_chain(store, chain));
                runtime.block_on(chains.buffered(CHAINS_MAX).collect())
            }
        }
    }
}

/// One commit for all of them.
fn carry_out_embedded(store: &mut Embedded, chains: Vec<Vec<Request>>) -> Vec<Vec<Reply>> {
    let mut by_chain: Vec<Vec<Reply>> = chains.iter().map(|chain| Vec::with_capacity(chain.len())).collect();
    let requests = chains.into_iter().enumerate().flat_map(|(at, chain)| chain.into_iter().map(move |request| (at, request)));
    let mut replies = Vec::new();
    store.apply(requests, &mut replies);
    for (at, reply) in replies {
        by_chain[at].push(reply);
    }
    by_chain
}

async fn carry_out_chain(store: &Rc<Scylla>, chain: Vec<Request>) -> Vec<Reply> {
    let mut replies = Vec::with_capacity(chain.len());
    for request in chain {
        let began = clock::mono();
        let reply = loop {
            match store.ask(request.clone(), std::future::pending()).await {
                Reply::Failed(_) if clock::mono().since(began) < PATIENCE => sleep(RETRY_PAUSE).await,
                reply => break reply,
            }
        };
        let is_over = matches!(reply, Reply::Failed(_));
        replies.push(reply);
        if is_over {
            break;
        }
    }
    replies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, UserId};
    use crate::store::conversations::{BlockAnswer, ReadConversation, SetBlock};

    #[test]
    fn chains_are_answered_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Bulk::open_embedded(directory.path(), &embedded::Options::default()).unwrap();
        let block = |blocked| SetBlock { user: UserId::new(1).unwrap(), other: UserId::new(2).unwrap(), blocked }.into();
        let read = ReadConversation { conversation: ConversationId::new(1).unwrap() };
        let replies = store.carry_out(vec![vec![block(true), block(false)], vec![], vec![read.into()]]);
        let [pair, none, one]: [Vec<Reply>; 3] = replies.try_into().unwrap();
        let pair: Vec<_> = pair.into_iter().map(|reply| SetBlock::answer(reply).unwrap()).collect();
        let set = |blocked| BlockAnswer { direct: None, blocked, changed: true };
        assert_eq!(pair, [set(true), set(false)]);
        assert!(none.is_empty());
        assert_eq!(one.into_iter().map(ReadConversation::answer).collect::<Vec<_>>(), [Ok(None)]);
    }
}
