//! Every rollout, running and over, and how they went.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::context::{Cx, Shared};
use super::super::parameters::{Parameters, read_name};
use super::super::problem::Problem;
use super::super::rollouts::statistics::{Quantiles, StatisticsAnswer, gathered};
use super::super::rollouts::{phase, wanted};
use super::layout::{Nav, Visitor};
use super::live::{Fragment, Watched, in_time};
use super::past;
use super::rollout_words::{chip, chip_of, progress_bar, rollout_path, span, waits};
use super::words::{count, moment, part, rate, service_path};
use crate::config::Role;
use crate::model::{LiveRollout, Phase, Rollout, ServiceName};

/// Rollouts of a page.
const PAGE: usize = 50;

/// Which rollouts are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    service: Option<ServiceName>,
    phase: Option<Phase>,
    /// Counted from 0.
    page: usize,
}

impl Wanted {
    /// From the parameters of a query.
    pub(super) fn read(parameters: &Parameters) -> Result<Self, Problem> {
        Ok(Self {
            service: parameters.text("service").map(|t| read_name("service", t)).transpose()?,
            phase: parameters.text("phase").map(phase).transpose()?,
            page: parameters.number("page", 0..=1_000)?.unwrap_or(0) as usize,
        })
    }

    /// As a query.
    pub(super) fn query(&self) -> String {
        self.of_page(self.page)
    }

    fn of_page(&self, page: usize) -> String {
        let service = self.service.as_ref().map_or("", ServiceName::as_str);
        format!("service={}&phase={}&page={page}", part(service), self.phase.map_or("", Phase::as_str))
    }
}

/// The names of the parameters.
pub(super) const PARAMETERS: [&str; 3] = ["service", "phase", "page"];

/// The page.
pub(super) async fn show(State(cx): State<Cx>, visitor: Visitor, parameters: Parameters) -> Result<Response, Problem> {
    let wanted = Wanted::read(&parameters.only(&PARAMETERS, &[])?)?;
    let numbers = in_time(gathered(&cx, wanted.service.clone())).await;
    let watched = Watched::Rollouts(wanted.clone());
    let seen = watched.look(&cx).await;
    let body = html! {
        (filters(&cx, &wanted))
        @for fragment in watched.fragments(&cx, &seen)? { (fragment.markup) }
        (statistics(wanted.service.as_ref(), numbers.as_ref()))
    };
    let heading = html! {
        h1 { "Rollouts" }
        @if visitor.can(Role::Operator) { a.button.primary href="/rollouts/new" { "Start a rollout…" } }
    };
    Ok(visitor.page_with(&cx, Nav::Rollouts, "Rollouts", heading, body, Some(&watched.text())))
}

/// Everything that changes.
pub(super) fn fragments(cx: &Shared, of: &Wanted) -> Vec<Fragment> {
    let all = wanted(cx, of.service.as_ref(), of.phase);
    vec![Fragment { id: "list", markup: list(cx, of, &all) }]
}

