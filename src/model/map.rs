//! Hash maps whose seed is drawn at start, or given by the simulator: clients choose keys, and no iteration
//! order may differ between two runs of one seed. Even so, iteration order must never reach an effect.

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

#[expect(clippy::disallowed_types, reason = "this is the seeded alias that the rule points to")]
pub type Map<K, V> = std::collections::HashMap<K, V, SeedableRandomState>;
#[expect(clippy::disallowed_types, reason = "this is the seeded alias that the rule points to")]
pub type Set<K> = std::collections::HashSet<K, SeedableRandomState>;

/// An empty map; `seed` must not be known to clients.
#[must_use]
pub fn map<K, V>(seed: u64) -> Map<K, V> {
    Map::with_hasher(SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()))
}

/// An empty set; `seed` must not be known to clients.
#[must_use]
pub fn set<K>(seed: u64) -> Set<K> {
    Set::with_hasher(SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()))
}
