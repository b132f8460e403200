//! Tenants by name: a persistent map made for one thing, being read at random by every request.
//!
//! A change copies a few hundred pointers and one small shard, and shares everything else with the state before it.
//! A look-up among a million tenants touches two lines of memory that are not in the cache: the shard and the tenant.
//! General persistent maps follow a pointer for every few bits of the hash and take five times as long when cold
//! (`cargo bench --bench decide`), which is why this one exists.

use std::sync::Arc;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::names::TenantName;
use super::state::TenantState;

/// Shards are reached by two levels of this many pointers, so a change copies twice as many.
const FAN: usize = 64;
const FAN_BITS: u32 = FAN.trailing_zeros();

/// Small, so that a shard is a few lines of memory.
#[derive(Clone)]
struct Entry {
    hash: u64,
    kept: Arc<Kept>,
}

/// The text of the name lies beside the state that is read next, unless it is long.
struct Kept {
    text: SmallVec<[u8; 24]>,
    state: TenantState,
    name: TenantName,
}

impl Entry {
    fn new(hash: u64, name: TenantName, state: TenantState) -> Self {
        let text = SmallVec::from_slice(name.as_str().as_bytes());
        Self { hash, kept: Arc::new(Kept { text, state, name }) }
    }
}

/// Entries whose hashes begin alike, sorted by hash.
type Shard = Arc<[Entry]>;
type Branch = Arc<[Shard]>;

/// Tenants of one service that have settings of their own. Copies are cheap and share what they have in common.
#[derive(Clone, Default)]
pub struct TenantMap {
    /// Empty, or `FAN` branches of `FAN` shards.
    branches: Arc<[Branch]>,
    len: usize,
}

impl TenantMap {
    /// How many tenants there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A tenant's settings.
    pub fn get<N: AsRef<str> + ?Sized>(&self, name: &N) -> Option<&TenantState> {
        let name = name.as_ref();
        let hash = hash_of(name);
        let shard = self.shard(hash)?;
        let at = position(shard, hash, name).ok()?;
        Some(&shard[at].kept.state)
    }

    /// Sets a tenant's settings.
    pub fn insert(&mut self, name: TenantName, state: TenantState) {
        let hash = hash_of(name.as_str());
        if self.branches.is_empty() {
            self.branches = empty_branches();
        }
        let mut added = 0;
        self.edit(hash, |entries| match position(entries, hash, name.as_str()) {
            Ok(at) => entries[at] = Entry::new(hash, name, state),
            Err(at) => {
                entries.insert(at, Entry::new(hash, name, state));
                added = 1;
            }
        });
        self.len += added;
    }

    /// Removes a tenant's settings.
    pub fn remove(&mut self, name: &str) {
        let hash = hash_of(name);
        let Some(at) = self.shard(hash).and_then(|shard| position(shard, hash, name).ok()) else { return };
        self.edit(hash, |entries| drop(entries.remove(at)));
        self.len -= 1;
    }

    /// Every tenant, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&TenantName, &TenantState)> {
        let entries = self.branches.iter().flat_map(|b| b.iter()).flat_map(|s| s.iter());
        entries.map(|e| (&e.kept.name, &e.kept.state))
    }

    /// Every tenant's name.
    pub fn keys(&self) -> impl Iterator<Item = &TenantName> {
        self.iter().map(|(name, _)| name)
    }

    /// The settings of every tenant.
    pub fn values(&self) -> impl Iterator<Item = &TenantState> {
        self.iter().map(|(_, state)| state)
    }

    /// Tenants whose settings may differ from those in `before`: all that do, and their neighbours. The cost is by what
    /// changed and not by how many there are, if one map was made from the other.
    pub fn beside(&self, before: &Self) -> impl Iterator<Item = (&TenantName, &TenantState)> {
        let others = |n: usize| before.branches.get(n);
        let branches = self.branches.iter().enumerate();
        let branches = branches.filter(move |(n, own)| others(*n).is_none_or(|other| !Arc::ptr_eq(own, other)));
        let shards = branches.flat_map(move |(n, own)| {
            let other = others(n);
            let shared = move |(m, shard): &(usize, &Shard)| other.is_some_and(|o| Arc::ptr_eq(shard, &o[*m]));
            own.iter().enumerate().filter(move |at| !shared(at)).map(|(_, shard)| shard)
        });
        shards.flat_map(|shard| shard.iter()).map(|entry| (&entry.kept.name, &entry.kept.state))
    }

    fn shard(&self, hash: u64) -> Option<&Shard> {
        let (branch, shard) = place(hash);
        self.branches.get(branch)?.get(shard)
    }

    fn edit(&mut self, hash: u64, change: impl FnOnce(&mut Vec<Entry>)) {
        let (branch, shard) = place(hash);
        let mut entries = self.branches[branch][shard].to_vec();
        change(&mut entries);
        let branches = Arc::make_mut(&mut self.branches);
        Arc::make_mut(&mut branches[branch])[shard] = entries.into();
    }
}

/// Fills a map at once, which is much faster than one by one. Of two entries with the same name the later one stays.
impl FromIterator<(TenantName, TenantState)> for TenantMap {
    fn from_iter<I: IntoIterator<Item = (TenantName, TenantState)>>(tenants: I) -> Self {
        let mut shards: Vec<Vec<Entry>> = vec![Vec::new(); FAN * FAN];
        let mut len = 0;
        for (name, state) in tenants {
            let hash = hash_of(name.as_str());
            let (branch, shard) = place(hash);
            shards[branch * FAN + shard].push(Entry::new(hash, name, state));
        }
        if shards.iter().all(Vec::is_empty) {
            return Self::default();
        }
        let mut frozen = shards.into_iter().map(|mut entries| {
            entries.reverse();
            entries.sort_by(|a, b| (a.hash, &a.kept.name).cmp(&(b.hash, &b.kept.name)));
            entries.dedup_by(|next, before| next.kept.name == before.kept.name);
            len += entries.len();
            Shard::from(entries)
        });
        let branches = (0..FAN).map(|_| frozen.by_ref().take(FAN).collect()).collect();
        Self { branches, len }
    }
}