fn filters(cx: &Shared, wanted: &Wanted) -> Markup {
    let view = cx.control.view();
    html! {
        form.card.inline method="get" role="search" aria-label="Which rollouts" {
            div.field {
                label for="service" { "Service" }
                select id="service" name="service" {
                    option value="" { "any" }
                    @for s in &view.routes.services { option selected[wanted.service.as_ref() == Some(&s.spec.name)] { (s.spec.name) } }
                }
            }
            div.field {
                label for="phase" { "Where it is" }
                select id="phase" name="phase" {
                    option value="" { "anywhere" }
                    @for phase in Phase::ALL { option value=(phase.as_str()) selected[wanted.phase == Some(phase)] { (chip(phase).0) } }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

fn list(cx: &Shared, of: &Wanted, all: &[std::sync::Arc<LiveRollout>]) -> Markup {
    let begin = of.page * PAGE;
    let page = all.iter().skip(begin).take(PAGE);
    html! {
        section.card id="list" aria-labelledby="list-title" {
            h2 id="list-title" { (count(all.len() as u64)) (if all.len() == 1 { " rollout" } else { " rollouts" }) ", the newest first" }
            @if all.is_empty() { p.soft { "There is none like that." } }
            @else {
                div.scroll tabindex="0" role="region" aria-labelledby="list-title" {
                    table.wide {
                        thead { tr {
                            th scope="col" { "Rollout" } th scope="col" { "Service" } th scope="col" { "Where it is" }
                            th scope="col" { "Progress" } th.nums scope="col" { "Moved" } th.nums scope="col" { "Went back" }
                            th scope="col" { "Started" } th scope="col" { "Ended" }
                        } }
                        tbody { @for live in page { (row(cx, &live.rollout)) } }
                    }
                }
            }
            @if all.len() > PAGE {
                p.row {
                    @if of.page > 0 { a.button href={ "?" (of.of_page(of.page - 1)) } { "Newer" } }
                    @if all.len() > begin + PAGE { a.button href={ "?" (of.of_page(of.page + 1)) } { "Older" } }
                }
            }
        }
    }
}

fn row(cx: &Shared, rollout: &Rollout) -> Markup {
    let (word, class) = chip_of(rollout);
    let waiting = cx.control.board().waiting(&rollout.id).filter(|_| !rollout.phase.is_final());
    let at = |at: Option<u64>| html! { @if let Some(at) = at { (moment(at)) } @else { "–" } };
    html! {
        tr data-key=(rollout.id) {
            th scope="row" { a href=(rollout_path(&rollout.id)) { bdi { (rollout.id) } } }
            td { a href=(service_path(&rollout.service)) { bdi { (rollout.service) } } p.small.soft { bdi { (rollout.spec.from) } " to " bdi { (rollout.spec.to) } } }
            td {
                span class={ "chip " (class) } { (word) }
                @if waiting.is_some() { p.small.soft { (waits(rollout, waiting.as_ref())) } }
                @else if let Some(back) = &rollout.going_back { p.small.soft.short { bdi { (past::shortened(&back.reason)) } } }
            }
            td.mid { (progress_bar(rollout)) }
            td.nums { (count(rollout.counts.completed.into())) " of " (count(rollout.counts.total().into())) }
            td.nums { (count(rollout.counts.rolled_back.into())) }
            td { (at(rollout.started_ms)) }
            td { (at(rollout.ended_ms)) }
        }
    }
}

fn statistics(service: Option<&ServiceName>, numbers: Option<&StatisticsAnswer>) -> Markup {
    html! {
        section.card aria-labelledby="statistics-title" {
            h2 id="statistics-title" { "How they went" @if let Some(service) = service { ", for " bdi { (service) } } }
            @match numbers {
                None => p.note.warn { "The history cannot be read while the store is away." },
                Some(numbers) => {
                    ul.legend { @for (name, n) in &numbers.phases { @if let Ok(phase) = phase(name) { li { span class={ "chip " (chip(phase).1) } { (chip(phase).0) } " " strong { (count(*n)) } } } } }
                    dl.facts {
                        dt { "Success rate" }
                        dd { @match numbers.success_rate { Some(r) => { (rate(Some(r))) " of those that are over" }, None => "none is over yet" } }
                        dt { "From the first step to the end" }
                        dd { (quantiles(numbers.duration_seconds.as_ref())) }
                        dt { "From the first bad request until traffic was back" }
                        dd { (quantiles(numbers.first_bad_to_rollback_seconds.as_ref())) }
                        dt { "Tenants" }
                        dd { (count(numbers.tenants_completed)) " moved for good, " (count(numbers.tenants_rolled_back)) " went back alone" }
                    }
                },
            }
        }
    }
}

fn quantiles(of: Option<&Quantiles>) -> String {
    let long = |s: f64| if s < 10.0 { super::words::seconds(Some(s)) } else { span(s.round() as u64) };
    of.map_or_else(
        || "nothing yet".to_owned(),
        |q| {
            format!(
                "half within {}, nine in ten within {}, the longest {} (of {})",
                long(q.p50),
                long(q.p90),
                long(q.max),
                q.count
            )
        },
    )
}
