//! A token bucket: a burst at once, and a number per minute in the long run.

use std::time::Duration;

use crate::model::Mono;

/// One rate limit, kept as the time at which it will be full again, so that it needs no refilling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    full_at: Mono,
}

/// The refill and the capacity of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_minute: u32,
    burst: u32,
}

impl Rate {
    #[must_use]
    pub fn new(per_minute: u32, burst: u32) -> Self {
        Self { per_minute: per_minute.max(1), burst: burst.max(1) }
    }

    /// Time in which one unit refills.
    fn interval_ns(self) -> u64 {
        60_000_000_000 / u64::from(self.per_minute)
    }
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self { full_at: now }
    }

    /// Takes one unit.
    ///
    /// # Errors
    /// The time after which the next try succeeds, when the bucket is empty; it then takes nothing.
    pub fn take(&mut self, now: Mono, rate: Rate) -> Result<(), Duration> {
        let full_at = self.full_at.max(now).after(Duration::from_nanos(rate.interval_ns()));
        let capacity = Duration::from_nanos(rate.interval_ns().saturating_mul(u64::from(rate.burst)));
        let debt = full_at.since(now);
        match debt.checked_sub(capacity) {
            Some(excess) if !excess.is_zero() => Err(excess),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }

    /// When the bucket can be dropped: a new one would be equal.
    #[must_use]
    pub fn full_at(&self) -> Mono {
        self.full_at
    }
}

/// Whole seconds for `Retry-After`, rounded up, at least one.
#[must_use]
pub fn retry_after_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_the_steady_rate() {
        let rate = Rate::new(60, 3);
        let mut bucket = Bucket::new(Mono(0));
        for _ in 0..3 {
            assert_eq!(bucket.take(Mono(0), rate), Ok(()));
        }
        assert_eq!(bucket.take(Mono(0), rate), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(Mono(SECOND / 2), rate), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(Mono(SECOND), rate), Ok(()));
        assert!(bucket.take(Mono(SECOND), rate).is_err());
    }

    #[test]
    fn a_bucket_never_exceeds_the_burst() {
        let rate = Rate::new(60, 2);
        let mut bucket = Bucket::new(Mono(0));
        assert_eq!(bucket.take(Mono(3_600 * SECOND), rate), Ok(()));
        assert_eq!(bucket.take(Mono(3_600 * SECOND), rate), Ok(()));
        assert!(bucket.take(Mono(3_600 * SECOND), rate).is_err());
    }

    #[test]
    fn waits_are_reported_in_whole_seconds() {
        assert_eq!(retry_after_seconds(Duration::from_millis(1)), 1);
        assert_eq!(retry_after_seconds(Duration::from_millis(1_001)), 2);
    }
}
