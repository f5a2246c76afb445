//! Imported history: lines of a file to requests of the store's contract, a wave of lines at a time.
//!
//! Flows in: lines with their numbers, and the time. Flows out: chains of requests to the store, which replies, and
//! counts or the fault of a line. Never imports a shard, a file or a clock.
//!
//! Invariants:
//! - the same line makes the same message, under an id that depends on its conversation and time (`ids`): a repetition
//!   finds the stored one and adds nothing;
//! - the stored messages of a conversation are always the beginning of its lines: before a line is refused, all before
//!   it are stored, and no message after it is. The exception is a client id in force, which only the store knows, and only as
//!   it appends;
//! - memory is bounded but for the time of the last message of each conversation in the file.

mod ids;
mod line;
#[cfg(test)]
mod tests;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::generations::Generations;
use crate::model::message::{Conversation, ConversationKind, Draft, Head, Message, Participant, ParticipantRole};
use crate::model::{ConversationId, Limits, MessageId, UserId, Wall};
use crate::protocol::json::Reader;
use crate::store::conversations::{CreateAnswer, CreateConversation, LoadConversation, PutParticipant};
use crate::store::log::{Append, AppendAnswer, Appended, NewMessage, ReadMessage};
use crate::store::{Call, Failure, Reply, Request};

use ids::ImportIds;
use line::{ConversationLine, Line, MessageLine};

pub use line::LINE_BYTES_MAX;

/// Lines and bytes after which a wave goes to the store. It is one commit of the embedded store, and the work that a database
/// carries out in parallel.
const WAVE_LINES: usize = 4_096;
const WAVE_BYTES: usize = 4 << 20;

/// Bytes of contents in one append, except for a single longer message: a database takes it as one mutation.
const APPEND_BYTES: usize = 256 << 10;

/// Participants of all remembered conversations, each conversation counting for one more.
const RECENT_MAX: usize = 1_000_000;

/// Carries out chains of requests: those of a chain one after the other, chains in parallel or in any order. Returns the
/// replies of each; a chain ends early with a failure that no retry would mend.
pub type Ask<'a> = dyn FnMut(Vec<Vec<Request>>) -> Vec<Vec<Reply>> + 'a;

/// Progress so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub conversations: u64,
    /// Conversations that existed under the same id.
    pub conversations_existing: u64,
    /// Participants who were missing in an existing group.
    pub participants_added: u64,
    pub messages: u64,
    /// Messages that were already stored.
    pub messages_existing: u64,
}

/// Why an import ends before its file does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All lines before this are stored, and no message after it unless the reason is a client id in force.
    Line { number: u64, reason: String },
    /// Lines up to this number may or may not be stored; the same import again finds out.
    Store { number: u64, reason: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, reason } => write!(f, "line {number}: {reason}"),
            Self::Store { number, reason } => {
                write!(f, "{reason}, at line {number} or before it: import the same file again, nothing is stored twice")
            }
        }
    }
}

impl std::error::Error for Fault {}

/// The rules for each line, the same as for a send.
#[derive(Clone, Debug)]
pub struct Rules {
    pub limits: Limits,
    pub sanitize: bool,
}

/// An import in progress. Lifetime: the command's. Owner: the reader of the lines.
#[derive(Debug)]
pub struct Import {
    rules: Rules,
    reader: Reader,
    ids: ImportIds,
    /// Recently used conversations, whose next message needs no lookup.
    recent: Generations<ConversationId, Known>,
    wave: Wave,
    counts: Counts,
}

/// Lines that go to the store together, in any order.
#[derive(Debug, Default)]
struct Wave {
    lines: Vec<Numbered>,
    bytes: usize,
    /// Conversations of its messages.
    addressed: BTreeSet<ConversationId>,
    /// Conversations that it creates, and the participants of the direct ones.
    created: BTreeSet<ConversationId>,
    pairs: BTreeSet<Vec<UserId>>,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    line: Line,
}

/// The facts about a conversation that its messages need.
#[derive(Clone, Debug)]
struct Known {
    /// Ascending.
    participants: Box<[UserId]>,
    head: Head,
}

/// Conversations of a wave; `None`: the conversation does not exist.
type WaveKnown = BTreeMap<ConversationId, Option<Known>>;

/// A message with its id, not yet stored.
struct Identified {
    number: u64,
    conversation: ConversationId,
    message: NewMessage,
}

