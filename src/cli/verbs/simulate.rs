//! `simulate`: a rollout in virtual time, before it begins.

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::rollout::plan_of;
use super::{or_nothing, text_or_nothing};
use crate::cli::address::Resource;
use crate::cli::client::{Asked, Client};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::rollout_args::SimulateArgs;
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, clean, counted, per_second, percent, ratio, span};

/// Asks and shows the answer.
pub(super) fn simulate(client: &Client, output: Output, args: &SimulateArgs) -> Result<(), CliError> {
    let (method, resource) = (Method::POST, Resource::new(&["simulate"]));
    let document = client.patient().doing("simulating rollouts").change(Asked {
        method,
        resource,
        body: Some(question(args)?),
        if_revision: &None,
    })?;
    output.show(&document, |look| shown(&document, look))
}

fn question(args: &SimulateArgs) -> Result<Value, CliError> {
    let mut traffic = Map::new();
    set(&mut traffic, "rate", args.rate);
    set(&mut traffic, "recorded", args.recorded.then_some(true));
    set(&mut traffic, "tenants", args.tenant_count);
    set(&mut traffic, "spread", args.zipf.then_some("zipf"));
    set(&mut traffic, "errors", args.errors);
    let mut regression = Map::new();
    set(&mut regression, "added", args.regression);
    set(&mut regression, "errors", args.new_errors);
    set(&mut regression, "latency_factor", args.latency_factor);
    if regression.is_empty() && args.after.is_some() {
        let why =
            "--after says when the new version turns bad; say how with --regression, --new-errors or --latency-factor";
        return Err(CliError::Usage(why.to_owned()));
    }
    set(&mut regression, "after", args.after.as_ref());
    let mut body = Map::from_iter([("plan".to_owned(), plan_of(&args.plan)?), ("traffic".to_owned(), traffic.into())]);
    set(&mut body, "regression", (!regression.is_empty()).then_some(regression));
    set(&mut body, "runs", args.runs);
    set(&mut body, "healthy_runs", args.healthy_runs);
    set(&mut body, "seed", args.seed);
    Ok(body.into())
}

fn set(map: &mut Map<String, Value>, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), json!(value));
    }
}

fn shown(document: &Value, look: Look) -> String {
    let mut table = Table::new([Column::Left(""), Column::Text("")]);
    plan(&mut table, document);
    if document.at("regression").is_object() {
        regressed(&mut table, document.at("regression"));
    }
    healthy(&mut table, document.at("healthy"));
    let mut text = table.facts(look);
    for said in document.list("assumptions").iter().filter_map(Value::as_str) {
        text.push_str(&format!("{} {}\n", look.paint(Ink::Dim, "assumed:"), clean(said)));
    }
    text
}

fn row(table: &mut Table<'_>, name: &str, value: impl Into<Cell>) {
    table.row([Cell::new(Ink::Dim, name), value.into()]);
}

fn plan(table: &mut Table<'_>, document: &Value) {
    let plan = document.at("plan");
    let total = plan.count("steps_total").unwrap_or_default();
    let mut steps: Vec<_> = plan.list("steps").iter().filter_map(|s| s.number("share")).map(percent).collect();
    // A campaign goes through the same steps again and again.
    steps.truncate(8);
    let more = if total > steps.len() as u64 { ", …" } else { "" };
    let longest = plan.number("longest_seconds").map_or_else(|| "no limit".to_owned(), span);
    let shortest = or_nothing(plan.number("shortest_seconds"), span);
    let text = format!("{}: {}{more}; {shortest} to {longest}", counted(total, "step"), steps.join(", "));
    row(table, "plan", text);
    row(table, "traffic", or_nothing(document.number("rate"), per_second));
}

fn regressed(table: &mut Table<'_>, seen: &Value) {
    let detected = seen.number("detected").unwrap_or_default();
    let runs = seen.count("reached").unwrap_or_default();
    let ink = match detected {
        all if all >= 0.99 => Ink::Good,
        most if most >= 0.5 => Ink::Warn,
        _ => Ink::Bad,
    };
    let text = format!("in {} of {}", ratio(detected), counted(runs, "rollout"));
    row(table, "bad version caught", Cell::new(ink, text));
    row(table, "  after", quantiles(seen.at("detection_seconds"), span));
    row(table, "  failed requests", quantiles(seen.at("failed_requests"), whole));
    row(table, "  of them extra", quantiles(seen.at("extra_failed_requests"), whole));
    if seen.at("tenants_touched").is_object() {
        row(table, "  tenants touched", quantiles(seen.at("tenants_touched"), whole));
    }
    let at = |step: &Value| {
        let share = step.number("share").map(percent).unwrap_or_default();
        format!("{} ({share}) {}", text_or_nothing(step, "step"), or_nothing(step.number("part"), ratio))
    };
    let caught: Vec<_> = seen.list("caught_at").iter().take(8).map(at).collect();
    if !caught.is_empty() {
        row(table, "  at step", caught.join(", "));
    }
    let causes = seen.at("causes").as_object().into_iter().flatten();
    let causes: Vec<_> = causes
        .filter_map(|(cause, of)| Some(format!("{} {}", clean(cause).replace('_', " "), ratio(of.as_f64()?))))
        .collect();
    if !causes.is_empty() {
        row(table, "  by", causes.join(", "));
    }
    row(table, "  rollouts", ends(seen.at("ends")));
}

fn healthy(table: &mut Table<'_>, seen: &Value) {
    let alarms = seen.number("false_alarms_per_1000").unwrap_or_default();
    let most = seen.number("false_alarms_per_1000_at_most").unwrap_or_default();
    let ink = if alarms < 1.0 { Ink::Good } else { Ink::Warn };
    let runs = counted(seen.count("runs").unwrap_or_default(), "rollout");
    let text = format!("{alarms:.1} per 1,000 (at most {most:.1}, by {runs})");
    row(table, "false alarms", Cell::new(ink, text));
    row(table, "  held back a while", or_nothing(seen.number("braked"), ratio));
    row(table, "good version takes", quantiles(seen.at("duration_seconds"), span));
    row(table, "  rollouts", ends(seen.at("ends")));
}

fn ends(ends: &Value) -> String {
    let of = |key: &str| ratio(ends.number(key).unwrap_or_default());
    format!("{} completed, {} waited for a person, {} went back", of("completed"), of("held"), of("went_back"))
}

fn quantiles(of: &Value, show: fn(f64) -> String) -> String {
    if !of.is_object() {
        return super::NOTHING.to_owned();
    }
    let at = |key: &str| or_nothing(of.number(key), show);
    format!("half up to {}, nine of ten up to {}, all up to {}", at("p50"), at("p90"), at("max"))
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}
