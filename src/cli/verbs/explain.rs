//! `explain`: the chain of decisions for one request, as numbered steps.

use serde_json::Value;

use super::text_or_nothing;
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Ink, Look};
use crate::cli::text::{Fields, width, wrapped};
use crate::cli::verb_args::ExplainArgs;

/// Asks how the request would be decided.
pub(super) fn explain(client: &Client, output: Output, args: &ExplainArgs) -> Result<(), CliError> {
    let resource = Resource::new(&["services", &args.service, "explain"])
        .with("tenant", args.tenant.as_ref())
        .with("key", args.key.as_ref())
        .with("path", args.path.as_ref())
        .with("host", args.host.as_ref())
        .with("method", args.method.as_ref())
        .with_each("header", &args.headers)
        .with("address", args.address);
    let document = client.get(&resource)?;
    output.show(&document, |look| people(&document, look))
}

fn people(document: &Value, look: Look) -> String {
    let steps = document.list("steps");
    let number_width = steps.len().to_string().len();
    let step_width = steps.iter().filter_map(|s| s.text("step")).map(|s| width(&s)).max().unwrap_or(0);
    let indent = number_width + 2 + step_width + 2;
    let room = look.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(20));
    let mut text = String::new();
    for (i, step) in steps.iter().enumerate() {
        let detail = step.at("detail").as_str().map(|d| wrapped(d, room)).unwrap_or_default();
        let name = text_or_nothing(step, "step");
        let name = format!("{name}{}", " ".repeat(step_width.saturating_sub(width(&name))));
        text.push_str(&format!("{:>number_width$}. {}", i + 1, look.paint(Ink::Bold, &name)));
        for (line, part) in detail.iter().enumerate() {
            match line {
                0 => text.push_str(&format!("  {part}")),
                _ => text.push_str(&format!("\n{}{part}", " ".repeat(indent))),
            }
        }
        text.push('\n');
    }
    let version = look.paint(Ink::Bold, &text_or_nothing(document, "version"));
    text.push_str(&format!("→ {} {version}", text_or_nothing(document, "service")));
    let endpoints = document.texts("endpoints");
    if !endpoints.is_empty() {
        text.push_str(&format!(" at {}", endpoints.join(" or ")));
    }
    if let Some(path) = document.text("path") {
        text.push_str(&format!(", path {path}"));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_are_numbered_and_aligned() {
        let document = json!({"service": "a", "tenant": "t", "version": "2.0.0", "endpoints": ["h:1", "h:2"], "path": "/x",
            "steps": [{"step": "match", "detail": "path /a fits"}, {"step": "tenant", "detail": "a header says so and this is long"}]});
        let expected =
            "1. match   path /a fits\n2. tenant  a header says so and this is long\n→ a 2.0.0 at h:1 or h:2, path /x\n";
        assert_eq!(people(&document, Look::default()), expected);
        let narrow = people(&document, Look { colour: false, width: Some(32) });
        assert!(narrow.contains("2. tenant  a header says so and\n           this is long\n"), "{narrow}");
    }
}
