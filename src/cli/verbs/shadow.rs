//! `shadow`: what the copies to a version that users do not see have shown.

use serde_json::Value;

use super::{or_nothing, text_or_nothing, verdict};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Column, Ink, Look, Table};
use crate::cli::text::{Fields, NOTHING, counted, latency, percent, ratio, time};
use crate::cli::verb_args::ShadowArgs;

/// Shows a service's shadow.
pub(super) fn shadow(client: &Client, output: Output, args: &ShadowArgs) -> Result<(), CliError> {
    let document = client.get(&Resource::new(&["services", &args.service, "shadow"]))?;
    output.show(&document, |look| people(&document, look))
}

fn people(document: &Value, look: Look) -> String {
    let settings = document.at("settings");
    let share = or_nothing(settings.number("share"), percent);
    let mut text = look.paint(Ink::Bold, &text_or_nothing(document, "service"));
    match document.is("active") {
        true => text.push_str(&format!(", {share} of {}", settings.texts("methods").join(", "))),
        false => text.push_str(", not copying: the shadow is the baseline"),
    }
    if let Some(since) = document.get("since").filter(|s| !s.is_null()) {
        text.push_str(&format!(", since {}", time(since)));
    }
    text.push('\n');
    text.push_str(&in_short(document, look));
    text.push_str(&noise(document.at("noise")));
    text.push_str(&fields(document, look));
    text.push_str(&statuses(document, look));
    text.push_str(&latencies(document, look));
    if let Some(count) = document.count("without_credentials").filter(|n| *n > 0) {
        let copies = counted(count, "request");
        text.push_str(&format!(
            "\n{copies} had credentials that the shadow was not given, which may be why it differs\n"
        ));
    }
    text
}

/// The verdict and the counts behind it, in two lines.
pub(super) fn in_short(document: &Value, look: Look) -> String {
    let (shadow, baseline) = (text_or_nothing(document, "version"), text_or_nothing(document, "baseline"));
    let word = verdict(document.at("verdict")).text(look);
    let rate = or_nothing(document.number("difference_rate"), ratio);
    let requests = document.at("requests");
    let counts: Vec<_> = ["same", "different", "failed", "timeout", "dropped", "unjudged"]
        .into_iter()
        .filter_map(|key| requests.count(key).filter(|n| *n > 0).map(|n| format!("{key} {n}")))
        .collect();
    let counts = if counts.is_empty() { "no copies yet".to_owned() } else { counts.join(", ") };
    format!("shadow {shadow} against {baseline}: {word}, {rate} differ\n  {counts}\n")
}

fn noise(noise: &Value) -> String {
    let (samples, needed) = (noise.count("samples").unwrap_or_default(), noise.count("needed").unwrap_or_default());
    if samples < needed {
        return format!("  fields are shown when the baseline has answered {needed} requests twice; now {samples}\n");
    }
    match noise.texts("fields").join(", ") {
        fields if fields.is_empty() => String::new(),
        fields => format!("  differ by themselves: {fields}\n"),
    }
}

/// The fields that differ; nothing when there are none.
pub(super) fn fields(document: &Value, look: Look) -> String {
    let mut table = Table::new([
        Column::Text("FIELD"),
        Column::Left("DIFFERS"),
        Column::Right("REQUESTS"),
        Column::Right("SHARE"),
        Column::Left("BASELINE"),
        Column::Left("SHADOW"),
    ])
    .dispensable(&["SHARE"]);
    for field in document.list("fields") {
        table.row([
            text_or_nothing(field, "path").into(),
            text_or_nothing(field, "kind").into(),
            field.count("requests").map_or_else(|| NOTHING.to_owned(), |n| n.to_string()).into(),
            or_nothing(field.number("rate"), ratio).into(),
            shape(field.at("example").at("baseline")).into(),
            shape(field.at("example").at("shadow")).into(),
        ]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render(look)) }
}

/// `string(12)` for a text of twelve characters.
fn shape(shape: &Value) -> String {
    let kind = text_or_nothing(shape, "type");
    shape.count("length").map_or(kind.clone(), |length| format!("{kind}({length})"))
}

fn statuses(document: &Value, look: Look) -> String {
    let heads = [Column::Left("STATUS OF BASELINE"), Column::Left("OF SHADOW"), Column::Right("REQUESTS")];
    let mut table = Table::new(heads);
    let cell = |value: &Value, key: &str| value.count(key).map_or_else(|| NOTHING.to_owned(), |n| n.to_string());
    for pair in document.list("statuses") {
        table.row(["baseline", "shadow", "requests"].map(|key| cell(pair, key).into()));
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render(look)) }
}

fn latencies(document: &Value, look: Look) -> String {
    let mut table = Table::new([Column::Left("LATENCY"), Column::Right("BASELINE"), Column::Right("SHADOW")]);
    for key in ["p50", "p90", "p99"] {
        let cell = |side: &str| or_nothing(document.at("latency").at(side).number(key), latency);
        table.row([key.into(), cell("baseline").into(), cell("shadow").into()]);
    }
    format!("\n{}", table.render(look))
}
