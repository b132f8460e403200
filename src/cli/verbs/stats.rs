//! `stats` and `compare`: what each version did, and what the guard makes of it.

use serde_json::Value;

use super::{or_nothing, shadow, text_or_nothing, verdict};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, NOTHING, evidence, latency, per_second, percent, ratio, signed, span};
use crate::cli::verb_args::{By, CompareArgs, StatsArgs};

/// Shows each version's counts.
pub(super) fn stats(client: &Client, output: Output, args: &StatsArgs) -> Result<(), CliError> {
    let resource = Resource::new(&["services", &args.service, "stats"])
        .with("tenant", args.tenant.as_ref())
        .with("route", args.route.as_ref())
        .with("window", args.window.as_ref());
    let document = client.get(&resource)?;
    output.show(&document, |look| stats_text(&document, look))
}

/// Shows two versions side by side.
pub(super) fn compare(client: &Client, output: Output, args: &CompareArgs) -> Result<(), CliError> {
    let resource = Resource::new(&["services", &args.service, "compare"])
        .with("a", Some(&args.a))
        .with("b", Some(&args.b))
        .with("tenant", args.tenant.as_ref())
        .with("since", Some(&args.since))
        .with("routes", (args.by == Some(By::Route)).then_some("100"));
    let document = client.get(&resource)?;
    output.show(&document, |look| compare_text(&document, args.by, look))
}

fn heading(document: &Value, seconds: Option<f64>, look: Look) -> String {
    let mut text = look.paint(Ink::Bold, &text_or_nothing(document, "service"));
    if let Some(tenant) = document.text("tenant") {
        text.push_str(&format!(", tenant {tenant}"));
    }
    if let Some(route) = document.text("route") {
        text.push_str(&format!(", route {route}"));
    }
    match seconds {
        Some(seconds) => text.push_str(&format!(", last {}\n", span(seconds))),
        None => text.push_str(", since the split was set\n"),
    }
    text
}

/// What became of requests that the version they were routed to failed or could not find.
fn detour_text(detour: &Value) -> String {
    let parts = [
        ("rescued", "/rescues/saved"),
        ("failed again", "/rescues/failed"),
        ("over the budget", "/rescues/over_budget"),
        ("not safe to send again", "/rescues/not_safe"),
        ("too large to keep", "/rescues/too_large"),
        ("assets found there", "/assets_found"),
        ("assets missing there too", "/assets_missing"),
    ];
    let counts = parts.map(|(what, at)| (what, detour.pointer(at).and_then(Value::as_u64).unwrap_or(0)));
    let counts: Vec<_> = counts.into_iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    let (from, to) = (text_or_nothing(detour, "from"), text_or_nothing(detour, "to"));
    if counts.is_empty() { String::new() } else { format!("From {from} to {to}: {}\n", counts.join(", ")) }
}

fn stats_text(document: &Value, look: Look) -> String {
    let mut text = heading(document, document.number("window_seconds"), look);
    let mut table = Table::new([
        Column::Left("VERSION"),
        Column::Left("ROLE"),
        Column::Right("SHARE"),
        Column::Right("REQUESTS"),
        Column::Right("RATE"),
        Column::Right("ERRORS"),
        Column::Right("P50"),
        Column::Right("P90"),
        Column::Right("P99"),
        Column::Right("IN FLIGHT"),
        Column::Text("FAILURES"),
    ])
    .dispensable(&["IN FLIGHT", "P90", "P50", "ROLE", "FAILURES"]);
    for version in document.list("versions") {
        table.row([
            text_or_nothing(version, "version").into(),
            text_or_nothing(version, "role").into(),
            or_nothing(version.number("share"), percent).into(),
            whole(version, "requests").into(),
            or_nothing(version.number("requests_per_second"), per_second).into(),
            or_nothing(version.number("error_rate"), ratio).into(),
            quantile(version, "p50").into(),
            quantile(version, "p90").into(),
            quantile(version, "p99").into(),
            whole(version, "in_flight").into(),
            failures(version).into(),
        ]);
    }
    text.push_str(&table.render(look));
    for comparison in document.list("comparisons") {
        text.push_str(&comparison_text(comparison, look));
    }
    document.list("detours").iter().for_each(|detour| text.push_str(&detour_text(detour)));
    text
}

fn whole(value: &Value, key: &str) -> String {
    value.count(key).map_or_else(|| NOTHING.to_owned(), |count| count.to_string())
}

fn quantile(version: &Value, key: &str) -> String {
    or_nothing(version.at("latency").number(key), latency)
}

