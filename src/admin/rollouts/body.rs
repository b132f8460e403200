//! The plan of a rollout as people write it, and how it becomes a checked one.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::super::describe::duration;
use super::super::problem::{Problem, echo};
use crate::config::read_duration;
use crate::model::{
    BasisPoints, BlastRadius, Gate, GateAt, GroupName, OnInsufficient, Order, RolloutSpec, Schedule, ServiceName,
    SigningSecret, Step, Target, TenantName, TimeWindow, Tolerance, VersionName,
};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The longest of any time here.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A rollout: from where to where, for whom, in which steps, and when to give up.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RolloutBody {
    /// The service.
    #[schema(value_type = String, example = "accounting")]
    pub service: ServiceName,
    /// Where traffic is; the baseline unless given.
    #[schema(value_type = Option<String>)]
    pub from: Option<VersionName>,
    /// Where it shall be.
    #[schema(value_type = String, example = "2.0.0")]
    pub to: VersionName,
    /// `steps` (the default): shares of the keys, rising. `batch`: tenants, some at a time. `canary`: a share of the tenants
    /// first, then the others when a person resumes. `all`: everyone at once. They combine: batches and canary tenants go
    /// through `steps` too, when those are given.
    #[schema(example = "batch")]
    pub strategy: Option<Strategy>,
    /// Shares of the new version in percent, rising to 100: numbers, or objects with `share` and, only for this step,
    /// `bake`, `max_bake`, `approval` and `no_return`. 10, 25, 50, 100 unless given; 100 for the other strategies.
    #[schema(value_type = Option<Vec<Object>>, example = json!([10, 25, { "share": 50, "approval": true }, 100]))]
    pub steps: Option<Vec<Value>>,
    /// The shortest time in each step; `5m` unless given.
    pub bake: Option<String>,
    /// How long to wait for proof in each step; `1h`, or ten times `bake`, unless given.
    pub max_bake: Option<String>,
    /// Tenants at a time.
    pub batch: Option<BatchBody>,
    /// Percent of the tenants that go first; 5 for the strategy `canary` unless given.
    pub canary: Option<f64>,
    /// Only these tenants.
    #[schema(value_type = Option<Vec<String>>)]
    pub tenants: Option<Vec<TenantName>>,
    /// Only the tenants of these groups.
    #[schema(value_type = Option<Vec<String>>)]
    pub groups: Option<Vec<GroupName>>,
    /// Tenants that stay where they are.
    #[serde(default)]
    #[schema(value_type = Vec<String>, required = false)]
    pub exclude: Vec<TenantName>,
    /// In which order tenants go.
    #[serde(default)]
    #[schema(required = false)]
    pub order: OrderBody,
    /// What happens when a step is neither proven nor refuted after `max_bake`: `advance` (the default; nothing may speak
    /// against it, and there must have been `min_requests`), `hold` or `abort`.
    #[schema(value_type = Option<String>)]
    pub on_insufficient: Option<OnInsufficient>,
    /// Requests that the new version must have answered in a step before `advance` goes on without proof; 100 unless given.
    pub min_requests: Option<u64>,
    /// Percent that the old version keeps while the last step bakes, so that there is something to compare with; 5 unless
    /// given.
    pub keep: Option<f64>,
    /// How many tenants may go back before all do; 10 % of those moved unless given.
    pub tolerate: Option<TolerateBody>,
    /// What it may cost.
    pub blast_radius: Option<BlastRadiusBody>,
    /// How traffic goes back when all of it does; at once unless given.
    pub rollback: Option<BackBody>,
    /// Not before this time, RFC 3339.
    pub start_at: Option<String>,
    /// Days and hours in which it may begin and steps may take effect; any of them. Always unless given.
    #[serde(default)]
    #[schema(value_type = Vec<Object>, required = false,
        example = json!([{ "days": ["tue-thu"], "from": "09:00", "to": "16:00", "timezone": "Europe/Berlin" }]))]
    pub windows: Vec<TimeWindow>,
    /// Who is asked by webhook on the way.
    #[serde(default)]
    #[schema(required = false)]
    pub gates: Vec<GateBody>,
    /// How long the old version must stay usable after the end; `24h` unless given.
    pub keep_warm: Option<String>,
    /// Versions to go on to when it is complete, in this order, each by the same plan.
    #[serde(default)]
    #[schema(value_type = Vec<String>, required = false)]
    pub then: Vec<VersionName>,
    /// Start although the checks found something that speaks against it.
    #[serde(default)]
    #[schema(required = false)]
    pub force: bool,
    /// Why; shown with the rollout and in the history.
    pub reason: Option<String>,
}

/// How a rollout goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::admin) enum Strategy {
    Steps,
    Batch,
    Canary,
    All,
}

