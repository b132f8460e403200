//! What the copies to a version that users do not see have shown. No value of any answer is in it: fields by path, their
//! values as type and length.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::time;
use super::context::{Cx, Found};
use super::parameters::{Names, Parameters};
use super::problem::Problem;
use super::stats::LatencyAnswer;
use crate::model::{BasisPoints, ServiceName, ShadowSpec, VersionName};
use crate::routing::ShadowRoute;
use crate::shadow::{FieldReport, Quantiles, Report, Shape};

/// Fields in an answer.
const FIELDS: usize = 200;

/// A shadow's answers beside the baseline's.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shadow)]
pub(super) struct ShadowAnswer {
    #[schema(value_type = String)]
    service: ServiceName,
    /// The version that gets the copies.
    #[schema(value_type = String)]
    version: VersionName,
    /// The version whose answers users get.
    #[schema(value_type = String)]
    baseline: VersionName,
    /// False while the shadow's version is the baseline itself: nothing is copied then.
    active: bool,
    settings: ShadowSettings,
    /// When the first copy was answered or given up; none before.
    #[schema(required)]
    since: Option<String>,
    /// `healthy`, `breach` or `not_enough_evidence`.
    verdict: &'static str,
    requests: ShadowRequests,
    /// Share of the compared requests that differ, 0 to 1; none without any.
    #[schema(required)]
    difference_rate: Option<f64>,
    /// Fields that differ, the most frequent first, at most 200; empty until there are enough noise samples.
    fields: Vec<ShadowField>,
    /// Fields that differ, those beyond the list too.
    fields_total: u64,
    /// Requests that differ in fields beyond the 1,000 that are told apart.
    other_fields: u64,
    /// Statuses where they differ, the most frequent first.
    statuses: Vec<ShadowStatus>,
    noise: ShadowNoise,
    /// Of the same requests.
    latency: ShadowLatency,
    /// Copies that went without the credentials that their requests had; their answers may differ for that.
    without_credentials: u64,
}

/// How requests are copied.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowSettings {
    /// Percent of the eligible requests.
    #[schema(value_type = f64)]
    share: BasisPoints,
    methods: Vec<String>,
    credentials: bool,
    ignore: Vec<String>,
    /// Percent of the copied requests.
    #[schema(value_type = f64)]
    noise_share: BasisPoints,
    body_bytes: u64,
    timeout_seconds: f64,
    concurrency: u32,
    queue: u32,
    /// Percent of the compared requests.
    #[schema(value_type = f64)]
    max_difference: BasisPoints,
}

/// Copies by what came of them, with all noise that is known now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowRequests {
    /// Nothing differs but noise.
    same: u64,
    /// The status or a field differs.
    different: u64,
    /// No answer, or a broken one.
    failed: u64,
    /// No answer in time.
    timeout: u64,
    /// Not sent because too many waited.
    dropped: u64,
    /// The bodies cannot be compared: too large, or in an unknown coding.
    unjudged: u64,
    /// Copies that wait now.
    waiting: u32,
}

/// A field that differs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowField {
    /// Its path in JSONPath, positions in arrays as `[*]`, names that look like data as `*`; `body …` for other bodies.
    path: String,
    /// `changed`, `type`, `missing`, `added` or `length`, as in the example.
    kind: &'static str,
    requests: u64,
    /// Share of the compared requests, 0 to 1.
    rate: f64,
    example: ShadowExample,
}

/// The first time that a field differed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowExample {
    baseline: ShadowShape,
    shadow: ShadowShape,
}

/// What stands for a value.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowShape {
    /// `null`, `boolean`, `number`, `string`, `array`, `object`, `absent`, or a content type.
    r#type: String,
    /// Characters, elements, fields or bytes.
    #[schema(required)]
    length: Option<u64>,
}

/// Requests with another status.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowStatus {
    baseline: u16,
    shadow: u16,
    requests: u64,
}

/// What differs by itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowNoise {
    /// Requests that the baseline has answered twice.
    samples: u64,
    /// How many of them there must be before fields are reported.
    needed: u64,
    /// Fields that differed between the baseline's two answers, and are not reported for that.
    fields: Vec<String>,
}

/// Latencies of the same requests, from the head sent to the head received.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowLatency {
    baseline: LatencyAnswer,
    shadow: LatencyAnswer,
}

/// A shadow in short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowSummary {
    #[schema(value_type = String)]
    version: VersionName,
    #[schema(value_type = String)]
    baseline: VersionName,
    /// `healthy`, `breach` or `not_enough_evidence`.
    verdict: &'static str,
    requests: ShadowRequests,
    #[schema(required)]
    difference_rate: Option<f64>,
    /// The fields that differ most often, at most 5.
    fields: Vec<ShadowField>,
    fields_total: u64,
}

