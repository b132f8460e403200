//! One rollout: where it is and why, its steps, gates and evidence, whom it moves, what happened, and what may be done.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::context::{Cx, Shared};
use super::super::parameters::{Names, Parameters};
use super::super::problem::Problem;
use super::super::rollouts::find;
use super::layout::{Nav, Visitor};
use super::live::{Fragment, Seen, Watched, in_time};
use super::rollout_units::{self, UnitPage};
use super::rollout_words::{chip_of, progress_bar, rollout_path, sentence, span, waits};
use super::words::{count, moment, plural, service_path, share};
use super::{past, rollout_do, scan, service, verdict};
use crate::config::Role;
use crate::model::{Event, EventKind, EventQuery, GateAt, GateRecord, LiveRollout, Phase, Rollout, RolloutId, Stage};
use crate::planning::{PROVEN_AT, StageEvidence};

/// Events of a page of the log.
const LOG: usize = 25;
/// How long after its end a rollout may be told of: gates are asked then, too.
const LAST_WORDS_MS: u64 = 600_000;
/// Scopes whose evidence is shown.
const SCOPES: usize = 4;
/// Batches that are listed around the one that it is in.
const BATCHES: u32 = 5;

/// What of a rollout is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which one.
    pub id: RolloutId,
    /// Which of its units.
    pub units: rollout_units::Wanted,
    /// Only events before this one.
    before: Option<u64>,
    /// Whether what may be done is shown.
    pub operator: bool,
}

/// What takes a while to know.
#[derive(Default)]
pub(super) struct Looked {
    /// Whom it moves.
    units: UnitPage,
    /// What happened; none: the history cannot be read.
    log: Option<scan::Page>,
}

/// The names of the parameters.
pub(super) const PARAMETERS: [&str; 6] = ["done", "search", "status", "batch", "after", "before"];

impl Wanted {
    /// From the parameters of a query.
    pub(super) fn read(id: RolloutId, parameters: &Parameters, operator: bool) -> Result<Self, Problem> {
        let units = rollout_units::Wanted::read(parameters)?;
        Ok(Self { id, units, before: parameters.number("before", 1..=u64::MAX)?, operator })
    }

    /// As a query.
    pub(super) fn query(&self) -> String {
        let before = self.before.map(|before| format!("&before={before}")).unwrap_or_default();
        format!("{}{before}", self.units.query())
    }

    /// Looks at what takes a while.
    pub(super) async fn look(&self, cx: &Cx) -> Looked {
        let Ok(live) = find(cx, &self.id) else { return Looked::default() };
        let (units, log) =
            tokio::join!(rollout_units::page(cx, &live, &self.units), in_time(self.log(cx, &live.rollout)));
        Looked { units, log }
    }

    async fn log(&self, cx: &Shared, rollout: &Rollout) -> Result<scan::Page, Problem> {
        let query = EventQuery {
            after: rollout.first_event.saturating_sub(1),
            before: self.before,
            service: Some(rollout.service.clone()),
            ..EventQuery::default()
        };
        let is_of_it = |event: &Event| event.rollout.as_ref() == Some(&rollout.id);
        let page = scan::back(cx, query.clone(), LOG, &is_of_it).await?;
        let (true, true, Some(ended_ms)) = (page.tired, page.events.is_empty(), rollout.ended_ms) else {
            return Ok(page);
        };
        // Much has happened since it was over, so the page begins where that was.
        let end = scan::first_since(cx, ended_ms + LAST_WORDS_MS).await?;
        let before = Some(query.before.map_or(end, |before| before.min(end)));
        scan::back(cx, EventQuery { before, ..query }, LOG, &is_of_it).await
    }
}