/// Tenants at a time.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct BatchBody {
    /// How many.
    #[schema(minimum = 1)]
    size: u32,
    /// From the end of one batch to the begin of the next; none unless given.
    delay: Option<String>,
}

/// In which order tenants go.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct OrderBody {
    /// Groups whose tenants go first, in this order.
    #[serde(default)]
    #[schema(value_type = Vec<String>, required = false)]
    groups: Vec<GroupName>,
    /// Seed of a random order; those with the least traffic first unless given.
    random: Option<u64>,
}

/// How many tenants may go back before all do.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct TolerateBody {
    /// So many.
    tenants: Option<u32>,
    /// This percentage of those that were moved; does not count below four.
    share: Option<f64>,
}

/// What a rollout may cost.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct BlastRadiusBody {
    /// Tenants that may be on the new version while nothing is proven about them.
    tenants: Option<u32>,
    /// Requests of users that may fail on the new version.
    failed_requests: Option<u64>,
}

/// How traffic goes back.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct BackBody {
    /// Shares of the new version in percent, falling; the last step back, to 0, is not named.
    steps: Vec<f64>,
    /// Time between two steps.
    every: String,
}

/// Somebody who is asked.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct GateBody {
    /// 1 to 63 letters, digits, `.`, `_`, `-`, `+`.
    #[schema(example = "migrate")]
    name: String,
    /// `start`, `before_step`, `after_step`, `completion`, `rollback` or `hold`.
    #[schema(value_type = String, example = "before_step")]
    at: GateAt,
    /// Only at this step, counted from 1.
    step: Option<u32>,
    /// Where the question goes.
    #[schema(example = "https://deploy.example.com/migrate")]
    url: String,
    /// Signs the question, as Standard Webhooks describe: `whsec_` and 24 to 64 bytes in base64.
    secret: Option<String>,
    /// How long an answer may take; `10s` unless given.
    timeout: Option<String>,
}

/// One step, as an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepBody {
    share: f64,
    bake: Option<String>,
    max_bake: Option<String>,
    #[serde(default)]
    approval: bool,
    #[serde(default)]
    no_return: bool,
}

impl RolloutBody {
    /// The checked plan. Whose traffic it moves is looked up elsewhere.
    pub(in crate::admin) fn spec(&self, baseline: &VersionName) -> Result<RolloutSpec, Problem> {
        let steps = self.steps()?;
        let canary = match (self.canary, self.strategy) {
            (Some(percent), _) => Some(share("canary", percent)?),
            (None, Some(Strategy::Canary)) => BasisPoints::new(500),
            (None, _) => None,
        };
        if self.strategy == Some(Strategy::Batch) && self.batch.is_none() {
            return Err(Problem::invalid("batch", "is missing; the strategy batch needs the size of a batch"));
        }
        let (back, back_every_ms) = self.back()?;
        let gates = self.gates.iter().enumerate().map(|(i, gate)| gate.checked(i)).collect::<Result<_, _>>()?;
        let delay = self.batch.as_ref().and_then(|b| b.delay.as_deref());
        let spec = RolloutSpec {
            from: self.from.clone().unwrap_or_else(|| baseline.clone()),
            to: self.to.clone(),
            target: self.target()?,
            steps,
            batch: self.batch.as_ref().map(|b| b.size),
            batch_delay_ms: millis("batch.delay", delay, Duration::ZERO, LONGEST)?,
            canary,
            order: Order { groups: self.order.groups.clone(), seed: self.order.random, unknown: Default::default() },
            on_insufficient: self.on_insufficient.unwrap_or_default(),
            min_requests: self.min_requests.unwrap_or(100),
            keep: share("keep", self.keep.unwrap_or(5.0))?,
            tolerate: self.tolerate()?,
            blast_radius: self.blast_radius(),
            back,
            back_every_ms,
            start_at_ms: self.start_at_ms()?,
            schedule: Schedule { windows: self.windows.clone() },
            gates,
            keep_warm_ms: millis("keep_warm", self.keep_warm.as_deref(), DAY, LONGEST)?,
            then: self.then.clone(),
            unknown: Default::default(),
        };
        spec.check().map_err(|e| Problem::invalid(e.field, e.why))?;
        Ok(spec)
    }

