//! `notify list`, `notify test`: who is told of what happens, and whether they can be reached.

use serde_json::{Value, json};
use ureq::http::Method;

use super::text_or_nothing;
use crate::cli::address::Resource;
use crate::cli::client::{Asked, Client};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, NOTHING};
use crate::cli::verb_args::NotifyVerb;

/// Shows the targets, or sends test messages.
pub(super) fn notify(client: &Client, output: Output, verb: Option<&NotifyVerb>) -> Result<(), CliError> {
    match verb {
        None | Some(NotifyVerb::List) => {
            let answer = client.get(&Resource::new(&["notify"]))?;
            output.show(&answer, |look| targets(&answer, look))
        }
        Some(NotifyVerb::Test { target }) => test(client, output, target.as_deref()),
    }
}

/// Fails when somebody was not reached, so that scripts notice.
fn test(client: &Client, output: Output, target: Option<&str>) -> Result<(), CliError> {
    let body = Some(target.map_or_else(|| json!({}), |target| json!({ "target": target })));
    let resource = Resource::new(&["notify", "test"]);
    let answer = client.doing("sending test messages").change(Asked {
        method: Method::POST,
        resource,
        body,
        if_revision: &None,
    })?;
    output.show(&answer, |look| results(&answer, look))?;
    let failed = answer.list("results").iter().filter(|r| !r.is("ok"));
    let failed: Vec<_> = failed.map(|r| text_or_nothing(r, "target")).collect();
    if failed.is_empty() { Ok(()) } else { Err(CliError::NotReached(failed)) }
}

fn targets(answer: &Value, look: Look) -> String {
    let targets = answer.list("targets");
    if targets.is_empty() {
        return "nobody is told; [[notify]] in the configuration names targets\n".to_owned();
    }
    let mut table = Table::new([
        Column::Text("TARGET"),
        Column::Text("TYPE"),
        Column::Text("ADDRESS"),
        Column::Text("FROM"),
        Column::Right("SENT"),
        Column::Right("FAILED"),
        Column::Right("DROPPED"),
        Column::Right("SUPPRESSED"),
        Column::Text("LAST"),
    ])
    .dispensable(&["FROM", "SUPPRESSED", "DROPPED", "TYPE", "ADDRESS"]);
    for target in targets {
        let text = |key: &str| Cell::from(text_or_nothing(target, key));
        let count = |key: &str| Cell::from(target.count(key).unwrap_or_default().to_string());
        let last = target.at("last");
        let last = match last.text("detail") {
            None => NOTHING.into(),
            Some(detail) if last.is("ok") => Cell::new(Ink::Good, detail),
            Some(detail) => Cell::new(Ink::Bad, detail),
        };
        table.row([
            text("name"),
            text("type"),
            text("address"),
            text("severity"),
            count("sent"),
            count("failed"),
            count("dropped"),
            count("suppressed"),
            last,
        ]);
    }
    table.render(look)
}

fn results(answer: &Value, look: Look) -> String {
    let results = answer.list("results");
    if results.is_empty() {
        return "there are no targets; [[notify]] in the configuration names them\n".to_owned();
    }
    let line = |result: &Value| {
        let (ink, word) = if result.is("ok") { (Ink::Good, "reached") } else { (Ink::Bad, "not reached") };
        let detail = text_or_nothing(result, "detail");
        format!("{}: {}, {detail}\n", text_or_nothing(result, "target"), look.paint(ink, word))
    };
    results.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_say_who_was_reached() {
        let answer = json!({ "ok": false, "results": [
            { "target": "team", "ok": true, "detail": "answered 200" },
            { "target": "mail", "ok": false, "detail": "no answer within 100 ms" }
        ]});
        let text = "team: reached, answered 200\nmail: not reached, no answer within 100 ms\n";
        assert_eq!(results(&answer, Look::default()), text);
    }

    #[test]
    fn targets_stand_in_a_table() {
        let answer = json!({ "targets": [{
            "name": "team", "type": "slack", "address": "https://hooks.example.com", "severity": "warning",
            "sent": 3, "failed": 0, "dropped": 0, "suppressed": 2, "last": null
        }]});
        let text = targets(&answer, Look::default());
        assert!(
            text.lines().nth(1).unwrap().starts_with("team    slack  https://hooks.example.com  warning"),
            "{text}"
        );
        assert!(targets(&json!({ "targets": [] }), Look::default()).starts_with("nobody is told"));
    }
}
