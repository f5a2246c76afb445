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

    /// Time passed from `earlier` to this; zero when `earlier` is later.
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

    /// The 27 characters of the time in RFC 3339, as `Display` writes them. Every message carries one, so this avoids the
    /// formatter. RFC 3339 ends with the year 9999, and so does this.
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
    fn arithmetic_saturates() {
        assert_eq!(Mono(u64::MAX).after(Duration::from_secs(1)), Mono(u64::MAX));
        assert_eq!(Mono(1).since(Mono(2)), Duration::ZERO);
    }
}
