//! Whole nodes in one thread from one seed: their shards, the network, the store, clients and faults, with an oracle that
//! checks the promises of the server.
//!
//! Flows in: a seed and a number of steps. Flows out: a hash of all events, or the first violation, which the same seed
//! repeats. Uses only the pure rooms; never imports io, a socket, the system's clock or its randomness.
//!
//! Invariants: one source of randomness; one queue of events, in the order of their times and then of their making; nothing
//! depends on the iteration order of a hash map; the shards are driven through
//! [`Shard::handle`](crate::shard::Shard::handle) alone, as io drives them.

mod context;
mod database;
mod device;
mod facts;
mod late;
mod link;
mod network;
mod node;
mod oracle;
mod plan;
mod random;
mod rest;
mod shards;
mod sockets;
mod storage;
mod trace;
mod workload;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use oracle::Promise;

use world::World;

/// A bug that is injected into the world to see that the oracle finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedBug {
    /// The store answers before a write is durable.
    AckBeforeDurable,
    /// The store answers that a write is durable, and a crash takes the write away.
    LyingDisk,
    /// A delivery between two shards is lost now and then.
    DropDelivery,
    /// Mail between two shards overtakes other mail.
    ReorderMesh,
    /// The mail is lost by which a user's shard learns that the user was removed from a conversation.
    DropExpulsion,
    /// A message that a late write had stored is delivered once more when its sender repeats it.
    RedeliverLate,
}

impl InjectedBug {
    pub const ALL: [(&'static str, Self); 6] = [
        ("ack-before-durable", Self::AckBeforeDurable),
        ("lying-disk", Self::LyingDisk),
        ("drop-delivery", Self::DropDelivery),
        ("reorder-mesh", Self::ReorderMesh),
        ("drop-expulsion", Self::DropExpulsion),
        ("redeliver-late", Self::RedeliverLate),
    ];
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    /// Events of the part with faults; afterwards everything comes to rest.
    pub steps: u64,
    pub bug: Option<InjectedBug>,
    /// Print every event.
    pub print: bool,
}

/// The counts of a run in which no promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of all inputs and effects, with their times.
    pub hash: u64,
    pub steps: u64,
    pub sent: usize,
    pub stored: usize,
    pub acknowledged: u64,
    pub delivered: u64,
    pub sessions: usize,
    pub crashes: u32,
    /// Writes that took effect after the store had answered that their outcome is not known.
    pub late_writes: u32,
}

/// A run that went wrong.
#[derive(Clone, Debug)]
pub struct Violation {
    pub seed: u64,
    /// The promise that was broken; `None`: a panic.
    pub promise: Option<Promise>,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: ", self.seed)?;
        if let Some(promise) = self.promise {
            write!(f, "{promise:?} ({promise}): ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Violation {}

/// Runs one seed.
///
/// # Errors
/// The first violation, a panic of a shard included.
pub fn run(options: Options) -> Result<Report, Violation> {
    let violation = |promise, what| Violation { seed: options.seed, promise, what };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(&options);
        let steps = world.run(options.steps);
        (world, steps)
    }));
    let (world, steps) = outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        violation(None, format!("panic: {}", text.unwrap_or_default()))
    })?;
    if let Some(broken) = world.oracle.broken() {
        let what = format!("after {steps} steps, {:.3} s: {}", world.now.0 as f64 / 1e9, broken.what);
        return Err(violation(Some(broken.promise), what));
    }
    Ok(Report {
        hash: world.trace.hash(),
        steps,
        sent: world.oracle.sends.len(),
        stored: world.oracle.log.values().map(Vec::len).sum(),
        acknowledged: world.oracle.acknowledged,
        delivered: world.oracle.delivered,
        sessions: world.oracle.sessions.len(),
        crashes: world.crashes,
        late_writes: world.late_writes,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;

    use super::*;

    const STEPS: u64 = 4_000;

    fn check(seed: u64) -> Report {
        match run(Options { seed, steps: STEPS, bug: None, print: false }) {
            Ok(report) => report,
            Err(violation) => panic!("{violation}\nagain: cargo run --bin sim -- --seed {seed} --steps {STEPS} --trace"),
        }
    }

    #[test]
    fn known_seeds_pass() {
        let reports: Vec<Report> = (1..=8).map(check).collect();
        assert!(reports.iter().any(|report| 0 < report.late_writes), "no write took effect late");
    }

    /// The seeds differ in every run. A failure prints the command that repeats it.
    #[test]
    fn fresh_seeds_pass() {
        let first = RandomState::new().hash_one(STEPS) % 1_000_000_000;
        println!("fresh seeds from {first}");
        for seed in first..first + 8 {
            check(seed);
        }
    }

    #[test]
    fn the_same_seed_is_the_same_run() {
        assert_eq!(check(1), check(1));
        assert_ne!(check(1).hash, check(2).hash);
    }

    #[test]
    fn injected_bugs_are_found() {
        for (name, bug) in InjectedBug::ALL {
            // The removed user must have subscribed, and somebody must send after the removal: that takes longer.
            let steps = if bug == InjectedBug::DropExpulsion { 14_000 } else { STEPS };
            let find = |seed| run(Options { seed, steps, bug: Some(bug), print: false }).err();
            let found = (1..=50).find_map(find).unwrap_or_else(|| panic!("{name} was not found in 50 seeds"));
            let promises: &[Promise] = match bug {
                InjectedBug::AckBeforeDurable | InjectedBug::LyingDisk => &[Promise::Durable],
                InjectedBug::DropDelivery => &[Promise::Delivery],
                InjectedBug::ReorderMesh => &[Promise::Order, Promise::Delivery],
                InjectedBug::DropExpulsion => &[Promise::Privacy],
                InjectedBug::RedeliverLate => &[Promise::Order],
            };
            assert!(found.promise.is_some_and(|promise| promises.contains(&promise)), "{name} was found as {found}");
        }
    }
}
