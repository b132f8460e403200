//! `upgrade`: a new process takes over.

use serde_json::Value;
use ureq::http::Method;

use crate::cli::address::Resource;
use crate::cli::client::{Asked, Client};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::text::Fields;

/// Asks for the upgrade, waits until the new process serves, and says which one that is.
pub(super) fn upgrade(client: &Client, output: Output) -> Result<(), CliError> {
    let asked = Asked { method: Method::POST, resource: Resource::new(&["upgrade"]), body: None, if_revision: &None };
    let answer = client.patient().doing("starting a new process, which takes over when it serves").change(asked)?;
    output.show(&answer, |_| people(&answer))
}

fn people(answer: &Value) -> String {
    let number = |key| answer.count(key).unwrap_or_default();
    format!("process {} serves; process {} finishes its requests and ends\n", number("to"), number("from"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_processes_are_named() {
        let text = "process 8 serves; process 7 finishes its requests and ends\n";
        assert_eq!(people(&json!({ "from": 7, "to": 8 })), text);
    }
}
