//! Reads a conversation's log over REST, forward from a position, and checks that it has every acknowledged message once.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tidings::model::MessageId;

use crate::marker::Marker;
use crate::rest::{Request, RestClient};

/// `limits.page_max`.
const PAGE: usize = 100;

/// One message of the log, with its marker if a load generator sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: MessageId,
    pub prev: Option<MessageId>,
    pub marker: Option<Marker>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    messages: Vec<Row<'a>>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(borrow, default)]
    prev: Option<Cow<'a, str>>,
}

/// All messages after `after`, oldest first.
///
/// # Errors
/// When the server does not answer with pages.
pub fn read_after(client: &mut RestClient, token: &str, conversation: u64, after: MessageId) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(after, |entry| entry.id);
        let path = format!("/conversations/{conversation}/messages?after={after}&limit={PAGE}");
        let request = Request { method: "GET", path, token, body: String::new() };
        let mut response = client.call(&request).map_err(|error| format!("history of {conversation}: {error}"))?;
        if response.status != 200 {
            return Err(format!("history of {conversation}: {} {}", response.status, response.excerpt()));
        }
        let (mut page, has_more) =
            parse_page(&mut response.body).map_err(|error| format!("history of {conversation}: {error}"))?;
        if has_more && page.is_empty() {
            return Err(format!("history of {conversation}: an empty page promises more"));
        }
        entries.append(&mut page);
        if !has_more {
            return Ok(entries);
        }
    }
}

fn parse_page(body: &mut [u8]) -> Result<(Vec<Entry>, bool), String> {
    let page: Page<'_> = simd_json::from_slice(body).map_err(|error| format!("not a page: {error}"))?;
    let parse = |text: &str| text.parse::<MessageId>().map_err(|_| format!("`{text}` is not a message id"));
    let entry = |row: &Row<'_>| {
        let prev = row.prev.as_deref().map(parse).transpose()?;
        Ok(Entry { id: parse(&row.id)?, prev, marker: Marker::find(row.content.as_bytes()) })
    };
    let entries = page.messages.iter().map(entry).collect::<Result<Vec<_>, String>>()?;
    Ok((entries, page.has_more))
}

/// Faults of one conversation's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogFaults {
    /// Acknowledged, but not in the log.
    pub missing: u64,
    /// In the log more than once.
    pub doubled: u64,
    /// Not in the order in which the sender sent them.
    pub reordered: u64,
    /// The `prev` does not name the message before, or the ids do not increase.
    pub broken_chain: u64,
}

impl LogFaults {
    pub fn add(&mut self, other: Self) {
        self.missing += other.missing;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.broken_chain += other.broken_chain;
    }

    pub fn total(self) -> u64 {
        self.missing + self.doubled + self.reordered + self.broken_chain
    }
}

/// Checks a whole log from its beginning. `acknowledged` lists, for each sender, the numbers that the log must have.
pub fn check(entries: &[Entry], run: u32, acknowledged: &[(u32, &crate::sequence::Bits)]) -> LogFaults {
    use crate::sequence::{Arrival, Track};

    let mut faults = LogFaults::default();
    let mut before: Option<MessageId> = None;
    let mut tracks: Vec<(u32, Track)> = acknowledged.iter().map(|(sender, _)| (*sender, Track::from_one())).collect();
    for entry in entries {
        let chained = entry.prev == before && before.is_none_or(|before| before < entry.id);
        faults.broken_chain += u64::from(!chained);
        before = Some(entry.id);
        let Some(marker) = entry.marker.filter(|marker| marker.run == run) else { continue };
        let Some((_, track)) = tracks.iter_mut().find(|(sender, _)| *sender == marker.sender) else { continue };
        match track.take(marker.number) {
            // Acknowledged numbers that never arrive count as missing below. Refused ones may be skipped.
            Arrival::InOrder | Arrival::Ahead => {}
            Arrival::Late => faults.reordered += 1,
            Arrival::Duplicate => faults.doubled += 1,
        }
    }
    for ((_, numbers), (_, track)) in acknowledged.iter().zip(&tracks) {
        faults.missing += numbers.iter().filter(|number| !track.has(*number)).count() as u64;
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Bits;
    use tidings::model::Wall;

    fn id(at: u64) -> MessageId {
        MessageId::from_parts(Wall(at), 0, 0)
    }

    /// A log of the sender's numbers in this order, well chained.
    fn log(numbers: &[u64]) -> Vec<Entry> {
        let entry = |(at, number): (usize, &u64)| {
            let marker = Some(Marker { run: 1, sender: 0, number: *number, due: 0 });
            Entry { id: id(at as u64 + 1), prev: (at > 0).then(|| id(at as u64)), marker }
        };
        numbers.iter().enumerate().map(entry).collect()
    }

    fn check_log(entries: &[Entry], expect: LogFaults) {
        let mut acknowledged = Bits::default();
        for number in 1..=3 {
            acknowledged.insert(number);
        }
        assert_eq!(check(entries, 1, &[(0, &acknowledged)]), expect);
    }

    #[test]
    fn faults_of_a_log_are_distinguished() {
        let none = LogFaults::default();
        check_log(&log(&[1, 2, 3]), none);
        // The log may have one more message without an acknowledgement.
        check_log(&log(&[1, 2, 3, 4]), none);
        check_log(&log(&[1, 3]), LogFaults { missing: 1, ..none });
        check_log(&log(&[1, 2]), LogFaults { missing: 1, ..none });
        check_log(&log(&[1, 2, 2, 3]), LogFaults { doubled: 1, ..none });
        check_log(&log(&[1, 3, 2]), LogFaults { reordered: 1, ..none });
        let mut broken = log(&[1, 2, 3]);
        broken[1].prev = None;
        check_log(&broken, LogFaults { broken_chain: 1, ..none });
    }

    #[test]
    fn reads_a_page() {
        let mut body = br#"{"messages":[{"id":"c232ab00-9414-11ec-b3c8-9f6bdeced846","conversationId":1,"senderId":2,
            "content":"lg:1:2:3:4:","createdAt":"2026-01-01T00:00:00Z"}],"nextCursor":null,"hasMore":true}"#
            .to_vec();
        let (entries, more) = parse_page(&mut body).unwrap();
        assert!(more);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].marker, Some(Marker { run: 1, sender: 2, number: 3, due: 4 }));
        assert!(parse_page(&mut b"{}".to_vec()).is_err());
    }
}
