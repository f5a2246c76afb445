//! `loadgen generate`: a made-up history that depends on the seed alone: lines for `tidings import`, and the pages that the
//! server must return afterwards.
//!
//! Conversations are direct ones, a hundred for each user with the hundred users that follow. Everything about a message is
//! a function of the seed, its conversation and its number, so that checking a page needs no memory.

use std::io::{self, BufWriter, Write};

use clap::Args;
use tidings::model::{MessageId, Wall};

use crate::marker::Marker;
use crate::random::Random;

/// Conversations that a user begins.
const BEGUN: u64 = 100;
/// Characters of a content, at least and at most.
const CONTENT_MIN: u64 = 50;
const CONTENT_MAX: u64 = 200;

/// 2022-01-01T00:00:00Z, a day within the first half of a bucket of ten days.
const FROM_SECONDS: u64 = 1_640_995_200;
const DAY_US: u64 = 86_400_000_000;
const TICKS_PER_US: u64 = 10;

#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Conversations.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub conversations: u64,
    /// Messages in each conversation.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub messages_each: u64,
    /// Days over which the conversations begin, one after another.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=1_400))]
    pub spread_days: u64,
    /// Days that each conversation lasts, from 2022-01-01 on.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1_400))]
    pub lasting_days: u64,
}

/// The history of one seed.
#[derive(Clone, Debug)]
pub struct GeneratedHistory {
    seed: u64,
    first_user: u64,
    first_conversation: u64,
    pub conversations: u64,
    pub messages_each: u64,
    spread_us: u64,
    /// Each message's share of the time.
    share_us: u64,
}

/// A message as its sender wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub sender: u64,
    pub at: Wall,
    pub content: String,
}

impl GeneratedHistory {
    /// # Errors
    /// When there are more messages than microseconds.
    pub fn new(args: &GenerateArgs, seed: u64, first_user: u64, first_conversation: u64) -> Result<Self, String> {
        let share_us = args.lasting_days * DAY_US / args.messages_each;
        if share_us == 0 {
            return Err("there are more messages than microseconds".into());
        }
        Ok(Self {
            seed,
            first_user,
            first_conversation,
            conversations: args.conversations,
            messages_each: args.messages_each,
            spread_us: args.spread_days * DAY_US,
            share_us,
        })
    }

    pub fn id(&self, conversation: u64) -> u64 {
        self.first_conversation + conversation
    }

    /// The two users of a conversation. Each pair has one conversation.
    pub fn pair(&self, conversation: u64) -> [u64; 2] {
        let first = self.first_user + conversation / BEGUN;
        [first, first + 1 + conversation % BEGUN]
    }

    /// The conversations of a user, ascending.
    pub fn conversations_of(&self, user: u64) -> Vec<u64> {
        let user = user - self.first_user;
        let answered = (0..BEGUN).rev().filter_map(|with| Some(user.checked_sub(with + 1)? * BEGUN + with));
        let begun = (0..BEGUN).map(|with| user * BEGUN + with);
        answered.chain(begun).filter(|conversation| *conversation < self.conversations).collect()
    }

    /// The message with this number, from 1.
    pub fn said(&self, conversation: u64, number: u64) -> Said {
        let mut random = self.random(conversation, number);
        let at = self.at(conversation, number, &mut random);
        let sender = self.pair(conversation)[random.below(2) as usize];
        let mut content = Vec::new();
        Marker { run: self.seed as u32, sender: conversation as u32, number, due: at.0 }.write(&mut content);
        let length = (CONTENT_MIN + random.below(CONTENT_MAX - CONTENT_MIN + 1)) as usize;
        while content.len() < length {
            let letters = random.next_u64().to_le_bytes().map(|byte| b'a' + byte % 26);
            content.extend_from_slice(&letters[..letters.len().min(length - content.len())]);
        }
        Said { sender, at, content: String::from_utf8(content).expect("digits and letters") }
    }

    /// A position right before the message with this number, at which no message exists.
    pub fn before(&self, conversation: u64, number: u64) -> MessageId {
        let at = self.at(conversation, number, &mut self.random(conversation, number));
        MessageId::from_parts(Wall(at.0 - 1), 0, 0)
    }

