//! A device's REST connection: pipelined requests out, responses in, in real bytes.

use std::collections::VecDeque;

use crate::client::http::{Request, Response, Responses};
use crate::model::command::Position;
use crate::model::{ConversationId, UserId};
use crate::shard::ListenerKind;
use crate::sim::context::{Ctx, Do};
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

/// Lifetime: one connection.
#[derive(Default)]
pub(super) struct Rest {
    responses: Responses,
    pub(super) asked: VecDeque<Question>,
}

impl Rest {
    pub(super) fn open(ctx: &mut Ctx<'_>) -> Self {
        ctx.out.push(Do::Open(Line::Rest, ListenerKind::Http));
        Self::default()
    }

    pub(super) fn ask(&mut self, ctx: &mut Ctx<'_>, token: &str, method: &str, path: &str, body: &str, question: Question) {
        let prefix = if !path.starts_with("/auth") && ctx.random.percent(30) { "/api" } else { "" };
        let target = format!("{prefix}{path}");
        let content_type = if body.is_empty() { "" } else { "application/json" };
        let mut bytes = Vec::new();
        let request = Request { method, target: &target, host: "sim", token, content_type, body: body.as_bytes(), headers: "" };
        request.encode(&mut bytes);
        self.asked.push_back(question);
        ctx.out.push(Do::Send(Line::Rest, bytes));
    }

    /// Returns the responses that have come whole, each with its request.
    pub(super) fn receive(&mut self, ctx: &mut Ctx<'_>, mut bytes: &[u8]) -> Vec<(Question, Response)> {
        let mut answers = Vec::new();
        loop {
            match self.responses.next(&mut bytes) {
                Ok(None) => return answers,
                Ok(Some(response)) => match self.asked.pop_front() {
                    Some(question) => answers.push((question, response)),
                    // The server may answer 408 before it closes an idle connection.
                    None if matches!(response.status, 408 | 503) => {}
                    None => ctx.oracle.violate(format!("an answer without a question: {response:?}")),
                },
                Err(error) => {
                    ctx.oracle.violate(format!("a response cannot be read: {error}"));
                    return answers;
                }
            }
        }
    }
}

/// The query of a page.
pub(super) fn query(from: Position, limit: usize) -> String {
    match from {
        Position::Newest => format!("?limit={limit}"),
        Position::Before(id) => format!("?cursor={id}&limit={limit}"),
        Position::After(id) => format!("?limit={limit}&after={id}"),
    }
}
