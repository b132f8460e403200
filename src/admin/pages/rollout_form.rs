//! The form of a rollout's plan: what most need in sight, everything else behind a click.

use maud::{Markup, html};

use super::super::context::Found;
use super::super::problem::Problem;
use super::gate::sentence;
use super::layout::Visitor;
use super::rollout_start::LOOK;
use super::rollout_words::rollout_path;
use super::words::service_path;

/// What stands in a field of the form.
type Given<'a, 'g> = &'a dyn Fn(&str) -> &'g str;
/// Fields about tenants.
const TENANTS: [&str; 6] = ["batch", "delay", "canary", "groups", "tenants", "exclude"];
/// Other fields that most rollouts do without.
const MORE: [&str; 2] = ["on_insufficient", "more"];

/// Whether anything stands in any of these fields.
fn any(given: Given<'_, '_>, names: &[&str]) -> bool {
    names.iter().any(|name| !given(name).is_empty())
}

/// `given`: what stands in the fields. `wrong`: why that cannot be.
pub(super) fn form(visitor: &Visitor, found: &Found, given: Given<'_, '_>, wrong: Option<&Problem>) -> Markup {
    let live = found.live();
    let running = found.view.state.running_rollout(found.name());
    let versions =
        found.route.versions.iter().map(|v| &v.name).filter(|v| **v != live.baseline && !live.is_disabled(v));
    let versions: Vec<_> = versions.collect();
    html! {
        form.card method="post" action=(LOOK) {
            (visitor.word())
            input type="hidden" name="service" value=(found.name());
            @if let Some(wrong) = wrong { p.note.bad role="alert" { (sentence(wrong.detail())) } }
            p { "Service " a href=(service_path(found.name())) { bdi { (found.name()) } } ", from its baseline " strong { bdi { (live.baseline) } } ". Nothing begins before you have seen what the plan would do." }
            @if let Some(running) = running {
                p.note.warn { "Rollout " a href=(rollout_path(&running.rollout.id)) { bdi { (running.rollout.id) } } " of this service is running; there can be only one." }
            }
            @if versions.is_empty() { p.note.warn { "The service has no other version that may have traffic." } }
            div.inline {
                div.field {
                    label for="to" { "To version" }
                    select id="to" name="to" required { @for version in &versions { option selected[given("to") == version.as_str()] { (version) } } }
                }
                div.field {
                    label for="strategy" { "Way" }
                    select id="strategy" name="strategy" aria-describedby="strategy-hint" {
                        option value="steps" selected[given("strategy") == "steps"] { "steps: rising shares of the users" }
                        option value="batch" selected[given("strategy") == "batch"] { "batches: tenants, some at a time" }
                        option value="canary" selected[given("strategy") == "canary"] { "canary: a few tenants first, the others when you resume" }
                        option value="all" selected[given("strategy") == "all"] { "all at once" }
                    }
                }
            }
            p.hint id="strategy-hint" { "Fields of the other ways stay empty. Batches and canary tenants go through the steps too, when those are given." }
            div.inline.tops {
                (field(given, "steps", "Steps in percent", "10, 25, 50, 100", "a list of rising shares that ends with 100"))
                div.field {
                    label for="approval" { "A person approves" }
                    select id="approval" name="approval" {
                        option value="" { "no step" }
                        option value="last" selected[given("approval") == "last"] { "the last step" }
                        option value="later" selected[given("approval") == "later"] { "each step but the first" }
                    }
                }
                (field(given, "bake", "Bake", "5m", "the shortest time in each step, such as 30s, 5m, 1h"))
                (field(given, "max_bake", "Longest bake", "1h", "how long a step may wait for proof"))
            }
            (rare_fields(given))
            div.inline { button.primary type="submit" { "See what it would do…" } a.button href="/rollouts" { "Cancel" } }
        }
    }
}

/// What most rollouts do without.
fn rare_fields(given: Given<'_, '_>) -> Markup {
    html! {
        details open[any(given, &TENANTS)] {
            summary { "Tenants" }
            div.stack {
                div.inline.tops {
                    (field(given, "batch", "Tenants at a time", "", "for batches"))
                    (field(given, "delay", "Delay between batches", "", "such as 30m"))
                    (field(given, "canary", "Canary tenants in percent", "", "for canary; 5 unless given"))
                }
                (area(given, "groups", "Only tenants of these groups", "names, separated by commas or lines"))
                (area(given, "tenants", "Only these tenants", "names, one a line"))
                (area(given, "exclude", "Leave these tenants where they are", "names, one a line"))
            }
        }
        details open[any(given, &MORE)] {
            summary { "More" }
            div.stack {
                div.field {
                    label for="on_insufficient" { "When a step is neither proven nor refuted" }
                    select id="on_insufficient" name="on_insufficient" {
                        option value="" { "go on, if there were enough requests" }
                        option value="hold" selected[given("on_insufficient") == "hold"] { "wait for a person" }
                        option value="abort" selected[given("on_insufficient") == "abort"] { "take it back" }
                    }
                }
                (area(given, "more", "Anything else of the plan, in JSON", "as the API takes it: gates, windows, blast_radius, rollback, start_at …, such as {\"keep_warm\": \"48h\"}"))
            }
        }
    }
}

fn field(given: Given<'_, '_>, name: &str, label: &str, hint: &str, help: &str) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            input id=(name) name=(name) value=[Some(given(name)).filter(|v| !v.is_empty())] placeholder=[Some(hint).filter(|h| !h.is_empty())] autocomplete="off" spellcheck="false" aria-describedby={ (name) "-hint" };
            p.hint id={ (name) "-hint" } { (help) }
        }
    }
}

fn area(given: Given<'_, '_>, name: &str, label: &str, help: &str) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            textarea id=(name) name=(name) rows="2" autocomplete="off" spellcheck="false" aria-describedby={ (name) "-hint" } { (given(name)) }
            p.hint id={ (name) "-hint" } { (help) }
        }
    }
}
