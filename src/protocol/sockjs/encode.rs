//! Packets as bytes, and the framing of each transport around them.

use super::path::Transport;

/// The session is open.
pub const OPEN: &[u8] = b"o";
/// The session still exists.
pub const HEART_BEAT: &[u8] = b"h";
/// Sent to a receiver while another one waits.
pub const CLOSE_ANOTHER_OPEN: (u16, &str) = (2010, "Another connection still open");

/// Sent to a receiver whose session ended because another receiver was lost.
pub const CLOSE_INTERRUPTED: (u16, &str) = (1002, "Connection interrupted");

/// Length of a callback's name in bytes.
const CALLBACK_BYTES_MAX: usize = 256;

/// xhr_streaming sends this many bytes before the first packet, as browsers hold back the beginning of a response.
const XHR_PRELUDE_BYTES: usize = 2_048;
/// htmlfile pads the page's head beyond this size.
const HTML_PRELUDE_BYTES: usize = 1_024;

/// Appends one message as a JSON string. `text` is WTF-8: bytes that form no character are escaped as surrogates.
pub fn element(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + text.len() / 8 + 2);
    out.push(b'"');
    let mut plain = 0;
    let mut at = 0;
    while at < text.len() {
        let (escaped, length) = match text[at] {
            byte @ (b'"' | b'\\' | 0..0x20) => (Some(u16::from(byte)), 1),
            // Three bytes: U+2000 to U+2FFF, the surrogates, U+F000 to U+FFFF.
            0xE2 | 0xED | 0xEF => {
                let unit = three_bytes(&text[at..]);
                (unit.filter(|unit| is_mangled(*unit)), if unit.is_some() { 3 } else { 1 })
            }
            _ => (None, 1),
        };
        if let Some(unit) = escaped {
            out.extend_from_slice(&text[plain..at]);
            escape(unit, out);
            plain = at + length;
        }
        at += length;
    }
    out.extend_from_slice(&text[plain..]);
    out.push(b'"');
}

fn three_bytes(text: &[u8]) -> Option<u16> {
    let [first, second, third] = *text.first_chunk::<3>()?;
    Some(u16::from(first & 0x0F) << 12 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F))
}

/// Characters that the protocol's suite requires escaped beyond JSON, as browsers or WebSockets change them on the way.
fn is_mangled(unit: u16) -> bool {
    matches!(unit, 0x200C..=0x200F | 0x2028..=0x202F | 0x2060..=0x206F | 0xD800..=0xDFFF | 0xFFF0..=0xFFFF)
}

/// As `JSON.stringify` writes it.
fn escape(unit: u16, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match unit {
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        0x22 => b'"',
        0x5C => b'\\',
        _ => {
            let digit = |shift: u16| HEX[usize::from(unit >> shift & 0xF)];
            out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// `a[...]` of messages that [`element`] has written.
pub fn array<'a>(elements: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"a[");
    for (number, element) in elements.into_iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(element);
    }
    out.push(b']');
}

/// `c[code,"reason"]`.
#[must_use]
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + reason.len());
    out.extend_from_slice(b"c[");
    out.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
    out.push(b',');
    element(reason.as_bytes(), &mut out);
    out.push(b']');
    out
}

/// Checks the name of the client's function.
///
/// # Errors
/// The body of the response, whose status is 500.
pub fn callback(name: Option<&str>) -> Result<&str, &'static str> {
    let name = name.filter(|name| !name.is_empty()).ok_or("\"callback\" parameter required")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if CALLBACK_BYTES_MAX < name.len() || !name.bytes().all(allowed) {
        return Err("invalid \"callback\" parameter");
    }
    Ok(name)
}

/// The bytes that a stream sends before its first packet; empty for other transports.
#[must_use]
pub fn prelude(transport: Transport, callback: &str) -> Vec<u8> {
    match transport {
        Transport::XhrStreaming => {
            let mut out = vec![b'h'; XHR_PRELUDE_BYTES];
            out.push(b'\n');
            out
        }
        Transport::EventSource => b"\r\n".to_vec(),
        Transport::HtmlFile => {
            let mut page = format!(
                "<!doctype html>\n<html><head>\n  \
                 <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
                 <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n\
                 </head><body><h2>Don't panic!</h2>\n  <script>\n    \
                 document.domain = document.domain;\n    var c = parent.{callback};\n    c.start();\n    \
                 function p(d) {{c.message(d);}};\n    window.onload = function() {{c.stop();}};\n  </script>\n"
            )
            .into_bytes();
            page.resize(page.len().max(HTML_PRELUDE_BYTES), b' ');
            page.extend_from_slice(b"\r\n\r\n");
            page
        }
        Transport::WebSocket | Transport::Xhr | Transport::XhrSend | Transport::Jsonp | Transport::JsonpSend => Vec::new(),
    }
}

