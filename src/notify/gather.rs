//! Many events, few messages: what happens to many tenants at once is gathered into one message, and what was told a moment
//! ago is counted instead of told again. Time is a parameter.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use super::incidents::{Matter, Whom, whom};
use super::severity::{Over, over, severity_of};
use super::story::Story;
use crate::model::{Event, Severity};

/// Names of tenants that a message has room for.
const NAMES: usize = 10;
/// How long it is known how often something was not told, milliseconds: a day.
const MOST_KEPT_MS: u64 = 24 * 3_600_000;
/// A matter that goes on is gathered for twice as long each time, up to this power of two.
const MOST_DOUBLED: u32 = 7;

/// What is gathered for one target.
pub(super) struct Gatherer {
    gather_ms: u64,
    repeat_ms: u64,
    groups: BTreeMap<Matter, Group>,
    told: HashMap<(Matter, Whom, u64), Told>,
    /// How often each matter was told lately, and when last.
    pace: HashMap<Matter, (u32, u64)>,
}

struct Group {
    gathered: Gathered,
    due_ms: u64,
}

struct Told {
    at_ms: u64,
    since: u64,
}

/// Events that are told in one message.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    /// The one that stands for all.
    pub story: Arc<Story>,
    /// How many there are.
    pub events: u64,
    /// Tenants that they are about: the first few.
    pub tenants: Vec<String>,
    /// How many tenants those are.
    pub tenant_count: u64,
    /// The same events that came after they were told the last time, and were not told.
    pub suppressed: u64,
}

impl Gatherer {
    pub(super) fn new(gather_ms: u64, repeat_ms: u64) -> Self {
        let (groups, told, pace) = Default::default();
        Self { gather_ms, repeat_ms, groups, told, pace }
    }

    /// Takes in an event; false when it was told before and is only counted.
    pub(super) fn offer(&mut self, story: &Arc<Story>, now_ms: u64) -> bool {
        let event = &story.event;
        let (matter, whom) = (Matter::of(event), whom(event));
        let told = self.told.entry((matter.clone(), whom, fingerprint(event)));
        let mut suppressed = 0;
        match told {
            std::collections::hash_map::Entry::Occupied(mut told) => {
                let told = told.get_mut();
                if now_ms.saturating_sub(told.at_ms) < self.repeat_ms {
                    told.since += 1;
                    return false;
                }
                suppressed = std::mem::take(&mut told.since);
                told.at_ms = now_ms;
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(Told { at_ms: now_ms, since: 0 });
            }
        }
        let rounds = self.rounds(&matter, now_ms);
        let due_ms = now_ms + (self.gather_ms << rounds);
        let group = self.groups.entry(matter).or_insert_with(|| Group { gathered: Gathered::new(story), due_ms });
        group.gathered.add(story, suppressed);
        true
    }

    /// What is to be told now.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Gathered> {
        let due: Vec<_> = self.groups.iter().filter(|(_, g)| g.due_ms <= now_ms).map(|(m, _)| m.clone()).collect();
        self.told.retain(|_, told| {
            let age = now_ms.saturating_sub(told.at_ms);
            age < self.repeat_ms || told.since > 0 && age < MOST_KEPT_MS
        });
        self.pace.retain(|_, (_, at_ms)| now_ms.saturating_sub(*at_ms) < self.repeat_ms);
        due.iter().filter_map(|matter| self.take(matter, now_ms)).collect()
    }

    /// What is gathered of one matter, due or not.
    pub(super) fn take(&mut self, matter: &Matter, now_ms: u64) -> Option<Gathered> {
        let group = self.groups.remove(matter)?;
        let rounds = self.rounds(matter, now_ms);
        self.pace.insert(matter.clone(), (rounds + 1, now_ms));
        Some(group.gathered)
    }

    /// When something is due; none: nothing waits.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.groups.values().map(|group| group.due_ms).min()
    }

    /// An event says that something is over: when it happens again, that is news.
    pub(super) fn forget(&mut self, event: &Event) {
        let (over, whom) = (over(event.kind), whom(event));
        let ends = |matter: &Matter, w: &Whom| match over {
            Over::Nothing => false,
            Over::Scope => *w == whom,
            Over::Service => true,
            Over::Version => matter.version == event.version,
            Over::Kind(kind) => matter.kind == kind.as_str() && *w == whom,
        };
        // That the same was done again is no news.
        let itself = |matter: &Matter| matter.kind == event.kind.as_str();
        self.told.retain(|(m, w, _), _| m.service != event.service || itself(m) || !ends(m, w));
    }

    fn rounds(&self, matter: &Matter, now_ms: u64) -> u32 {
        let recent = self.pace.get(matter).filter(|(_, at_ms)| now_ms.saturating_sub(*at_ms) < self.repeat_ms);
        recent.map_or(0, |(rounds, _)| (*rounds).min(MOST_DOUBLED))
    }
}

