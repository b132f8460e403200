//! Slows down whoever guesses tokens: a few wrong ones per second and address, then a pause.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Wrong tokens that an address may send within a second.
const MAX_WRONG: u32 = 5;
/// How long a count lasts, milliseconds.
const WINDOW_MS: u64 = 1_000;
/// Addresses that are remembered; the others share one count.
const MAX_ADDRESSES: usize = 4_096;

/// Wrong tokens by address.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    counts: Mutex<HashMap<IpAddr, (u64, u32)>>,
}

impl Throttle {
    /// Whether the address has to wait. Asked before the token is looked at: otherwise a guess would be answered all
    /// the same, only in other words.
    pub(super) fn must_wait(&self, address: IpAddr, now_ms: u64) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |key| counts.get(&key).is_some_and(|(since, n)| now_ms < since + WINDOW_MS && *n >= MAX_WRONG);
        let key = network(address);
        over(key) || !counts.contains_key(&key) && counts.len() >= MAX_ADDRESSES && over(ELSE)
    }

    /// The address sent a wrong token.
    pub(super) fn wrong(&self, address: IpAddr, now_ms: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = network(address);
        if !counts.contains_key(&key) && counts.len() >= MAX_ADDRESSES {
            counts.retain(|_, (since, _)| now_ms < *since + WINDOW_MS);
            if counts.len() >= MAX_ADDRESSES {
                key = ELSE;
            }
        }
        let (since, n) = counts.entry(key).or_insert((now_ms, 0));
        if now_ms >= *since + WINDOW_MS {
            (*since, *n) = (now_ms, 0);
        }
        *n += 1;
    }
}

/// Where the addresses beyond the limit are counted together.
const ELSE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Whoever has an IPv6 address has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 1))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_a_second_and_no_more() {
        let throttle = Throttle::default();
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..5 {
            assert!(!throttle.must_wait(a, 100));
            throttle.wrong(a, 100);
        }
        assert!(throttle.must_wait(a, 1_099) && !throttle.must_wait(b, 100) && !throttle.must_wait(a, 1_100));
        let (c, d): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        (0..5).for_each(|_| throttle.wrong(c, 0));
        assert!(throttle.must_wait(d, 0), "one network");
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::default();
        for i in 0..10_000u32 {
            throttle.wrong(IpAddr::from(i.to_be_bytes()), 0);
        }
        assert!(throttle.counts.lock().unwrap().len() <= MAX_ADDRESSES + 1);
        assert!(throttle.must_wait("200.0.0.1".parse().unwrap(), 0), "strangers share one count when it is full");
        assert!(!throttle.must_wait("200.0.0.1".parse().unwrap(), 1_000));
    }
}
