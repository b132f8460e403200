//! What is wrong at present: which scopes of a service suffer from which matter. A matter that many tenants share is one,
//! and it is over when it is over for the last of them.

use std::collections::{BTreeMap, BTreeSet};

use super::severity::{Over, over, severity_of, told_as};
use crate::model::{Event, EventKind, GroupName, ServiceName, Severity, TenantName, VersionName};

/// What is wrong: a kind of event, a service and a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Matter {
    pub service: Option<ServiceName>,
    pub kind: &'static str,
    pub version: Option<VersionName>,
}

/// Whom it is about; both none: the service itself.
pub(super) type Whom = (Option<TenantName>, Option<GroupName>);

/// What is wrong at present.
#[derive(Debug, Default, Clone)]
pub(super) struct Incidents {
    open: BTreeMap<Matter, BTreeSet<Whom>>,
}

impl Matter {
    pub(super) fn of(event: &Event) -> Self {
        Self { service: event.service.clone(), kind: told_as(event.kind).as_str(), version: event.version.clone() }
    }

    /// The same for the same matter in every process: what receivers recognise it by.
    pub(super) fn key(&self) -> String {
        let service = self.service.as_ref().map_or("", |s| s.as_str());
        let version = self.version.as_ref().map_or("", |v| v.as_str());
        format!("switchback/{service}/{version}/{}", self.kind)
    }
}

/// Whom an event is about.
pub(super) fn whom(event: &Event) -> Whom {
    (event.tenant.clone(), event.group.clone())
}

impl Incidents {
    /// Takes in an event; answers which matters are over by it.
    pub(super) fn note(&mut self, event: &Event) -> Vec<Matter> {
        let whom = whom(event);
        match over(event.kind) {
            Over::Scope => self.close(event, |_, w| *w == whom),
            Over::Service => self.close(event, |_, _| true),
            Over::Version => self.close(event, |matter, _| matter.version == event.version),
            Over::Kind(kind) => self.close(event, |matter, w| matter.kind == kind.as_str() && *w == whom),
            Over::Nothing => {
                if severity_of(event.kind) >= Severity::Warning && event.service.is_some() {
                    self.open.entry(Matter::of(event)).or_default().insert(whom);
                }
                Vec::new()
            }
        }
    }

    fn close(&mut self, event: &Event, ends: impl Fn(&Matter, &Whom) -> bool) -> Vec<Matter> {
        let mut closed = Vec::new();
        for (matter, scopes) in self.open.iter_mut().filter(|(m, _)| m.service == event.service) {
            scopes.retain(|whom| !ends(matter, whom));
            if scopes.is_empty() {
                closed.push(matter.clone());
            }
        }
        self.open.retain(|_, scopes| !scopes.is_empty());
        closed
    }
}

/// The kinds that a matter is told of.
pub(super) fn kinds_of(matter: &Matter) -> impl Iterator<Item = EventKind> {
    EventKind::ALL.into_iter().filter(|kind| told_as(*kind).as_str() == matter.kind)
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    #[test]
    fn a_matter_is_over_when_it_is_over_for_the_last_tenant() {
        let mut incidents = Incidents::default();
        for tenant in ["acme", "globex"] {
            assert_eq!(incidents.note(&event(EventKind::Rollback, Some(tenant))), []);
        }
        assert_eq!(incidents.note(&event(EventKind::SplitSet, None)), [], "the service's split is not theirs");
        assert_eq!(incidents.note(&event(EventKind::SplitSet, Some("acme"))), []);
        let over = incidents.note(&event(EventKind::SplitCleared, Some("globex")));
        assert_eq!(over.iter().map(Matter::key).collect::<Vec<_>>(), ["switchback/shop/2.0.0/rollback"]);
        assert_eq!(incidents.note(&event(EventKind::SplitSet, Some("globex"))), [], "over once");
    }

    #[test]
    fn a_brake_ends_alone_and_another_baseline_ends_everything() {
        let mut incidents = Incidents::default();
        incidents.note(&event(EventKind::Brake, None));
        incidents.note(&event(EventKind::Rollback, Some("acme")));
        let keys = |over: Vec<Matter>| over.iter().map(|m| m.kind).collect::<Vec<_>>();
        assert_eq!(keys(incidents.note(&event(EventKind::BrakeReleased, None))), ["brake"]);
        incidents.note(&event(EventKind::VersionDisabled, None));
        assert_eq!(keys(incidents.note(&event(EventKind::BaselineSet, None))), ["rollback", "version_disabled"]);
    }

    #[test]
    fn a_rollout_that_went_back_is_the_rollback_and_ends_with_the_next_try() {
        let mut incidents = Incidents::default();
        let back = event(EventKind::RolloutRolledBack, None);
        assert_eq!(Matter::of(&back), Matter::of(&event(EventKind::Rollback, None)));
        incidents.note(&back);
        assert_eq!(incidents.note(&event(EventKind::RolloutStep, None)), []);
        assert_eq!(incidents.note(&event(EventKind::RolloutBegun, None)), [Matter::of(&back)]);
        incidents.note(&event(EventKind::RolloutPaused, None));
        assert_eq!(incidents.note(&event(EventKind::RolloutResumed, None)).len(), 1);
    }

    #[test]
    fn what_people_do_is_no_incident() {
        let mut incidents = Incidents::default();
        incidents.note(&event(EventKind::PinSet, Some("acme")));
        assert_eq!(incidents.note(&event(EventKind::BaselineSet, None)), []);
    }
}
