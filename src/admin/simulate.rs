//! What if: a rollout in virtual time, before it begins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::Body;
use super::context::{Cx, Found, Shared};
use super::problem::{Problem, echo};
use super::rollouts::body::RolloutBody;
use crate::analysis::Parameters;
use crate::config::read_duration;
use crate::model::{BasisPoints, GroupName, GuardSpec, RolloutSpec, Scope, Target, TenantName};
use crate::simulation::{Answer, Failing, Load, Refused, Regression, Scenario, Spread, simulate};
use crate::telemetry::Windows;

/// Simulations that may run at a time: each keeps one core busy that requests may need.
pub(super) const MAX_SIMULATIONS: usize = 1;
/// Over which time the traffic of tenants is looked at, in milliseconds.
const TRAFFIC_MS: u64 = 15 * 60 * 1_000;
/// The highest rate, requests per second.
const MAX_RATE: f64 = 1e6;
/// Recorded counts in a question; a day by the second.
const MAX_COUNTS: usize = 86_400;

/// A what-if question.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SimulateBody {
    /// The rollout, as it would be started. Its version needs not exist yet.
    plan: RolloutBody,
    /// How much traffic there is, and how often it fails now.
    traffic: TrafficBody,
    /// What is wrong with the new version; only a healthy one is simulated without it.
    regression: Option<RegressionBody>,
    /// Settings of the guard that shall differ from the service's.
    #[serde(default)]
    #[schema(required = false)]
    guard: GuardBody,
    /// Rollouts with the regression, 1 to 10000; 200 unless given, or fewer when the work is too much.
    #[schema(minimum = 1, maximum = 10_000)]
    runs: Option<u32>,
    /// Rollouts with a healthy version, 1 to 10000; 1000 unless given, or fewer when the work is too much.
    #[schema(minimum = 1, maximum = 10_000)]
    healthy_runs: Option<u32>,
    /// The same question with the same seed gives the same answer; 1 unless given.
    seed: Option<u64>,
}

/// The traffic: one of `rate`, `counts` and `recorded`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TrafficBody {
    /// Requests per second, of all tenants together, 0.001 to 1000000.
    #[schema(example = 200)]
    rate: Option<f64>,
    /// Recorded counts: second, requests from then to the next entry, failures among them; played again and again.
    #[schema(value_type = Option<Vec<Vec<u64>>>, example = json!([[0, 2000, 10], [10, 2100, 9]]))]
    counts: Option<Vec<(u64, u64, u64)>>,
    /// The service's own last fifteen minutes, with its tenants.
    #[serde(default)]
    #[schema(required = false)]
    recorded: bool,
    /// Percent of the requests that the old version fails; 0 unless given, or as recorded.
    #[schema(example = 0.5)]
    errors: Option<f64>,
    /// How many tenants the requests are of, 1 to 10000; of none unless given, or of those that the plan names. Not with
    /// `recorded`.
    tenants: Option<usize>,
    /// How requests are spread over tenants: `equal` (the default) or `zipf`, where the n-th has an n-th of what the first
    /// has.
    #[serde(default)]
    #[schema(required = false)]
    spread: SpreadBody,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SpreadBody {
    #[default]
    Equal,
    Zipf,
}

/// What is wrong with the new version.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegressionBody {
    /// Percent of its requests that it fails more than the old version does.
    #[schema(example = 2)]
    added: Option<f64>,
    /// Percent of its requests that it fails, whatever the old version does.
    errors: Option<f64>,
    /// Its latencies are those of the old version times this, 0.01 to 1000.
    latency_factor: Option<f64>,
    /// When it begins, from the start of the rollout; at once unless given.
    after: Option<String>,
}