/// The page.
pub(super) async fn show(
    State(cx): State<Cx>,
    visitor: Visitor,
    names: Names,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let parameters = parameters.only(&PARAMETERS, &[])?;
    let live = find(&cx, &names.rollout()?)?;
    let id = &live.rollout.id;
    let wanted = Wanted::read(id.clone(), &parameters, visitor.can(Role::Operator))?;
    let watched = Watched::Rollout(wanted.clone());
    let seen = watched.look(&cx).await;
    let done = service::done(&cx, &parameters).await?;
    let fragments = watched.fragments(&cx, &seen)?;
    let body = html! {
        (done)
        @for fragment in fragments {
            // What is typed into a form is the reader's, so the form is no part of what is put in place.
            @if fragment.id == "units" { (rollout_units::form(&live, &wanted.units)) }
            (fragment.markup)
        }
    };
    let heading = html! {
        p.crumb { a href="/rollouts" { "Rollouts" } " ›" }
        h1 { bdi { (id) } }
        span.soft { a href=(service_path(&live.rollout.service)) { bdi { (live.rollout.service) } } ", " bdi { (live.rollout.spec.from) } " to " bdi { (live.rollout.spec.to) } }
    };
    Ok(visitor.page_with(&cx, Nav::Rollouts, &format!("Rollout {id}"), heading, body, Some(&watched.text())))
}

/// Everything that changes.
pub(super) fn fragments(cx: &Cx, wanted: &Wanted, seen: &Seen) -> Result<Vec<Fragment>, Problem> {
    let live = find(cx, &wanted.id)?;
    let looked = &seen.rollout;
    let mut all = vec![Fragment { id: "state", markup: state(cx, &live) }];
    if wanted.operator {
        all.push(Fragment { id: "do", markup: rollout_do::offered(&cx.control.view(), &live) });
    }
    all.push(Fragment { id: "steps", markup: steps(&live.rollout, looked.log.as_ref()) });
    if !live.rollout.phase.is_final() {
        all.push(Fragment { id: "evidence", markup: evidence(cx, &live) });
    }
    if !live.rollout.spec.gates.is_empty() {
        all.push(Fragment { id: "gates", markup: gates(&live.rollout) });
    }
    all.push(Fragment { id: "units", markup: rollout_units::table(&live, wanted, &looked.units) });
    all.push(Fragment { id: "log", markup: log(wanted, looked) });
    Ok(all)
}

fn state(cx: &Shared, live: &LiveRollout) -> Markup {
    let rollout = &live.rollout;
    let (word, class) = chip_of(rollout);
    let waiting = cx.control.board().waiting(&rollout.id).filter(|_| !rollout.phase.is_final());
    let ours = cx.control.fleet().is_none_or(|fleet| fleet.role == crate::store::Role::Leader);
    html! {
        section.card id="state" aria-labelledby="state-title" {
            div.row.spread {
                h2 id="state-title" { "Where it is" }
                span class={ "chip " (class) } { (word) }
            }
            (progress_bar(rollout))
            p.lead id="phase" aria-live="polite" { (sentence(rollout)) }
            @if waiting.is_some() { p id="waiting" { (waits(rollout, waiting.as_ref())) } }
            @else if !ours && !rollout.phase.is_final() { p.soft { "What it waits for is told by the proxy that leads." } }
            @if rollout.counts.total() > 1 { (counts(rollout)) }
            @if let Some(pause) = &rollout.paused {
                p.note.warn { strong { "Paused by " (past::author(&pause.author)) } " since " (moment(pause.since_ms)) @if !pause.reason.is_empty() { ": " bdi { (pause.reason) } } }
            }
            @if let Some(back) = &rollout.going_back {
                p.note.bad { strong { (moment(back.since_ms)) ", by " (past::author(&back.author)) ": " } bdi { (back.reason) } }
            }
            @if rollout.is_beyond_return() && !rollout.phase.is_final() { p.note.warn { "It is past its point of no return: going back is for a person to decide." } }
            @if let Some(why) = &rollout.not_followed { p.note.warn { "It did not go on to the next version: " bdi { (why) } } }
            (facts(rollout))
        }
    }
}