impl std::fmt::Debug for TenantMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn hash_of(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Branch and shard by the first bits of the hash.
fn place(hash: u64) -> (usize, usize) {
    let first = hash.rotate_left(FAN_BITS) as usize % FAN;
    let second = hash.rotate_left(2 * FAN_BITS) as usize % FAN;
    (first, second)
}

/// Where an entry is, or where it would be. Hashes are even, so the rest of the hash tells about where to look; from
/// there it is a few entries to either side.
fn position(entries: &[Entry], hash: u64, name: &str) -> Result<usize, usize> {
    let rest = hash << (2 * FAN_BITS);
    let mut at = ((u128::from(rest) * entries.len() as u128) >> 64) as usize;
    while at > 0 && entries[at - 1].hash >= hash {
        at -= 1;
    }
    while at < entries.len() && entries[at].hash < hash {
        at += 1;
    }
    // Two names with the same hash are next to each other, sorted by name.
    while let Some(entry) = entries.get(at).filter(|e| e.hash == hash) {
        match entry.kept.text.as_slice().cmp(name.as_bytes()) {
            std::cmp::Ordering::Less => at += 1,
            std::cmp::Ordering::Equal => return Ok(at),
            std::cmp::Ordering::Greater => break,
        }
    }
    Err(at)
}

fn empty_branches() -> Arc<[Branch]> {
    let nothing: Shard = Arc::from([]);
    let branch: Branch = std::iter::repeat_n(nothing, FAN).collect();
    std::iter::repeat_n(branch, FAN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DOCUMENT_FORMAT, Split, VersionName, Weights};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn state(revision: u64) -> TenantState {
        let version = VersionName::new("1").unwrap();
        let split = Split::new(&Weights::all_on(version.clone()), &version, 0, revision);
        TenantState { format: DOCUMENT_FORMAT, revision, split, by: None, unknown: Default::default() }
    }

    fn name(n: u16) -> TenantName {
        TenantName::new(&format!("tenant-{n}")).unwrap()
    }

    fn same(map: &TenantMap, model: &BTreeMap<TenantName, u64>) {
        let mut all: Vec<_> = map.iter().map(|(n, s)| (n.clone(), s.revision)).collect();
        all.sort();
        assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
        assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
    }

    #[test]
    fn names_with_the_same_hash_are_told_apart() {
        let entry = |n: &str| Entry::new(7, TenantName::new(n).unwrap(), state(1));
        let entries = [entry("a"), entry("c"), entry("e")];
        assert_eq!(position(&entries, 7, "c"), Ok(1));
        assert_eq!(position(&entries, 7, "b"), Err(1));
        assert_eq!(position(&entries, 7, "f"), Err(3));
        assert_eq!(position(&entries, 6, "a"), Err(0));
        assert_eq!(position(&entries, u64::MAX, "a"), Err(3));
    }

    proptest! {
        /// The same as a plain map, whatever happens to it; and what was copied before stays as it was.
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0u16..400, any::<bool>()), 0..600)) {
            let (mut map, mut model) = (TenantMap::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (i, (n, insert)) in steps.into_iter().enumerate() {
                if insert {
                    map.insert(name(n), state(i as u64));
                    model.insert(name(n), i as u64);
                } else {
                    map.remove(name(n).as_str());
                    model.remove(&name(n));
                }
                prop_assert_eq!(map.get(name(n).as_str()).map(|s| s.revision), model.get(&name(n)).copied());
                if i % 100 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
            }
            for (before, of_before) in &copies {
                let beside: BTreeMap<_, _> = map.beside(before).map(|(n, s)| (n.clone(), s.revision)).collect();
                for (name, revision) in &model {
                    let kept = beside.get(name);
                    prop_assert!(kept == Some(revision) || kept.is_none() && of_before.get(name) == Some(revision));
                }
            }
            copies.push((map.clone(), model.clone()));
            for (map, model) in &copies {
                same(map, model);
                same(&model.iter().map(|(n, r)| (n.clone(), state(*r))).collect(), model);
            }
        }
    }

    #[test]
    fn what_did_not_change_is_passed_over() {
        let before: TenantMap = (0..5_000u16).map(|n| (name(n), state(1))).collect();
        let mut map = before.clone();
        assert_eq!(map.beside(&before).count(), 0);
        map.insert(name(7), state(2));
        let beside: Vec<_> = map.beside(&before).collect();
        assert!(beside.len() < 20 && beside.contains(&(&name(7), &state(2))), "{beside:?}");
        assert_eq!(map.beside(&TenantMap::default()).count(), 5_000);
    }

    #[test]
    fn all_at_once_is_the_same_as_one_by_one() {
        let list = || (0..5_000u16).chain(0..10).map(|n| (name(n), state(u64::from(n))));
        let at_once: TenantMap = list().collect();
        let mut one_by_one = TenantMap::default();
        list().for_each(|(n, s)| one_by_one.insert(n, s));
        assert_eq!(at_once.len(), 5_000);
        for n in 0..5_000 {
            assert_eq!(at_once.get(name(n).as_str()).unwrap().revision, u64::from(n));
            assert_eq!(one_by_one.get(name(n).as_str()).unwrap().revision, u64::from(n));
        }
        assert!(at_once.get("tenant-5000").is_none());
    }
}
