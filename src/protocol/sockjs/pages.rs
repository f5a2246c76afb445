//! Responses that are the same for every session.

use super::path::{Path, Transport};
use super::{NOT_CACHED, YEAR_SECONDS};
use crate::model::Wall;
use crate::protocol::http::imf_fixdate;
use crate::protocol::http::{Response, names_tag};

/// The response to a plain GET of the endpoint.
#[must_use]
pub fn greeting() -> Response {
    Response::new(200).body("text/plain; charset=UTF-8", "Welcome to SockJS!\n")
}

/// The server's offer. `entropy` must be hard to guess: clients draw their sessions' names from it.
#[must_use]
pub fn info(websocket: bool, cookie_needed: bool, entropy: u32) -> Response {
    let body = format!(r#"{{"websocket":{websocket},"origins":["*:*"],"cookie_needed":{cookie_needed},"entropy":{entropy}}}"#);
    Response::new(200).header("Cache-Control", NOT_CACHED).body("application/json; charset=UTF-8", body)
}

/// The page that brings a SockJS client to the server's own origin. `client_url` is the address of the client's script,
/// `etag` names this version of the page, `known` is the `If-None-Match` of a browser that has one already.
#[must_use]
pub fn iframe(client_url: &str, etag: &str, known: Option<&str>, now: Wall) -> Response {
    if known.is_some_and(|known| names_tag(known, etag)) {
        return cacheable(Response::new(304), now).header("ETag", etag);
    }
    cacheable(Response::new(200), now)
        .header("ETag", etag)
        .header("Referrer-Policy", "no-referrer")
        .body("text/html; charset=UTF-8", iframe_page(client_url))
}

/// The iframe's HTML.
#[must_use]
pub fn iframe_page(client_url: &str) -> String {
    let client_url = client_url.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n  \
         <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
         <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n  \
         <script src=\"{client_url}\"></script>\n  <script>\n    \
         document.domain = document.domain;\n    SockJS.bootstrap_iframe();\n  </script>\n\
         </head>\n<body>\n  <h2>Don't panic!</h2>\n  \
         <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>\n</body>\n</html>"
    )
}

/// The response to OPTIONS: these methods, for a year. The caller adds what an origin may do.
#[must_use]
pub fn preflight(path: &Path<'_>, headers: Option<&str>, now: Wall) -> Response {
    let response = cacheable(Response::new(204), now)
        .header("Access-Control-Max-Age", YEAR_SECONDS)
        .header("Access-Control-Allow-Methods", path.allow());
    match headers.filter(|headers| !headers.is_empty()) {
        Some(headers) => response.header("Access-Control-Allow-Headers", headers),
        None => response,
    }
}

fn cacheable(response: Response, now: Wall) -> Response {
    let expires = now.after(std::time::Duration::from_secs(31_536_000));
    response.header("Cache-Control", format!("public, max-age={YEAR_SECONDS}")).header("Expires", imf_fixdate(expires))
}

/// The head of a response to a receiver, or to a send: 204 and `ok`.
#[must_use]
pub fn receiving(transport: Transport) -> Response {
    let (status, content_type) = match transport {
        Transport::Xhr | Transport::XhrStreaming | Transport::Jsonp => (200, "application/javascript; charset=UTF-8"),
        Transport::EventSource => (200, "text/event-stream"),
        Transport::HtmlFile => (200, "text/html; charset=UTF-8"),
        // Some browsers take a response without a type for XML, even one without a body.
        Transport::XhrSend => (204, "text/plain; charset=UTF-8"),
        Transport::JsonpSend => (200, "text/plain; charset=UTF-8"),
        Transport::WebSocket => unreachable!("a WebSocket is answered by its handshake"),
    };
    let response = Response::new(status)
        .header("Content-Type", content_type)
        .header("Cache-Control", NOT_CACHED)
        .header("X-Content-Type-Options", "nosniff")
        // The URL of a page may hold a token.
        .header("Referrer-Policy", "no-referrer");
    // nginx buffers responses unless this header forbids it.
    if transport.is_stream() { response.header("X-Accel-Buffering", "no") } else { response }
}

/// A refusal in SockJS's own form: a status and a line for people.
#[must_use]
pub fn refused(status: u16, words: &'static str) -> Response {
    let response = Response::new(status);
    if words.is_empty() { response } else { response.body("text/plain; charset=UTF-8", words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        response.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_iframe_is_cached_and_its_url_stays_in_its_attribute() {
        let page = iframe("/a\"><script>&", "\"1\"", None, Wall(0));
        let body = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(body.contains("<script src=\"/a&quot;>&lt;script>&amp;\"></script>"), "{body}");
        assert!(header(&page, "Cache-Control").is_some_and(|value| value.contains("public")));
        for tags in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*"] {
            let known = iframe("/a", "\"1\"", Some(tags), Wall(0));
            assert_eq!((known.status, known.body.len(), header(&known, "Content-Type")), (304, 0, None), "{tags}");
        }
        for tags in ["\"0\"", "1", "", "\"11\""] {
            assert_eq!(iframe("/a", "\"1\"", Some(tags), Wall(0)).status, 200, "{tags}");
        }
    }

    #[test]
    fn preflights_echo_the_requested_headers() {
        let path = crate::protocol::sockjs::parse("/0/0/xhr").unwrap();
        assert_eq!(header(&preflight(&path, Some("a, b"), Wall(0)), "Access-Control-Allow-Headers"), Some("a, b"));
        assert_eq!(header(&preflight(&path, Some(""), Wall(0)), "Access-Control-Allow-Headers"), None);
    }
}
