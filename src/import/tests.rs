use super::*;
use crate::model::message::ConversationSummary;
use crate::store::conversations::ListConversations;
use crate::store::log::{self, NewMessage, ReadAfter};
use crate::store::memory::Memory;
use crate::store::{Failure, Write};

/// Imports lines into the model and reads it back.
#[derive(Default)]
struct World {
    store: Memory,
    /// Requests that succeed before the store fails; `None`: it never fails.
    answers_left: Option<usize>,
    asked: Vec<Request>,
}

const NOW: &str = "2026-01-01T00:00:00Z";
const CONVERSATION: &str = r#"{"conversationId":7,"participants":[2,1],"createdAt":"2020-01-01T00:00:00Z"}"#;

fn at(text: &str) -> Wall {
    time::rfc_3339(text).unwrap()
}

fn said(sender: u64, content: &str, at: &str) -> String {
    format!(r#"{{"conversationId":7,"senderId":{sender},"content":"{content}","createdAt":"2020-01-01T00:00:{at}Z"}}"#)
}

fn seven() -> ConversationId {
    ConversationId::new(7).unwrap()
}

impl World {
    fn import(&mut self, lines: &[impl AsRef<str>]) -> Result<Counts, String> {
        let limits = Limits { participants: 3, content_chars: 20, append_batch: 3, ..Limits::default() };
        let mut import = Import::new(Rules { limits, sanitize: true });
        let Self { store, answers_left, asked } = self;
        let mut ask = |chains: Vec<Vec<Request>>| {
            let carry_out = |chain: Vec<Request>| {
                let mut replies = Vec::new();
                for request in chain {
                    let fails = answers_left.as_mut().is_some_and(|left| {
                        let fails = *left == 0;
                        *left = left.saturating_sub(1);
                        fails
                    });
                    let reply = if fails { Reply::Failed(Failure::Unavailable) } else { store.apply(&request) };
                    asked.push(request);
                    replies.push(reply);
                    if fails {
                        break;
                    }
                }
                replies
            };
            // The last chain first: chains may come in any order.
            let mut replies: Vec<Vec<Reply>> = chains.into_iter().rev().map(carry_out).collect();
            replies.reverse();
            replies
        };
        let mut outcome = Ok(());
        for (number, line) in (1..).zip(lines) {
            outcome = outcome.and_then(|()| import.line(number, line.as_ref().as_bytes(), at(NOW), &mut ask));
        }
        outcome = outcome.and_then(|()| import.store(at(NOW), &mut ask));
        outcome.map(|()| import.counts()).map_err(|fault| fault.to_string())
    }

    /// Contents, oldest first; checks that each message links to the one before.
    fn contents(&self) -> Vec<String> {
        let messages = self.messages();
        for (at, message) in messages.iter().enumerate() {
            assert_eq!(message.sequence, at as u64 + 1);
            assert_eq!(message.prev, at.checked_sub(1).map(|before| messages[before].id));
        }
        messages.iter().map(|message| message.content.to_string()).collect()
    }

    fn messages(&self) -> Vec<std::sync::Arc<Message>> {
        let read = ReadAfter { conversation: seven(), after: MessageId::MIN, limit: u16::MAX };
        ReadAfter::answer(self.store.read(&read.into())).unwrap().map_or_else(Vec::new, |page| page.messages)
    }

    fn list(&self, user: u64) -> Vec<ConversationSummary> {
        let list = ListConversations { user: UserId::new(user).unwrap(), after: None, limit: 10 };
        ListConversations::answer(self.store.read(&list.into())).unwrap().summaries
    }
}

#[test]
fn imported_history_equals_sent_history() {
    let mut world = World::default();
    let lines = [
        CONVERSATION.to_owned(),
        String::new(),
        said(1, "one", "01"),
        said(2, "two <b>", "02.5"),
        said(2, "three", "02.5"),
        said(1, "four", "03"),
        said(2, "five", "03"),
    ];
    let counts = world.import(&lines).unwrap();
    assert_eq!(counts, Counts { conversations: 1, messages: 5, ..Counts::default() });
    assert_eq!(world.contents(), ["one", "two &lt;b>", "three", "four", "five"]);
    let times: Vec<String> = world.messages().iter().map(|message| message.created_at().to_string()).collect();
    let expect = ["01.000000", "02.500000", "02.500000", "03.000000", "03.000000"];
    assert_eq!(times, expect.map(|seconds| format!("2020-01-01T00:00:{seconds}Z")));
    let unread = |user| world.list(user).iter().map(|summary| summary.unread).collect::<Vec<_>>();
    assert_eq!((unread(1), unread(2)), (vec![1], vec![0]));
    let conversation = &world.list(1)[0].conversation;
    assert_eq!((conversation.kind, conversation.created_by.value()), (ConversationKind::Direct, 2));
    assert_eq!(conversation.created_at, at("2020-01-01T00:00:00Z"));
}

/// A store that fails after any number of requests: importing the same file again completes the rest.
#[test]
fn an_import_resumes_after_any_failure_and_stores_nothing_twice() {
    let mut lines = vec![CONVERSATION.to_owned()];
    lines.extend((0..9).map(|number| said(1 + number % 2, &format!("message {number}"), &format!("{:02}", number / 3))));
    let mut whole = World::default();
    whole.import(&lines).unwrap();
    for answers in 0..whole.asked.len() {
        let mut world = World { answers_left: Some(answers), ..World::default() };
        let fault = world.import(&lines).unwrap_err();
        assert!(fault.contains("the store failed (Unavailable), at line 10 or before it: import the same file again"), "{fault}");
        let stored = world.contents().len() as u64;
        world.answers_left = None;
        let counts = world.import(&lines).unwrap();
        assert_eq!((counts.messages, counts.messages_existing), (9 - stored, stored));
        assert_eq!(world.messages(), whole.messages(), "{answers}");
    }
    let counts = whole.import(&lines).unwrap();
    assert_eq!(counts, Counts { conversations_existing: 1, messages_existing: 9, ..Counts::default() });
}

/// Imports lines that end in a bad one: it is refused, with all before it stored and nothing after it.
fn check_refused(bad: &str, expect: &str) {
    let mut world = World::default();
    let lines = [CONVERSATION, &said(1, "one", "10"), &said(2, "two", "20"), bad, &said(1, "three", "30")];
    assert_eq!(world.import(&lines), Err(format!("line 4: {expect}")), "{bad}");
    assert_eq!(world.contents(), ["one", "two"], "{bad}");
}

#[test]
fn an_unreadable_line_is_refused() {
    check_refused("garbage", "the line is not valid JSON");
    check_refused("[]", "the line is not a JSON object");
    check_refused(r#"{"conversationId":7}"#, "senderId is missing");
    check_refused(r#"{"senderId":7}"#, "conversationId is missing");
    check_refused(r#"{"conversationId":7,"senderId":1,"content":"x"}"#, "createdAt is missing");
    check_refused(r#"{"conversationId":0,"senderId":1}"#, "conversationId must be a positive integer below 2^53");
    check_refused(
        r#"{"conversationId":7,"senderId":1,"content":"x","createdAt":"yesterday"}"#,
        "createdAt is no time of RFC 3339 since 1970",
    );
    let future = r#"{"conversationId":7,"senderId":1,"content":"x","createdAt":"2026-01-01T00:00:00.1Z"}"#;
    check_refused(future, "createdAt is in the future");
    check_refused(&said(1, "", "21"), "content is empty");
    check_refused(&said(1, " ", "21"), "content is empty");
    check_refused(&said(1, &"x".repeat(21), "21"), "content is longer than 20 characters");
    check_refused(r#"{"conversationId":8,"participants":[]}"#, "participants is empty");
    check_refused(r#"{"conversationId":8,"participants":[1,2,3,4]}"#, "a conversation has at most 3 participants");
    check_refused(r#"{"conversationId":8,"participants":[1,2],"kind":"pair"}"#, "kind must be direct or group");
}

#[test]
fn a_line_that_contradicts_the_store_is_refused() {
    check_refused(&said(1, "late", "19.9"), "older than the message before it in its conversation");
    check_refused(&said(3, "foreign", "21"), "user 3 is not a participant of conversation 7");
    let unknown = r#"{"conversationId":8,"senderId":1,"content":"x","createdAt":"2020-01-01T00:00:00Z"}"#;
    check_refused(unknown, "there is no conversation 8: its own line must come before its messages");
    check_refused(r#"{"conversationId":8,"participants":[1,2]}"#, "the pair has the direct conversation 7 already");
    check_refused(r#"{"conversationId":7,"participants":[3],"kind":"group"}"#, "conversation 7 is there, and of the other kind");
    check_refused(r#"{"conversationId":7,"participants":[1,3]}"#, "conversation 7 is there, between others");
}

#[test]
fn an_old_line_must_equal_the_stored_message() {
    let mut world = World::default();
    world.import(&[CONVERSATION, &said(1, "one", "10"), &said(1, "two", "20")]).unwrap();
    let mut check = |line: String, expect: &str| assert_eq!(world.import(&[line]), Err(format!("line 1: {expect}")));
    check(said(1, "between", "15"), "older than the last message that is stored in its conversation");
    check(said(1, "other", "20"), "another message is stored with this time in its conversation");
    check(said(2, "two", "20"), "another message is stored with this time in its conversation");
    // A second file continues where the first ended.
    assert_eq!(world.import(&[said(2, "three", "20.0000001")]).unwrap().messages, 1);
    assert_eq!(world.contents(), ["one", "two", "three"]);
}

#[test]
fn a_conversation_line_comes_before_its_messages() {
    let mut world = World::default();
    let fault = world.import(&[said(1, "one", "10").as_str(), CONVERSATION]).unwrap_err();
    assert!(fault.starts_with("line 1: there is no conversation 7"), "{fault}");
    assert_eq!((world.contents().len(), world.list(1).len()), (0, 0));
}

#[test]
fn the_first_of_two_lines_for_one_conversation_or_pair_counts() {
    let mut world = World::default();
    let other = CONVERSATION.replace('7', "8");
    assert_eq!(world.import(&[CONVERSATION, &other]).unwrap_err(), "line 2: the pair has the direct conversation 7 already");
    let group = |users: &str| format!(r#"{{"conversationId":9,"participants":[{users}],"kind":"group"}}"#);
    let counts = world.import(&[group("1,2"), group("1,3")]).unwrap();
    assert_eq!((counts.conversations, counts.conversations_existing, counts.participants_added), (1, 1, 1));
}

#[test]
fn missing_participants_join_groups() {
    let mut world = World::default();
    let group = |users: &str| format!(r#"{{"conversationId":7,"participants":[{users}],"kind":"group","title":"Tea"}}"#);
    world.import(&[group("2,1")]).unwrap();
    let counts = world.import(&[group("1,3"), said(3, "late", "10")]).unwrap();
    let expect = Counts { conversations_existing: 1, participants_added: 1, messages: 1, ..Counts::default() };
    assert_eq!(counts, expect);
    let there = &world.list(3)[0].conversation;
    let roles: Vec<_> = there.participants.iter().map(|there| (there.user.value(), there.role)).collect();
    assert_eq!(roles, [(1, ParticipantRole::Member), (2, ParticipantRole::Admin), (3, ParticipantRole::Member)]);
    assert_eq!(there.title.as_deref(), Some("Tea"));
}

#[test]
fn client_ids_are_kept_and_cause_no_replay() {
    let mut world = World::default();
    let keyed = |content: &str, at: &str| said(1, content, at).replace("\"senderId\"", "\"clientMessageId\":\"k\",\"senderId\"");
    world.import(&[CONVERSATION.to_owned(), keyed("one", "10"), keyed("one", "11"), keyed("two", "12")]).unwrap();
    assert_eq!(world.contents(), ["one", "one", "two"]);
    assert!(world.messages().iter().all(|message| message.client_id.as_deref() == Some("k")));

    // A client id that was sent here today is in force.
    let draft = Draft { content: "live".into(), client_id: Some("k".into()), headers: Vec::new() };
    let message =
        NewMessage { id: MessageId::from_parts(at("2020-01-02T00:00:00Z"), 0, 0), sender: UserId::new(1).unwrap(), draft };
    let (head, now) = (Head::default(), at(NOW));
    let keys_expire = at("2026-01-01T12:00:00Z");
    world.store.ask(Append { conversation: seven(), head, messages: vec![message], keys_expire, now }).unwrap();
    let later = |content| keyed(content, "10").replace("2020-01-01", "2020-01-03");
    assert_eq!(world.import(&[later("live")]).unwrap().messages_existing, 1);
    let fault = world.import(&[later("other")]).unwrap_err();
    assert_eq!(fault, "line 1: its clientMessageId was sent today with another content");
}

#[test]
fn waves_are_cut_by_lines_and_appends_by_messages_and_bytes() {
    let mut world = World::default();
    let mut lines = vec![CONVERSATION.to_owned()];
    lines.extend((0..2 * WAVE_LINES).map(|_| said(1, "x", "10")));
    world.import(&lines).unwrap();
    assert_eq!(world.contents().len(), 2 * WAVE_LINES);
    let mut sizes = Vec::new();
    for request in &world.asked {
        if let Request::Write(Write::Log(log::Write::Append(append))) = request {
            sizes.push(append.messages.len());
        }
    }
    assert!(sizes.iter().all(|size| *size <= 3) && sizes.len() <= 2 * WAVE_LINES / 3 + 3);

    let mut chain = Chain::default();
    for number in 1..=3 {
        let content = "x".repeat(APPEND_BYTES / 2).into();
        let draft = Draft { content, client_id: None, headers: Vec::new() };
        let message = NewMessage { id: MessageId::imported(Wall(number), seven()), sender: UserId::new(1).unwrap(), draft };
        chain.push(Identified { number, conversation: seven(), message }, 256);
    }
    assert_eq!(chain.appends.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn dropped_conversations_are_read_again() {
    let mut recent = Generations::new(RECENT_MAX);
    let known =
        |users: u64| Known { participants: (1..=users).map(|user| UserId::new(user).unwrap()).collect(), head: Head::default() };
    for value in 1..=3_000 {
        recent.put(ConversationId::new(value).unwrap(), known(999), 1_000);
    }
    let kept = (1..=3_000).filter(|value| recent.take(&ConversationId::new(*value).unwrap()).is_some()).count();
    assert!((500..=1_000).contains(&kept), "{kept}");
}
