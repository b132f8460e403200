//! The changes that are not about splits: pins, holds, the baseline, versions. The other half of `apply`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::apply::{Next, Outcome};
use super::change::{ChangeError, PinTarget};
use super::event::{Author, EventKind};
use super::names::VersionName;
use super::spec::VersionSpec;
use super::state::{Hold, Pin, Pins};

impl Next<'_> {
    pub(super) fn set_pin(&mut self, target: &PinTarget, pin: &Pin) -> Result<Outcome, ChangeError> {
        self.known(pin.version())?;
        match pin {
            Pin::Version(version) => self.not_disabled(version)?,
            Pin::Exclude(_) => {}
            Pin::Suspended(_) => {
                return Err(ChangeError::Invalid("a pin is suspended by disabling its version only".to_owned()));
            }
        }
        let live = self.live()?.clone();
        if matches!(pin, Pin::Exclude(v) if *v == live.baseline) {
            return Err(ChangeError::Invalid(format!("{} is the baseline and cannot be excluded", live.baseline)));
        }
        if let PinTarget::Group(group) = target {
            self.known_group(group)?;
        }
        let pins = &mut self.edit()?.pins;
        let before = match target {
            PinTarget::Tenant(t) => pins.tenants.insert(t.clone(), pin.clone()),
            PinTarget::User(u) => pins.users.insert(u.clone(), pin.clone()),
            PinTarget::Group(g) => pins.groups.insert(g.clone(), pin.clone()),
        };
        if pins.len() > Pins::MAX {
            return Err(ChangeError::Invalid(format!("a service may have at most {} pins", Pins::MAX)));
        }
        Ok(Outcome::new(EventKind::PinSet, pin_json(target, before.as_ref()), pin_json(target, Some(pin)))
            .about(pin.version()))
    }

    pub(super) fn clear_pin(&mut self, target: &PinTarget) -> Result<Outcome, ChangeError> {
        let pins = &mut self.edit()?.pins;
        let before = match target {
            PinTarget::Tenant(t) => pins.tenants.remove(t),
            PinTarget::User(u) => pins.users.remove(u),
            PinTarget::Group(g) => pins.groups.remove(g),
        };
        let before = before.ok_or_else(|| ChangeError::NotThere { what: format!("a pin for {target}") })?;
        Ok(Outcome::new(EventKind::PinCleared, pin_json(target, Some(&before)), Value::Null).about(before.version()))
    }

    /// A hold is a person's word; the machine neither gives it nor takes it back.
    fn not_by_autopilot(&self) -> Result<(), ChangeError> {
        if self.request.author == Author::Autopilot {
            return Err(ChangeError::Invalid("a hold is set and removed by people only".to_owned()));
        }
        Ok(())
    }

    pub(super) fn set_hold(&mut self) -> Result<Outcome, ChangeError> {
        self.not_by_autopilot()?;
        let hold = Hold {
            author: self.request.author.clone(),
            reason: self.request.reason.clone(),
            since_ms: self.now_ms,
            unknown: Default::default(),
        };
        let before = json!(self.live()?.hold);
        let after = json!(hold);
        self.edit()?.hold = Some(hold);
        Ok(Outcome::new(EventKind::HoldSet, before, after))
    }

    pub(super) fn clear_hold(&mut self) -> Result<Outcome, ChangeError> {
        self.not_by_autopilot()?;
        let Some(hold) = self.edit()?.hold.take() else {
            return Err(ChangeError::NotThere { what: format!("a hold on {}", self.request.service) });
        };
        Ok(Outcome::new(EventKind::HoldCleared, json!(hold), Value::Null))
    }

    pub(super) fn set_baseline(&mut self, version: &VersionName) -> Result<Outcome, ChangeError> {
        self.known(version)?;
        self.not_disabled(version)?;
        let live = self.live()?.clone();
        if live.pins.iter().any(|p| matches!(p, Pin::Exclude(v) if v == version)) {
            return Err(ChangeError::Invalid(format!("{version} is excluded by a pin; remove the pin first")));
        }
        let edit = self.edit()?;
        edit.baseline = version.clone();
        // A bar on the version that is trusted now would contradict that.
        edit.bars.remove(version);
        Ok(Outcome::new(EventKind::BaselineSet, json!({ "baseline": live.baseline }), json!({ "baseline": version }))
            .about(version))
    }

    pub(super) fn put_version(
        &mut self,
        version: &VersionName,
        spec: &Arc<VersionSpec>,
    ) -> Result<Outcome, ChangeError> {
        if self.spec.versions.contains_key(version) {
            let why = format!("version {version} is defined in the configuration file; change it there and reload");
            return Err(ChangeError::Invalid(why));
        }
        let before = self.edit()?.versions.insert(version.clone(), spec.clone());
        let before = before.map_or(Value::Null, |s| json!(s));
        Ok(Outcome::new(EventKind::VersionPut, before, json!(spec)).about(version))
    }

    pub(super) fn delete_version(&mut self, version: &VersionName) -> Result<Outcome, ChangeError> {
        if self.spec.versions.contains_key(version) {
            let why = format!("version {version} is defined in the configuration file; remove it there and reload");
            return Err(ChangeError::Invalid(why));
        }
        if let Some(uses) = self.state.uses_of(&self.request.service, version, self.now_ms) {
            return Err(ChangeError::InUse { service: self.request.service.clone(), version: version.clone(), uses });
        }
        // A bar outlives its version while splits from before it still lead there, by name or by way of another bar: they
        // must not come to life.
        let named = self.state.is_named(&self.request.service, version);
        let edit = self.edit()?;
        if !named && !edit.bars.values().any(|bar| bar.to == *version) {
            edit.bars.remove(version);
        }
        edit.disabled.remove(version);
        let before = edit.versions.remove(version);
        let before = before.ok_or_else(|| ChangeError::NotThere { what: format!("version {version}") })?;
        Ok(Outcome::new(EventKind::VersionDeleted, json!(before), Value::Null).about(version))
    }
}

fn pin_json(target: &PinTarget, pin: Option<&Pin>) -> Value {
    pin.map_or(Value::Null, |pin| json!({ "target": target.to_string(), "pin": pin }))
}
