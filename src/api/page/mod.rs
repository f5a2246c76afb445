//! The page at `/`: a small chat for a browser, without a build step and without files from elsewhere.
//!
//! Flows in: the path of a GET. Flows out: a file that is compiled into the binary, or 304 when the browser has it. Never imports
//! anything but the types of HTTP; the page uses the same interfaces as any other client.
//!
//! Invariants:
//! - the page's policy lets a browser load its own scripts and styles only, so nothing that a user writes can
//!   run in it;
//! - a file's tag changes with its bytes, and browsers ask for it each time: a page never mixes two versions for long.

use bytes::Bytes;

use crate::api::request::header;
use crate::protocol::http::{Request, Response, names_tag};

/// A file of the page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
    /// Changes when the bytes do.
    tag: u64,
}

macro_rules! assets {
    ($($path:literal $file:literal $content_type:expr;)+) => {
        static ASSETS: &[Asset] = &[$({
            const BYTES: &[u8] = include_bytes!($file);
            Asset { path: $path, content_type: $content_type, bytes: BYTES, tag: fnv1a(BYTES) }
        },)+];
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

assets! {
    "/" "index.html" HTML;
    "/page/style.css" "style.css" CSS;
    "/page/icon.svg" "icon.svg" "image/svg+xml";
    "/page/account.js" "account.js" SCRIPT;
    "/page/chat.js" "chat.js" SCRIPT;
    "/page/conversations.js" "conversations.js" SCRIPT;
    "/page/frames.js" "frames.js" SCRIPT;
    "/page/link.js" "link.js" SCRIPT;
    "/page/sockjs.js" "sockjs.js" SCRIPT;
    "/page/stomp.js" "stomp.js" SCRIPT;
    "/page/timeline.js" "timeline.js" SCRIPT;
    "/page/view.js" "view.js" SCRIPT;
}

/// Content Security Policy, level 3. Text enters the document only as text: `require-trusted-types-for` disables all other
/// ways. `'self'` covers the WebSocket of the same host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The file at this path, which is undecoded.
#[must_use]
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Answers GET; for HEAD the codec omits the body.
#[must_use]
pub(super) fn answer(asset: &'static Asset, request: &Request) -> Response {
    let tag = format!("\"{:016x}\"", asset.tag);
    let response = if header(request, "if-none-match").is_some_and(|known| names_tag(known, &tag)) {
        Response::new(304)
    } else {
        Response::new(200).body(asset.content_type, Bytes::from_static(asset.bytes))
    };
    response
        .header("ETag", tag)
        .header("Cache-Control", "no-cache")
        .header("Content-Security-Policy", POLICY)
        .header("Cross-Origin-Opener-Policy", "same-origin")
        .header("Cross-Origin-Resource-Policy", "same-origin")
        .header("Referrer-Policy", "no-referrer")
        .header("X-Content-Type-Options", "nosniff")
}

/// FNV-1a, 64 bits: a tag must differ between versions; it resists no attacker.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::request::tests::request;
    use crate::protocol::http::Method;

    fn get(path: &str, headers: &[(&str, &str)]) -> Response {
        answer(find(path).unwrap(), &request(Method::Get, path, headers, ""))
    }

    fn value<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(find(path).unwrap().bytes).unwrap()
    }

    #[test]
    fn cached_files_are_not_sent_again() {
        let first = get("/", &[]);
        assert_eq!((first.status, value(&first, "Content-Type")), (200, HTML));
        let tag = value(&first, "ETag");
        for (tags, status) in [
            (tag.to_owned(), 304),
            (format!("W/{tag}"), 304),
            (format!("\"other\", {tag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
            (tag.trim_matches('"').to_owned(), 200),
            (String::new(), 200),
        ] {
            let response = get("/", &[("if-none-match", &tags)]);
            assert_eq!((response.status, response.body.is_empty()), (status, status == 304), "{tags}");
            assert_eq!(value(&response, "ETag"), tag);
            assert_eq!(value(&response, "Content-Security-Policy"), POLICY);
        }
    }

    #[test]
    fn each_file_has_its_own_tag() {
        let tags: BTreeSet<_> = ASSETS.iter().map(|asset| asset.tag).collect();
        assert_eq!(tags.len(), ASSETS.len());
        // From the specification's own test vectors.
        assert_eq!((fnv1a(b""), fnv1a(b"foobar")), (0xcbf2_9ce4_8422_2325, 0x8594_4171_f739_67e8));
    }

    /// All files that the document and the modules refer to are served, and none is from elsewhere.
    #[test]
    fn the_page_is_complete_and_self_contained() {
        let named = |text: &'static str, before: &str, after: char| -> Vec<&str> {
            text.split(before).skip(1).map(|rest| rest.split(after).next().unwrap()).collect()
        };
        let mut found = BTreeSet::from(["/".to_owned()]);
        for attribute in ["src=\"", "href=\""] {
            let links = named(text("/"), attribute, '"').into_iter().filter(|link| !link.starts_with('#'));
            found.extend(links.map(|link| format!("/{link}")));
        }
        for asset in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT) {
            found.extend(named(text(asset.path), " from './", '\'').into_iter().map(|module| format!("/page/{module}")));
        }
        assert_eq!(found, ASSETS.iter().map(|asset| asset.path.to_owned()).collect());
    }

    #[test]
    fn other_spellings_are_unknown() {
        for path in ["", "/index.html", "/page", "/page/", "/page/../chat.js", "/page/chat.js/", "/page/CHAT.js", "//"] {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
