//! The keys that last spoke against a version, for other proxies: a user whose requests come to several proxies must not
//! speak once at each of them.
//!
//! A ring that the requests write and the tick reads. When more keys speak between two looks than it holds, the oldest are
//! lost, whichever version they spoke against, so that what is left is as fair as the whole.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::epoch::TallySignal;

/// Keys that the ring holds; at ten looks a second, 5,000 failing users a second.
const PLACES: usize = 512;
/// Bits of a key that are told. Two of a million users that look the same cost one word of theirs.
const KEY_BITS: u32 = 40;
const SIGNAL_BITS: u32 = 2;
const ARM_BITS: u32 = 6;
const TURN_BITS: u32 = 16;

/// The ring of one attempt, for all its versions.
#[derive(Default)]
pub(super) struct Spoken {
    /// Made when a key first speaks; most scopes have none.
    places: OnceLock<Box<[AtomicU64]>>,
    next: AtomicU64,
}

/// A key that spoke against a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub arm: u8,
    pub signal: u8,
    pub key: u64,
}

impl Spoken {
    /// Notes that a key spoke. `arm` is below 64.
    pub fn add(&self, arm: u8, signal: TallySignal, key: u64) {
        let places = self.places.get_or_init(|| (0..PLACES).map(|_| AtomicU64::new(0)).collect());
        let turn = self.next.fetch_add(1, Relaxed);
        places[turn as usize % PLACES].store(pack(turn, Word { arm, signal: signal.index() as u8, key }), Relaxed);
    }

    /// How many words there were.
    pub fn turns(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// What was said from this turn on, and the turn to ask for next.
    pub fn since(&self, from: u64) -> (Vec<Word>, u64) {
        let Some(places) = self.places.get() else { return (Vec::new(), from) };
        let next = self.next.load(Relaxed);
        let mut words = Vec::new();
        for turn in from.max(next.saturating_sub(PLACES as u64))..next {
            let entry = places[turn as usize % PLACES].load(Relaxed);
            match unpack(entry, turn) {
                Some(word) => words.push(word),
                // It is being written, and there at the next look; or overwritten, and lost.
                None if turn + PLACES as u64 / 2 > next => return (words, turn),
                None => {}
            }
        }
        (words, next)
    }
}

/// Turns from 1 on, so that an entry is never that of an empty place.
fn mark(turn: u64) -> u64 {
    (turn + 1) & ((1 << TURN_BITS) - 1)
}

fn pack(turn: u64, word: Word) -> u64 {
    let key = word.key & ((1 << KEY_BITS) - 1);
    let arm = u64::from(word.arm) & ((1 << ARM_BITS) - 1);
    key | arm << KEY_BITS | u64::from(word.signal) << (KEY_BITS + ARM_BITS) | mark(turn) << (64 - TURN_BITS)
}

fn unpack(entry: u64, turn: u64) -> Option<Word> {
    let bits = |from: u32, count: u32| (entry >> from) & ((1 << count) - 1);
    (entry != 0 && bits(64 - TURN_BITS, TURN_BITS) == mark(turn)).then(|| Word {
        arm: bits(KEY_BITS, ARM_BITS) as u8,
        signal: bits(KEY_BITS + ARM_BITS, SIGNAL_BITS) as u8,
        key: bits(0, KEY_BITS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_heard_once_and_the_oldest_are_lost_when_there_are_too_many() {
        let spoken = Spoken::default();
        assert_eq!(spoken.since(0), (vec![], 0));
        spoken.add(1, TallySignal::Error, 7 << 50 | 9);
        spoken.add(0, TallySignal::ClientError, 8);
        let words = vec![Word { arm: 1, signal: 0, key: 9 }, Word { arm: 0, signal: 3, key: 8 }];
        assert_eq!(spoken.since(0), (words, 2));
        assert_eq!(spoken.since(2), (vec![], 2));
        (0..1_000).for_each(|key| spoken.add(0, TallySignal::Slow, key));
        let (words, next) = spoken.since(2);
        assert_eq!((words.len(), words[0].key, next), (PLACES, 1_000 - PLACES as u64, 1_002));
    }

    #[test]
    fn nothing_is_lost_while_many_speak_and_one_listens() {
        let spoken = Spoken::default();
        std::thread::scope(|threads| {
            let speaking: Vec<_> = (0..4u64)
                .map(|t| {
                    let spoken = &spoken;
                    threads.spawn(move || {
                        for n in 0..10_000 {
                            spoken.add(t as u8, TallySignal::Error, t * 10_000 + n);
                            if n % 20 == 0 {
                                std::thread::sleep(std::time::Duration::from_micros(200));
                            }
                        }
                    })
                })
                .collect();
            let (mut heard, mut from) = (Vec::new(), 0);
            loop {
                let done = speaking.iter().all(|thread| thread.is_finished());
                let (words, next) = spoken.since(from);
                heard.extend(words.into_iter().map(|word| word.key));
                from = next;
                if done && from == 40_000 {
                    break;
                }
            }
            heard.sort_unstable();
            heard.dedup();
            // A thread that is held up between its turn and its word for long may lose it.
            assert!(heard.len() > 39_900, "{}", heard.len());
        });
    }
}