impl Import {
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            reader: Reader::new(),
            ids: ImportIds::default(),
            recent: Generations::new(RECENT_MAX),
            wave: Wave::default(),
            counts: Counts::default(),
        }
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the next line. Empty lines are skipped.
    ///
    /// # Errors
    /// The first fault of a line up to this, or of the store. The import then ends.
    pub fn line(&mut self, number: u64, text: &[u8], now: Wall, ask: &mut Ask<'_>) -> Result<(), Fault> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let line = match line::parse(&mut self.reader, text, &self.rules, now) {
            Ok(line) => line,
            Err(reason) => return self.refuse(number, reason, now, ask),
        };
        if self.wave.must_end_before(&line) {
            self.store(now, ask)?;
        }
        self.wave.push(number, line, text.len());
        Ok(())
    }

    /// Ends the import at a bad line, once all lines before it are stored.
    ///
    /// # Errors
    /// Always: an earlier fault, or this.
    pub fn refuse(&mut self, number: u64, reason: String, now: Wall, ask: &mut Ask<'_>) -> Result<(), Fault> {
        self.store(now, ask)?;
        Err(Fault::Line { number, reason })
    }

    /// Stores the gathered lines.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn store(&mut self, now: Wall, ask: &mut Ask<'_>) -> Result<(), Fault> {
        let wave = std::mem::take(&mut self.wave).lines;
        let Some(last) = wave.last().map(|numbered| numbered.number) else { return Ok(()) };
        let mut end = End { last, refused: None };

        let mut known = self.conversations(&wave, &mut end, now, ask)?;
        let (stored, new) = self.assign_ids(wave, &known, &mut end);
        self.compare(&stored, &mut end, ask)?;
        self.append(new, &mut known, &mut end, now, ask)?;
        for (id, known) in known {
            if let Some(known) = known {
                let weight = known.participants.len() + 1;
                self.recent.put(id, known, weight);
            }
        }
        end.refused.map_or(Ok(()), Err)
    }

    /// Creates the wave's conversations, and loads those of its messages.
    fn conversations(&mut self, wave: &[Numbered], end: &mut End, now: Wall, ask: &mut Ask<'_>) -> Result<WaveKnown, Fault> {
        let mut known = WaveKnown::new();
        let (mut asked, mut requests) = (Vec::new(), Vec::new());
        for numbered in wave.iter() {
            match &numbered.line {
                Line::Conversation(line) => {
                    asked.push((numbered.number, line.id, Some(line)));
                    requests.push(vec![CreateConversation { conversation: line.conversation(now) }.into()]);
                    known.insert(line.id, None);
                }
                Line::Message(line) if !known.contains_key(&line.conversation) => {
                    let recent = self.recent.take(&line.conversation);
                    if recent.is_none() {
                        asked.push((numbered.number, line.conversation, None));
                        requests.push(vec![LoadConversation { conversation: line.conversation }.into()]);
                    }
                    known.insert(line.conversation, recent);
                }
                Line::Message(_) => {}
            }
        }
        let mut joining = Vec::new();
        for ((number, id, line), replies) in asked.into_iter().zip(ask(requests)) {
            let (state, created) = match line {
                Some(_) => {
                    let CreateAnswer { state, created } = end.answer::<CreateConversation>(&mut replies.into_iter())?;
                    (state, created)
                }
                None => match end.answer::<LoadConversation>(&mut replies.into_iter())? {
                    Some(state) => (state, false),
                    None => continue,
                },
            };
            let mut participants: Vec<UserId> = state.conversation.participants.iter().map(|existing| existing.user).collect();
            match line.map(|line| line.missing(&state.conversation)).transpose() {
                Err(reason) => end.refuse(number, reason),
                Ok(missing) => {
                    self.counts.conversations += u64::from(created);
                    self.counts.conversations_existing += u64::from(line.is_some() && !created);
                    for user in missing.into_iter().flatten() {
                        let participant = Participant { user, role: ParticipantRole::Member, joined_at: now };
                        joining.push(vec![PutParticipant { conversation: id, participant }.into()]);
                        participants.push(user);
                    }
                }
            }
            participants.sort_unstable();
            known.insert(id, Some(Known { participants: participants.into(), head: state.head }));
        }
        for replies in ask(joining) {
            let done = end.answer::<PutParticipant>(&mut replies.into_iter())?;
            done.ok_or_else(|| end.fault("a conversation is gone"))?;
            self.counts.participants_added += 1;
        }
        Ok(known)
    }

    /// Gives each message its id. Returns the ones that must be stored already, as they are no later than the last stored
    /// message, and the new ones. Ends at the first message without a valid time.
    fn assign_ids(&mut self, wave: Vec<Numbered>, known: &WaveKnown, end: &mut End) -> (Vec<Identified>, Vec<Identified>) {
        let (mut stored, mut new) = (Vec::new(), Vec::new());
        for Numbered { number, line } in wave {
            if end.is_beyond(number) {
                break;
            }
            let Line::Message(line) = line else { continue };
            let conversation = line.conversation;
            match self.assign_id(line, known) {
                Ok((message, true)) => stored.push(Identified { number, conversation, message }),
                Ok((message, false)) => new.push(Identified { number, conversation, message }),
                Err(reason) => end.refuse(number, reason),
            }
        }
        (stored, new)
    }

    fn assign_id(&mut self, line: MessageLine, known: &WaveKnown) -> Result<(NewMessage, bool), String> {
        let MessageLine { conversation, sender, draft, created_at } = line;
        let Some(Some(known)) = known.get(&conversation) else {
            return Err(format!("there is no conversation {conversation}: its own line must come before its messages"));
        };
        if known.participants.binary_search(&sender).is_err() {
            return Err(format!("user {sender} is not a participant of conversation {conversation}"));
        }
        let at = self.ids.next(conversation, created_at)?;
        let is_stored = known.head.last.is_some_and(|last| at <= last.at());
        Ok((NewMessage { id: MessageId::imported(at, conversation), sender, draft }, is_stored))
    }

    /// Holds messages against what is stored in their place.
    fn compare(&mut self, identified: &[Identified], end: &mut End, ask: &mut Ask<'_>) -> Result<(), Fault> {
        let read = |identified: &Identified| {
            let (conversation, message) = (identified.conversation, identified.message.id);
            vec![ReadMessage { conversation, message }.into()]
        };
        for (identified, replies) in identified.iter().zip(ask(identified.iter().map(read).collect())) {
            if end.is_beyond(identified.number) {
                break;
            }
            match end.answer::<ReadMessage>(&mut replies.into_iter())? {
                Some(existing) if is_same(&existing, &identified.message) => self.counts.messages_existing += 1,
                Some(_) => {
                    end.refuse(identified.number, "another message is stored with this time in its conversation".into());
                }
                None => {
                    end.refuse(identified.number, "older than the last message that is stored in its conversation".into());
                }
            }
        }
        Ok(())
    }

    /// Appends new messages, those of each conversation one request after the other.
    fn append(
        &mut self,
        mut new: Vec<Identified>,
        known: &mut WaveKnown,
        end: &mut End,
        now: Wall,
        ask: &mut Ask<'_>,
    ) -> Result<(), Fault> {
        new.retain(|identified| !end.is_beyond(identified.number));
        let mut chains: Vec<Chain> = Vec::new();
        let mut by_conversation: BTreeMap<ConversationId, usize> = BTreeMap::new();
        for identified in new {
            let at = *by_conversation.entry(identified.conversation).or_insert_with(|| {
                chains.push(Chain::default());
                chains.len() - 1
            });
            chains[at].push(identified, self.rules.limits.append_batch);
        }
        let requests = chains.iter_mut().map(|chain| chain.requests(known, now)).collect();
        for (chain, replies) in chains.iter().zip(ask(requests)) {
            let mut replies = replies.into_iter();
            for (conversation, numbers) in &chain.sent {
                let answer = end.answer::<Append>(&mut replies)?;
                let AppendAnswer { results, head } = answer.ok_or_else(|| end.fault("a conversation is gone"))?;
                for (number, result) in numbers.iter().zip(results) {
                    match result {
                        Appended::Stored(_) => self.counts.messages += 1,
                        Appended::Replay(_) => self.counts.messages_existing += 1,
                        Appended::KeyReused => {
                            end.refuse(*number, "its clientMessageId was sent today with another content".into());
                        }
                    }
                }
                if let Some(Some(known)) = known.get_mut(conversation) {
                    known.head = head;
                }
            }
        }
        Ok(())
    }
}

