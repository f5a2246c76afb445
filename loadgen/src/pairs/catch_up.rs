//! Reads histories on a thread of its own, so that waiting for REST does not block the sockets.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::user::Position;
use crate::rest::RestClient;
use crate::target::Target;
use crate::verify::{self, Entry};

struct HistoryRequest {
    slot: usize,
    user: u64,
    conversation: u64,
    position: Position,
}

/// The messages after a position, or why they could not be read.
pub struct Page {
    pub slot: usize,
    pub epoch: u32,
    pub entries: Result<Vec<Entry>, String>,
}

/// The handle to the thread, which ends when this is dropped.
pub struct CatchUp {
    requests: Sender<HistoryRequest>,
    pages: Receiver<Page>,
    outstanding: usize,
}

impl CatchUp {
    pub fn start(target: Target) -> Self {
        let (requests, requests_out) = channel::<HistoryRequest>();
        let (pages_in, pages) = channel();
        thread::spawn(move || {
            let mut client = RestClient::new(target.address);
            for HistoryRequest { slot, user, conversation, position } in requests_out {
                let entries = target
                    .token(user, &[])
                    .and_then(|token| verify::read_after(&mut client, &token, conversation, position.after));
                if pages_in.send(Page { slot, epoch: position.epoch, entries }).is_err() {
                    return;
                }
            }
        });
        Self { requests, pages, outstanding: 0 }
    }

    pub fn ask(&mut self, slot: usize, user: u64, conversation: u64, position: Position) {
        // The thread ends only with this value or by a panic. After a panic no page arrives, and the run hits its time limit.
        if self.requests.send(HistoryRequest { slot, user, conversation, position }).is_ok() {
            self.outstanding += 1;
        }
    }

    /// The next page, if one has arrived.
    pub fn next_page(&mut self) -> Option<Page> {
        let page = self.pages.try_recv().ok()?;
        self.outstanding -= 1;
        Some(page)
    }

    pub fn is_busy(&self) -> bool {
        self.outstanding > 0
    }
}
