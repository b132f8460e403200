//! The heaviest of many: a space-saving sketch (Metwally, Agrawal, El Abbadi, ICDT 2005).
//!
//! It watches a fixed number of items. A newcomer takes the place of the lightest and inherits its weight as a possible
//! error, so an estimate is never too low and never too high by more than all weight divided by the capacity.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Weights of the heaviest items, approximately. Weights are real numbers, so that the past can fade.
pub struct SpaceSaving<K> {
    capacity: usize,
    items: HashMap<K, Weight>,
    /// By weight; the bits of numbers that are not negative sort as the numbers do.
    order: BTreeSet<(u64, K)>,
}

/// What the sketch knows about one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// Never below the true weight.
    pub estimate: f64,
    /// The true weight is at least `estimate - error`.
    pub error: f64,
}

impl Weight {
    /// What the item weighs at the very least.
    pub fn certain(self) -> f64 {
        self.estimate - self.error
    }
}

impl<K: Clone + Eq + Hash + Ord> SpaceSaving<K> {
    /// `capacity`: items that are watched at a time, at least 1.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), items: HashMap::new(), order: BTreeSet::new() }
    }

    /// Adds weight (0 or more, finite) to an item.
    pub fn add(&mut self, key: &K, weight: f64) {
        if weight <= 0.0 || !weight.is_finite() {
            return;
        }
        let before = self.items.get(key).copied().unwrap_or_else(|| self.make_room());
        if self.items.contains_key(key) {
            self.order.remove(&(before.estimate.to_bits(), key.clone()));
        }
        let now = Weight { estimate: before.estimate + weight, ..before };
        self.order.insert((now.estimate.to_bits(), key.clone()));
        self.items.insert(key.clone(), now);
    }

    /// The weight of an item that is watched.
    pub fn get(&self, key: &K) -> Option<Weight> {
        self.items.get(key).copied()
    }

    /// The items that are watched, heaviest first.
    pub fn heaviest(&self) -> impl Iterator<Item = (&K, Weight)> {
        self.order.iter().rev().filter_map(|(_, key)| Some((key, self.get(key)?)))
    }

    /// Lets every weight fade to this part of it, 0 to 1.
    pub fn fade(&mut self, factor: f64) {
        for weight in self.items.values_mut() {
            *weight = Weight { estimate: weight.estimate * factor, error: weight.error * factor };
        }
        self.order = self.items.iter().map(|(key, weight)| (weight.estimate.to_bits(), key.clone())).collect();
    }

    /// What a newcomer begins with: nothing while there is room, else the weight of the lightest, which leaves.
    fn make_room(&mut self) -> Weight {
        if self.items.len() < self.capacity {
            return Weight { estimate: 0.0, error: 0.0 };
        }
        let lightest = self.order.pop_first().and_then(|(_, key)| self.items.remove(&key));
        let estimate = lightest.map_or(0.0, |w| w.estimate);
        Weight { estimate, error: estimate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Never too low, never too high by more than total / capacity, and everything heavier than that is there.
        #[test]
        fn the_error_is_bounded(adds in proptest::collection::vec((0u8..40, 1u32..100), 0..400), capacity in 1usize..20) {
            let mut sketch = SpaceSaving::new(capacity);
            let mut truth = HashMap::<u8, f64>::new();
            for (key, weight) in adds {
                sketch.add(&key, f64::from(weight));
                *truth.entry(key).or_default() += f64::from(weight);
            }
            let bound = truth.values().sum::<f64>() / capacity as f64;
            for (key, weight) in &truth {
                match sketch.get(key) {
                    Some(seen) => {
                        prop_assert!(seen.estimate >= *weight && seen.certain() <= *weight);
                        prop_assert!(seen.estimate - weight <= bound && seen.error <= bound);
                    }
                    None => prop_assert!(*weight <= bound),
                }
            }
            prop_assert!(sketch.items.len() <= capacity && sketch.items.len() == sketch.order.len());
            let weights: Vec<_> = sketch.heaviest().map(|(_, w)| w.estimate).collect();
            prop_assert!(weights.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn the_past_fades() {
        let mut sketch = SpaceSaving::new(4);
        sketch.add(&"a", 100.0);
        sketch.fade(0.5);
        sketch.add(&"b", 60.0);
        assert_eq!(sketch.heaviest().map(|(k, _)| *k).collect::<Vec<_>>(), ["b", "a"]);
    }
}