/// Whom it moves, by what became of them.
fn counts(rollout: &Rollout) -> Markup {
    let c = &rollout.counts;
    let all = [
        (c.completed, "moved", "ok"),
        (c.in_progress, "on the way", "ok"),
        (c.pending, "to come", ""),
        (c.rolled_back, "went back alone", "bad"),
        (c.reverted, "went back with all", "bad"),
        (c.excluded, "left out", ""),
        (c.overridden, "decided by others", "warn"),
    ];
    html! {
        ul.legend id="counts" {
            @for (n, word, class) in all.into_iter().filter(|(n, ..)| *n > 0) {
                li data-key=(word) { span class={ "chip " (class) } { (word) } " " strong { (count(n.into())) } }
            }
        }
    }
}

fn facts(rollout: &Rollout) -> Markup {
    html! {
        dl.facts {
            dt { "Asked for" } dd { (moment(rollout.created_ms)) ", by " (past::author(&rollout.author)) @if !rollout.reason.is_empty() { ": " bdi { (rollout.reason) } } }
            @if let Some(at) = rollout.started_ms { dt { "Begun" } dd { (moment(at)) } }
            @if let Some(at) = rollout.ended_ms { dt { "Ended" } dd { (moment(at)) @if let Some(begun) = rollout.started_ms { " (after " (span(at.saturating_sub(begun) / 1_000)) ")" } } }
            @if let Some(at) = rollout.warm_until_ms() { dt { "Can be undone until" } dd { (moment(at)) } }
            @if rollout.failed_requests > 0 { dt { "Cost" } dd { (plural(rollout.failed_requests, "failed request", "failed requests")) " of users" } }
            @if rollout.retries > 0 { dt { "Begun again" } dd { (plural(rollout.retries.into(), "time", "times")) } }
            @if let Some(id) = &rollout.follows { dt { "Goes on from" } dd { a href=(rollout_path(id)) { bdi { (id) } } } }
            @if let Some(id) = &rollout.followed_by { dt { "Went on in" } dd { a href=(rollout_path(id)) { bdi { (id) } } } }
            @if !rollout.spec.then.is_empty() { dt { "Goes on to" } dd { @for (i, version) in rollout.spec.then.iter().enumerate() { @if i > 0 { ", " } bdi { (version) } } } }
        }
    }
}

/// What a step is in its batch now.
fn of_step(rollout: &Rollout, stage: Stage) -> (&'static str, &'static str) {
    match rollout.phase {
        Phase::Completed | Phase::Finishing => ("done", "ok"),
        Phase::Progressing if stage < rollout.stage => ("done", "ok"),
        Phase::Progressing if stage == rollout.stage && rollout.in_effect => ("now", "now"),
        Phase::Progressing if stage == rollout.stage => ("next", "warn"),
        Phase::Pending | Phase::Progressing => ("to come", ""),
        Phase::GoingBack | Phase::RolledBack | Phase::Aborted => ("taken back", ""),
    }
}

fn steps(rollout: &Rollout, log: Option<&scan::Page>) -> Markup {
    let spec = &rollout.spec;
    let since = log.and_then(|log| in_effect_since(rollout, &log.events));
    let batch = rollout.stage.batch;
    html! {
        section.card id="steps" aria-labelledby="steps-title" {
            h2 id="steps-title" { "Steps" @if rollout.batches() > 1 { " of batch " (count(u64::from(batch) + 1)) " of " (count(rollout.batches().into())) } }
            ol.plan {
                @for (i, step) in spec.steps.iter().enumerate() {
                    @let stage = Stage { batch, step: i as u32 };
                    @let (word, class) = of_step(rollout, stage);
                    li data-key=(i) aria-current=[(word == "now").then_some("step")] {
                        span.number { (i + 1) }
                        strong { (share(step.share)) }
                        span class={ "chip " (class) } { (word) }
                        span.soft.small {
                            "bakes " (span(step.bake_ms / 1_000)) " to " (span(step.max_bake_ms / 1_000))
                            @if step.approval { ", needs an approval" }
                            @if step.no_return { ", no return after it" }
                            @if word == "now" && let Some(at) = since { ", in effect since " (moment(at)) }
                        }
                    }
                }
            }
            @if rollout.batches() > 1 { (batches(rollout)) }
        }
    }
}

