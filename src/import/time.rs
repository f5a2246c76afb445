//! Times as other systems write them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::Wall;

/// Reads a time of RFC 3339 section 5.6, with any offset, any number of digits, and any separator between date and time; digits
/// finer than 100 ns are cut off. A leap second is the last moment of the second before it. `None` for anything else, and
/// for times before 1970.
pub(super) fn rfc_3339(text: &str) -> Option<Wall> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    u64::try_from(nanos / 100).ok().filter(|_| nanos >= 0).map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc_3339() {
        let check = |text: &str, expect: &str| {
            assert_eq!(rfc_3339(text).map(|at| at.to_string()).as_deref(), Some(expect), "{text}");
        };
        check("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z");
        check("2024-02-29t23:59:59.5z", "2024-02-29T23:59:59.500000Z");
        check("2000-02-29 12:00:00.123456789+00:00", "2000-02-29T12:00:00.123456Z");
        // RFC 3339 section 5.8.
        check("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57.000000Z");
        check("1990-12-31T23:59:60Z", "1990-12-31T23:59:59.999999Z");
        check("1970-01-01T01:30:00+01:30", "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc_3339("1970-01-01T00:00:00.0000001Z"), Some(Wall(1)));
        for days in 0..60_000 {
            let at = Wall::from_unix_seconds(days * 86_400 + 86_399);
            assert_eq!(rfc_3339(&at.to_string()), Some(at));
        }
    }

    #[test]
    fn other_texts_are_not_read() {
        for text in [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00Zz",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+00:60",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00Z",
            "2024/01/01T00:00:00Z",
            "2024-01-01T00:00:00é",
            "２024-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc_3339(text), None, "{text}");
        }
    }
}
