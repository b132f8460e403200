//! Distinct keys: which users were already counted in this attempt?
//!
//! When a key stays on one version, the coin is flipped once per key, so each key may speak only once (rule R4 of the
//! analysis room's specification). Remembering every key would grow without end; here the first few are exact, the
//! rest go into Bloom filters that are allocated only when they are needed. No lock: one atomic operation decides.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Most scopes see a handful of failing keys; these cost no allocation and no error.
const EXACT: usize = 16;

/// Words of 64 bits per level: 8, 64 and 512 KiB.
const LEVEL_WORDS: [usize; 3] = [1 << 10, 1 << 13, 1 << 16];

/// A set of 64-bit key hashes that takes at most 585 KiB, with false positives below 2 %.
#[derive(Default)]
pub struct KeySet {
    exact: [AtomicU64; EXACT],
    levels: [OnceLock<Level>; LEVEL_WORDS.len()],
    len: AtomicU64,
}

/// A Bloom filter whose four bits per key lie in one word, so that one atomic operation both asks and adds: of two
/// requests of one key at the same moment exactly one is told that the key is new.
struct Level {
    words: Box<[AtomicU64]>,
    keys: AtomicU32,
}

impl KeySet {
    /// Adds a key. True when it was not there; false when it was, or (in under 2 of 100 cases) seems to have been.
    pub fn insert(&self, hash: u64) -> bool {
        // Zero marks a free place.
        let hash = mix(hash).max(1);
        let new = self.insert_exact(hash).unwrap_or_else(|| self.insert_level(hash));
        if new {
            self.len.fetch_add(1, Relaxed);
        }
        new
    }

    /// How many distinct keys were added since the last [`clear`](Self::clear).
    pub fn len(&self) -> u64 {
        self.len.load(Relaxed)
    }

    /// Whether no key was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the last level is as full as it may be (about 340,000 keys); beyond it, too many new keys would seem
    /// to be old ones, and the version with more keys would look better than it is.
    pub fn is_full(&self) -> bool {
        self.levels.last().and_then(OnceLock::get).is_some_and(Level::is_full)
    }

    /// Forgets every key. Keys that are added at the same moment may be forgotten or kept.
    pub fn clear(&self) {
        for slot in &self.exact {
            slot.store(0, Relaxed);
        }
        for level in self.levels.iter().filter_map(OnceLock::get) {
            level.clear();
        }
        self.len.store(0, Relaxed);
    }

    /// `None` when all exact places belong to other keys. Places are taken in order and never given back, so a key
    /// that is present is met before the first free place.
    fn insert_exact(&self, hash: u64) -> Option<bool> {
        for slot in &self.exact {
            let mut found = slot.load(Relaxed);
            if found == 0 {
                match slot.compare_exchange(0, hash, Relaxed, Relaxed) {
                    Ok(_) => return Some(true),
                    Err(other) => found = other,
                }
            }
            if found == hash {
                return Some(false);
            }
        }
        None
    }

    fn insert_level(&self, hash: u64) -> bool {
        for (i, (slot, words)) in self.levels.iter().zip(LEVEL_WORDS).enumerate() {
            let level = slot.get_or_init(|| Level::new(words));
            if i + 1 == LEVEL_WORDS.len() || !level.is_full() {
                return level.insert(hash);
            }
            if level.contains(hash) {
                return false;
            }
        }
        false
    }
}

impl Level {
    fn new(words: usize) -> Self {
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), keys: AtomicU32::new(0) }
    }

    /// Four bits of a quarter of all bits: 1/14 key per bit. False positives are then about 0.8 %.
    fn is_full(&self) -> bool {
        self.keys.load(Relaxed) as usize >= self.words.len() * 64 / 14
    }

    fn insert(&self, hash: u64) -> bool {
        let (word, bits) = self.place(hash);
        let new = word.fetch_or(bits, Relaxed) & bits != bits;
        if new {
            self.keys.fetch_add(1, Relaxed);
        }
        new
    }

    fn contains(&self, hash: u64) -> bool {
        let (word, bits) = self.place(hash);
        word.load(Relaxed) & bits == bits
    }

    /// The word by the upper half of the hash, four bits in it by the lower half.
    fn place(&self, hash: u64) -> (&AtomicU64, u64) {
        let word = ((hash >> 32) * self.words.len() as u64) >> 32;
        let bits = (0..4).fold(0, |bits, i| bits | 1 << ((hash >> (6 * i)) & 63));
        (&self.words[word as usize], bits)
    }

    fn clear(&self) {
        for word in &self.words {
            word.store(0, Relaxed);
        }
        self.keys.store(0, Relaxed);
    }
}

/// The finaliser of SplitMix64. The hash may be the one that chose the bucket; on a version with a small share its
/// upper bits are then all alike, and without mixing the keys would crowd into a few words.
pub(super) fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn key(i: u64) -> u64 {
        xxh3_64(&i.to_le_bytes())
    }

    #[test]
    fn a_key_is_new_once() {
        let set = KeySet::default();
        for i in 0..EXACT as u64 {
            assert!(set.insert(key(i)), "the first keys are exact");
        }
        for i in 0..EXACT as u64 {
            assert!(!set.insert(key(i)));
        }
        assert!(set.levels[0].get().is_none(), "nothing allocated yet");
        assert_eq!(set.len(), EXACT as u64);
    }

    #[test]
    fn false_positives_stay_below_two_percent_at_every_size() {
        let set = KeySet::default();
        let mut from = 0;
        for size in [100, 1_000, 5_000, 20_000, 50_000, 150_000, 340_000] {
            let new = (from..size).filter(|i| set.insert(key(*i))).count() as f64;
            let wrong = 1.0 - new / (size - from) as f64;
            assert!(wrong < 0.02, "{wrong} up to {size}");
            assert!((0..size).step_by(97).all(|i| !set.insert(key(i))), "a key that is there was called new");
            from = size;
        }
        assert_eq!(set.len(), set.len());
        set.clear();
        assert!(set.is_empty() && !set.is_full() && set.insert(key(0)));
    }

    #[test]
    fn keys_of_a_narrow_slice_spread_as_well() {
        let set = KeySet::default();
        // All in one basis point of the hash range, as on a canary with a share of 0.01 %.
        let slice = |i: u64| (key(i) >> 14) | (7 << 50);
        let new = (0..4_000).filter(|i| set.insert(slice(*i))).count();
        assert!(new > 3_920, "{new}");
    }

    #[test]
    fn of_many_threads_one_is_told_that_a_key_is_new() {
        let set = KeySet::default();
        let told: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..4_000).filter(|i| set.insert(key(*i))).count() as u64)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(told, set.len());
        assert!((3_920..=4_000).contains(&told), "{told}");
    }

    proptest! {
        #[test]
        fn no_key_is_new_twice(hashes in proptest::collection::vec(any::<u64>(), 1..300)) {
            let set = KeySet::default();
            for hash in &hashes {
                set.insert(*hash);
            }
            prop_assert!(hashes.iter().all(|h| !set.insert(*h)));
        }
    }
}
