//! A bounded map in two generations: entries that go unused while the younger one fills up are dropped.

use std::collections::BTreeMap;

/// Lifetime and owner: any holder of facts that can be looked up again.
#[derive(Debug)]
pub struct Generations<K, V> {
    young: BTreeMap<K, Entry<V>>,
    old: BTreeMap<K, Entry<V>>,
    /// Of the young entries.
    weight: usize,
    /// Of one generation; a single entry may be heavier.
    weight_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
}

impl<K: Ord, V> Generations<K, V> {
    /// `weight_max`: of all entries together.
    #[must_use]
    pub fn new(weight_max: usize) -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new(), weight: 0, weight_max: (weight_max / 2).max(1) }
    }

    /// The entry of `key`, if known. Counts as a use.
    pub fn find(&mut self, key: K) -> Option<&mut V>
    where
        K: Copy,
    {
        if !self.young.contains_key(&key) {
            let Entry { value, weight } = self.old.remove(&key)?;
            self.put(key, value, weight);
        }
        self.young.get_mut(&key).map(|entry| &mut entry.value)
    }

    pub fn put(&mut self, key: K, value: V, weight: usize) {
        self.take(&key);
        if self.weight + weight > self.weight_max {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        self.young.insert(key, Entry { value, weight });
    }

    pub fn take(&mut self, key: &K) -> Option<V> {
        if let Some(entry) = self.young.remove(key) {
            self.weight -= entry.weight;
            return Some(entry.value);
        }
        self.old.remove(key).map(|entry| entry.value)
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_used_entries() {
        let mut known = Generations::new(100);
        for key in 1..=1_000 {
            known.put(key, key, 1);
            assert_eq!(known.find(1), Some(&mut 1));
            assert!(known.count() <= 100);
        }
        assert_eq!(known.find(500), None);
        known.put(1, 2, 1);
        assert_eq!((known.take(&1), known.take(&1)), (Some(2), None));
    }

    #[test]
    fn a_heavy_entry_replaces_many() {
        let mut known = Generations::new(20);
        (1..=10).for_each(|key| known.put(key, (), 1));
        known.put(11, (), 1_000);
        assert!(known.find(11).is_some() && known.count() == 11);
        known.put(12, (), 1);
        assert!(known.count() == 2 && known.take(&11).is_some());
    }
}
