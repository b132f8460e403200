//! `health`: whether the proxy takes traffic, for health checks of containers, load balancers and scripts.

use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::text::clean;

/// Says that it does, or fails with the reason why not.
pub(super) fn health(client: &Client, output: Output) -> Result<(), CliError> {
    match client.ready()? {
        None => output.show(&json!({ "ready": true }), |_| "ready\n".to_owned()),
        Some(why) => Err(CliError::EndedBadly(format!("not ready: {}", clean(&why)))),
    }
}
