//! What people do while something is wrong: maintenance, and the kill switch of a version. Another part of `apply`.

use serde_json::{Value, json};

use super::apply::{Next, Outcome, weights_without};
use super::change::{Change, ChangeError};
use super::event::{Author, EventKind};
use super::maintenance::{Disabled, Maintenance};
use super::names::{TenantName, VersionName};
use super::share::BasisPoints;
use super::split::RolledBack;
use super::state::{Bar, Pin, Pins};

/// The tenant that such a change is about. It has no split to do with it and is kept in the service's document.
pub(super) fn tenant_of(change: &Change) -> Option<&TenantName> {
    match change {
        Change::SetMaintenance { tenant, .. } | Change::ClearMaintenance { tenant } => tenant.as_ref(),
        _ => None,
    }
}

impl Next<'_> {
    fn by_people_only(&self, what: &str) -> Result<(), ChangeError> {
        match self.request.author {
            Author::Autopilot => Err(ChangeError::Invalid(format!("{what} by people only"))),
            _ => Ok(()),
        }
    }

    pub(super) fn set_maintenance(
        &mut self,
        tenant: Option<&TenantName>,
        message: &str,
        retry_after_s: u64,
    ) -> Result<Outcome, ChangeError> {
        self.by_people_only("maintenance is begun and ended")?;
        let length = message.chars().count();
        if length > Maintenance::MAX_MESSAGE {
            let most = Maintenance::MAX_MESSAGE;
            return Err(ChangeError::Invalid(format!("the message has {length} characters; allowed are up to {most}")));
        }
        if !(1..=Maintenance::MAX_RETRY_AFTER_S).contains(&retry_after_s) {
            return Err(ChangeError::Invalid(format!("retry_after is {retry_after_s} s; allowed are 1s to 30d")));
        }
        let (author, now_ms) = (self.request.author.clone(), self.now_ms);
        let all = &mut self.edit()?.maintenance;
        let before = match tenant {
            Some(tenant) => all.tenants.get(tenant).cloned(),
            None => all.service.clone(),
        };
        let since_ms = before.as_ref().map_or(now_ms, |b| b.since_ms);
        let unknown = before.as_ref().map(|b| b.unknown.clone()).unwrap_or_default();
        let after = Maintenance { message: message.to_owned(), retry_after_s, author, since_ms, unknown };
        match tenant {
            Some(tenant) => drop(all.tenants.insert(tenant.clone(), after.clone())),
            None => all.service = Some(after.clone()),
        }
        if all.tenants.len() > Maintenance::MAX_TENANTS {
            let most = Maintenance::MAX_TENANTS;
            return Err(ChangeError::Invalid(format!(
                "a service may have at most {most} tenants in maintenance; put the whole service in maintenance instead"
            )));
        }
        Ok(Outcome::new(EventKind::MaintenanceOn, json!(before), json!(after)))
    }

    pub(super) fn clear_maintenance(&mut self, tenant: Option<&TenantName>) -> Result<Outcome, ChangeError> {
        self.by_people_only("maintenance is begun and ended")?;
        let service = self.request.service.clone();
        let all = &mut self.edit()?.maintenance;
        let before = match tenant {
            Some(tenant) => all.tenants.remove(tenant),
            None => all.service.take(),
        };
        let before = before.ok_or_else(|| ChangeError::NotThere {
            what: match tenant {
                Some(tenant) => format!("maintenance of tenant {tenant} of {service}"),
                None => format!("maintenance of {service}"),
            },
        })?;
        Ok(Outcome::new(EventKind::MaintenanceOff, json!(before), Value::Null))
    }

    /// Refuses what would give a disabled version traffic.
    pub(super) fn not_disabled(&self, version: &VersionName) -> Result<(), ChangeError> {
        let Some(disabled) = self.live()?.disabled.get(version) else { return Ok(()) };
        Err(ChangeError::Disabled {
            service: self.request.service.clone(),
            version: version.clone(),
            author: disabled.author.to_string(),
            reason: match disabled.reason.as_str() {
                "" => "no reason given".to_owned(),
                reason => format!("{reason:?}"),
            },
        })
    }

    /// Takes a version out of every split by one document: a bar, as after a rollback, whatever the number of tenants.
    /// What leads to it beside the splits leads to the baseline while it is disabled, and pins also after that, until they
    /// are set again: nothing comes back by itself.
    pub(super) fn disable_version(&mut self, version: &VersionName) -> Result<Outcome, ChangeError> {
        self.by_people_only("versions are disabled and enabled")?;
        self.known(version)?;
        let live = self.live()?.clone();
        if live.baseline == *version {
            return Err(ChangeError::Invalid(format!(
                "{version} is the baseline of {}, where the traffic of a disabled version goes; trust another version \
                 first",
                self.request.service
            )));
        }
        if live.disabled.len() >= Disabled::MAX && !live.disabled.contains_key(version) {
            return Err(ChangeError::Invalid(format!("at most {} versions may be disabled", Disabled::MAX)));
        }
        let (revision, at_ms, event) = (self.revision, self.now_ms, self.next_event);
        let rolled_back = RolledBack { version: version.clone(), at_ms, event, unknown: Default::default() };
        let before = live.weights_in_effect(&live.split);
        let held = live.split.intended().share(version.as_str());
        let gone = std::slice::from_ref(version);
        let weights = weights_without(&before, gone, &live.baseline)?;
        let author = self.request.author.clone();
        let reason = self.request.reason.clone();
        let edit = self.edit()?;
        // The service's own split is written anew, so that what is left of it goes on being evidence.
        if before.share(version.as_str()).max(held) > BasisPoints::ZERO {
            edit.split = live.split.reweighted(&weights, &live.baseline, live.split.salt, revision);
            edit.split.rolled_back = Some(rolled_back.clone());
        }
        edit.bars.insert(
            version.clone(),
            Bar { revision, to: live.baseline.clone(), rolled_back, unknown: Default::default() },
        );
        let before_that = live.disabled.get(version);
        let since_ms = before_that.map_or(at_ms, |d| d.since_ms);
        let unknown = before_that.map(|d| d.unknown.clone()).unwrap_or_default();
        edit.disabled.insert(version.clone(), Disabled { author, reason, since_ms, unknown });
        let suspended = suspend(&mut edit.pins, version);
        let was = live.disabled.contains_key(version);
        let before = json!({ "disabled": was, "weights": before });
        let after = json!({ "disabled": true, "weights": weights, "pins_suspended": suspended });
        Ok(Outcome::new(EventKind::VersionDisabled, before, after).about(version))
    }

    /// Lets splits and pins name the version again. The bar stays, so no traffic moves by this.
    pub(super) fn enable_version(&mut self, version: &VersionName) -> Result<Outcome, ChangeError> {
        self.by_people_only("versions are disabled and enabled")?;
        let live = self.live()?.clone();
        if !live.disabled.contains_key(version) {
            // A version that the file no longer has can be enabled too, but a slip of the pen should be named.
            self.known(version)?;
            return Err(ChangeError::NotThere { what: format!("a kill switch on version {version}") });
        }
        self.edit()?.disabled.remove(version);
        let weights = live.weights_in_effect(&live.split);
        let before = json!({ "disabled": true, "weights": weights });
        let after = json!({ "disabled": false, "weights": weights });
        Ok(Outcome::new(EventKind::VersionEnabled, before, after).about(version))
    }
}

/// Makes the pins that lead to a version lead to the baseline, and says how many there were.
fn suspend(pins: &mut Pins, version: &VersionName) -> usize {
    let all = pins.tenants.values_mut().chain(pins.users.values_mut()).chain(pins.groups.values_mut());
    let mut count = 0;
    for pin in all.filter(|p| matches!(p, Pin::Version(v) if v == version)) {
        *pin = Pin::Suspended(version.clone());
        count += 1;
    }
    count
}
