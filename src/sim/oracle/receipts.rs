//! **A receipt comes once, after what it stands for, and names the stored message.** `link` checks that a RECEIPT answers
//! something and that DISCONNECT's is the last; `durable` that the message is in the store by then.

use crate::sim::facts::SendNo;
use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "a receipt comes once, after what it stands for, and names the stored message";

impl Oracle {
    /// A 200 or 201 has come to a send, with the id in its body, if there was one.
    pub(in crate::sim) fn sent(&mut self, number: SendNo, id: Option<String>) {
        self.acknowledged(number);
        let stored = self.sends[number].stored.map(|id| id.to_string());
        if id != stored {
            let what = format!("send {number} is stored as {stored:?}, and was answered otherwise: {id:?}");
            self.break_promise(Promise::Receipts, what);
        }
    }
}
