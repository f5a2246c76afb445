//! The headers of a request that routes use.

use crate::model::Refusal;
use crate::protocol::http::Request;
use crate::protocol::json::read::bad_request;

/// The first header of this name, which is in lower case; `None` also when its value is not UTF-8.
#[must_use]
pub fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let (_, value) = request.headers.iter().find(|(key, _)| **key == *name)?;
    std::str::from_utf8(value).ok()
}

/// Like [`header`], but refuses a value that is not UTF-8.
pub(super) fn text_header<'a>(request: &'a Request, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let Some((_, value)) = request.headers.iter().find(|(key, _)| **key == *name) else { return Ok(None) };
    let text = std::str::from_utf8(value).map_err(|_| bad_request(format!("the header {name} is not valid UTF-8")))?;
    Ok(Some(text))
}

/// The access token of `Authorization: Bearer X` (RFC 6750 section 2.1); the word in any case, as RFC 9110
/// section 11.1 has it.
#[must_use]
pub fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = header(request, "authorization")?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::protocol::http::Method;

    /// A request for `target`, path and query in one.
    pub(in crate::api) fn request(method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Request {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Request {
            method,
            path: path.into(),
            query: query.map(Into::into),
            version_minor: 1,
            headers: headers.iter().map(|(name, value)| ((*name).into(), value.as_bytes().into())).collect(),
            body: body.to_owned().into(),
            keep_alive: true,
            upgrade: false,
        }
    }

    #[test]
    fn the_bearer_token_is_found() {
        let check = |value: &str, expect: Option<&str>| {
            assert_eq!(bearer(&request(Method::Get, "/", &[("authorization", value)], "")), expect, "{value:?}");
        };
        check("Bearer abc.def", Some("abc.def"));
        check("bearer abc", Some("abc"));
        check("BEARER   abc", Some("abc"));
        check("Bearer", None);
        check("Bearer ", None);
        check("Bearerabc", None);
        check("Basic abc", None);
        check("", None);
        assert_eq!(bearer(&request(Method::Get, "/?token=abc", &[], "")), None);
        let mut foreign = request(Method::Get, "/", &[], "");
        foreign.headers.push(("authorization".into(), (*b"Bearer \xff").into()));
        assert_eq!(bearer(&foreign), None);
    }
}
