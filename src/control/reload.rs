//! What a reload changes, and what only a restart can.

use serde::Serialize;

use super::View;
use super::start::now_ms;
use crate::config::{Settings, StoreSettings};
use crate::model::{ChangeError, VersionName};

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// Revision of the state.
    pub revision: u64,
    /// Parts of the file that are different and in effect now.
    pub changed: Vec<String>,
    /// Parts of the file that are different and need a restart.
    pub needs_restart: Vec<String>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<String>,
}

/// The parts of the file that differ: those in effect after a reload, and those that need a restart.
pub(super) fn differences(old: &Settings, new: &Settings) -> (Vec<String>, Vec<String>) {
    let mut changed = Vec::new();
    let mut restart = Vec::new();
    let note = |list: &mut Vec<String>, key: &str, same: bool| {
        if !same {
            list.push(key.to_owned());
        }
    };
    let (a, b) = (&old.proxy, &new.proxy);
    note(&mut restart, "proxy.listen", a.listen == b.listen);
    note(&mut restart, "proxy.threads", a.threads == b.threads);
    note(&mut restart, "proxy.tls", a.tls == b.tls);
    note(&mut restart, "proxy.access_log", a.access_log == b.access_log);
    note(&mut restart, "proxy.tracing", a.tracing == b.tracing);
    note(&mut restart, "proxy.upstream_keepalive", a.upstream_keepalive == b.upstream_keepalive);
    note(&mut restart, "proxy.handover", a.handover == b.handover);
    note(&mut restart, "admin.listen", old.admin.listen == new.admin.listen);
    let place = |s: &Settings| StoreSettings { secret: Vec::new(), ..s.store.clone() };
    note(&mut restart, "store", place(old) == place(new));
    note(&mut changed, "store.secret", old.store.secret == new.store.secret);
    note(&mut restart, "metrics", old.metrics == new.metrics);
    note(&mut changed, "proxy.trusted", a.trusted == b.trusted);
    note(&mut changed, "proxy.limits", a.limits == b.limits);
    note(&mut changed, "proxy.drain_timeout", a.drain_timeout == b.drain_timeout && a.ready_delay == b.ready_delay);
    note(&mut changed, "proxy.watch", a.watch == b.watch);
    note(&mut changed, "proxy.cookie_secret", a.cookie_secret == b.cookie_secret);
    let admin = |s: &Settings| {
        (
            s.admin.tokens.clone(),
            s.admin.allowed_hosts.clone(),
            s.admin.body_size,
            s.admin.reach(),
            s.admin.public_url.clone(),
        )
    };
    note(&mut changed, "admin", admin(old) == admin(new));
    note(&mut changed, "notify", old.notify == new.notify);
    note(&mut changed, "tenants", old.structure.tenants == new.structure.tenants);
    let (a, b) = (&old.structure.services, &new.structure.services);
    for name in a.keys().chain(b.keys().filter(|n| !a.contains_key(*n))) {
        note(&mut changed, &format!("services.{name}"), a.get(name) == b.get(name));
    }
    (changed, restart)
}

/// A version that is left out of the file must not be one that a rollout keeps warm: without it there is no way back.
/// Versions that have traffic are refused when the routes are compiled.
pub(super) fn keeps_warm(view: &View, new: &Settings) -> Result<(), ChangeError> {
    for (name, spec) in &new.structure.services {
        let Some(before) = view.settings.structure.services.get(name) else { continue };
        let live = view.state.service(name.as_str());
        let registered = |version: &VersionName| live.is_some_and(|live| live.versions.contains_key(version));
        let gone = before.versions.keys().filter(|v| !spec.versions.contains_key(*v) && !registered(v));
        for version in gone {
            if let Some(uses) = view.state.kept_warm(name, version, now_ms()) {
                return Err(ChangeError::InUse { service: name.clone(), version: version.clone(), uses });
            }
        }
    }
    Ok(())
}
