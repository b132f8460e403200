//! The units of a rollout: whose traffic moves, in which order, and what became of each.
//!
//! A campaign has ten thousand of them and a step touches fifty, so they are kept in pages: a change writes the pages that
//! it touched. What comes after the last batch are tenants that went back on their own although the rollout moves them as
//! part of a service or a group.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::state::Scope;
use crate::model::unknown::Unknown;

/// Units of one page, and of one document.
pub const PAGE: usize = 200;

/// One scope that a rollout moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Whose traffic.
    pub scope: Scope,
    /// What became of it.
    pub status: UnitStatus,
    /// The step in effect, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The attempt of the split that the rollout set last; another one was set by somebody else.
    #[serde(default)]
    pub attempt: u64,
    /// When it first moved, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When it was done or went back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// The event that tells of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// Why it ended as it did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What that was based on.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitStatus {
    /// Its turn has not come.
    Pending,
    /// On its way.
    InProgress,
    /// Wholly on the new version.
    Completed,
    /// It went back alone.
    RolledBack,
    /// It went back with the whole rollout.
    Reverted,
    /// It was to stay where it is.
    Excluded,
    /// Somebody else decided about it, so the rollout leaves it alone.
    Overridden,
}

impl UnitStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::InProgress,
        Self::Completed,
        Self::RolledBack,
        Self::Reverted,
        Self::Excluded,
        Self::Overridden,
    ];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Reverted => "reverted",
            Self::Excluded => "excluded",
            Self::Overridden => "overridden",
        }
    }

    /// Whether the new version has some of its traffic because of the rollout.
    pub fn has_moved(self) -> bool {
        matches!(self, Self::InProgress | Self::Completed)
    }
}

/// How many units have which status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Their turn has not come.
    pub pending: u32,
    /// On their way.
    pub in_progress: u32,
    /// Wholly on the new version.
    pub completed: u32,
    /// Went back alone.
    pub rolled_back: u32,
    /// Went back with the whole rollout.
    pub reverted: u32,
    /// Were to stay.
    pub excluded: u32,
    /// Somebody else decided about them.
    pub overridden: u32,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> u32 {
        self.pending
            + self.in_progress
            + self.completed
            + self.rolled_back
            + self.reverted
            + self.excluded
            + self.overridden
    }

    /// Those that the new version had or has some traffic of.
    pub fn moved(&self) -> u32 {
        self.in_progress + self.completed + self.rolled_back
    }

    /// Those that are not where the rollout wanted them, and will not be by itself.
    pub fn left_behind(&self) -> u32 {
        self.rolled_back + self.reverted + self.excluded + self.overridden
    }

    fn of(&mut self, status: UnitStatus) -> &mut u32 {
        match status {
            UnitStatus::Pending => &mut self.pending,
            UnitStatus::InProgress => &mut self.in_progress,
            UnitStatus::Completed => &mut self.completed,
            UnitStatus::RolledBack => &mut self.rolled_back,
            UnitStatus::Reverted => &mut self.reverted,
            UnitStatus::Excluded => &mut self.excluded,
            UnitStatus::Overridden => &mut self.overridden,
        }
    }
}

/// Every unit of a rollout, in the order in which they go. Copies are cheap and share the pages that did not change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Units {
    pages: Vec<Arc<Page>>,
    index: Arc<HashMap<Scope, u32>>,
}

/// Units that are stored together.
#[derive(Debug, Clone, PartialEq)]
struct Page {
    revision: u64,
    units: Vec<Unit>,
}

impl Units {
    /// From pages as they are stored, each with the revision that wrote it.
    pub fn from_pages(pages: impl IntoIterator<Item = (u64, Vec<Unit>)>) -> Self {
        let pages: Vec<_> = pages.into_iter().map(|(revision, units)| Arc::new(Page { revision, units })).collect();
        let index = Self::index_of(&pages);
        Self { pages, index }
    }

    /// From units in their order.
    pub fn new(units: Vec<Unit>) -> Self {
        let mut pages = Vec::with_capacity(units.len() / PAGE + 1);
        let mut units = units.into_iter().peekable();
        while units.peek().is_some() {
            pages.push((0, units.by_ref().take(PAGE).collect()));
        }
        Self::from_pages(pages)
    }

    /// The units after pages were written or, where there is none, removed. Pages that did not change are shared.
    pub fn with_pages(&self, changed: BTreeMap<u32, Option<(u64, Vec<Unit>)>>) -> Self {
        let scopes =
            |units: &[Unit], before: &[Unit]| units.iter().map(|u| &u.scope).eq(before.iter().map(|u| &u.scope));
        let stays = |(page, change): (&u32, &Option<(u64, Vec<Unit>)>)| {
            let before = self.pages.get(*page as usize);
            before.zip(change.as_ref()).is_some_and(|(before, (_, units))| scopes(units, &before.units))
        };
        let same_places = changed.iter().all(stays);
        let mut pages: BTreeMap<u32, Arc<Page>> = (0..).zip(self.pages.iter().cloned()).collect();
        for (page, change) in changed {
            match change {
                Some((revision, units)) => drop(pages.insert(page, Arc::new(Page { revision, units }))),
                None => drop(pages.remove(&page)),
            }
        }
        let pages: Vec<_> = pages.into_values().collect();
        let index = if same_places { self.index.clone() } else { Self::index_of(&pages) };
        Self { pages, index }
    }

