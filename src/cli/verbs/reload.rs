//! `reload`: the proxy reads its configuration again.

use serde_json::Value;
use ureq::http::Method;

use crate::cli::address::Resource;
use crate::cli::client::{Asked, Client};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Ink, Look};
use crate::cli::text::Fields;

/// Asks for the reload and shows what it brought.
pub(super) fn reload(client: &Client, output: Output) -> Result<(), CliError> {
    let asked = Asked { method: Method::POST, resource: Resource::new(&["reload"]), body: None, if_revision: &None };
    let answer = client.patient().doing("reading the configuration again").change(asked)?;
    output.show(&answer, |look| people(&answer, look))
}

fn people(answer: &Value, look: Look) -> String {
    let mut text = match answer.texts("changed") {
        changed if changed.is_empty() => "reloaded, nothing changed".to_owned(),
        changed => format!("reloaded, changed: {}", changed.join(", ")),
    };
    if let Some(revision) = answer.count("revision") {
        text.push_str(&format!(" (revision {revision})"));
    }
    text.push('\n');
    for key in answer.texts("needs_restart") {
        text.push_str(&look.paint(Ink::Warn, &format!("needs a restart: {key}")));
        text.push('\n');
    }
    for warning in answer.texts("warnings") {
        text.push_str(&look.paint(Ink::Warn, &format!("warning: {warning}")));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_needs_a_restart_is_said() {
        let answer =
            json!({"revision": 3, "changed": ["services.a"], "needs_restart": ["proxy.listen"], "warnings": []});
        assert_eq!(
            people(&answer, Look::default()),
            "reloaded, changed: services.a (revision 3)\nneeds a restart: proxy.listen\n"
        );
        assert_eq!(people(&json!({"changed": []}), Look::default()), "reloaded, nothing changed\n");
    }
}
