//! A store without a server, for commands that carry out many requests and wait for them.

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

/// Chains that a database carries out concurrently: enough to hide the round trips, few enough that each ends soon.
const CHAINS_MAX: usize = 128;

/// How long one request may take, and how long a failed one is repeated. No user waits for the reply, and a busy database
/// needs time more than repetitions.
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
    /// [`embedded::OpenError`], for example because a server uses the directory.
    pub fn open_embedded(directory: &Path, options: &embedded::Options) -> Result<Self, embedded::OpenError> {
        Embedded::open(directory, options).map(|store| Self::Embedded(Box::new(store)))
    }

    /// Connects to the database, and updates its schema first if `migrates`. A request may take longer than a server would
    /// wait.
    ///
    /// # Errors
    /// When the system refuses a runtime, or the database cannot be reached or refuses.
    pub fn open_database(options: Options, migrates: bool) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let runtime = scylla::runtime()?;
        let request_timeout = options.request_timeout.max(REQUEST_TIMEOUT);
        // A speculative read would only add work.
        let options = Options { request_timeout, speculative_delay: request_timeout, ..options };
        let connected = runtime.block_on(scylla::reach(&options, migrates))?;
        let store = Rc::new(Scylla::new(options, connected));
        Ok(Self::Database { runtime, store })
    }

    /// Carries one request out.
    ///
    /// # Errors
    /// The last failure, when no try succeeded.
    pub fn ask<C: Call>(&mut self, call: C) -> Result<C::Answer, Failure> {
        let replies = self.carry_out(vec![vec![call.into()]]).pop();
        C::answer(replies.and_then(|mut replies| replies.pop()).expect("a request has a reply"))
    }

    /// Clears removed and replaced rows from every file of the embedded store. Returns false for a database, which does that
    /// itself.
    ///
    /// # Errors
    /// Those of the engine or the disk; no data is lost.
    pub fn compact(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        match self {
            Self::Embedded(store) => store.compact().map(|()| true),
            Self::Database { .. } => Ok(false),
        }
    }

    /// Carries out chains of requests. Within a chain, each request waits for the outcome of the one before. Returns the
    /// replies of each chain, which ends at the first lasting failure.
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

/// All chains in one commit.
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