    fn steps(&self) -> Result<Vec<Step>, Problem> {
        let bake = millis("bake", self.bake.as_deref(), Duration::from_secs(300), LONGEST)?;
        let max_bake = self.max_bake.as_deref();
        let default_max = Duration::from_millis((bake * 10).max(3_600_000)).min(LONGEST);
        let max_bake_ms = millis("max_bake", max_bake, default_max, LONGEST)?;
        let usual = |share| Step {
            share,
            bake_ms: bake,
            max_bake_ms,
            approval: false,
            no_return: false,
            unknown: Default::default(),
        };
        let Some(steps) = &self.steps else {
            let whole = self.strategy.is_some_and(|s| s != Strategy::Steps) || self.batch.is_some();
            let shares: &[u16] = if whole { &[10_000] } else { &[1_000, 2_500, 5_000, 10_000] };
            return Ok(shares.iter().filter_map(|points| BasisPoints::new(*points)).map(usual).collect());
        };
        let read = |(i, value): (usize, &Value)| {
            let field = format!("steps[{i}]");
            if let Some(percent) = value.as_f64() {
                return Ok(usual(share(&field, percent)?));
            }
            let body: StepBody = serde_json::from_value(value.clone()).map_err(|e| {
                Problem::invalid(&field, format!("{e}; allowed are a percentage, or an object with a share"))
            })?;
            let part = |name: &str| format!("{field}.{name}");
            let bake_ms = millis(&part("bake"), body.bake.as_deref(), Duration::from_millis(bake), LONGEST)?;
            let usual_max = Duration::from_millis(max_bake_ms.max(bake_ms));
            Ok(Step {
                share: share(&part("share"), body.share)?,
                bake_ms,
                max_bake_ms: millis(&part("max_bake"), body.max_bake.as_deref(), usual_max, LONGEST)?,
                approval: body.approval,
                no_return: body.no_return,
                unknown: Default::default(),
            })
        };
        steps.iter().enumerate().map(read).collect()
    }

    fn target(&self) -> Result<Target, Problem> {
        match (&self.tenants, &self.groups) {
            (Some(_), Some(_)) => Err(Problem::invalid("groups", "allowed is only one of tenants and groups")),
            (Some(_), None) => Ok(Target::Tenants),
            (None, Some(groups)) => Ok(Target::Groups(groups.clone())),
            (None, None) => Ok(Target::Service),
        }
    }

    fn tolerate(&self) -> Result<Tolerance, Problem> {
        let Some(body) = &self.tolerate else {
            return Ok(Tolerance { tenants: None, share: BasisPoints::new(1_000), unknown: Default::default() });
        };
        if body.tenants.is_none() && body.share.is_none() {
            return Err(Problem::invalid("tolerate", "is empty; allowed are tenants, share, or both"));
        }
        let share = body.share.map(|percent| share("tolerate.share", percent)).transpose()?;
        Ok(Tolerance { tenants: body.tenants, share, unknown: Default::default() })
    }

    fn blast_radius(&self) -> BlastRadius {
        let body = self.blast_radius.as_ref();
        BlastRadius {
            tenants: body.and_then(|b| b.tenants),
            failed_requests: body.and_then(|b| b.failed_requests),
            unknown: Default::default(),
        }
    }

    fn back(&self) -> Result<(Vec<BasisPoints>, u64), Problem> {
        let Some(body) = &self.rollback else { return Ok((Vec::new(), 0)) };
        let one = |(i, percent): (usize, &f64)| share(&format!("rollback.steps[{i}]"), *percent);
        let steps = body.steps.iter().enumerate().map(one).collect::<Result<_, _>>()?;
        Ok((steps, millis("rollback.every", Some(&body.every), Duration::ZERO, LONGEST)?))
    }

    fn start_at_ms(&self) -> Result<Option<u64>, Problem> {
        let Some(text) = &self.start_at else { return Ok(None) };
        let at = text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
        let refuse =
            || Problem::invalid("start_at", format!("{:?} is no time such as 2026-12-01T06:00:00Z", echo(text)));
        at.map(Some).ok_or_else(refuse)
    }
}

impl GateBody {
    fn checked(&self, i: usize) -> Result<Gate, Problem> {
        let field = |name: &str| format!("gates[{i}].{name}");
        if let Err(error) = self.name.parse::<GroupName>() {
            return Err(Problem::invalid(&field("name"), format!("{:?} {error}", echo(&self.name))));
        }
        let is_http = |uri: &http::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        if !self.url.parse::<http::Uri>().is_ok_and(|uri| is_http(&uri)) {
            let why = "is no address; allowed are those that begin with http:// or https://";
            return Err(Problem::invalid(&field("url"), why));
        }
        if let Some(Err(error)) = self.secret.as_deref().map(str::parse::<SigningSecret>) {
            let why = format!("{error}; allowed is whsec_ and 24 to 64 bytes in base64");
            return Err(Problem::invalid(&field("secret"), why));
        }
        if self.step == Some(0) {
            return Err(Problem::invalid(&field("step"), "is 0; steps are counted from 1"));
        }
        let timeout = self.timeout.as_deref();
        Ok(Gate {
            name: self.name.clone(),
            at: self.at,
            step: self.step,
            url: self.url.clone(),
            secret: self.secret.clone(),
            timeout_ms: millis(&field("timeout"), timeout, Duration::from_secs(10), Duration::from_secs(300))?.max(1),
            unknown: Default::default(),
        })
    }
}

