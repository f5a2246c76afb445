//! The only reader of the clocks. A turn of a shard reads them once and uses that reading throughout.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::{Mono, Now, Wall};

/// Origin of monotonic time: the first reading in this process, so that all threads share one scale.
static START: OnceLock<Instant> = OnceLock::new();

/// Reads both clocks. Takes about 50 ns, without a system call.
#[must_use]
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// Nanoseconds since the first reading in this process.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the rule points to")]
pub fn mono() -> Mono {
    let now = Instant::now();
    let start = *START.get_or_init(|| now);
    Mono(u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX))
}

/// Ticks of 100 ns since 1970; a clock set before that reads as 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the rule points to")]
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_nanos() / 100).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back() {
        let readings: Vec<Mono> = (0..1_000).map(|_| mono()).collect();
        assert!(readings.is_sorted());
    }

    #[test]
    fn wall_time_is_in_this_century() {
        assert!(wall() > Wall::from_unix_seconds(1_700_000_000));
        assert!(wall() < Wall::from_unix_seconds(4_102_444_800));
    }
}
