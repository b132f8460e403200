//! `versions disable`, `versions enable`, `versions tenants`: taking a version out of use, and who that would meet.

use serde_json::{Value, json};

use super::{delete, put, receipt, text_or_nothing};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::{Output, note};
use crate::cli::table::{Column, Ink, Look, Table};
use crate::cli::text::{Fields, counted, time};
use crate::cli::verb_args::ChangeArgs;

/// Takes a version out of every split.
pub(super) fn disable(
    client: &Client,
    output: Output,
    service: &str,
    version: &str,
    change: &ChangeArgs,
) -> Result<(), CliError> {
    let answer = put(client, switch(service, version), json!({}), change)?;
    let sentence = format!("{service}: version {version} is disabled; the baseline has all its traffic");
    receipt(output, &answer, &sentence)
}

/// Lets splits and pins name a version again.
pub(super) fn enable(
    client: &Client,
    output: Output,
    service: &str,
    version: &str,
    change: &ChangeArgs,
) -> Result<(), CliError> {
    let answer = delete(client, switch(service, version), change)?;
    let sentence = format!("{service}: version {version} is enabled; it gets traffic when a split or pin names it");
    receipt(output, &answer, &sentence)
}

/// Shows who still uses a version.
pub(super) fn tenants(
    client: &Client,
    output: Output,
    service: &str,
    version: &str,
    window: Option<&String>,
    limit: Option<u32>,
) -> Result<(), CliError> {
    let resource = Resource::new(&["services", service, "versions", version, "tenants"])
        .with("window", window)
        .with("limit", limit);
    let document = client.get(&resource)?;
    output.show(&document, |look| people(&document, look))?;
    if document.is("more") {
        note("there are more: --limit N lists up to 1000");
    }
    Ok(())
}

fn switch(service: &str, version: &str) -> Resource {
    Resource::new(&["services", service, "versions", version, "disabled"])
}

/// `deprecated since A, ends B`, or nothing.
pub(super) fn deprecation(deprecated: &Value) -> Option<String> {
    let since = deprecated.text("since")?;
    let sunset = deprecated.text("sunset").map(|s| format!(", ends {s}")).unwrap_or_default();
    Some(format!("deprecated since {since}{sunset}"))
}

fn people(report: &Value, look: Look) -> String {
    let name = format!("{} {}", text_or_nothing(report, "service"), text_or_nothing(report, "version"));
    let mut text = look.paint(Ink::Bold, &name);
    if let Some(deprecated) = deprecation(report.at("deprecated")) {
        text.push_str(&format!("  {deprecated}"));
    }
    text.push('\n');
    let mut table = Table::new([
        Column::Text("TENANT"),
        Column::Right("REQUESTS"),
        Column::Right("FAILURES"),
        Column::Whole("LAST SEEN"),
        Column::Left("BY"),
    ])
    .dispensable(&["BY"]);
    for tenant in report.list("tenants") {
        let number = |key| tenant.count(key).unwrap_or_default().to_string();
        table.row([
            text_or_nothing(tenant, "tenant").into(),
            number("requests").into(),
            number("failures").into(),
            time(tenant.at("last_seen")).into(),
            text_or_nothing(tenant, "by").into(),
        ]);
    }
    match table.is_empty() {
        true => text.push_str("no tenant had requests to it\n"),
        false => text.push_str(&table.render(look)),
    }
    let own = counted(report.count("own_splits").unwrap_or_default(), "tenant split");
    let pins = counted(report.count("pinned_tenants").unwrap_or_default(), "tenant pin");
    text.push_str(&format!("{own} and {pins} lead to it\n"));
    if let Some(without) = report.count("requests_without_tenant").filter(|n| *n > 0) {
        text.push_str(&format!("{} without a tenant\n", counted(without, "request")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_tenants_and_what_else_leads_there() {
        let report = json!({
            "service": "shop", "version": "1.0.0", "deprecated": {"since": "2026-06-01", "sunset": "2026-12-31"},
            "tenants": [{"tenant": "acme", "requests": 12, "failures": 1, "last_seen": "then", "by": "pin"}],
            "own_splits": 2, "pinned_tenants": 1, "requests_without_tenant": 3, "more": false,
        });
        let expected = "\
shop 1.0.0  deprecated since 2026-06-01, ends 2026-12-31
TENANT  REQUESTS  FAILURES  LAST SEEN  BY
acme          12         1  then       pin
2 tenant splits and 1 tenant pin lead to it
3 requests without a tenant
";
        assert_eq!(people(&report, Look::default()), expected);
        let nobody = json!({"service": "shop", "version": "1.0.0", "deprecated": null, "tenants": []});
        assert!(people(&nobody, Look::default()).contains("no tenant had requests to it"));
    }
}
