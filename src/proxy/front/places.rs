//! How many connections there may be, in all and for each address.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Tables that addresses are spread over, so that threads that accept and close seldom meet.
const SHARDS: usize = 16;

/// Connections that are open.
pub(in crate::proxy) struct Places {
    open: Arc<AtomicI64>,
    hasher: std::hash::RandomState,
    by_address: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

/// A connection's place, given back when dropped.
pub(in crate::proxy) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Full {
    /// For nobody.
    All,
    /// For this address.
    Address,
}

impl Full {
    /// One word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "too_many_connections",
            Self::Address => "too_many_connections_of_address",
        }
    }
}

impl Places {
    /// `open` is the gauge of open connections.
    pub fn new(open: Arc<AtomicI64>) -> Arc<Self> {
        let by_address = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { open, hasher: std::hash::RandomState::new(), by_address })
    }

    /// A place among `most`.
    pub fn take(self: &Arc<Self>, most: usize) -> Result<Place, Full> {
        let place = Place { places: self.clone(), address: None };
        // The place exists before the look, so that whatever happens it is counted down once.
        let open = self.open.fetch_add(1, Relaxed) + 1;
        if open > most as i64 { Err(Full::All) } else { Ok(place) }
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        &self.by_address[self.hasher.hash_one(address) as usize % SHARDS]
    }
}

impl Place {
    /// Counts the connection for an address too, once it is known. Clients of IPv6 have a /64 each, so that is what counts.
    pub fn of(&mut self, address: IpAddr, most: usize) -> Result<(), Full> {
        let address = network(address);
        let mut shard = self.places.shard(address).lock();
        let count = shard.entry(address).or_default();
        if *count >= most {
            return Err(Full::Address);
        }
        *count += 1;
        drop(shard);
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.fetch_sub(1, Relaxed);
        let Some(address) = self.address else { return };
        let mut shard = self.places.shard(address).lock();
        if let Some(count) = shard.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&address);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(places: &Places) -> (i64, usize) {
        (places.open.load(Relaxed), places.by_address.iter().map(|shard| shard.lock().len()).sum())
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let places = Places::new(Arc::default());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let taken: Vec<_> = (0..3).map(|_| places.take(3).ok()).collect();
        assert_eq!(places.take(3).err(), Some(Full::All));
        assert_eq!(open(&places), (3, 0));
        drop(taken);
        assert_eq!(open(&places), (0, 0));
        let of = |address| {
            let mut place = places.take(10)?;
            place.of(address, 2).map(|()| place)
        };
        let (first, second) = (of(a).ok().unwrap(), of(a).ok().unwrap());
        assert_eq!(of(a).err(), Some(Full::Address));
        let mapped = a.to_string().parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped();
        assert_eq!(of(mapped.into()).err(), Some(Full::Address), "the same address");
        let other = of(b).ok().unwrap();
        assert_eq!(open(&places), (3, 2));
        drop((first, other));
        let again = of(a).ok().unwrap();
        drop((second, again));
        assert_eq!(open(&places), (0, 0), "nothing is remembered of who has gone");
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
    }
}