/// Appends a packet in its transport's framing.
pub fn packet(transport: Transport, callback: &str, packet: &[u8], out: &mut Vec<u8>) {
    match transport {
        Transport::Xhr | Transport::XhrStreaming => {
            out.extend_from_slice(packet);
            out.push(b'\n');
        }
        // JSON escapes line ends, so a packet has none. Clients percent-decode packets of this transport.
        Transport::EventSource => {
            out.extend_from_slice(b"data: ");
            for (index, part) in packet.split(|byte| *byte == b'%').enumerate() {
                if index > 0 {
                    out.extend_from_slice(b"%25");
                }
                out.extend_from_slice(part);
            }
            out.extend_from_slice(b"\r\n\r\n");
        }
        Transport::HtmlFile => {
            out.extend_from_slice(b"<script>\np(");
            script_string(packet, out);
            out.extend_from_slice(b");\n</script>\r\n");
        }
        // The comment keeps the function's name from being the first bytes: a file of another type could begin with it.
        Transport::Jsonp => {
            out.extend_from_slice(b"/**/");
            out.extend_from_slice(callback.as_bytes());
            out.push(b'(');
            script_string(packet, out);
            out.extend_from_slice(b");\r\n");
        }
        Transport::WebSocket | Transport::XhrSend | Transport::JsonpSend => out.extend_from_slice(packet),
    }
}

/// A string in a script in a page: nothing in it may end the script, so `<` is escaped too.
fn script_string(packet: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    element(packet, out);
    if out[start..].contains(&b'<') {
        let string = out.split_off(start);
        for byte in string {
            match byte {
                b'<' => out.extend_from_slice(b"\\u003c"),
                byte => out.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_element(text: &[u8], expect: &str) {
        let mut out = Vec::new();
        element(text, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expect);
    }

    #[test]
    fn strings_are_escaped_where_browsers_or_proxies_mangle_them() {
        check_element(b"", r#""""#);
        check_element(
            "a\"\\\u{8}\t\n\u{c}\r\0\u{1f}/é\u{1F600}".as_bytes(),
            "\"a\\\"\\\\\\b\\t\\n\\f\\r\\u0000\\u001f/é\u{1F600}\"",
        );
        check_element(
            "\u{200b}\u{200c}\u{2010}\u{2028}\u{2030}\u{2060}\u{206f}\u{2070}".as_bytes(),
            "\"\u{200b}\\u200c\u{2010}\\u2028\u{2030}\\u2060\\u206f\u{2070}\"",
        );
        check_element("\u{ffef}\u{fff0}\u{ffff}\u{d7ff}".as_bytes(), "\"\u{ffef}\\ufff0\\uffff\u{d7ff}\"");
        check_element(b"\xed\xa0\x80\xed\xbf\xbf", r#""\ud800\udfff""#);
    }

    #[test]
    fn bytes_other_than_text_do_not_panic() {
        for text in [&b"\xe2"[..], b"\xef\xbf", b"\xed\xa0", b"\xff\xfe"] {
            let mut out = Vec::new();
            element(text, &mut out);
            assert_eq!(out.len(), text.len() + 2);
        }
    }

    #[test]
    fn no_body_ends_its_script() {
        for transport in [Transport::HtmlFile, Transport::Jsonp] {
            let mut out = Vec::new();
            packet(transport, "f", b"a[\"</script><!--\"]", &mut out);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches('<').count(), if transport == Transport::HtmlFile { 2 } else { 0 }, "{text}");
        }
    }

    #[test]
    fn each_transport_frames_packets_its_own_way() {
        let check = |transport, expect: &str| {
            let mut out = Vec::new();
            packet(transport, "cb", b"a[\"x\"]", &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(Transport::Xhr, "a[\"x\"]\n");
        check(Transport::XhrStreaming, "a[\"x\"]\n");
        check(Transport::EventSource, "data: a[\"x\"]\r\n\r\n");
        let mut event = Vec::new();
        packet(Transport::EventSource, "", b"a[\"100 % %0A\"]", &mut event);
        assert_eq!(event, b"data: a[\"100 %25 %250A\"]\r\n\r\n");
        check(Transport::HtmlFile, "<script>\np(\"a[\\\"x\\\"]\");\n</script>\r\n");
        check(Transport::Jsonp, "/**/cb(\"a[\\\"x\\\"]\");\r\n");
        assert_eq!(close(3000, "Go away!"), b"c[3000,\"Go away!\"]");
    }

    #[test]
    fn callbacks() {
        assert_eq!(callback(Some("a.b_c-9")), Ok("a.b_c-9"));
        for name in [None, Some("")] {
            assert_eq!(callback(name), Err("\"callback\" parameter required"));
        }
        let long = "a".repeat(CALLBACK_BYTES_MAX + 1);
        for name in [" ", "*", "abc(", "é", &long] {
            assert_eq!(callback(Some(name)), Err("invalid \"callback\" parameter"), "{name}");
        }
    }
}