impl Wave {
    /// Whether the wave must be stored before this line: it is full, or the line is a conversation that depends on
    /// another line. Messages must follow their conversation's line, and of two lines for one pair the first counts.
    fn must_end_before(&self, line: &Line) -> bool {
        let depends = match line {
            Line::Conversation(line) => {
                self.addressed.contains(&line.id)
                    || self.created.contains(&line.id)
                    || line.kind == ConversationKind::Direct && self.pairs.contains(&line.participants)
            }
            Line::Message(_) => false,
        };
        depends || self.lines.len() >= WAVE_LINES || self.bytes >= WAVE_BYTES
    }

    fn push(&mut self, number: u64, line: Line, bytes: usize) {
        match &line {
            Line::Conversation(line) => {
                self.created.insert(line.id);
                if line.kind == ConversationKind::Direct {
                    self.pairs.insert(line.participants.clone());
                }
            }
            Line::Message(line) => _ = self.addressed.insert(line.conversation),
        }
        self.bytes += bytes;
        self.lines.push(Numbered { number, line });
    }
}

fn is_same(existing: &Message, message: &NewMessage) -> bool {
    let Draft { content, client_id, .. } = &message.draft;
    existing.sender == message.sender && existing.content == *content && existing.client_id == *client_id
}

/// The last line of a wave, and its first refusal.
struct End {
    last: u64,
    refused: Option<Fault>,
}

