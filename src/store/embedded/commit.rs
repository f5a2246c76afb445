//! One commit of the writer, while it is gathered.

use crate::model::ids::{ConversationId, MessageId};

use super::heads::Heads;
use super::seen::Seen;
use super::tables::Pending;

/// Lifetime: until it is synced. The scratch buffer is the writer's, used again and again.
pub(super) struct Commit<'a> {
    pub(super) rows: Pending<'a>,
    pub(super) heads: &'a mut Heads,
    pub(super) seen: &'a mut Seen,
    pub(super) scratch: &'a mut Vec<u8>,
    /// New messages, for the index.
    pub(super) stored: Vec<(MessageId, ConversationId)>,
}