    fn index_of(pages: &[Arc<Page>]) -> Arc<HashMap<Scope, u32>> {
        let units = pages.iter().flat_map(|page| &page.units).enumerate();
        Arc::new(units.map(|(i, unit)| (unit.scope.clone(), i as u32)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.index.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Where a scope's unit is.
    pub fn position(&self, scope: &Scope) -> Option<u32> {
        self.index.get(scope).copied()
    }

    /// A unit by its place.
    pub fn at(&self, place: u32) -> Option<&Unit> {
        self.pages.get(place as usize / PAGE)?.units.get(place as usize % PAGE)
    }

    /// A scope's unit.
    pub fn get(&self, scope: &Scope) -> Option<&Unit> {
        self.at(self.position(scope)?)
    }

    /// Units of a range, with their places.
    pub fn range(&self, range: std::ops::Range<u32>) -> impl Iterator<Item = (u32, &Unit)> {
        range.filter_map(|place| Some((place, self.at(place)?)))
    }

    /// Every unit in order.
    pub fn iter(&self) -> impl Iterator<Item = &Unit> {
        self.pages.iter().flat_map(|page| page.units.iter())
    }

    /// The pages as they are stored, each with the revision that wrote it.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[Unit])> {
        self.pages.iter().map(|page| (page.revision, page.units.as_slice()))
    }

    /// A page is written under this revision.
    pub fn stamp(&mut self, page: usize, revision: u64) {
        if let Some(page) = self.pages.get_mut(page) {
            Arc::make_mut(page).revision = revision;
        }
    }

    /// Units by status.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.iter().for_each(|unit| *counts.of(unit.status) += 1);
        counts
    }

    /// Changes a unit and its status in the counts, and says which page has to be written.
    pub fn edit(&mut self, place: u32, counts: &mut Counts, change: impl FnOnce(&mut Unit)) -> Option<usize> {
        let page = place as usize / PAGE;
        let unit = Arc::make_mut(self.pages.get_mut(page)?).units.get_mut(place as usize % PAGE)?;
        *counts.of(unit.status) -= 1;
        change(unit);
        *counts.of(unit.status) += 1;
        Some(page)
    }

    /// Adds a unit behind all others, and says which page has to be written.
    pub fn push(&mut self, unit: Unit, counts: &mut Counts) -> usize {
        *counts.of(unit.status) += 1;
        let place = self.len();
        Arc::make_mut(&mut self.index).insert(unit.scope.clone(), place);
        match self.pages.last_mut().filter(|page| page.units.len() < PAGE) {
            Some(page) => Arc::make_mut(page).units.push(unit),
            None => self.pages.push(Arc::new(Page { revision: 0, units: vec![unit] })),
        }
        self.pages.len() - 1
    }
}

impl Unit {
    /// A unit that nothing was done to yet.
    pub fn new(scope: Scope, status: UnitStatus, note: String) -> Self {
        Self {
            scope,
            status,
            step: None,
            attempt: 0,
            started_ms: None,
            ended_ms: None,
            event: None,
            note,
            evidence: Value::Null,
            unknown: Default::default(),
        }
    }

    /// As it was before anything was done to it.
    pub fn renewed(&self) -> Self {
        Self::new(self.scope.clone(), UnitStatus::Pending, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantName;

    fn scope(n: u32) -> Scope {
        Scope::Tenant(TenantName::new(&format!("t{n}")).unwrap())
    }

    fn units(n: u32) -> Units {
        Units::new((0..n).map(|i| Unit::new(scope(i), UnitStatus::Pending, String::new())).collect())
    }

    #[test]
    fn a_change_writes_one_page_and_leaves_copies_alone() {
        let before = units(450);
        assert_eq!((before.len(), before.pages().count()), (450, 3));
        let mut after = before.clone();
        let mut counts = after.counts();
        let page = after.edit(201, &mut counts, |u| u.status = UnitStatus::InProgress);
        assert_eq!(page, Some(1));
        assert_eq!(counts, after.counts());
        assert_eq!((counts.pending, counts.in_progress, counts.total()), (449, 1, 450));
        assert_eq!(before.at(201).unwrap().status, UnitStatus::Pending);
        assert_eq!(after.get(&scope(201)).unwrap().status, UnitStatus::InProgress);
        assert_eq!(after.edit(450, &mut counts, |_| ()), None);
    }

    #[test]
    fn what_comes_later_is_found_too() {
        let mut all = units(400);
        let mut counts = all.counts();
        assert_eq!(all.push(Unit::new(scope(1_000), UnitStatus::RolledBack, String::new()), &mut counts), 2);
        assert_eq!(all.push(Unit::new(scope(1_001), UnitStatus::RolledBack, String::new()), &mut counts), 2);
        assert_eq!(all.position(&scope(1_001)), Some(401));
        assert_eq!(counts, all.counts());
        let pages: Vec<_> = all.pages().map(|(revision, units)| (revision, units.to_vec())).collect();
        assert_eq!(Units::from_pages(pages), all);
    }
}
