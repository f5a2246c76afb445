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

    /// This time plus `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos() / 100).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339 in UTC with microseconds: `2026-01-31T12:00:00.123456Z`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.unix_seconds();
        let micros = self.0 % Self::TICKS_PER_SECOND / 10;
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let of_day = seconds % 86_400;
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
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
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Mono(u64::MAX).after(Duration::from_secs(1)), Mono(u64::MAX));
        assert_eq!(Mono(1).since(Mono(2)), Duration::ZERO);
    }
}