/// Two alarms about the same are the same. Two changes by people are the same only when they lead to the same.
fn fingerprint(event: &Event) -> u64 {
    if severity_of(event.kind) > Severity::Info {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    event.after.to_string().hash(&mut hasher);
    hasher.finish()
}

impl Gathered {
    /// Nothing yet, but what it will be about.
    fn new(story: &Arc<Story>) -> Self {
        Self { story: story.clone(), events: 0, tenants: Vec::new(), tenant_count: 0, suppressed: 0 }
    }

    /// One event alone.
    #[cfg(test)]
    pub(super) fn one(story: &Arc<Story>) -> Self {
        let mut gathered = Self::new(story);
        gathered.add(story, 0);
        gathered
    }

    fn add(&mut self, story: &Arc<Story>, suppressed: u64) {
        // Of several changes to the same, the last is what holds.
        if whom(&self.story.event) == whom(&story.event) {
            self.story = story.clone();
        }
        self.events += 1;
        self.suppressed += suppressed;
        if let Some(tenant) = &story.event.tenant {
            self.tenant_count += 1;
            if self.tenants.len() < NAMES {
                self.tenants.push(tenant.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{event, story};
    use super::*;
    use crate::model::EventKind;

    #[test]
    fn many_tenants_at_once_are_one_message() {
        let mut gatherer = Gatherer::new(2_000, 300_000);
        for n in 0..50 {
            assert!(gatherer.offer(&story(event(EventKind::Rollback, Some(&format!("t{n}")))), n * 10));
        }
        assert_eq!(gatherer.next_due_ms(), Some(2_000));
        assert!(gatherer.due(1_999).is_empty());
        let due = gatherer.due(2_000);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].events, due[0].tenant_count, due[0].tenants.len()), (50, 50, NAMES));
        assert_eq!(due[0].story.event.tenant.as_ref().unwrap().as_str(), "t0");
        assert_eq!(gatherer.next_due_ms(), None);
    }

    #[test]
    fn what_was_told_is_counted_and_the_count_is_told_later() {
        let mut gatherer = Gatherer::new(0, 300_000);
        let brake = story(event(EventKind::Brake, None));
        assert!(gatherer.offer(&brake, 0));
        assert_eq!(gatherer.due(0).len(), 1);
        for at in [1_000, 2_000, 299_999] {
            assert!(!gatherer.offer(&brake, at));
        }
        assert!(gatherer.due(299_999).is_empty());
        assert!(gatherer.offer(&brake, 300_000));
        assert_eq!(gatherer.due(300_000)[0].suppressed, 3);
    }

    #[test]
    fn after_a_new_split_the_same_rollback_is_news() {
        let mut gatherer = Gatherer::new(0, 300_000);
        let rollback = story(event(EventKind::Rollback, Some("acme")));
        assert!(gatherer.offer(&rollback, 0));
        gatherer.due(0);
        gatherer.forget(&event(EventKind::SplitSet, Some("globex")));
        assert!(!gatherer.offer(&rollback, 1));
        gatherer.forget(&event(EventKind::SplitSet, Some("acme")));
        assert!(gatherer.offer(&rollback, 2));
    }

    #[test]
    fn a_trickle_is_told_less_and_less_often() {
        let mut gatherer = Gatherer::new(2_000, 300_000);
        let mut messages = Vec::new();
        for second in 0..120_u64 {
            gatherer.offer(&story(event(EventKind::Rollback, Some(&format!("t{second}")))), second * 1_000);
            messages.extend(gatherer.due(second * 1_000).iter().map(|g| (second, g.events)));
        }
        assert!(messages.len() < 8, "{messages:?}");
        assert_eq!(messages[0], (2, 3));
    }

    #[test]
    fn changes_are_the_same_only_when_they_lead_to_the_same() {
        let mut gatherer = Gatherer::new(0, 300_000);
        let set = |share: u64| story(Event { after: json!({ "2.0.0": share }), ..event(EventKind::SplitSet, None) });
        assert!(gatherer.offer(&set(10), 0));
        assert!(gatherer.offer(&set(50), 1));
        assert_eq!(gatherer.due(1)[0].story.event.after["2.0.0"], 50);
        assert!(!gatherer.offer(&set(50), 2));
    }
}
