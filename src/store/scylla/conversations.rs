//! Conversations, their participants, read marks and blocks.
//!
//! First the row of a conversation claims its id, and the row of a pair claims the pair. Then the participants and their lists
//! are written, and `complete` says so. Nobody finds the rows that a crash leaves before that, except those of a pair: its next
//! attempt completes them. A list entry counts only with its participant, so it is written before and removed after it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream;
use scylla::value::MaybeUnset;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, ConversationKind, ConversationSummary, Head, Message, Participant, ReadMark};
use crate::store::Done;
use crate::store::conversations::{
    BlockAnswer, ConversationList, ConversationState, CreateAnswer, ListConversations, PutParticipant, RemoveParticipant,
    SetBlock, pair_key,
};
use crate::store::log::{ReadMarkAnswer, SetReadMark, unread};

use super::known::{self, Buckets};
use super::values::{self, Member, ParticipantRow, bigint};
use super::{Fault, Work};

/// Conversations of a list that are read at once.
const LIST_WINDOW: usize = 16;

type ConversationRow = (String, Option<String>, i64, i64, i32, Option<bool>);

impl Work<'_> {
    /// The conversation without its participants, how its log is parted, and whether it is complete.
    pub(super) async fn conversation(&self, id: ConversationId) -> Result<Option<(Conversation, Buckets, bool)>, Fault> {
        let row = self.first(&self.connected.statements.read_conversation, (bigint(id.value()),)).await?;
        let Some((kind, title, created_by, created_at, bucket_seconds, complete)): Option<ConversationRow> = row else {
            return Ok(None);
        };
        let conversation = Conversation {
            id,
            kind: values::kind(&kind)?,
            title: title.map(Into::into),
            created_by: values::user_id(created_by)?,
            created_at: values::wall(created_at)?,
            participants: Vec::new(),
        };
        let buckets = Buckets::new(bucket_seconds)?;
        self.store.conversations.borrow_mut().put_buckets(id, buckets);
        Ok(Some((conversation, buckets, complete.unwrap_or(false))))
    }

    pub(super) async fn members(&self, id: ConversationId) -> Result<Vec<Member>, Fault> {
        let rows: Vec<ParticipantRow> = self.rows(&self.connected.statements.read_participants, (bigint(id.value()),)).await?;
        rows.into_iter().map(ParticipantRow::member).collect()
    }

    /// The membership of a user in a conversation, empty for a user who never took part.
    pub(super) async fn member(&self, id: ConversationId, user: UserId) -> Result<Member, Fault> {
        let key = (bigint(id.value()), bigint(user.value()));
        let row: Option<ParticipantRow> = self.first(&self.connected.statements.read_participant, key).await?;
        match row {
            Some(row) => row.member(),
            None => Ok(Member { user, participant: None, departures: 0, mark: None, furthest: None }),
        }
    }

    async fn whole(&self, id: ConversationId) -> Result<Option<(Conversation, Buckets, Vec<Member>)>, Fault> {
        let (conversation, members) = tokio::try_join!(self.conversation(id), self.members(id))?;
        Ok(conversation.map(|(mut conversation, buckets, _)| {
            conversation.participants = members.iter().filter_map(|member| member.participant).collect();
            (conversation, buckets, members)
        }))
    }

    /// Removes the marks of messages that will never be stored: in a log without messages they would be taken for its end.
    async fn remove_marks(&self, id: ConversationId, members: &[Member], gone: &[MessageId]) -> Result<(), Fault> {
        for member in members {
            if let Some(mark) = member.mark.filter(|mark| gone.contains(&mark.message)) {
                let row = (member.departures, values::write_time(mark.message), bigint(id.value()), bigint(member.user.value()));
                self.prepare(&self.connected.statements.remove_mark, row).await?;
            }
        }
        Ok(())
    }

    /// `settles`: appends go on from this head.
    pub(super) async fn state(&self, id: ConversationId, settles: bool) -> Result<Option<ConversationState>, Fault> {
        let Some((conversation, buckets, members)) = self.whole(id).await? else { return Ok(None) };
        let gone = if settles { self.settle(id, buckets, &[]).await? } else { Vec::new() };
        let blocked = async {
            match pair_key(&conversation) {
                Some((first, second)) => self.is_blocked(first, second).await,
                None => Ok(false),
            }
        };
        let (last, blocked) = tokio::try_join!(self.last_message(id, buckets), blocked)?;
        if last.is_none() {
            self.remove_marks(id, &members, &gone).await?;
        }
        let head = known::head(last.as_deref(), &members, gone.first().copied().unwrap_or(MessageId::MAX));
        if settles {
            let left = members.iter().filter(|member| member.departures > 0);
            let departures = left.map(|member| (member.user, member.departures)).collect();
            self.store.conversations.borrow_mut().put_log(id, known::Log { head, listed: None, departures });
        }
        Ok(Some(ConversationState { conversation, head, blocked }))
    }

    pub(super) async fn create(&self, conversation: &Conversation) -> Result<CreateAnswer, Fault> {
        let pair = pair_key(conversation);
        if let Some(pair) = pair
            && let Some(there) = self.pair(pair).await?
        {
            return self.create_answer(there, conversation).await;
        }
        let bucket_seconds = i32::try_from(self.store.options.bucket.as_secs()).unwrap_or(i32::MAX);
        let row = (
            bigint(conversation.id.value()),
            values::kind_text(conversation.kind),
            MaybeUnset::from_option(conversation.title.as_deref()),
            bigint(conversation.created_by.value()),
            bigint(conversation.created_at.0),
            bucket_seconds,
        );
        let made = self.decide(&self.connected.statements.make_conversation, row).await?;
        if !made && !self.is_own(conversation).await? {
            return self.create_answer(conversation.id, conversation).await;
        }
        if let Some(pair) = pair {
            let claim = (bigint(pair.0.value()), bigint(pair.1.value()), bigint(conversation.id.value()));
            let claimed = self.decide(&self.connected.statements.claim_pair, claim).await?;
            let holder = if claimed { conversation.id } else { self.pair(pair).await?.ok_or(Fault::Contended)? };
            if holder != conversation.id {
                // The other one was first. This one was never complete, so nobody has seen it.
                self.decide(&self.connected.statements.remove_conversation, (bigint(conversation.id.value()),)).await?;
                return self.create_answer(holder, conversation).await;
            }
        }
        self.complete(conversation.id, conversation).await?;
        // No append to a conversation that was created just now is in doubt.
        let state = self.state(conversation.id, made).await?.ok_or(Fault::Corrupt)?;
        Ok(CreateAnswer { state, created: true })
    }

    async fn pair(&self, (first, second): (UserId, UserId)) -> Result<Option<ConversationId>, Fault> {
        let key = (bigint(first.value()), bigint(second.value()));
        let row: Option<(i64,)> = self.first(&self.connected.statements.read_pair, key).await?;
        row.map(|(id,)| values::conversation_id(id)).transpose()
    }

    /// Whether the conversation under this id comes from an earlier try of the same request that was interrupted.
    async fn is_own(&self, conversation: &Conversation) -> Result<bool, Fault> {
        let there = self.conversation(conversation.id).await?;
        Ok(there.is_some_and(|(there, _, complete)| {
            !complete && Conversation { participants: Vec::new(), ..conversation.clone() } == there
        }))
    }

    /// Answers with the existing conversation. If its creation for a pair was interrupted, completes it first.
    async fn create_answer(&self, id: ConversationId, asked: &Conversation) -> Result<CreateAnswer, Fault> {
        if let Some((there, _, false)) = self.conversation(id).await?
            && there.kind == ConversationKind::Direct
            && let Some(pair) = pair_key(asked)
            && self.pair(pair).await? == Some(id)
        {
            self.complete(id, asked).await?;
        }
        let state = self.state(id, false).await?.ok_or(Fault::Corrupt)?;
        Ok(CreateAnswer { state, created: false })
    }

    async fn complete(&self, id: ConversationId, conversation: &Conversation) -> Result<(), Fault> {
        let members = conversation.participants.iter().map(|participant| self.enter(id, *participant));
        try_join_all(members).await?;
        self.write(&self.connected.statements.complete_conversation, (bigint(id.value()),)).await
    }

    async fn enter(&self, id: ConversationId, participant: Participant) -> Result<(), Fault> {
        let (conversation, user) = (bigint(id.value()), bigint(participant.user.value()));
        self.prepare(&self.connected.statements.list_conversation, (user, conversation)).await?;
        let row = (values::role_text(participant.role), bigint(participant.joined_at.0), conversation, user);
        self.write(&self.connected.statements.put_participant, row).await
    }

    pub(super) async fn put_participant(&self, put: &PutParticipant) -> Result<Option<Done>, Fault> {
        let PutParticipant { conversation: id, participant } = *put;
        let (buckets, member) = tokio::try_join!(self.buckets(id), self.member(id, participant.user))?;
        if buckets.is_none() {
            return Ok(None);
        }
        let changed = member.participant.is_none_or(|there| there.role != participant.role);
        // Written even if nothing changes: an earlier try may have ended between the two rows.
        let joined_at = member.participant.map_or(participant.joined_at, |there| there.joined_at);
        self.enter(id, Participant { joined_at, ..participant }).await?;
        Ok(Some(Done { changed }))
    }

    pub(super) async fn remove_participant(&self, remove: &RemoveParticipant) -> Result<Option<Done>, Fault> {
        let RemoveParticipant { conversation: id, user } = *remove;
        let (buckets, member) = tokio::try_join!(self.buckets(id), self.member(id, user))?;
        if buckets.is_none() {
            return Ok(None);
        }
        let (conversation, user_id) = (bigint(id.value()), bigint(user.value()));
        let changed = member.participant.is_some();
        let departures = member.departures.saturating_add(i32::from(changed));
        if changed {
            let statements = &self.connected.statements;
            self.prepare(&statements.note_left, (user_id, conversation)).await?;
            self.write(&statements.remove_participant, (departures, conversation, user_id)).await?;
        }
        // Also if an earlier try has removed the user and ended before this.
        if departures > 0
            && let Some(log) = self.store.conversations.borrow_mut().log(id)
        {
            log.departures.insert(user, departures);
        }
        self.write(&self.connected.statements.unlist_conversation, (user_id, conversation)).await?;
        Ok(Some(Done { changed }))
    }

    pub(super) async fn set_read_mark(&self, set: &SetReadMark) -> Result<Option<ReadMarkAnswer>, Fault> {
        let SetReadMark { conversation: id, mark } = *set;
        let (buckets, member) = tokio::try_join!(self.buckets(id), self.member(id, mark.user))?;
        if buckets.is_none() {
            return Ok(None);
        }
        match member.mark {
            Some(there) if mark.message <= there.message => Ok(Some(ReadMarkAnswer { mark: there, changed: false })),
            // If another mark is written meanwhile, the later one stays.
            Some(_) | None => {
                self.put_mark(id, member.departures, mark).await?;
                Ok(Some(ReadMarkAnswer { mark, changed: true }))
            }
        }
    }

    pub(super) async fn list_read_marks(&self, id: ConversationId) -> Result<Option<Vec<ReadMark>>, Fault> {
        let (buckets, members) = tokio::try_join!(self.buckets(id), self.members(id))?;
        if buckets.is_none() {
            return Ok(None);
        }
        Ok(Some(members.into_iter().filter_map(|member| member.mark).collect()))
    }

    pub(super) async fn list_conversations(&self, list: &ListConversations) -> Result<ConversationList, Fault> {
        let ListConversations { user, after, limit } = *list;
        let wanted = usize::from(limit) + 1;
        let mut from = after.map_or(0, |after| bigint(after.value()));
        let mut summaries = Vec::new();
        while summaries.len() < wanted {
            let missing = i32::try_from(wanted - summaries.len()).unwrap_or(i32::MAX);
            let list = (bigint(user.value()), from, missing);
            let listed: Vec<(i64,)> = self.rows(&self.connected.statements.list_conversations, list).await?;
            let Some((last,)) = listed.last().copied() else { break };
            from = last;
            let reads = listed.into_iter().map(|(id,)| async move { self.summary(user, values::conversation_id(id)?).await });
            let mut reads = stream::iter(reads).buffered(LIST_WINDOW);
            while let Some(summary) = reads.next().await {
                summaries.extend(summary?);
            }
        }
        let more = summaries.len() >= wanted;
        summaries.truncate(usize::from(limit));
        Ok(ConversationList { summaries, more })
    }

    /// `None` when the user has left it or has not joined yet.
    async fn summary(&self, user: UserId, id: ConversationId) -> Result<Option<ConversationSummary>, Fault> {
        let Some((conversation, buckets, members)) = self.whole(id).await? else { return Ok(None) };
        let Some(member) = members.iter().find(|member| member.user == user && member.participant.is_some()) else {
            return Ok(None);
        };
        let last_message: Option<Arc<Message>> = self.last_message(id, buckets).await?;
        let read = member.mark.map_or(0, |mark| mark.sequence);
        let head = last_message.as_ref().map_or_else(Head::default, |last| Head { last: Some(last.id), sequence: last.sequence });
        let first = match self.store.options.retention {
            Some(_) if read < head.sequence => self.first_sequence(id, buckets).await?,
            _ => Some(1),
        };
        let unread = unread(head, read, || first);
        Ok(Some(ConversationSummary { conversation, last_message, unread }))
    }

    async fn has_block(&self, user: UserId, other: UserId) -> Result<bool, Fault> {
        let key = (bigint(user.value()), bigint(other.value()));
        let row: Option<(i64,)> = self.first(&self.connected.statements.read_block, key).await?;
        Ok(row.is_some())
    }

    async fn is_blocked(&self, first: UserId, second: UserId) -> Result<bool, Fault> {
        let (one, other) = tokio::try_join!(self.has_block(first, second), self.has_block(second, first))?;
        Ok(one || other)
    }

    pub(super) async fn set_block(&self, set: &SetBlock) -> Result<BlockAnswer, Fault> {
        let SetBlock { user, other, blocked } = *set;
        let (was, back, direct) = tokio::try_join!(
            self.has_block(user, other),
            self.has_block(other, user),
            self.pair((user.min(other), user.max(other)))
        )?;
        let key = (bigint(user.value()), bigint(other.value()));
        match (was != blocked, blocked) {
            (true, true) => self.write(&self.connected.statements.put_block, key).await?,
            (true, false) => self.write(&self.connected.statements.remove_block, key).await?,
            (false, _) => {}
        }
        // If the two are the same user, `back` is the row that is changed here.
        let back = back && user != other;
        Ok(BlockAnswer { direct, blocked: blocked || back, changed: was != blocked })
    }

    pub(super) async fn list_blocks(&self, user: UserId) -> Result<Vec<UserId>, Fault> {
        let rows: Vec<(i64,)> = self.rows(&self.connected.statements.read_blocks, (bigint(user.value()),)).await?;
        rows.into_iter().map(|(user,)| values::user_id(user)).collect()
    }
}