/// Settings of the guard, as in the configuration file; those of the service unless given.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GuardBody {
    /// How many times as often as the old version the new one may fail, 1 to 10.
    tolerance_ratio: Option<f64>,
    /// Percent that it may fail on top of that.
    tolerance_difference: Option<f64>,
    /// Percent of failures that break the service's objective.
    ceiling: Option<f64>,
    /// How long a second is to the guard, 100ms to 15s.
    patience: Option<String>,
    /// Probability that a healthy version is ever rolled back, 1e-9 to 0.05.
    error_probability: Option<f64>,
    /// Whether latency is judged.
    latency: Option<bool>,
    /// What is slow: the old version's percentile times this, 1 to 10.
    latency_tolerance: Option<f64>,
    /// Whether the share is held back while evidence is being confirmed.
    brake: Option<bool>,
    /// Whether all tenants together can take the version back.
    fleet: Option<bool>,
}

/// What would happen if a rollout began
///
/// Runs the rollout by the real planner and the real guard in virtual time, many times: with the regression, for how soon it
/// is caught and what it costs; and with a healthy version, for how long it takes and how often it is taken back for nothing.
/// Nothing is changed. One simulation runs at a time.
#[utoipa::path(
    post, path = "/v1/simulate", tag = "rollouts",
    request_body = SimulateBody,
    responses((status = 200, description = "What would happen", body = Answer)),
)]
pub(super) async fn simulate_rollout(
    State(cx): State<Cx>,
    Body(body): Body<SimulateBody>,
) -> Result<Json<Answer>, Problem> {
    let permit = Arc::clone(&cx.simulations).try_acquire_owned().map_err(|_| {
        let detail = "another simulation is running; try again in a few seconds";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(5)
    })?;
    let scenario = body.scenario(&cx)?;
    // Whoever leaves drops this future and with it the one that counts; so does the end of the process.
    let waits = Arc::new(());
    let waited_for = Arc::downgrade(&waits);
    let answer = tokio::task::spawn_blocking(move || {
        let answer = simulate(&scenario, &|| waited_for.strong_count() > 0);
        // Held by the work, not by the request: who leaves early must not make room for another one.
        drop(permit);
        answer
    });
    let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "", "the simulation broke off");
    let answer = answer.await;
    drop(waits);
    answer.map_err(broken)?.map(Json).map_err(|refused| {
        let field = match &refused {
            Refused::TooManyRuns { healthy: true, .. } => "healthy_runs",
            Refused::TooManyRuns { .. } => "runs",
            Refused::Rollout(_) | Refused::TooLong | Refused::Stopped => "plan",
        };
        Problem::invalid(field, refused.to_string())
    })
}

impl SimulateBody {
    fn scenario(&self, cx: &Shared) -> Result<Scenario, Problem> {
        let found = Found::service(cx, &self.plan.service)?;
        let groups = &found.view.settings.structure.tenants.groups;
        let spec = self.plan.spec(&found.live().baseline)?;
        if let Target::Groups(names) = &spec.target
            && let Some(unknown) = names.iter().chain(&spec.order.groups).find(|g| !groups.contains_key(*g))
        {
            return Err(Problem::unknown("group", unknown.as_str(), groups.keys().map(GroupName::as_str)));
        }
        Ok(Scenario {
            service: found.name().clone(),
            base: (*found.route.spec).clone(),
            version: found.route.baseline().spec.clone(),
            groups: groups.clone(),
            excluded: self.plan.exclude.iter().cloned().collect(),
            guard: self.guard.over(&found.route.spec.guard)?,
            audience: self.audience(cx, &found, &spec)?,
            load: self.traffic.load(cx, &found)?,
            regression: self.regression.as_ref().map(RegressionBody::checked).transpose()?,
            runs: self.runs.map(|n| count("runs", n)).transpose()?,
            healthy_runs: self.healthy_runs.map(|n| count("healthy_runs", n)).transpose()?,
            seed: self.seed.unwrap_or(1),
            spec,
        })
    }

