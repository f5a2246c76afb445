//! Two clocks that are never mixed: monotonic time for deadlines, wall time for ids and tokens.

use std::fmt;
use std::time::Duration;

/// Monotonic time in nanoseconds since an arbitrary start. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

/// Wall time in ticks of 100 ns since 1970-01-01T00:00:00Z. May jump either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub u64);

/// Both clocks, read once for each turn of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

impl Mono {
    /// This time plus `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time that passed from `earlier` to this; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Wall {
    pub const TICKS_PER_SECOND: u64 = 10_000_000;

    #[must_use]
    pub fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(Self::TICKS_PER_SECOND))
    }

    #[must_use]
    pub fn unix_seconds(self) -> u64 {
        self.0 / Self::TICKS_PER_SECOND
    }

    /// Time from this to `later`; zero when `later` is earlier.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0).saturating_mul(100))
    }

    /// This time plus `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos() / 100).unwrap_or(u64::MAX)))
    }

    /// Reads a time of RFC 3339 section 5.6, of any offset and any number of digits; what is finer than 100 ns is cut off.
    /// A leap second is the first of the next minute. `None` for anything else, and for times before 1970.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |range: std::ops::Range<usize>| digits(bytes.get(range)?);
        let is_laid_out = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")]
            .iter()
            .all(|(at, any)| bytes.get(*at).is_some_and(|byte| any.as_bytes().contains(byte)));
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let is_in_range = (1..=12).contains(&month)
            && (1..=days_of_month(year, month)).contains(&day)
            && hour <= 23
            && minute <= 59
            && second <= 60;
        if !is_laid_out || !is_in_range {
            return None;
        }
        let rest = bytes.get(19..)?;
        let fraction_end = match rest.strip_prefix(b".") {
            Some(fraction) => 1 + fraction.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            None => 0,
        };
        let (fraction, offset) = rest.split_at_checked(fraction_end)?;
        let ticks = if fraction.is_empty() { 0 } else { fraction_ticks(fraction.get(1..)?)? };
        let of_day = hour * 3_600 + minute * 60 + second;
        let seconds = (days_from_civil(year, month, day)? * 86_400 + of_day).checked_add_signed(-offset_seconds(offset)?)?;
        Some(Self(seconds * Self::TICKS_PER_SECOND + ticks))
    }

    /// The 27 characters of the time in RFC 3339, as `Display` writes them. Every message carries one, so no formatter
    /// is in the way. RFC 3339 ends with the year 9999, and so does this.
    #[must_use]
    pub fn to_text(self) -> [u8; 27] {
        let ticks = self.0.min(LAST_OF_9999);
        let seconds = ticks / Self::TICKS_PER_SECOND;
        let micros = ticks % Self::TICKS_PER_SECOND / 10;
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let of_day = seconds % 86_400;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        put_digits(&mut text[0..4], year);
        put_digits(&mut text[5..7], month);
        put_digits(&mut text[8..10], day);
        put_digits(&mut text[11..13], of_day / 3_600);
        put_digits(&mut text[14..16], of_day / 60 % 60);
        put_digits(&mut text[17..19], of_day % 60);
        put_digits(&mut text[20..26], micros);
        text
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0')))
}

/// Ticks of 100 ns of the digits behind the point, of which there is at least one.
fn fraction_ticks(digits_behind: &[u8]) -> Option<u64> {
    let kept = digits_behind.get(..7).unwrap_or(digits_behind);
    let scale = (kept.len()..7).fold(1, |scale, _| scale * 10);
    if kept.is_empty() { None } else { Some(digits(kept)? * scale) }
}

/// `Z`, or how far local time is ahead.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match text {
        [b'Z' | b'z'] => return Some(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', ten, one] => (sign, hours, [*ten, *one]),
        _ => return None,
    };
    let (hours, minutes) = (digits(hours).filter(|_| hours.len() == 2)?, digits(&minutes)?);
    let seconds = i64::try_from(hours * 3_600 + minutes * 60).ok()?;
    if hours > 23 || minutes > 59 { None } else { Some(if *sign == b'-' { -seconds } else { seconds }) }
}

/// 9999-12-31T23:59:59.9999999Z.
const LAST_OF_9999: u64 = 253_402_300_800 * Wall::TICKS_PER_SECOND - 1;

/// The last `digits.len()` decimal digits of `value`.
fn put_digits(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// RFC 3339 in UTC with microseconds: `2026-01-31T12:00:00.123456Z`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).map_err(|_| fmt::Error)?)
    }
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
/// The calendar's year is counted from March, so that the leap day is its last.
pub(crate) fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar; `None` before that.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let month_from_march = if month <= 2 { month + 9 } else { month - 3 };
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + of_year).checked_sub(719_468)
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, expect: &str) {
        assert_eq!(Wall::from_unix_seconds(seconds).to_string(), expect);
    }

    #[test]
    fn prints_rfc_3339() {
        check(0, "1970-01-01T00:00:00.000000Z");
        check(951_782_400, "2000-02-29T00:00:00.000000Z");
        check(1_709_164_800, "2024-02-29T00:00:00.000000Z");
        check(1_709_251_199, "2024-02-29T23:59:59.000000Z");
        check(4_102_444_800, "2100-01-01T00:00:00.000000Z");
        assert_eq!(Wall(12_345_670).to_string(), "1970-01-01T00:00:01.234567Z");
        check(253_402_300_799, "9999-12-31T23:59:59.000000Z");
        assert_eq!(Wall(u64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn reads_rfc_3339() {
        let check = |text: &str, expect: &str| {
            assert_eq!(Wall::parse(text).map(|at| at.to_string()).as_deref(), Some(expect), "{text}");
        };
        check("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z");
        check("2024-02-29t23:59:59.5z", "2024-02-29T23:59:59.500000Z");
        check("2000-02-29 12:00:00.123456789+00:00", "2000-02-29T12:00:00.123456Z");
        // RFC 3339 section 5.8.
        check("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57.000000Z");
        check("1990-12-31T23:59:60Z", "1991-01-01T00:00:00.000000Z");
        check("1970-01-01T01:30:00+01:30", "1970-01-01T00:00:00.000000Z");
        assert_eq!(Wall::parse("1970-01-01T00:00:00.0000001Z"), Some(Wall(1)));
        for days in 0..60_000 {
            let at = Wall::from_unix_seconds(days * 86_400 + 86_399);
            assert_eq!(Wall::parse(&at.to_string()), Some(at));
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
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
            assert_eq!(Wall::parse(text), None, "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Mono(u64::MAX).after(Duration::from_secs(1)), Mono(u64::MAX));
        assert_eq!(Mono(1).since(Mono(2)), Duration::ZERO);
    }
}
