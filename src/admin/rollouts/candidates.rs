//! Whose traffic a rollout moves, batch after batch, and whose it leaves where it is.

use std::collections::{BTreeMap, BTreeSet};

use super::super::context::{Found, Shared};
use super::super::problem::Problem;
use super::body::RolloutBody;
use crate::model::{
    GroupName, NewRollout, RolloutSpec, Scope, Target, TenantName, TenantState, Unit, UnitStatus, VersionName,
};
use crate::planning::{Candidate, batches, path};

/// Over which time tenants' traffic is compared, in milliseconds.
const TRAFFIC_MS: u64 = 15 * 60 * 1_000;

/// The rollout with its units.
pub(super) fn new_rollout(cx: &Shared, found: &Found, body: &RolloutBody) -> Result<NewRollout, Problem> {
    let spec = by_the_catalogue(found, body.spec(&found.live().baseline)?)?;
    let groups = &found.view.settings.structure.tenants.groups;
    if let Target::Groups(names) = &spec.target
        && let Some(unknown) = names.iter().chain(&spec.order.groups).find(|g| !groups.contains_key(*g))
    {
        return Err(Problem::unknown("group", unknown.as_str(), groups.keys().map(GroupName::as_str)));
    }
    let excluded: BTreeSet<_> = body.exclude.iter().collect();
    let by_tenants = spec.batch.is_some() || spec.canary.is_some();
    let (tenants, wide): (BTreeSet<TenantName>, Vec<Scope>) = match &spec.target {
        Target::Tenants => (named(body)?, Vec::new()),
        Target::Groups(names) if by_tenants => {
            (names.iter().filter_map(|g| groups.get(g)).flatten().cloned().collect(), Vec::new())
        }
        Target::Groups(names) => (BTreeSet::new(), names.iter().cloned().map(Scope::Group).collect()),
        Target::Service if by_tenants => (known_tenants(cx, found), vec![Scope::Service]),
        Target::Service => (BTreeSet::new(), vec![Scope::Service]),
    };
    let rates = rates(cx, found, &tenants);
    let candidates = tenants.iter().filter(|tenant| !excluded.contains(tenant));
    let candidates = candidates.map(|tenant| {
        let rate = rates.get(tenant).copied().unwrap_or_default();
        Candidate { tenant: tenant.clone(), rate }
    });
    let mut all = batches(&spec, candidates.collect(), groups, None);
    all.extend((!wide.is_empty()).then_some(wide));
    check_blast_radius(&spec, &all)?;
    let kept = |tenant: &TenantName| {
        let note = "it was to stay".to_owned();
        Unit::new(Scope::Tenant(tenant.clone()), UnitStatus::Excluded, note)
    };
    Ok(NewRollout { spec, batches: all, left: excluded.into_iter().map(kept).collect() })
}

/// Where the version may not follow directly, the rollout goes there by way of others.
fn by_the_catalogue(found: &Found, mut spec: RolloutSpec) -> Result<RolloutSpec, Problem> {
    let is_end = |name: &VersionName| *name == spec.from || *name == spec.to;
    let usable = found.route.versions.iter().filter(|v| is_end(&v.name) || !found.live().is_disabled(&v.name));
    let versions: BTreeMap<_, _> = usable.map(|v| (v.name.clone(), v.spec.upgrade_from.clone())).collect();
    // Whoever names the versions on the way is asked to name a way that is allowed; the writer looks at that.
    if !spec.then.is_empty() || !versions.contains_key(&spec.to) {
        return Ok(spec);
    }
    let way = path(&spec.from, &spec.to, &versions).map_err(|e| Problem::invalid("to", e.to_string()))?;
    if let [_, next, then @ ..] = way.as_slice()
        && !then.is_empty()
    {
        if spec.target != Target::Service {
            let why = format!("{} follows {next} only, and only the whole service can go there first", spec.to);
            return Err(Problem::invalid("to", why));
        }
        (spec.to, spec.then) = (next.clone(), then.to_vec());
    }
    Ok(spec)
}

fn named(body: &RolloutBody) -> Result<BTreeSet<TenantName>, Problem> {
    let mut tenants = BTreeSet::new();
    for tenant in body.tenants.iter().flatten() {
        if !tenants.insert(tenant.clone()) {
            return Err(Problem::invalid("tenants", format!("{tenant} is named twice")));
        }
    }
    Ok(tenants)
}

/// Tenants that anything is known of: members of groups, those with a split that a rollout or the guard made, and those
/// that had traffic since the process began. Whoever has a split that a person set is left out: it is the person's.
fn known_tenants(cx: &Shared, found: &Found) -> BTreeSet<TenantName> {
    let groups = found.view.settings.structure.tenants.groups.values().flatten().cloned();
    let seen = cx.tallies.service(found.name()).scopes();
    let seen = seen.iter().filter(|scope| !scope.is_other()).filter_map(|scope| scope.tenant().cloned());
    let own = &found.route.tenants;
    let with_split = own.keys().cloned();
    // What a rollback or a brake left behind is no wish of anybody for this rollout.
    let wished = |own: &TenantState| own.by.is_none() && own.split.rolled_back.is_none() && own.split.brake.is_none();
    let by_person = |tenant: &TenantName| own.get(tenant).is_some_and(wished);
    groups.chain(seen).chain(with_split).filter(|tenant| !by_person(tenant)).collect()
}

/// Requests per second of these tenants lately.
fn rates(cx: &Shared, found: &Found, tenants: &BTreeSet<TenantName>) -> BTreeMap<TenantName, f64> {
    let now_ms = cx.now();
    let windows = cx.lock_windows();
    let rate = |tenant: &TenantName| {
        let stats = windows.stats(found.name(), Some(tenant), Some(TRAFFIC_MS), now_ms);
        stats.iter().map(|version| version.rps).fold(0.0, |a, b| a + b)
    };
    tenants.iter().map(|tenant| (tenant.clone(), rate(tenant))).collect()
}

/// What may be unproven at a time is what a batch may hold.
fn check_blast_radius(spec: &RolloutSpec, batches: &[Vec<Scope>]) -> Result<(), Problem> {
    let Some(most) = spec.blast_radius.tenants else { return Ok(()) };
    let largest = batches.iter().map(Vec::len).max().unwrap_or_default();
    let wide = batches.iter().flatten().any(|scope| !matches!(scope, Scope::Tenant(_)));
    if wide && batches.len() == 1 {
        let why = "bounds the tenants of a batch, but this rollout moves all of them together; give it a batch";
        return Err(Problem::invalid("blast_radius.tenants", why));
    }
    if largest as u64 > u64::from(most) {
        let why = format!("is {most}, but a batch has {largest} tenants; make the batch smaller");
        return Err(Problem::invalid("blast_radius.tenants", why));
    }
    Ok(())
}
