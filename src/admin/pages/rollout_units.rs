//! Whom a rollout moves: searched on the server and shown in pages, however many there are.

use maud::{Markup, html};

use super::super::context::Cx;
use super::super::parameters::Parameters;
use super::super::problem::Problem;
use super::super::rollouts::logs::{archived, status};
use super::live::in_time;
use super::past;
use super::rollout;
use super::rollout_do::{Action, action_path};
use super::rollout_words::rollout_path;
use super::verdict::Chip;
use super::words::{count, moment, part, plural, tenant_path};
use crate::model::{LiveRollout, Rollout, Scope, Unit, UnitStatus};

/// Units of a page.
const PAGE: usize = 50;
/// The longest text that is searched for.
const MAX_SEARCH: usize = 128;

/// Which units are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    search: String,
    status: Option<UnitStatus>,
    /// Counted from 1; none: all of them.
    batch: Option<u32>,
    /// Only units from this place on.
    after: u32,
}

/// A page of units, with their places.
#[derive(Default)]
pub(super) struct UnitPage {
    units: Vec<(u32, Unit)>,
    next: Option<u32>,
    /// Set when they cannot be read.
    unreadable: bool,
}

impl Wanted {
    /// From the parameters of a query.
    pub(super) fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let most = u64::from(u32::MAX);
        Ok(Self {
            search: parameters.text("search").unwrap_or_default().chars().take(MAX_SEARCH).collect(),
            status: parameters.text("status").map(status).transpose()?,
            batch: parameters.number("batch", 1..=most)?.map(|batch| batch as u32),
            after: parameters.number("after", 0..=most)?.unwrap_or(0) as u32,
        })
    }

    /// As a query.
    pub(super) fn query(&self) -> String {
        self.from(self.after)
    }

    fn from(&self, after: u32) -> String {
        let status = self.status.map_or("", UnitStatus::as_str);
        let batch = self.batch.map(|b| b.to_string()).unwrap_or_default();
        format!("search={}&status={status}&batch={batch}&after={after}", part(&self.search))
    }

    fn fits(&self, needle: &str, unit: &Unit) -> bool {
        let named = || name(&unit.scope).to_ascii_lowercase().contains(needle);
        self.status.is_none_or(|status| unit.status == status) && (needle.is_empty() || named())
    }

    fn pick<'u>(&self, units: impl Iterator<Item = (u32, &'u Unit)>) -> UnitPage {
        let needle = self.search.to_ascii_lowercase();
        let mut fitting = units.filter(|(_, unit)| self.fits(&needle, unit));
        let page: Vec<_> = fitting.by_ref().take(PAGE).map(|(place, unit)| (place, unit.clone())).collect();
        let next = fitting.next().map(|(place, _)| place);
        UnitPage { units: page, next, unreadable: false }
    }
}

fn name(scope: &Scope) -> &str {
    match scope {
        Scope::Service => "the whole service",
        Scope::Group(group) => group.as_str(),
        Scope::Tenant(tenant) => tenant.as_str(),
    }
}

/// The units that are wanted. A hundred thousand of them and more: other requests of this thread do not wait for it.
pub(super) async fn page(cx: &Cx, live: &std::sync::Arc<LiveRollout>, wanted: &Wanted) -> UnitPage {
    let bounds = |all: u32| match wanted.batch {
        Some(batch) => live.rollout.batch_range(batch - 1),
        None => 0..all,
    };
    if live.units.is_empty() {
        let Some(units) = in_time(archived(cx, live)).await else {
            return UnitPage { unreadable: true, ..UnitPage::default() };
        };
        let range = bounds(units.len() as u32);
        let begin = range.start.max(wanted.after);
        let range = begin as usize..(range.end.max(begin) as usize).min(units.len());
        let slice = units.get(range).unwrap_or_default();
        return wanted.pick((begin..).zip(slice));
    }
    let range = bounds(live.units.len());
    let (live, wanted) = (live.clone(), wanted.clone());
    let found =
        tokio::task::spawn_blocking(move || wanted.pick(live.units.range(range.start.max(wanted.after)..range.end)));
    found.await.unwrap_or(UnitPage { unreadable: true, ..UnitPage::default() })
}

