//! `pin`, `unpin`, `hold`, `release`, `baseline`: people steering a service past its split.

use serde_json::json;

use super::{delete, put, receipt};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::verb_args::{BaselineArgs, HoldArgs, PinArgs, PinKind, ReleaseArgs, UnpinArgs};

/// Sends a tenant, user or group to a version, or keeps it away from one.
pub(super) fn pin(client: &Client, output: Output, args: &PinArgs) -> Result<(), CliError> {
    let (field, sentence) = match args.exclude {
        true => ("exclude", "is kept away from"),
        false => ("version", "is pinned to"),
    };
    let answer = put(client, place(&args.service, args.kind, &args.name), json!({field: args.version}), &args.change)?;
    let (kind, name) = (args.kind.as_str(), &args.name);
    receipt(output, &answer, &format!("{}: {kind} {name} {sentence} {}", args.service, args.version))
}

/// Removes a pin.
pub(super) fn unpin(client: &Client, output: Output, args: &UnpinArgs) -> Result<(), CliError> {
    let answer = delete(client, place(&args.service, args.kind, &args.name), &args.change)?;
    let (kind, name) = (args.kind.as_str(), &args.name);
    receipt(output, &answer, &format!("{}: {kind} {name} follows the split again", args.service))
}

/// Forbids automation to advance.
pub(super) fn hold(client: &Client, output: Output, args: &HoldArgs) -> Result<(), CliError> {
    let answer = put(client, Resource::new(&["services", &args.service, "hold"]), json!({}), &args.change)?;
    let sentence = "automation may not advance; it may still shift back";
    receipt(output, &answer, &format!("{}: {sentence}", args.service))
}

/// Allows automation to advance.
pub(super) fn release(client: &Client, output: Output, args: &ReleaseArgs) -> Result<(), CliError> {
    let answer = delete(client, Resource::new(&["services", &args.service, "hold"]), &args.change)?;
    receipt(output, &answer, &format!("{}: automation may advance again", args.service))
}

/// Trusts another version.
pub(super) fn baseline(client: &Client, output: Output, args: &BaselineArgs) -> Result<(), CliError> {
    let resource = Resource::new(&["services", &args.service, "baseline"]);
    let answer = put(client, resource, json!({"version": args.version}), &args.change)?;
    receipt(output, &answer, &format!("{}: the baseline is {}", args.service, args.version))
}

fn place(service: &str, kind: PinKind, name: &str) -> Resource {
    Resource::new(&["services", service, "pins", kind.as_str(), name])
}