    /// Whose requests come.
    fn audience(&self, cx: &Shared, found: &Found, spec: &RolloutSpec) -> Result<Vec<(Scope, f64)>, Problem> {
        let traffic = &self.traffic;
        let groups = &found.view.settings.structure.tenants.groups;
        let named: BTreeSet<TenantName> = match &spec.target {
            Target::Tenants => self.plan.tenants.iter().flatten().cloned().collect(),
            Target::Groups(names) => names.iter().filter_map(|g| groups.get(g)).flatten().cloned().collect(),
            Target::Service => BTreeSet::new(),
        };
        if named.len() > Scenario::MAX_TENANTS {
            let most = Scenario::MAX_TENANTS;
            return Err(Problem::invalid("plan", format!("names {} tenants; allowed are {most} here", named.len())));
        }
        if traffic.recorded {
            let why = "is of the service itself when recorded is set; leave it out";
            return match traffic.tenants {
                Some(_) => Err(Problem::invalid("traffic.tenants", why)),
                None => Ok(recorded_audience(cx, found, named)),
            };
        }
        let spread = match traffic.spread {
            SpreadBody::Equal => Spread::Equal,
            SpreadBody::Zipf => Spread::Zipf,
        };
        let Some(tenants) = traffic.tenants else { return Ok(Scenario::audience_of(named, spread)) };
        if spec.target != Target::Service {
            let why = "is for plans that move the whole service; this one names its tenants";
            return Err(Problem::invalid("traffic.tenants", why));
        }
        if tenants == 0 || tenants > Scenario::MAX_TENANTS {
            let why = format!("is {tenants}; allowed are 1 to {}", Scenario::MAX_TENANTS);
            return Err(Problem::invalid("traffic.tenants", why));
        }
        let names = (1..=tenants).filter_map(|i| TenantName::new(&format!("tenant-{i}")).ok());
        Ok(Scenario::audience_of(names, spread))
    }
}

/// The tenants that had requests lately, each with its part, and everyone without a tenant.
fn recorded_audience(cx: &Shared, found: &Found, named: BTreeSet<TenantName>) -> Vec<(Scope, f64)> {
    let now_ms = cx.now();
    let seen = cx.tallies.service(found.name()).scopes();
    let seen = seen.iter().filter(|scope| !scope.is_other()).filter_map(|scope| scope.tenant().cloned());
    let tenants: BTreeSet<_> = named.into_iter().chain(seen).take(Scenario::MAX_TENANTS).collect();
    let windows = cx.lock_windows();
    let rate = |tenant: Option<&TenantName>| {
        let stats = windows.stats(found.name(), tenant, Some(TRAFFIC_MS), now_ms);
        stats.iter().map(|version| version.requests as f64).sum::<f64>()
    };
    let mut rates: Vec<_> = tenants.into_iter().map(|tenant| (rate(Some(&tenant)), tenant)).collect();
    let rest = rate(None) - rates.iter().map(|(rate, _)| rate).sum::<f64>();
    rates.retain(|(rate, _)| *rate > 0.0);
    let mut audience: Vec<_> = rates.into_iter().map(|(rate, tenant)| (Scope::Tenant(tenant), rate)).collect();
    audience.extend((rest > 0.0).then_some((Scope::Service, rest)));
    Scenario::in_parts(audience)
}

impl TrafficBody {
    fn load(&self, cx: &Shared, found: &Found) -> Result<Load, Problem> {
        let failing = self.errors.map(|errors| fraction("traffic.errors", errors)).transpose()?;
        match (self.rate, &self.counts, self.recorded) {
            (Some(rate), None, false) => {
                let rate = within("traffic.rate", rate, 0.001, MAX_RATE)?;
                Ok(Load::constant(rate, failing.unwrap_or(0.0)))
            }
            (None, Some(counts), false) => {
                if counts.len() > MAX_COUNTS {
                    let why = format!("has {} entries; allowed are 1 to {MAX_COUNTS}", counts.len());
                    return Err(Problem::invalid("traffic.counts", why));
                }
                let why = "needs at least one entry, and seconds that rise";
                let load = Load::recorded(counts, 1, failing).ok_or_else(|| Problem::invalid("traffic.counts", why))?;
                within("traffic.counts", load.mean_rate(), 0.001, MAX_RATE)?;
                Ok(load)
            }
            (None, None, true) => {
                let counts = cx.lock_windows().counts(found.name(), cx.now());
                let load =
                    Load::recorded(&counts, Windows::COUNT_SECONDS, failing).filter(|load| load.mean_rate() > 0.0);
                let why = "had no requests in the last fifteen minutes; give a rate or counts";
                load.ok_or_else(|| Problem::invalid("traffic.recorded", format!("{} {why}", found.name())))
            }
            _ => Err(Problem::invalid("traffic", "must have exactly one of rate, counts and recorded")),
        }
    }
}

