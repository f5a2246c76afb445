//! The thread that sends one-time codes, so that slow sending blocks no shard.

use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Sender, bounded};

use crate::model::Redacted;

/// Codes that wait to be sent. Further ones are dropped and logged; the user asks again.
const WAITING_MAX: usize = 256;

/// Sends one code: to standard output in development, to a webhook in production. May block. Phone, then code.
pub type SendOtp = Box<dyn FnMut(&str, &str) + Send>;

type Code = (Redacted<Box<str>>, Redacted<Box<str>>);

/// A shard's handle to the thread. Lifetime and owner: the shard's executor. View: node.
#[derive(Clone, Debug)]
pub(super) struct OtpSender {
    tx: Sender<Code>,
}

/// Starts the thread; it ends when the last handle is dropped.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn start(mut send_otp: SendOtp) -> std::io::Result<(JoinHandle<()>, OtpSender)> {
    let (tx, rx) = bounded::<Code>(WAITING_MAX);
    let thread = Builder::new().name("otp-sender".into()).spawn(move || {
        while let Ok((phone, code)) = rx.recv() {
            let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| send_otp(phone.expose(), code.expose())));
            if sent.is_err() {
                tracing::error!("sending a one-time code panicked; it was not sent");
            }
        }
    })?;
    Ok((thread, OtpSender { tx }))
}

impl OtpSender {
    pub(super) fn send(&self, phone: Redacted<Box<str>>, code: Redacted<Box<str>>) {
        if self.tx.try_send((phone, code)).is_err() {
            tracing::warn!(waiting = WAITING_MAX, "a one-time code was not sent: sending is too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_code_is_sent_after_a_panic() {
        let (sent, received) = bounded(8);
        let (thread, handle) = start(Box::new(move |phone, code| {
            assert_ne!(code, "bad");
            sent.send(format!("{phone} {code}")).unwrap();
        }))
        .unwrap();
        for code in ["1", "bad", "2"] {
            handle.send(Redacted::new("+1".into()), Redacted::new(code.into()));
        }
        drop(handle);
        thread.join().unwrap();
        assert_eq!(received.iter().collect::<Vec<_>>(), ["+1 1", "+1 2"]);
    }
}