/// The kinds of failures that happened: `status 3, timeout 1`.
fn failures(version: &Value) -> String {
    let kinds = version.at("failures").as_object().into_iter().flatten();
    let seen: Vec<String> =
        kinds.filter_map(|(kind, n)| n.as_u64().filter(|n| *n > 0).map(|n| format!("{kind} {n}"))).collect();
    seen.join(", ")
}

/// What the guard makes of a canary, in sentences.
fn comparison_text(comparison: &Value, look: Look) -> String {
    let (canary, baseline) = (text_or_nothing(comparison, "canary"), text_or_nothing(comparison, "baseline"));
    let word = verdict(comparison.at("verdict")).text(look);
    let mut text = format!("\n{canary} against {baseline}: {word}");
    if let (Some(found), Some(threshold)) = (comparison.number("evidence"), comparison.number("threshold")) {
        let found = evidence(found);
        text.push_str(&format!(", evidence {found} (shifts back at {})", evidence(threshold)));
    }
    text.push('\n');
    let window = comparison.at("window");
    if let Some(seconds) = window.number("seconds") {
        let part = |side: &Value| format!("{} of {}", whole(side, "failures"), whole(side, "requests"));
        let (b, c) = (part(window.at("baseline")), part(window.at("canary")));
        let time = span(seconds);
        text.push_str(&format!("  failures in the last {time}: {canary} {c} requests, {baseline} {b} requests\n"));
    }
    for (key, sentence) in [
        ("braked", "its share is held back while evidence is being confirmed"),
        ("split_off", "the realised shares are not those that were configured"),
        ("promotion_ready", "it may be promoted"),
    ] {
        if comparison.is(key) {
            text.push_str(&format!("  {sentence}\n"));
        }
    }
    if let Some(sentence) = comparison.text("action").as_deref().and_then(action) {
        text.push_str(&format!("  {sentence}\n"));
    }
    text
}

fn action(action: &str) -> Option<&'static str> {
    match action {
        "rollback" => Some("the guard shifts its traffic back"),
        "probe" => Some("the guard sends half to each, because the baseline has too little to compare with"),
        "brake" => Some("the guard holds its share back"),
        "hold_slo" => Some("both fail alike: nothing is shifted, nothing advances"),
        _ => None,
    }
}

fn compare_text(document: &Value, by: Option<By>, look: Look) -> String {
    let (a, b, difference) = (document.at("a"), document.at("b"), document.at("difference"));
    let mut text = heading(document, document.number("since_seconds"), look);
    let (head_a, head_b) = (text_or_nothing(a, "version"), text_or_nothing(b, "version"));
    let heads = [Column::Left(""), Column::Right(&head_a), Column::Right(&head_b), Column::Right("DIFFERENCE")];
    let mut table = Table::new(heads);
    let role = |value: &Value| Cell::from(text_or_nothing(value, "role"));
    table.row(["role".into(), role(a), role(b), "".into()]);
    for (label, key) in [("requests", "requests"), ("failures", "failures_total"), ("client left", "client_aborts")] {
        table.row([label.into(), whole(a, key).into(), whole(b, key).into(), "".into()]);
    }
    let errors = |value: &Value| Cell::from(or_nothing(value.number("error_rate"), ratio));
    table.row(["error rate".into(), errors(a), errors(b), change(difference.number("error_rate"), ratio)]);
    for key in ["p50", "p90", "p99"] {
        let cells = (quantile(a, key).into(), quantile(b, key).into());
        table.row([key.into(), cells.0, cells.1, change(difference.number(key), latency)]);
    }
    text.push_str(&table.render(look));
    if by != Some(By::Tenant) {
        text.push_str(&worst_routes(document, look));
    }
    if by != Some(By::Route) {
        text.push_str(&worst_tenants(document, look));
    }
    if document.at("comparison").is_object() {
        text.push_str(&comparison_text(document.at("comparison"), look));
    }
    let copies = document.at("shadow");
    if copies.is_object() {
        text.push_str(&format!("\n{}{}", shadow::in_short(copies, look), shadow::fields(copies, look)));
    }
    text
}

/// More is worse for everything that is compared.
fn change(difference: Option<f64>, show: impl Fn(f64) -> String) -> Cell {
    match difference {
        None => "".into(),
        Some(0.0) => "0".into(),
        Some(d) => Cell::new(if d > 0.0 { Ink::Bad } else { Ink::Good }, signed(d, show)),
    }
}

/// With a mark where it is worse, for those who see no colours.
fn marked(ink: Ink, text: String) -> Cell {
    Cell::new(ink, if ink == Ink::Bad { format!("▲{text}") } else { text })
}