/// When the step in effect took effect, as far as the log is there.
fn in_effect_since(rollout: &Rollout, events: &[Event]) -> Option<u64> {
    let step = rollout.stage.to_string();
    let is_it =
        |e: &&Event| e.kind == EventKind::RolloutStep && e.after.get("step").and_then(|s| s.as_str()) == Some(&step);
    events.iter().find(is_it).filter(|_| rollout.in_effect).map(|event| event.at_ms)
}

/// The batches around the one that it is in.
fn batches(rollout: &Rollout) -> Markup {
    let all = rollout.batches();
    let first = rollout.stage.batch.saturating_sub(2).min(all.saturating_sub(BATCHES));
    let last = (first + BATCHES).min(all);
    let word = |batch: u32| match rollout.phase {
        Phase::Completed | Phase::Finishing => ("done", "ok"),
        Phase::Progressing if batch < rollout.stage.batch => ("done", "ok"),
        Phase::Progressing if batch == rollout.stage.batch => ("now", "now"),
        Phase::Pending | Phase::Progressing => ("to come", ""),
        _ => ("taken back", ""),
    };
    html! {
        h3 { "Batches" }
        @if first > 0 { p.soft.small { (count(first.into())) " before these" } }
        ul.legend {
            @for batch in first..last {
                @let (text, class) = word(batch);
                li data-key=(batch) {
                    a href={ "?batch=" (batch + 1) "#units" } { "batch " (batch + 1) }
                    span.soft.small { (plural(rollout.batch_range(batch).len() as u64, "unit", "units")) }
                    span class={ "chip " (class) } { (text) }
                }
            }
        }
        @if last < all { p.soft.small { (count((all - last).into())) " after these" } }
    }
}

fn evidence(cx: &Shared, live: &LiveRollout) -> Markup {
    let rollout = &live.rollout;
    let to = &rollout.spec.to;
    let reports = cx.control.board().worst(&rollout.service, SCOPES);
    let mut step = StageEvidence::default();
    let batch = live.units.range(rollout.batch_range(rollout.stage.batch));
    let mut attempts: Vec<u64> = batch.filter(|(_, u)| u.status.has_moved()).map(|(_, u)| u.attempt).collect();
    attempts.sort_unstable();
    cx.control.board().each_of(&rollout.service, to, |report| {
        if attempts.binary_search(&report.attempt).is_ok() {
            step.add(&report.for_planning());
        }
    });
    let proof = step.promotion.values().copied().reduce(f64::min).unwrap_or(0.0);
    html! {
        section.card id="evidence" aria-labelledby="evidence-title" {
            h2 id="evidence-title" { "Evidence of this step" }
            @if step.scopes == 0 { p.soft { "Nothing is compared yet: the step needs requests on " bdi { (to) } "." } }
            @else {
                p { (plural(step.requests, "request", "requests")) " on " bdi { (to) } ", " (count(step.failures)) " failed"
                    @if step.scopes > 1 { ", of " (plural(step.scopes.into(), "scope", "scopes")) } "." }
                (proof_bar(proof))
            }
            @if reports.iter().any(|(key, _)| key.canary == *to) { div.grid {
                @for (key, report) in reports.iter().filter(|(key, _)| key.canary == *to) {
                    div.gap data-key=(key.tenant.as_ref().map_or("", |t| t.as_str())) {
                        @if let Some(tenant) = &key.tenant { p.soft.small { "Tenant " a href=(super::words::tenant_path(&rollout.service, tenant)) { bdi { (tenant) } } } }
                        (verdict::comparison(report))
                    }
                }
            } }
        }
    }
}

