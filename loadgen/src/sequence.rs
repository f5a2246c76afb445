//! Tracks one sender's sequence 1, 2, 3, ...: detects lost, doubled and reordered numbers, with one comparison as long as all
//! arrive in order.

use std::collections::BTreeSet;

/// How one number arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    InOrder,
    /// Earlier numbers have not arrived yet.
    Ahead,
    /// It arrived after later numbers.
    Late,
    Duplicate,
}

/// The numbers that arrived. Memory grows with gaps only.
#[derive(Clone, Debug)]
pub struct Track {
    /// One more than the greatest that arrived; zero before the first if the track begins anywhere.
    next: u64,
    missing: BTreeSet<u64>,
}

impl Track {
    /// Expects every number from 1.
    pub fn from_one() -> Self {
        Self { next: 1, missing: BTreeSet::new() }
    }

    /// Begins with the first number that arrives, as one connection does.
    pub fn from_anywhere() -> Self {
        Self { next: 0, missing: BTreeSet::new() }
    }

    pub fn take(&mut self, number: u64) -> Arrival {
        if number == self.next || self.next == 0 {
            self.next = number + 1;
            return Arrival::InOrder;
        }
        if number > self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            return Arrival::Ahead;
        }
        if self.missing.remove(&number) { Arrival::Late } else { Arrival::Duplicate }
    }

    pub fn has(&self, number: u64) -> bool {
        number < self.next && !self.missing.contains(&number)
    }

    /// One more than the greatest that arrived.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Numbers skipped so far.
    pub fn missing(&self) -> impl Iterator<Item = u64> + '_ {
        self.missing.iter().copied()
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// False when the set already has it.
    pub fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    pub fn has(&self, number: u64) -> bool {
        self.words.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let numbers = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at as u64 * 64 + bit)
        };
        self.words.iter().enumerate().flat_map(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut track: Track, arrivals: &[(u64, Arrival)], missing: &[u64]) {
        for (number, expect) in arrivals {
            assert_eq!(track.take(*number), *expect, "{number}");
            assert!(track.has(*number));
        }
        assert_eq!(track.missing().collect::<Vec<_>>(), missing);
    }

    #[test]
    fn arrivals_are_distinguished() {
        use Arrival::{Ahead, Duplicate, InOrder, Late};
        check(Track::from_one(), &[(1, InOrder), (2, InOrder), (3, InOrder)], &[]);
        check(Track::from_one(), &[(2, Ahead), (3, InOrder)], &[1]);
        check(Track::from_one(), &[(1, InOrder), (4, Ahead), (3, Late), (3, Duplicate), (5, InOrder)], &[2]);
        check(Track::from_one(), &[(1, InOrder), (1, Duplicate)], &[]);
        check(Track::from_anywhere(), &[(9, InOrder), (10, InOrder), (12, Ahead), (8, Duplicate)], &[11]);
    }

    #[test]
    fn bits_remember() {
        let mut bits = Bits::default();
        for number in [0, 63, 64, 1_000] {
            assert!(bits.insert(number));
            assert!(!bits.insert(number));
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 1_000]);
        assert!(!bits.has(1) && !bits.has(100_000));
    }
}
