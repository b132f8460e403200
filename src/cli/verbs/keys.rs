//! `keys rotate`: a new key signs the proxy's cookies.

use serde_json::json;
use ureq::http::Method;

use super::{receipt, with_reason};
use crate::cli::address::Resource;
use crate::cli::client::{Asked, Client};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::text::Fields;
use crate::cli::verb_args::KeysVerb;

/// Asks for a new key.
pub(super) fn keys(client: &Client, output: Output, verb: &KeysVerb) -> Result<(), CliError> {
    let KeysVerb::Rotate { reason } = verb;
    let body = Some(with_reason(json!({}), reason.as_deref()));
    let asked = Asked { method: Method::POST, resource: Resource::new(&["keys", "rotate"]), body, if_revision: &None };
    let answer = client.change(asked)?;
    let former = answer.at("after").count("keys").unwrap_or_default().saturating_sub(1);
    receipt(output, &answer, &format!("a new key signs cookies; {former} former ones are still accepted"))
}
