//! How long statements take, in buckets of powers of two.

use std::cell::Cell;
use std::time::Duration;

/// Bucket `n` counts what took less than `2^n` microseconds; the last one everything longer: half a minute and up.
const BUCKETS: usize = 26;

/// Lifetime: the session's. Owner: the bridge's thread.
#[derive(Debug, Default)]
pub(super) struct Latency {
    counts: [Cell<u64>; BUCKETS],
    failures: Cell<u64>,
}

/// What one statement took since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    pub statement: &'static str,
    pub count: u64,
    pub failures: u64,
    /// Upper bounds of the median, of 99 and of 99.9 of a hundred, within a factor of two.
    pub quantiles: [Duration; 3],
}

impl Latency {
    pub(super) fn record(&self, took: Duration, failed: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        let count = &self.counts[bucket.min(BUCKETS - 1)];
        count.set(count.get() + 1);
        if failed {
            self.failures.set(self.failures.get() + 1);
        }
    }

    pub(super) fn read(&self, statement: &'static str) -> Latencies {
        let count: u64 = self.counts.iter().map(Cell::get).sum();
        let quantile = |per_mille: u64| {
            let mut left = (count * per_mille).div_ceil(1_000);
            for (bucket, here) in self.counts.iter().enumerate() {
                if left <= here.get() {
                    return Duration::from_micros(1 << bucket);
                }
                left -= here.get();
            }
            Duration::ZERO
        };
        let quantiles = if count == 0 { [Duration::ZERO; 3] } else { [500, 990, 999].map(quantile) };
        Latencies { statement, count, failures: self.failures.get(), quantiles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_what_was_recorded() {
        let latency = Latency::default();
        assert_eq!(latency.read("none").quantiles, [Duration::ZERO; 3]);
        for micros in 1..=1_000 {
            latency.record(Duration::from_micros(micros), micros == 1);
        }
        latency.record(Duration::from_secs(3_600), false);
        let Latencies { count, failures, quantiles, .. } = latency.read("some");
        assert_eq!((count, failures), (1_001, 1));
        assert_eq!(quantiles, [512, 1_024, 1_024].map(Duration::from_micros));
    }
}
