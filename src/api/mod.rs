//! REST: requests to commands, outcomes to responses.
//!
//! Flows in: a whole [`Request`](crate::protocol::http::Request) and the user of its token; later the
//! [`Outcome`](crate::model::command::Outcome) of its command. Flows out: a [`Call`], or the response that ends it at
//! once. Never imports a socket, a clock, a shard's tables or a session; verifies no token and decides no permission.
//!
//! The order for one request, so that a missing token precedes every other fault:
//!
//! ```text
//! needs_token(request)?  ->  bearer(request), verified by the session room; bad or absent: refuse(401)
//! route(request, caller) ->  Ok(Call) to carry out, or Err(Response) to send
//! Context::of(request)   ->  kept until the outcome arrives
//! render(context, outcome)
//! ```
//!
//! Invariants:
//! - every route exists twice, at `/...` and at `/api/...`, with one handler;
//! - nothing in a path is decoded: an encoded slash is no slash, and a name has one spelling;
//! - a command from here is within [`Limits`](crate::model::Limits) as far as its own text shows.

pub(crate) mod body;
mod page;
mod phone;
mod query;
mod render;
mod request;
mod resource;
mod route;

pub use phone::parse_phone;
pub use query::Query;
pub use render::{Context, health, nothing_here, preflight, refuse, render};
pub use request::{bearer, header};
pub use route::{Call, Health, needs_token, route};
