use tidings::protocol::sockjs::{self, Path, Transport};

/// What clients of SockJS send: paths, names of callbacks, and messages. What was understood is written for every transport, is
/// read back as the same, and does not end the script, the event or the string that it travels in.
pub fn sockjs(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(Path::Session { session, .. }) = sockjs::parse(text) {
            assert!(!session.is_empty() && !session.contains(['.', '/']));
        }
        if let Ok(name) = sockjs::callback(Some(text)) {
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
        }
    }
    let Ok(messages) = sockjs::messages(data) else { return };
    assert!(messages.bytes().len() <= data.len(), "never longer than the input");
    let elements: Vec<Vec<u8>> = messages.iter().map(element).collect();
    let mut array = Vec::new();
    sockjs::array(elements.iter().map(Vec::as_slice), &mut array);
    assert_eq!(sockjs::messages(&array[1..]).as_ref(), Ok(&messages), "{}", array.escape_ascii());

    let packet = |transport| {
        let mut out = Vec::new();
        sockjs::packet(transport, "c", &array, &mut out);
        out
    };
    assert_eq!(count(&packet(Transport::XhrStreaming), b"\n"), 1, "one line");
    assert_eq!(count(&packet(Transport::EventSource), b"\n"), 2, "one event");
    assert_eq!(count(&packet(Transport::HtmlFile), b"</"), 1, "one script");
    assert_eq!(count(&packet(Transport::Jsonp), b"\n"), 1, "one call");
}

fn element(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sockjs::element(message, &mut out);
    out
}

fn count(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).filter(|window| *window == needle).count()
}
