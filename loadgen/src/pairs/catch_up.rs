//! Reads histories on a thread of its own, so that what waits for REST does not hold up the sockets.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::user::Position;
use crate::rest::RestClient;
use crate::target::Target;
use crate::verify::{self, Entry};

struct Question {
    slot: usize,
    user: u64,
    conversation: u64,
    position: Position,
}

/// What followed a position, or why it could not be read.
pub struct Page {
    pub slot: usize,
    pub epoch: u32,
    pub entries: Result<Vec<Entry>, String>,
}

/// The asking end. The thread ends with it.
pub struct CatchUp {
    questions: Sender<Question>,
    pages: Receiver<Page>,
    outstanding: usize,
}

impl CatchUp {
    pub fn start(target: Target) -> Self {
        let (questions, incoming) = channel::<Question>();
        let (outgoing, pages) = channel();
        thread::spawn(move || {
            let mut client = RestClient::new(target.address);
            for Question { slot, user, conversation, position } in incoming {
                let entries = target
                    .token(user, &[])
                    .and_then(|token| verify::read_after(&mut client, &token, conversation, position.after));
                if outgoing.send(Page { slot, epoch: position.epoch, entries }).is_err() {
                    return;
                }
            }
        });
        Self { questions, pages, outstanding: 0 }
    }

    pub fn ask(&mut self, slot: usize, user: u64, conversation: u64, position: Position) {
        // The thread ends only with this value, or by a panic: then the answer never comes, and the run into its limit.
        if self.questions.send(Question { slot, user, conversation, position }).is_ok() {
            self.outstanding += 1;
        }
    }

    /// The next answer, if one is there.
    pub fn next_page(&mut self) -> Option<Page> {
        let page = self.pages.try_recv().ok()?;
        self.outstanding -= 1;
        Some(page)
    }

    pub fn is_busy(&self) -> bool {
        self.outstanding > 0
    }
}