impl End {
    /// The first refused line counts.
    fn refuse(&mut self, number: u64, reason: String) {
        if !self.is_beyond(number) {
            self.refused = Some(Fault::Line { number, reason });
        }
    }

    fn is_beyond(&self, number: u64) -> bool {
        matches!(&self.refused, Some(Fault::Line { number: refused, .. }) if *refused <= number)
    }

    /// The answer to the next request of a chain.
    fn answer<C: Call>(&self, replies: &mut impl Iterator<Item = Reply>) -> Result<C::Answer, Fault> {
        let reply = replies.next().ok_or_else(|| self.fault("the store did not answer"))?;
        C::answer(reply).map_err(|failure: Failure| self.fault(format!("the store failed ({failure:?})")))
    }

    fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault::Store { number: self.last, reason: reason.into() }
    }
}

/// New messages of one conversation, in as few appends as possible.
#[derive(Default)]
struct Chain {
    appends: Vec<Vec<Identified>>,
    bytes: usize,
    /// The lines of each request's messages.
    sent: Vec<(ConversationId, Vec<u64>)>,
}

impl Chain {
    fn push(&mut self, identified: Identified, messages_max: usize) {
        let bytes = identified.message.draft.content.len();
        // An append takes the second of two messages with one client id for a repetition, which is wrong for old ones.
        let is_taken = |other: &Identified| {
            let (other, new) = (&other.message, &identified.message);
            new.draft.client_id.is_some() && other.draft.client_id == new.draft.client_id && other.sender == new.sender
        };
        match self.appends.last_mut() {
            Some(last) if last.len() < messages_max && self.bytes + bytes <= APPEND_BYTES && !last.iter().any(is_taken) => {
                self.bytes += bytes;
                last.push(identified);
            }
            _ => {
                self.bytes = bytes;
                self.appends.push(vec![identified]);
            }
        }
    }

    /// The head is that of the chain's beginning: the store knows how far earlier requests will move it.
    fn requests(&mut self, known: &WaveKnown, now: Wall) -> Vec<Request> {
        let mut requests = Vec::new();
        for append in std::mem::take(&mut self.appends) {
            let Some(conversation) = append.first().map(|identified| identified.conversation) else { continue };
            let head = known.get(&conversation).cloned().flatten().map_or_else(Head::default, |known| known.head);
            self.sent.push((conversation, append.iter().map(|identified| identified.number).collect()));
            let messages = append.into_iter().map(|identified| identified.message).collect();
            // Client ids are kept and shown, and protect from no repetition: their time is over.
            requests.push(Append { conversation, head, messages, keys_expire: now, now }.into());
        }
        requests
    }
}

impl ConversationLine {
    fn conversation(&self, now: Wall) -> Conversation {
        let at = self.created_at.unwrap_or(now);
        let role = |user| match self.kind {
            ConversationKind::Group if user == self.created_by => ParticipantRole::Admin,
            ConversationKind::Group | ConversationKind::Direct => ParticipantRole::Member,
        };
        let participant = |user: &UserId| Participant { user: *user, role: role(*user), joined_at: at };
        Conversation {
            id: self.id,
            kind: self.kind,
            title: self.title.clone(),
            created_by: self.created_by,
            created_at: at,
            participants: self.participants.iter().map(participant).collect(),
        }
    }

    /// The participants who are missing in the existing conversation; or why it cannot be the same one.
    fn missing(&self, existing: &Conversation) -> Result<Vec<UserId>, String> {
        if existing.id != self.id {
            return Err(format!("the pair has the direct conversation {} already", existing.id));
        }
        if existing.kind != self.kind {
            return Err(format!("conversation {} is there, and of the other kind", self.id));
        }
        let missing: Vec<UserId> =
            self.participants.iter().copied().filter(|user| existing.participant(*user).is_none()).collect();
        if self.kind == ConversationKind::Direct && !missing.is_empty() {
            return Err(format!("conversation {} is there, between others", self.id));
        }
        Ok(missing)
    }
}
