//! How long statements take, in buckets of powers of two.

use std::cell::Cell;
use std::time::Duration;

/// Bucket `n` counts what took less than `2^n` microseconds; the last one everything longer: half a minute and up.
const BUCKETS: usize = 26;

/// Lifetime: the session's. Owner: the bridge's thread.
#[derive(Debug, Default)]
pub(super) struct Latency {
    whole: Counts,
    /// The part that [`Latency::read_new`] has returned.
    told: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    buckets: [Cell<u64>; BUCKETS],
    failures: Cell<u64>,
}

/// What one statement took over some time.
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
        let Counts { buckets, failures } = &self.whole;
        let count = &buckets[bucket.min(BUCKETS - 1)];
        count.set(count.get() + 1);
        if failed {
            failures.set(failures.get() + 1);
        }
    }

    /// Since the session was made.
    pub(super) fn read(&self, statement: &'static str) -> Latencies {
        latencies(statement, self.whole.buckets.each_ref().map(Cell::get), self.whole.failures.get())
    }

    /// Since this was last asked for.
    pub(super) fn read_new(&self, statement: &'static str) -> Latencies {
        let new = |whole: &Cell<u64>, told: &Cell<u64>| whole.get() - told.replace(whole.get());
        let buckets = std::array::from_fn(|bucket| new(&self.whole.buckets[bucket], &self.told.buckets[bucket]));
        latencies(statement, buckets, new(&self.whole.failures, &self.told.failures))
    }
}

fn latencies(statement: &'static str, buckets: [u64; BUCKETS], failures: u64) -> Latencies {
    let count: u64 = buckets.iter().sum();
    let quantile = |per_mille: u64| {
        let mut left = (count * per_mille).div_ceil(1_000);
        for (bucket, here) in buckets.iter().enumerate() {
            if left <= *here {
                return Duration::from_micros(1 << bucket);
            }
            left -= here;
        }
        Duration::ZERO
    };
    let quantiles = if count == 0 { [Duration::ZERO; 3] } else { [500, 990, 999].map(quantile) };
    Latencies { statement, count, failures, quantiles }
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

        assert_eq!(latency.read_new("some"), latency.read("some"));
        latency.record(Duration::from_micros(3), false);
        let expect = Latencies { statement: "some", count: 1, failures: 0, quantiles: [Duration::from_micros(4); 3] };
        assert_eq!((latency.read_new("some"), latency.read("some").count), (expect, 1_002));
        assert_eq!(latency.read_new("some").count, 0);
    }
}