    /// Messages that a user has not read: those after the user's own last one.
    pub fn unread(&self, conversation: u64, user: u64) -> u64 {
        let is_others = |number: &u64| self.said(conversation, *number).sender != user;
        (1..=self.messages_each).rev().take_while(is_others).count() as u64
    }

    fn random(&self, conversation: u64, number: u64) -> Random {
        let mut random = Random::new(self.seed ^ conversation.rotate_left(40) ^ number);
        Random::new(random.next_u64())
    }

    /// A time in the message's share: a whole microsecond, so that an RFC 3339 time is exact.
    fn at(&self, conversation: u64, number: u64, random: &mut Random) -> Wall {
        let begin_us = u128::from(self.spread_us) * u128::from(conversation) / u128::from(self.conversations);
        let us = begin_us as u64 + (number - 1) * self.share_us + random.below(self.share_us);
        Wall(Wall::from_unix_seconds(FROM_SECONDS).0 + us * TICKS_PER_US)
    }

    /// Writes all lines, conversation by conversation.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, out);
        for conversation in 0..self.conversations {
            let (id, [first, second]) = (self.id(conversation), self.pair(conversation));
            let at = Wall(self.before(conversation, 1).at().0 / TICKS_PER_US * TICKS_PER_US);
            writeln!(
                out,
                "{{\"conversationId\":{id},\"kind\":\"direct\",\"participants\":[{first},{second}],\"createdAt\":\"{at}\"}}"
            )?;
            for number in 1..=self.messages_each {
                let Said { sender, at, content } = self.said(conversation, number);
                writeln!(
                    out,
                    "{{\"conversationId\":{id},\"senderId\":{sender},\"content\":\"{content}\",\"createdAt\":\"{at}\"}}"
                )?;
            }
        }
        out.flush()
    }
}

/// Writes the history to standard output.
///
/// # Errors
/// When writing fails, for example because the reader has ended.
pub fn run(args: &GenerateArgs, seed: u64, first_user: u64, first_conversation: u64) -> Result<bool, String> {
    let history = GeneratedHistory::new(args, seed, first_user, first_conversation)?;
    history.write(io::stdout().lock()).map_err(|error| format!("cannot write: {error}"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(conversations: u64, messages_each: u64) -> GeneratedHistory {
        let args = GenerateArgs { conversations, messages_each, spread_days: 10, lasting_days: 1 };
        GeneratedHistory::new(&args, 7, 1, 1).unwrap()
    }

    #[test]
    fn each_pair_has_one_conversation_and_both_users_list_it() {
        for conversations in [1, 50, 100, 101, 1_000] {
            let history = history(conversations, 1);
            let mut pairs: Vec<_> = (0..conversations).map(|conversation| history.pair(conversation)).collect();
            let users: std::collections::BTreeSet<_> = pairs.iter().flatten().copied().collect();
            for user in users {
                let with: Vec<u64> =
                    (0..conversations).filter(|conversation| history.pair(*conversation).contains(&user)).collect();
                assert_eq!(history.conversations_of(user), with, "{conversations} {user}");
            }
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len() as u64, conversations);
        }
    }

    #[test]
    fn messages_ascend_and_are_reproducible() {
        let history = history(3, 50);
        for conversation in 0..3 {
            let all: Vec<Said> = (1..=50).map(|number| history.said(conversation, number)).collect();
            assert!(all.windows(2).all(|pair| pair[0].at < pair[1].at));
            assert!(all.iter().all(|said| (50..=200).contains(&said.content.len())));
            for (number, said) in (1..).zip(&all) {
                let before = history.before(conversation, number).at();
                assert!(before < said.at && (number == 1 || all[number as usize - 2].at < before));
            }
            let [first, second] = history.pair(conversation);
            assert_eq!(history.unread(conversation, first).min(history.unread(conversation, second)), 0);
        }
        let text = |history: &GeneratedHistory| {
            let mut out = Vec::new();
            history.write(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&history), text(&history.clone()));
        assert_eq!(text(&history).lines().count(), 3 * 51);
    }
}