fn share(field: &str, percent: f64) -> Result<BasisPoints, Problem> {
    BasisPoints::from_percent(percent).map_err(|e| Problem::invalid(field, e.to_string()))
}

fn millis(field: &str, text: Option<&str>, default: Duration, most: Duration) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(default.as_millis() as u64) };
    let span = read_duration(text).map_err(|why| Problem::invalid(field, format!("{:?} {why}", echo(text))))?;
    if span > most {
        return Err(Problem::invalid(field, format!("{text} is too long; allowed are up to {}", duration(most))));
    }
    Ok(span.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<RolloutSpec, String> {
        let mut whole = json!({ "service": "api", "to": "2" });
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let body: RolloutBody = serde_json::from_value(whole).map_err(|e| e.to_string())?;
        body.spec(&VersionName::new("1").unwrap()).map_err(|e| e.detail().to_owned())
    }

    fn shares(spec: &RolloutSpec) -> Vec<f64> {
        spec.steps.iter().map(|s| s.share.percent()).collect()
    }

    #[test]
    fn what_is_left_out_is_sensible() {
        let spec = read(json!({})).unwrap();
        assert_eq!((shares(&spec), &spec.target), (vec![10.0, 25.0, 50.0, 100.0], &Target::Service));
        assert_eq!((spec.steps[0].bake_ms, spec.steps[0].max_bake_ms), (300_000, 3_600_000));
        assert_eq!(
            (spec.from.as_str(), spec.on_insufficient, spec.keep.percent()),
            ("1", OnInsufficient::Advance, 5.0)
        );
        let batch = read(json!({ "batch": { "size": 50, "delay": "10m" } })).unwrap();
        assert_eq!((shares(&batch), batch.batch, batch.batch_delay_ms), (vec![100.0], Some(50), 600_000));
        assert_eq!(read(json!({ "strategy": "canary" })).unwrap().canary, BasisPoints::new(500));
        assert_eq!(shares(&read(json!({ "strategy": "all" })).unwrap()), [100.0]);
    }

    #[test]
    fn steps_may_have_their_own_ways() {
        let step = json!({ "share": 50, "bake": "2m", "approval": true, "no_return": true });
        let spec = read(json!({ "bake": "1m", "steps": [12.5, step, 100] })).unwrap();
        assert_eq!(shares(&spec), [12.5, 50.0, 100.0]);
        assert_eq!((spec.steps[0].bake_ms, spec.steps[1].bake_ms), (60_000, 120_000));
        assert!(spec.steps[1].approval && spec.steps[1].no_return && !spec.steps[2].approval);
    }

    #[test]
    fn mistakes_name_the_field_and_what_is_allowed() {
        let wrong = |body: Value| read(body).unwrap_err();
        assert!(wrong(json!({ "steps": [10, "x"] })).starts_with("steps[1]: "));
        assert!(wrong(json!({ "steps": [10, { "share": 20, "backe": "1m" }, 100] })).contains("backe"));
        assert!(wrong(json!({ "steps": [50, 10, 100] })).contains("rise"));
        assert!(wrong(json!({ "bake": "soon" })).starts_with("bake: \"soon\""));
        assert!(wrong(json!({ "strategy": "batch" })).starts_with("batch: "));
        assert!(wrong(json!({ "tenants": ["a"], "groups": ["b"] })).starts_with("groups: "));
        assert!(wrong(json!({ "tolerate": {} })).starts_with("tolerate: "));
        assert!(wrong(json!({ "start_at": "tomorrow" })).starts_with("start_at: "));
        let gate = |extra: Value| {
            let mut gate = json!({ "name": "g", "at": "start", "url": "http://127.0.0.1:1/" });
            gate.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            json!({ "gates": [gate] })
        };
        assert!(read(gate(json!({}))).is_ok());
        assert!(wrong(gate(json!({ "url": "ftp://x/" }))).starts_with("gates[0].url: "));
        assert!(wrong(gate(json!({ "secret": "hush" }))).starts_with("gates[0].secret: "));
        assert!(wrong(gate(json!({ "timeout": "1h" }))).starts_with("gates[0].timeout: "));
        assert!(wrong(gate(json!({ "step": 0 }))).starts_with("gates[0].step: "));
        assert!(wrong(json!({ "stepz": 1 })).contains("unknown field"));
    }
}