/// What the copies to the shadow have shown
#[utoipa::path(
    get, path = "/v1/services/{service}/shadow", tag = "evidence",
    responses((status = 200, description = "Differences, statuses and latencies", body = ShadowAnswer)),
)]
pub(super) async fn get_shadow(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<ShadowAnswer>, Problem> {
    parameters.only(&[], &[])?;
    let found = Found::service(&cx, &names.service()?)?;
    let Some(route) = &found.route.shadow else {
        let known = found.view.routes.services.iter().filter(|s| s.shadow.is_some()).map(|s| s.spec.name.as_str());
        return Err(Problem::unknown("shadow of", found.name().as_str(), known));
    };
    Ok(Json(ShadowAnswer::new(found.name(), route)))
}

/// The shadow in short, when it compares these two versions.
pub(super) fn summary(found: &Found, a: &VersionName, b: &VersionName) -> Option<ShadowSummary> {
    let route = found.route.shadow.as_ref()?;
    let pair = (&route.version.name, &route.baseline.name);
    if pair != (a, b) && pair != (b, a) {
        return None;
    }
    let report = route.judge().report(&route.spec);
    Some(ShadowSummary {
        version: route.version.name.clone(),
        baseline: route.baseline.name.clone(),
        verdict: report.verdict.as_str(),
        requests: requests(route, &report),
        difference_rate: difference_rate(&report),
        fields_total: report.fields.len() as u64,
        fields: report.fields.into_iter().take(5).map(ShadowField::from).collect(),
    })
}

impl ShadowAnswer {
    fn new(service: &ServiceName, route: &ShadowRoute) -> Self {
        let report = route.judge().report(&route.spec);
        let status = |(baseline, shadow, requests)| ShadowStatus { baseline, shadow, requests };
        Self {
            service: service.clone(),
            version: route.version.name.clone(),
            baseline: route.baseline.name.clone(),
            active: route.is_active(),
            settings: ShadowSettings::from(&*route.spec),
            since: report.since_ms.map(time),
            verdict: report.verdict.as_str(),
            requests: requests(route, &report),
            difference_rate: difference_rate(&report),
            fields_total: report.fields.len() as u64,
            fields: report.fields.into_iter().take(FIELDS).map(ShadowField::from).collect(),
            other_fields: report.other_fields,
            statuses: report.statuses.into_iter().map(status).collect(),
            noise: ShadowNoise { samples: report.noise_samples, needed: report.noise_needed, fields: report.noise },
            latency: ShadowLatency { baseline: report.baseline_latency.into(), shadow: report.shadow_latency.into() },
            without_credentials: route.stripped(),
        }
    }
}

fn requests(route: &ShadowRoute, report: &Report) -> ShadowRequests {
    ShadowRequests {
        same: report.same,
        different: report.different,
        failed: report.failed,
        timeout: report.timeouts,
        dropped: route.dropped(),
        unjudged: report.unjudged,
        waiting: route.waiting(),
    }
}

fn difference_rate(report: &Report) -> Option<f64> {
    let compared = report.same + report.different;
    (compared > 0).then(|| report.different as f64 / compared as f64)
}

impl From<&ShadowSpec> for ShadowSettings {
    fn from(spec: &ShadowSpec) -> Self {
        Self {
            share: spec.share,
            methods: spec.methods.iter().map(ToString::to_string).collect(),
            credentials: spec.credentials,
            ignore: spec.ignore.iter().map(ToString::to_string).collect(),
            noise_share: spec.noise_share,
            body_bytes: spec.body,
            timeout_seconds: spec.timeout.as_secs_f64(),
            concurrency: spec.concurrency,
            queue: spec.queue,
            max_difference: spec.max_difference,
        }
    }
}

impl From<FieldReport> for ShadowField {
    fn from(field: FieldReport) -> Self {
        let FieldReport { path, requests, rate, example } = field;
        let shape = |Shape { kind, length }| ShadowShape { r#type: kind, length };
        let (kind, baseline, shadow) = (example.kind.as_str(), shape(example.baseline), shape(example.shadow));
        Self { path, kind, requests, rate, example: ShadowExample { baseline, shadow } }
    }
}

impl From<Quantiles> for LatencyAnswer {
    fn from(Quantiles { p50, p90, p99 }: Quantiles) -> Self {
        Self { p50, p90, p99 }
    }
}
