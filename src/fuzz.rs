//! Seeds for the fuzzers among the tests. `TIDINGS_FUZZ_ROUNDS` says how many, `TIDINGS_FUZZ_SEED` which is the first;
//! without them a test takes its own number from seed 0, the same in every run.

/// Seeds one after the other. When the test panics the seed is printed that it was at.
pub(crate) fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let first = variable("TIDINGS_FUZZ_SEED").unwrap_or(0);
    let rounds = variable("TIDINGS_FUZZ_ROUNDS").unwrap_or(default);
    Seeds { next: first, end: first.saturating_add(rounds) }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value:?}")))
}

struct Seeds {
    next: u64,
    end: u64,
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let seed = self.next;
        (seed < self.end).then(|| {
            self.next += 1;
            seed
        })
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        if std::thread::panicking() && 0 < self.next {
            let thread = std::thread::current();
            // The harness runs each test on a thread of its name.
            let test = thread.name().unwrap_or_default();
            eprintln!("again: TIDINGS_FUZZ_SEED={} TIDINGS_FUZZ_ROUNDS=1 cargo test {test}", self.next - 1);
        }
    }
}
