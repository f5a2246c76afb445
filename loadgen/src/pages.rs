//! `loadgen pages`: the latency of a history's pages, at every place in the history, with a check of each page.
//!
//! The histories are those that `loadgen generate` wrote with the same options. One request is under way at a time, so the
//! latency is the page's own. Kinds of pages take turns, so that other load on the machine affects all of them.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use tidings::model::MessageId;

use crate::clock;
use crate::generate::{GenerateArgs, GeneratedHistory};
use crate::random::Random;
use crate::report::{self, Latency};
use crate::rest::{Request, RestClient};
use crate::run::RunArgs;
use crate::target::Target;

#[derive(Args, Clone, Debug)]
pub struct PagesArgs {
    #[command(flatten)]
    history: GenerateArgs,
    /// Requests of each kind.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    requests: u64,
    /// Messages and conversations of a page.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100))]
    limit: u64,
}

/// The place of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Of messages: without a cursor.
    Newest,
    /// In the tenth around the middle.
    Middle,
    /// The last page.
    Oldest,
    /// Anywhere, going back.
    Back,
    /// Anywhere, going forward.
    Forward,
    /// Of a user's conversations, anywhere in the list.
    List,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Newest, Self::Middle, Self::Oldest, Self::Back, Self::Forward, Self::List];
}

/// One additional request for this many is sent first, and does not count.
const WARM_UP: u64 = 10;

/// Faults that are printed, at most.
const PRINTED_MAX: u64 = 10;

/// The latency of pages of one kind.
#[derive(Debug, Serialize)]
pub struct Row {
    pub kind: Kind,
    pub latency: Latency,
}

#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    seed: u64,
    conversations: u64,
    messages_each: u64,
    rows: Vec<Row>,
    faults: u64,
}

/// A page to request, and its expected content.
struct Wanted {
    path: String,
    user: u64,
    conversation: u64,
    /// Numbers of messages, or conversations of the list, in the page's order.
    expect: Vec<u64>,
    has_more: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessagePage<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    has_more: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    conversation_id: u64,
    sender_id: u64,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
    #[serde(borrow, default)]
    prev: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    #[serde(borrow)]
    conversations: Vec<Summary<'a>>,
    next_cursor: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    id: u64,
    #[serde(borrow)]
    last_message: Message<'a>,
    unread_count: u64,
}

/// Requests pages and prints their latency; true when all were the right ones.
///
/// # Errors
/// When the server does not answer.
pub fn run(args: &PagesArgs, run: &RunArgs, target: &Target) -> Result<bool, String> {
    run.pin()?;
    let seed = run.seed.ok_or("--seed must be that of the history")?;
    let history = GeneratedHistory::new(&args.history, seed, run.first_user, run.first_conversation)?;
    let (rows, faults) = measure(&history, args.limit, args.requests, seed, target, run.deadline())?;
    let GeneratedHistory { conversations, messages_each, .. } = history;
    let report = Report { scenario: "pages", seed, conversations, messages_each, rows, faults };
    print(&report);
    run.write_json(&report)?;
    Ok(faults == 0)
}

/// Returns the latency of pages of each kind, and how many pages were wrong.
///
/// # Errors
/// When the server does not answer, or the deadline passes.
pub fn measure(
    history: &GeneratedHistory,
    limit: u64,
    requests: u64,
    seed: u64,
    target: &Target,
    deadline: u64,
) -> Result<(Vec<Row>, u64), String> {
    let mut pages = Pages { history, limit, random: Random::new(seed) };
    let mut client = RestClient::new(target.address);
    let mut latencies = Kind::ALL.map(|_| report::histogram());
    let mut faults = 0;
    for round in 0..requests + requests / WARM_UP {
        if clock::mono_ns() > deadline {
            return Err("the time limit was reached".into());
        }
        for (kind, latencies) in Kind::ALL.into_iter().zip(&mut latencies) {
            let wanted = pages.want(kind);
            let (took, outcome) = pages.ask(kind, &wanted, &mut client, target)?;
            if let Err(fault) = outcome {
                faults += 1;
                if faults <= PRINTED_MAX {
                    println!("  GET {} of user {}: {fault}", wanted.path, wanted.user);
                }
            }
            if round >= requests / WARM_UP {
                latencies.saturating_record(took);
            }
        }
    }
    let rows = Kind::ALL.into_iter().zip(&latencies).map(|(kind, latencies)| Row { kind, latency: latencies.into() });
    Ok((rows.collect(), faults))
}

struct Pages<'a> {
    history: &'a GeneratedHistory,
    limit: u64,
    random: Random,
}