/// Marked where the second version is worse beyond chance.
fn worst_routes(document: &Value, look: Look) -> String {
    let heads = ["FAILURES A", "FAILURES B", "P50 A", "P50 B", "P90 A", "P90 B", "P99 A", "P99 B"].map(Column::Right);
    let mut table = Table::new([&[Column::Text("ROUTE")][..], &heads].concat());
    table = table.dispensable(&["P90 A", "P90 B", "P50 A", "P50 B"]);
    for route in document.list("routes") {
        let (a, b) = (route.at("a"), route.at("b"));
        let worse = |key| if route.number(key).is_some_and(|n| n > 0.0) { Ink::Bad } else { Ink::Plain };
        let failed = |side: &Value| {
            let rate = or_nothing(side.number("error_rate"), ratio);
            format!("{}/{} ({rate})", whole(side, "failures_total"), whole(side, "requests"))
        };
        let mut row = vec![text_or_nothing(route, "route").into(), failed(a).into()];
        row.push(marked(worse("excess_failures"), failed(b)));
        for key in ["p50", "p90", "p99"] {
            row.push(quantile(a, key).into());
            row.push(marked(worse("excess_slow"), quantile(b, key)));
        }
        table.row(row);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render(look)) }
}

fn worst_tenants(document: &Value, look: Look) -> String {
    let mut table = Table::new([Column::Text("TENANT"), Column::Right("FAILURES A"), Column::Right("FAILURES B")]);
    let cell = |side: &Value| {
        let rate = or_nothing(side.number("error_rate"), ratio);
        Cell::from(format!("{}/{} ({rate})", whole(side, "failures"), whole(side, "requests")))
    };
    for tenant in document.list("tenants") {
        table.row([text_or_nothing(tenant, "tenant").into(), cell(tenant.at("a")), cell(tenant.at("b"))]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render(look)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(name: &str, role: &str, failed: u64) -> Value {
        json!({"version": name, "role": role, "share": 50, "requests": 1000, "requests_per_second": 3.3,
            "failures": {"status": failed, "grpc": 0, "timeout": failed / 2}, "failures_total": failed, "error_rate": failed as f64 / 1000.0,
            "client_aborts": 1, "latency": {"p50": 0.01, "p90": null, "p99": 1.0}, "in_flight": 2})
    }

    fn comparison() -> Value {
        json!({"canary": "2", "baseline": "1", "verdict": "breach", "action": "rollback", "evidence": 12345.6, "threshold": 10000,
            "braked": true, "window": {"seconds": 90.0, "baseline": {"requests": 900, "failures": 1}, "canary": {"requests": 100, "failures": 9}}})
    }

    #[test]
    fn stats_tell_verdicts_in_words() {
        let document = json!({"service": "a", "tenant": "t", "window_seconds": 300,
            "versions": [version("1", "baseline", 0), version("2", "canary", 20)], "comparisons": [comparison()]});
        let text = stats_text(&document, Look::default());
        for part in [
            "a, tenant t, last 5 min 0 s\n",
            "1        baseline   50 %      1000  3.3/s     0 %  10 ms    -  1.00 s          2\n",
            "status 20, timeout 10\n",
            "2 against 1: breach, evidence 12346 (shifts back at 10000)\n",
            "failures in the last 1 min 30 s: 2 9 of 100 requests, 1 1 of 900 requests\n",
            "its share is held back",
            "the guard shifts its traffic back",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_comparison_shows_differences_and_worst_tenants() {
        let side = json!({"requests": 10, "failures": 1, "error_rate": 0.1});
        let document = json!({"service": "a", "tenant": null, "since_seconds": 600, "a": version("1", "baseline", 0),
            "b": version("2", "canary", 20), "difference": {"error_rate": 0.02, "p50": 0.0, "p90": null, "p99": -0.2},
            "tenants": [{"tenant": "acme", "a": side, "b": side}], "comparison": null,
            "routes": [{"route": "GET /orders/{id}", "configured": false, "excess_failures": 12.5, "excess_slow": 0.0,
                "a": version("1", "baseline", 0), "b": version("2", "canary", 20)}]});
        let text = compare_text(&document, None, Look::default());
        assert!(!compare_text(&document, Some(By::Route), Look::default()).contains("acme"));
        assert!(!compare_text(&document, Some(By::Tenant), Look::default()).contains("orders"));
        for part in [
            "                    1       2  DIFFERENCE\n",
            "error rate        0 %     2 %        +2 %\n",
            "p50             10 ms   10 ms           0\n",
            "p99            1.00 s  1.00 s     -200 ms\n",
            "acme    1/10 (10 %)  1/10 (10 %)\n",
            "GET /orders/{id}  0/1000 (0 %)  ▲20/1000 (2 %)  10 ms  10 ms      -      -  1.00 s  1.00 s\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }
}
