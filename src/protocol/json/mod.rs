//! JSON (RFC 8259): bodies of SEND and REST in, the values that clients receive out.
//!
//! Flows in: one whole body, bounded by the caller (`limits.frame_bytes`, `limits.http_body_bytes`). Flows out: a value
//! of model or a [`Refusal`](crate::model::Refusal) that names the faulty member; and, the other way, bytes appended to
//! the caller's buffer. Never imports a session, a clock or a socket.
//!
//! Invariants:
//! - a body is one object; unknown members are skipped unread, so that the depth of their values costs no stack; a known member
//!   that appears twice is refused, never resolved by position;
//! - reading takes at most about forty times the body's bytes, and keeps no more than [`read::KEPT_BYTES`] of a body for
//!   the next one;
//! - the output is valid JSON in valid UTF-8 whatever the strings in it.

pub mod read;
pub mod send;
pub mod values;
pub mod write;

pub use read::{Object, Reader};
pub use send::SendBody;
pub use values::{ack, conversation_dto, conversation_summary, error_body, message_dto, read_mark_event};
pub use write::{ObjectWriter, push_string};