impl Pages<'_> {
    /// Returns the nanoseconds that a page took, and whether it was the right one.
    fn ask(
        &self,
        kind: Kind,
        wanted: &Wanted,
        client: &mut RestClient,
        target: &Target,
    ) -> Result<(u64, Result<(), String>), String> {
        let token = target.token(wanted.user, &[])?;
        let request = Request { method: "GET", path: wanted.path.clone(), token: &token, body: String::new() };
        let began = clock::mono_ns();
        let mut response = client.call(&request).map_err(|error| format!("GET {}: {error}", wanted.path))?;
        let took = clock::mono_ns() - began;
        let outcome = match response.status {
            200 => self.check(kind, wanted, &mut response.body),
            status => Err(format!("{status} {}", response.excerpt())),
        };
        Ok((took, outcome))
    }

    fn want(&mut self, kind: Kind) -> Wanted {
        let conversation = self.random.below(self.history.conversations);
        let all = self.history.messages_each;
        match kind {
            Kind::Newest => self.want_back(conversation, None),
            Kind::Middle => {
                let around = all / 2 - all / 20 + 1;
                let number = around + self.random.below(all / 10 + 1);
                self.want_back(conversation, Some(number))
            }
            Kind::Oldest => self.want_back(conversation, Some(self.limit.min(all) + 1)),
            Kind::Back => {
                let number = 1 + self.random.below(all + 1);
                self.want_back(conversation, Some(number))
            }
            Kind::Forward => {
                let number = 1 + self.random.below(all);
                let path = format!("after={}&", self.history.before(conversation, number));
                let last = all.min(number + self.limit - 1);
                self.want_messages(conversation, &path, (number..=last).collect(), last < all)
            }
            Kind::List => self.want_list(conversation),
        }
    }

    /// The page that ends right before a message.
    fn want_back(&mut self, conversation: u64, before: Option<u64>) -> Wanted {
        let last = before.map_or(self.history.messages_each, |number| number - 1);
        let first = (last + 1).saturating_sub(self.limit).max(1);
        let cursor = before.map_or_else(String::new, |number| format!("cursor={}&", self.history.before(conversation, number)));
        self.want_messages(conversation, &cursor, (first..=last).rev().collect(), first > 1)
    }

    fn want_messages(&mut self, conversation: u64, cursor: &str, expect: Vec<u64>, has_more: bool) -> Wanted {
        let path = format!("/conversations/{}/messages?{cursor}limit={}", self.history.id(conversation), self.limit);
        let user = self.history.pair(conversation)[self.random.below(2) as usize];
        Wanted { path, user, conversation, expect, has_more }
    }

    fn want_list(&mut self, conversation: u64) -> Wanted {
        let user = self.history.pair(conversation)[self.random.below(2) as usize];
        let all = self.history.conversations_of(user);
        let from = self.random.below(all.len() as u64) as usize;
        let after = from.checked_sub(1).map_or_else(String::new, |before| format!("after={}&", self.history.id(all[before])));
        let to = all.len().min(from + self.limit as usize);
        let path = format!("/conversations?{after}limit={}", self.limit);
        Wanted { path, user, conversation, expect: all[from..to].to_vec(), has_more: to < all.len() }
    }

    fn check(&self, kind: Kind, wanted: &Wanted, body: &mut [u8]) -> Result<(), String> {
        if kind == Kind::List { self.check_list(wanted, body) } else { self.check_history(kind, wanted, body) }
    }

    fn check_history(&self, kind: Kind, wanted: &Wanted, body: &mut [u8]) -> Result<(), String> {
        let page: MessagePage<'_> = simd_json::from_slice(body).map_err(|error| format!("not a page: {error}"))?;
        if (page.messages.len(), page.has_more) != (wanted.expect.len(), wanted.has_more) {
            return Err(format!("{} messages, more: {}", page.messages.len(), page.has_more));
        }
        for (message, number) in page.messages.iter().zip(&wanted.expect) {
            self.check_message(message, wanted.conversation, *number)?;
        }
        for pair in page.messages.windows(2) {
            let [older, newer] = if kind == Kind::Forward { [&pair[0], &pair[1]] } else { [&pair[1], &pair[0]] };
            if newer.prev.as_deref() != Some(&*older.id) {
                return Err(format!("prev of {} is not {}", newer.id, older.id));
            }
        }
        Ok(())
    }

    fn check_message(&self, message: &Message<'_>, conversation: u64, number: u64) -> Result<(), String> {
        let said = self.history.said(conversation, number);
        let id: MessageId = message.id.parse().map_err(|_| format!("`{}` is not a message id", message.id))?;
        let is_right = message.conversation_id == self.history.id(conversation)
            && message.sender_id == said.sender
            && message.content == said.content
            && id.at() == said.at
            && message.created_at == said.at.to_string()
            && message.prev.is_some() == (number > 1);
        if is_right { Ok(()) } else { Err(format!("message {number} is not the generated one: {}", message.id)) }
    }

    fn check_list(&self, wanted: &Wanted, body: &mut [u8]) -> Result<(), String> {
        let list: List<'_> = simd_json::from_slice(body).map_err(|error| format!("not a list: {error}"))?;
        let ids: Vec<u64> = list.conversations.iter().map(|summary| summary.id).collect();
        let expect: Vec<u64> = wanted.expect.iter().map(|conversation| self.history.id(*conversation)).collect();
        if (&ids, list.next_cursor.is_some()) != (&expect, wanted.has_more) {
            return Err(format!("conversations {ids:?}, more: {}", list.next_cursor.is_some()));
        }
        for (summary, conversation) in list.conversations.iter().zip(&wanted.expect) {
            self.check_message(&summary.last_message, *conversation, self.history.messages_each)?;
            let unread = self.history.unread(*conversation, wanted.user);
            if summary.unread_count != unread {
                return Err(format!("{} unread in {}, not {unread}", summary.unread_count, summary.id));
            }
        }
        Ok(())
    }
}

fn print(report: &Report) {
    let Report { conversations, messages_each, faults, .. } = report;
    println!("pages: {conversations} conversations of {messages_each} messages, {faults} faults");
    for Row { kind, latency } in &report.rows {
        println!("  {:<8} {latency}", format!("{kind:?}").to_lowercase());
    }
}