/// What is looked for; none where there is only one unit.
pub(super) fn form(live: &LiveRollout, wanted: &Wanted) -> Markup {
    if live.rollout.counts.total() < 2 {
        return html! {};
    }
    html! {
        form.card.inline method="get" action={ (rollout_path(&live.rollout.id)) "#units" } role="search" aria-label="Which units" {
            div.field.wide {
                label for="search" { "Find a tenant by a part of its name" }
                input id="search" name="search" type="search" value=(wanted.search) maxlength=(MAX_SEARCH) spellcheck="false" autocomplete="off";
            }
            div.field {
                label for="status" { "What became of it" }
                select id="status" name="status" {
                    option value="" { "anything" }
                    @for s in UnitStatus::ALL { option value=(s.as_str()) selected[wanted.status == Some(s)] { (chip(s).0) } }
                }
            }
            @if live.rollout.batches() > 1 {
                div.field {
                    label for="batch" { "Batch" }
                    input id="batch" name="batch" type="number" min="1" max=(live.rollout.batches()) value=[wanted.batch] placeholder="any";
                }
            }
            button type="submit" { "Find" }
        }
    }
}

/// What became of a unit, in a few words.
fn chip(status: UnitStatus) -> Chip {
    match status {
        UnitStatus::Pending => ("to come", ""),
        UnitStatus::InProgress => ("on the way", "ok"),
        UnitStatus::Completed => ("moved", "ok"),
        UnitStatus::RolledBack => ("went back alone", "bad"),
        UnitStatus::Reverted => ("went back with all", "bad"),
        UnitStatus::Excluded => ("left out", ""),
        UnitStatus::Overridden => ("decided by others", "warn"),
    }
}

/// The table.
pub(super) fn table(live: &LiveRollout, wanted: &rollout::Wanted, page: &UnitPage) -> Markup {
    let (rollout, of) = (&live.rollout, &wanted.units);
    html! {
        section.card id="units" aria-labelledby="units-title" {
            h2 id="units-title" { "Whom it moves" @if let Some(batch) = of.batch { ", batch " (batch) } }
            @if page.unreadable { p.note.warn { "They cannot be read now." } }
            @else if page.units.is_empty() { p.soft { "None is like that." } }
            @else {
                div.scroll tabindex="0" role="region" aria-labelledby="units-title" {
                    table {
                        thead { tr {
                            th scope="col" { "Who" } th scope="col" { "What became of it" } th.nums scope="col" { "Batch" }
                            th.nums scope="col" { "Step" } th scope="col" { "Moved" } th scope="col" { "Ended" }
                        } }
                        tbody { @for (place, unit) in &page.units { (row(rollout, *place, unit, wanted.operator)) } }
                    }
                }
            }
            @if of.after > 0 || page.next.is_some() {
                p.row {
                    @if of.after > 0 { a.button href={ "?" (of.from(0)) "#units" } { "To the first" } }
                    @if let Some(next) = page.next { a.button href={ "?" (of.from(next)) "#units" } { "Next " (PAGE) } }
                    span.soft.small { (plural(u64::from(rollout.counts.total()), "unit", "units")) " in all" }
                }
            }
        }
    }
}

fn row(rollout: &Rollout, place: u32, unit: &Unit, operator: bool) -> Markup {
    let (word, class) = chip(unit.status);
    let batch = rollout.bounds.partition_point(|begin| *begin <= place);
    let at = |at: Option<u64>| html! { @if let Some(at) = at { (moment(at)) } @else { "–" } };
    html! {
        tr data-key=(place) {
            th scope="row" {
                @match &unit.scope {
                    Scope::Tenant(tenant) => a href=(tenant_path(&rollout.service, tenant)) { bdi { (tenant) } },
                    Scope::Group(group) => { "group " bdi { (group) } },
                    Scope::Service => "the whole service",
                }
            }
            td {
                span class={ "chip " (class) } { (word) }
                @if !unit.note.is_empty() { p.small.soft.short { bdi { (past::shortened(&unit.note)) } } }
                @if let Some(event) = unit.event { p.small { a href={ "/history?event=" (event) } { "why" span.hide { " for " (name(&unit.scope)) } } } }
                @if operator && unit.status.has_moved() && !rollout.phase.is_final() && let Scope::Tenant(tenant) = &unit.scope {
                    p.small { a href={ (action_path(&rollout.id, Action::Tenant)) "?tenant=" (part(tenant.as_str())) } { "roll back…" span.hide { " tenant " (tenant) } } }
                }
            }
            td.nums { @if batch < rollout.bounds.len() { (count(batch as u64)) } @else { "–" } }
            td.nums { @if let Some(step) = unit.step { (step + 1) } @else { "–" } }
            td { (at(unit.started_ms)) }
            td { (at(unit.ended_ms)) }
        }
    }
}