impl RegressionBody {
    fn checked(&self) -> Result<Regression, Problem> {
        let failing = match (self.added, self.errors) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid("regression.errors", "allowed is only one of added and errors"));
            }
            (None, None) if self.latency_factor.is_none() => {
                return Err(Problem::invalid(
                    "regression",
                    "is empty; allowed are added or errors, and latency_factor",
                ));
            }
            (Some(added), None) => Failing::Added(fraction("regression.added", added)?),
            (None, Some(errors)) => Failing::At(fraction("regression.errors", errors)?),
            (None, None) => Failing::Added(0.0),
        };
        let latency_factor = within("regression.latency_factor", self.latency_factor.unwrap_or(1.0), 0.01, 1_000.0)?;
        let after = self.after.as_deref().map(|text| span("regression.after", text)).transpose()?;
        Ok(Regression { failing, latency_factor, after_ms: after.unwrap_or_default().as_millis() as u64 })
    }
}

impl GuardBody {
    fn over(&self, service: &GuardSpec) -> Result<GuardSpec, Problem> {
        let number = |name: &str, given: Option<f64>, usual: f64, low: f64, high: f64| match given {
            Some(given) => within(&format!("guard.{name}"), given, low, high),
            None => Ok(usual),
        };
        let points = |name: &str, given: Option<f64>, usual: BasisPoints| match given {
            Some(percent) => BasisPoints::from_percent(percent).map_err(|e| Problem::invalid(name, e.to_string())),
            None => Ok(usual),
        };
        let tolerance = service.latency_tolerance;
        let guard = GuardSpec {
            tolerance_ratio: number("tolerance_ratio", self.tolerance_ratio, service.tolerance_ratio, 1.0, 10.0)?,
            tolerance_difference: points(
                "guard.tolerance_difference",
                self.tolerance_difference,
                service.tolerance_difference,
            )?,
            ceiling: points("guard.ceiling", self.ceiling, service.ceiling)?,
            patience: self.patience.as_deref().map_or(Ok(service.patience), |text| span("guard.patience", text))?,
            error_probability: number(
                "error_probability",
                self.error_probability,
                service.error_probability,
                1e-9,
                0.05,
            )?,
            latency: self.latency.unwrap_or(service.latency),
            latency_tolerance: number("latency_tolerance", self.latency_tolerance, tolerance, 1.0, 10.0)?,
            brake: self.brake.unwrap_or(service.brake),
            fleet: self.fleet.unwrap_or(service.fleet),
            ..service.clone()
        };
        if !(Duration::from_millis(100)..=Duration::from_secs(15)).contains(&guard.patience) {
            return Err(Problem::invalid("guard.patience", "allowed are 100ms to 15s"));
        }
        Parameters::of(&guard).validate().map_err(|mistakes| Problem::invalid("guard", mistakes.join("; ")))?;
        Ok(guard)
    }
}

fn count(field: &str, n: u32) -> Result<u32, Problem> {
    if (1..=Scenario::MAX_RUNS).contains(&n) {
        return Ok(n);
    }
    Err(Problem::invalid(field, format!("is {n}; allowed are 1 to {}", Scenario::MAX_RUNS)))
}

fn within(field: &str, value: f64, low: f64, high: f64) -> Result<f64, Problem> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(Problem::invalid(field, format!("is {value}; allowed are {low} to {high}")))
}

/// A percentage as a fraction.
fn fraction(field: &str, percent: f64) -> Result<f64, Problem> {
    within(field, percent, 0.0, 100.0).map(|percent| percent / 100.0)
}

fn span(field: &str, text: &str) -> Result<Duration, Problem> {
    read_duration(text).map_err(|why| Problem::invalid(field, format!("{:?} {why}", echo(text))))
}
