//! A device's REST connection: pipelined requests out, responses in, in real bytes.

use std::collections::VecDeque;

use crate::model::command::Position;
use crate::model::{ConversationId, UserId};
use crate::shard::ListenerKind;
use crate::sim::device::{Ctx, Do};
use crate::sim::facts::{LoginNo, SendNo, SessionNo};
use crate::sim::network::Line;
use crate::sim::oracle::Asked;

/// A request, as far as the device needs it to understand the response.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Login,
    Logout(LoginNo),
    Send(SendNo),
    /// `catching`: the session on whose behalf the device catches up.
    History {
        asked: Asked,
        catching: Option<SessionNo>,
    },
    Change {
        conversation: ConversationId,
        user: UserId,
        adding: bool,
        version: u64,
    },
    Block {
        user: UserId,
        blocked: bool,
        version: u64,
    },
    Other,
}

/// One response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Lifetime: one connection.
#[derive(Default)]
pub(super) struct Rest {
    received: Vec<u8>,
    pub(super) asked: VecDeque<Question>,
}

impl Rest {
    pub(super) fn open(ctx: &mut Ctx<'_>) -> Self {
        ctx.out.push(Do::Open(Line::Rest, ListenerKind::Http));
        Self::default()
    }

    pub(super) fn ask(&mut self, ctx: &mut Ctx<'_>, token: &str, method: &str, path: &str, body: &str, question: Question) {
        let prefix = if !path.starts_with("/auth") && ctx.random.percent(30) { "/api" } else { "" };
        let mut request = format!("{method} {prefix}{path} HTTP/1.1\r\nHost: sim\r\n");
        if !token.is_empty() {
            request += &format!("Authorization: Bearer {token}\r\n");
        }
        if body.is_empty() {
            request += "\r\n";
        } else {
            request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
        self.asked.push_back(question);
        ctx.out.push(Do::Send(Line::Rest, request.into_bytes()));
    }

    /// Returns the responses that have come whole, each with its request.
    pub(super) fn receive(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) -> Vec<(Question, Answer)> {
        self.received.extend_from_slice(bytes);
        let mut answers = Vec::new();
        while let Some((answer, length)) = parse(&self.received) {
            self.received.drain(..length);
            match self.asked.pop_front() {
                Some(question) => answers.push((question, answer)),
                // The server may answer 408 before it closes an idle connection.
                None if matches!(answer.status, 408 | 503) => {}
                None => ctx.oracle.violate(format!("an answer without a question: {answer:?}")),
            }
        }
        answers
    }
}

/// The first response in `bytes` and its length, once it has come whole.
pub(super) fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    let body = bytes.get(end..end + length)?.to_vec();
    Some((Answer { status, body }, end + length))
}

/// The query of a page.
pub(super) fn query(from: Position, limit: usize) -> String {
    match from {
        Position::Newest => format!("?limit={limit}"),
        Position::Before(id) => format!("?cursor={id}&limit={limit}"),
        Position::After(id) => format!("?limit={limit}&after={id}"),
    }
}