/// How far the step is on its way to being proven, on a logarithmic scale.
fn proof_bar(log: f64) -> Markup {
    let part = (log / PROVEN_AT).clamp(0.0, 1.0);
    let label = format!(
        "Proof that the new version is not worse: {:.0} percent of the way on a logarithmic scale",
        part * 100.0
    );
    html! {
        div {
            svg.gauge.proof viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label=(label) {
                rect.track x="0" y="20" width="1000" height="60" {}
                rect.fill x="0" y="20" width=(format!("{:.0}", part * 1_000.0)) height="60" {}
            }
            p.ends { span { "nothing shown" } span { @if part >= 1.0 { strong { "proven" } } @else { "proof so far: " strong { (format!("{:.0}", part * 100.0)) "\u{a0}%" } } } span { "not worse" } }
        }
    }
}

fn gates(rollout: &Rollout) -> Markup {
    let at = |at: GateAt| at.as_str().replace('_', " ");
    let answers = |name: &str| {
        let of = |key: &str| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('@'));
        let newest = rollout.gates.iter().filter(|(key, _)| of(key)).max_by_key(|(_, record)| record.at_ms);
        newest.map(|(key, record)| (key.clone(), record.clone()))
    };
    html! {
        section.card id="gates" aria-labelledby="gates-title" {
            h2 id="gates-title" { "Gates" }
            div.scroll tabindex="0" role="region" aria-labelledby="gates-title" {
                table {
                    thead { tr { th scope="col" { "Gate" } th scope="col" { "Asked" } th scope="col" { "Last answer" } th scope="col" { "When" } } }
                    tbody {
                        @for gate in &rollout.spec.gates {
                            tr data-key=(gate.name) {
                                th scope="row" { bdi { (gate.name) } p.small.soft { bdi { (crate::webhook::origin(&gate.url)) } } }
                                td { (at(gate.at)) @if let Some(step) = gate.step { ", step " (step) } }
                                @match answers(&gate.name) {
                                    Some((key, record)) => { td { (answer(&record)) @if let Some((_, stage)) = key.split_once('@') { p.small.soft { "at step " (stage) } } } td { (moment(record.at_ms)) } },
                                    None => { td.soft { "not asked yet" } td { "–" } },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn answer(record: &GateRecord) -> Markup {
    html! {
        span class={ "chip " (if record.open { "ok" } else { "bad" }) } { (if record.open { "open" } else { "closed" }) }
        @if record.failures > 0 { span.small.soft { " " (plural(record.failures.into(), "failure", "failures")) " of " (GateRecord::TRIES) " that hold it" } }
        @if !record.said.is_empty() { p.small { bdi { (past::shortened(&record.said)) } } }
    }
}

fn log(wanted: &Wanted, looked: &Looked) -> Markup {
    html! {
        section.card id="log" aria-labelledby="log-title" {
            h2 id="log-title" { "Log" }
            @match &looked.log {
                None => p.note.warn { "The history cannot be read while the store is away." },
                Some(page) => {
                    @if page.events.is_empty() { p.soft { "Nothing more." } }
                    (past::list(&page.events.iter().collect::<Vec<_>>()))
                    p.row {
                        @if wanted.before.is_some() { a.button href={ (rollout_path(&wanted.id)) "#log" } { "To the newest" } }
                        @if let Some(before) = page.next { a.button href={ "?" (wanted.units.query()) "&before=" (before) "#log" } { @if page.tired { "Look further back" } @else { "Older" } } }
                        @if let Some(last) = page.events.first() { a href={ "/history?event=" (last.id) } { "The newest of these in the history" } }
                    }
                },
            }
        }
    }
}
