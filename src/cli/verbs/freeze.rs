//! `freeze`, `unfreeze`: stopping and releasing all automatic advancing.

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::{ask, delete, receipt, text_or_nothing};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::global_args::{FreezeArgs, UnfreezeArgs};
use crate::cli::output::Output;
use crate::cli::text::{Fields, time};

/// Forbids automation to advance anything.
pub(super) fn freeze(client: &Client, output: Output, args: &FreezeArgs) -> Result<(), CliError> {
    let fields = [("reason", Some(&args.reason)), ("for", args.span.as_ref()), ("until", args.until.as_ref())];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
    let body = Value::Object(Map::from_iter(fields));
    let answer = ask(client, Method::PUT, resource(), Some(body), &args.how)?;
    let until = match answer.at("after").at("until") {
        Value::Null => "until somebody ends it".to_owned(),
        until => format!("until {}", time(until)),
    };
    receipt(output, &answer, &format!("no automation may advance anything {until}; it may still shift back"))
}

/// Allows automation to advance again.
pub(super) fn unfreeze(client: &Client, output: Output, args: &UnfreezeArgs) -> Result<(), CliError> {
    let answer = delete(client, resource(), &args.change)?;
    receipt(output, &answer, "automation may advance again")
}

/// The freeze of a status in a line; none when nothing is frozen.
pub(super) fn remark(status: &Value) -> Option<String> {
    let freeze = status.at("freeze");
    freeze.is_object().then(|| {
        let by = freeze.at("author");
        let by = by.text("name").or_else(|| by.text("kind")).unwrap_or_default();
        let until = match freeze.at("until") {
            Value::Null => String::new(),
            until => format!(" until {}", time(until)),
        };
        let (since, reason) = (time(freeze.at("since")), text_or_nothing(freeze, "reason"));
        format!("frozen by {by} since {since}{until}: {reason}")
    })
}

fn resource() -> Resource {
    Resource::new(&["freeze"])
}
