//! A filter of stored client message ids: most ids are new, and the engine need not be asked about those.

/// A Bloom filter of the keys of [`Table::ClientIds`](super::keys::Table), renewed by each round of the purge, so that
/// what has expired leaves it. Owned by the writer. It has two halves: the one that is asked, and the one that the round
/// under way fills. Until the first round is over, every key may be there.
pub(super) struct Seen {
    /// Holds every key that is stored; `None`: not known yet.
    current: Option<Box<[u64]>>,
    /// Holds every key that the round has passed, and every one stored since it began.
    next: Box<[u64]>,
}

impl Seen {
    /// `bytes` of memory for each half. `is_empty`: the store has no keys.
    pub(super) fn new(bytes: usize, is_empty: bool) -> Self {
        let half = || vec![0; (bytes / 8).max(1)].into_boxed_slice();
        Self { current: is_empty.then(half), next: half() }
    }

    /// False: the key is certainly not stored.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        let Some(current) = &self.current else { return true };
        let (word, mask) = place(key, current.len());
        current[word] & mask == mask
    }

    /// Notes a key that is stored.
    pub(super) fn put(&mut self, key: &[u8]) {
        let (word, mask) = place(key, self.next.len());
        self.next[word] |= mask;
        if let Some(current) = &mut self.current {
            current[word] |= mask;
        }
    }

    /// The round is over: all keys have passed.
    pub(super) fn end_round(&mut self) {
        let cleared = match self.current.take() {
            Some(mut words) => {
                words.fill(0);
                words
            }
            None => vec![0; self.next.len()].into_boxed_slice(),
        };
        self.current = Some(std::mem::replace(&mut self.next, cleared));
    }
}

/// The word and the four bits in it that stand for a key, from its last twelve bytes: they are a hash already. All in
/// one word, so that a look costs one miss of the cache; a full filter only makes the engine be asked more often.
fn place(key: &[u8], words: usize) -> (usize, u64) {
    let hash = key.last_chunk::<12>().copied().unwrap_or_default();
    let number = |range: std::ops::Range<usize>| hash[range].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let word = (u128::from(number(0..8)) * words as u128) >> 64;
    let bits = number(8..12);
    (word as usize, (0..4).fold(0, |mask, bit| mask | 1 << (bits >> (6 * bit) & 63)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> [u8; 20] {
        let mut key = [0; 20];
        key[8..16].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        key[16..].copy_from_slice(&(number as u32).wrapping_mul(0x85EB_CA6B).to_be_bytes());
        key
    }

    #[test]
    fn knows_every_key_and_few_others() {
        let mut seen = Seen::new(1 << 16, true);
        (0..40_000).for_each(|number| seen.put(&key(number)));
        assert!((0..40_000).all(|number| seen.may_have(&key(number))));
        let wrong = (40_000..80_000).filter(|number| seen.may_have(&key(*number))).count();
        assert!(wrong < 4_000, "{wrong} of 40,000");
    }

    #[test]
    fn a_round_forgets_what_it_did_not_pass() {
        let mut seen = Seen::new(1 << 16, false);
        assert!(seen.may_have(&key(1)), "nothing is known before the first round");
        seen.put(&key(2));
        seen.end_round();
        assert!(!seen.may_have(&key(1)) && seen.may_have(&key(2)));
        seen.put(&key(3));
        seen.end_round();
        assert!(!seen.may_have(&key(2)) && seen.may_have(&key(3)));
        seen.end_round();
        assert!(!seen.may_have(&key(3)));
    }
}
