//! Answers of one HTTP connection, each in the place of its request.

use bytes::Bytes;

use crate::api;
use crate::protocol::http::{self, Response};
use crate::protocol::sockjs::{self, Transport};
use crate::shard::clients::receiver::Receiver;
use crate::shard::mail::SockJsAnswer;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) answer: Answer,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
    /// How the outcome is to be rendered.
    pub(super) context: api::Context,
    /// The origin that may read the answer.
    pub(super) origin: Option<Box<str>>,
    /// A request of a SockJS session, which is answered from the session's home.
    pub(super) receiver: Option<Box<Receiver>>,
}

#[derive(Debug)]
pub(super) enum Answer {
    Awaited,
    Whole(Response),
    /// A response that goes on, with what is still to be written of it.
    Stream(Stream),
}

#[derive(Debug)]
pub(super) struct Stream {
    /// Until it has been written.
    pub(super) head: Option<Response>,
    /// Packets as their transport frames them, in chunks already where there are chunks.
    pub(super) pieces: Vec<u8>,
    pub(super) ended: bool,
    /// Packets are queued: the session's home is to be notified when they are out.
    pub(super) sending: bool,
}

impl Slot {
    /// The answer of the home of a SockJS session to this request.
    pub(super) fn take_answer(&mut self, answer: SockJsAnswer) {
        let Some(receiver) = self.receiver.as_deref_mut() else { return };
        let head = |receiver: &mut Receiver| {
            let mut head = sockjs::receiving(receiver.transport);
            head.headers.append(&mut receiver.headers);
            head
        };
        let mut plain = |mut response: Response| {
            response.headers.append(&mut receiver.headers);
            Answer::Whole(response)
        };
        match answer {
            SockJsAnswer::NoSession => self.answer = plain(sockjs::refused(404, "")),
            SockJsAnswer::Broken(words) => self.answer = plain(sockjs::refused(500, words)),
            SockJsAnswer::Refused(refusal) => self.answer = plain(api::refuse(&refusal)),
            SockJsAnswer::Taken => {
                let mut response = head(receiver);
                if receiver.transport == Transport::JsonpSend {
                    // Some browsers do strange things with a form whose answer is empty.
                    response.body = Bytes::from_static(b"ok");
                }
                self.answer = Answer::Whole(response);
            }
            SockJsAnswer::Packets { packets, last } if receiver.transport.is_stream() => {
                if !matches!(self.answer, Answer::Stream(_)) {
                    let mut pieces = Vec::new();
                    receiver.piece(&sockjs::prelude(receiver.transport, &receiver.callback), &mut pieces);
                    self.answer = Answer::Stream(Stream { head: Some(head(receiver)), pieces, ended: false, sending: false });
                }
                let Answer::Stream(stream) = &mut self.answer else { return };
                let mut framed = Vec::new();
                for packet in packets {
                    framed.clear();
                    sockjs::packet(receiver.transport, &receiver.callback, &packet, &mut framed);
                    receiver.piece(&framed, &mut stream.pieces);
                }
                if last && receiver.chunked {
                    stream.pieces.extend_from_slice(http::LAST_CHUNK);
                }
                stream.ended = last;
            }
            SockJsAnswer::Packets { packets, .. } => {
                let mut body = Vec::new();
                for packet in packets {
                    sockjs::packet(receiver.transport, &receiver.callback, &packet, &mut body);
                }
                let mut response = head(receiver);
                response.body = body.into();
                self.answer = Answer::Whole(response);
            }
        }
    }
}
