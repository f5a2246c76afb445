use tidings::model::{Limits, Refusal, Wall};
use tidings::protocol::http::{Decoder, Event, Response};

use super::split;

/// Requests: no cut changes what comes out, and every refusal can be answered.
pub fn http(data: &[u8]) {
    let (first, bytes) = split(data);
    let limits =
        Limits { http_line_bytes: 128, http_header_bytes: 512, http_headers: 8, http_body_bytes: 128, ..Limits::default() };
    let whole = decode([bytes], &limits);
    let pieces = decode(bytes.chunks(1 + usize::from(first % 32)), &limits);
    assert_eq!(pieces, whole, "in pieces, and whole");
    if let Some(refusal) = whole.1 {
        Response::refusal(&refusal).encode(false, false, Wall(0), &mut Vec::new());
    }
}

/// Events and the refusal that ended them.
fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limits: &Limits) -> (Vec<Event>, Option<Refusal>) {
    let (mut decoder, mut events) = (Decoder::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece, limits) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(refusal) => {
                    assert!(piece.is_empty(), "the rest is discarded");
                    return (events, Some(refusal));
                }
            }
        }
        let upgraded = events.iter().any(|event| matches!(event, Event::Request(request) if request.upgrade));
        assert!(piece.is_empty() || upgraded, "all input was consumed");
    }
    (events, None)
}
