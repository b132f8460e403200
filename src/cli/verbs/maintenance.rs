//! `maintenance`: closing a service or a tenant for a while, with a word to whoever comes.

use serde_json::{Map, Value, json};

use super::{delete, put, receipt, text_or_nothing};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, time};
use crate::cli::verb_args::MaintenanceVerb;

/// Begins, ends or shows maintenance.
pub(super) fn maintenance(client: &Client, output: Output, verb: &MaintenanceVerb) -> Result<(), CliError> {
    match verb {
        MaintenanceVerb::On { service, tenant, message, retry_after, change } => {
            let mut body = Map::from_iter([("retry_after".to_owned(), json!(retry_after))]);
            if let Some(message) = message {
                body.insert("message".to_owned(), json!(message));
            }
            let answer = put(client, place(service, tenant.as_deref()), Value::Object(body), change)?;
            let sentence = format!("{} is in maintenance, back in {retry_after}", whose(service, tenant.as_deref()));
            receipt(output, &answer, &sentence)
        }
        MaintenanceVerb::Off { service, tenant, change } => {
            let answer = delete(client, place(service, tenant.as_deref()), change)?;
            receipt(output, &answer, &format!("{} is served again", whose(service, tenant.as_deref())))
        }
        MaintenanceVerb::Get { service, tenant } => {
            let document = client.get(&place(service, tenant.as_deref()))?;
            output.show(&document, |look| people(&document, look))
        }
    }
}

fn place(service: &str, tenant: Option<&str>) -> Resource {
    match tenant {
        Some(tenant) => Resource::new(&["services", service, "tenants", tenant, "maintenance"]),
        None => Resource::new(&["services", service, "maintenance"]),
    }
}

fn whose(service: &str, tenant: Option<&str>) -> String {
    tenant.map_or_else(|| service.to_owned(), |tenant| format!("{service}, tenant {tenant}"))
}

/// What is closed, and what those who come are told.
fn people(document: &Value, look: Look) -> String {
    let mut table = Table::new([
        Column::Left("WHAT"),
        Column::Whole("SINCE"),
        Column::Left("BY"),
        Column::Right("RETRY AFTER"),
        Column::Text("MESSAGE"),
    ])
    .dispensable(&["BY", "SINCE"]);
    let mut row = |what: String, maintenance: &Value| {
        let by = maintenance.at("author");
        let by = by.text("name").or_else(|| by.text("kind")).unwrap_or_default();
        table.row([
            Cell::new(Ink::Warn, what),
            time(maintenance.at("since")).into(),
            by.into(),
            text_or_nothing(maintenance, "retry_after").into(),
            maintenance.text("message").unwrap_or_default().into(),
        ]);
    };
    let service = text_or_nothing(document, "service");
    let whole = || format!("all of {service}");
    match document.text("tenant") {
        Some(tenant) if !document.at("maintenance").is_null() => {
            row(format!("tenant {tenant}"), document.at("maintenance"));
        }
        None if !document.at("maintenance").is_null() => row(whole(), document.at("maintenance")),
        _ => {}
    }
    if document.at("inherited").is_object() {
        row(whole(), document.at("inherited"));
    }
    for own in document.list("tenants") {
        row(format!("tenant {}", text_or_nothing(own, "tenant")), own);
    }
    if table.is_empty() { "nothing is in maintenance\n".to_owned() } else { table.render(look) }
}

/// A remark about maintenance, if there is any, for lists and details of services.
pub(super) fn remarks(service: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    let on = service.at("maintenance");
    if on.is_object() {
        let message = on.text("message").unwrap_or_default();
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        remarks.push(format!("in maintenance{message}"));
    }
    match service.count("tenants_in_maintenance") {
        None | Some(0) => {}
        Some(1) => remarks.push("1 tenant is in maintenance".to_owned()),
        Some(count) => remarks.push(format!("{count} tenants are in maintenance")),
    }
    let disabled = service.texts("disabled_versions");
    if !disabled.is_empty() {
        remarks.push(format!("disabled: {}", disabled.join(", ")));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_listed() {
        let on = |message: &str| json!({"message": message, "retry_after": "10m", "since": "then", "author": {"kind": "person", "name": "ada"}});
        let mut acme = on("Moving.");
        acme["tenant"] = json!("acme");
        let service = json!({"service": "shop", "maintenance": on("Back soon."), "tenants": [acme]});
        let expected = "\
WHAT         SINCE  BY   RETRY AFTER  MESSAGE
all of shop  then   ada          10m  Back soon.
tenant acme  then   ada          10m  Moving.
";
        assert_eq!(people(&service, Look::default()), expected);
        let tenant = json!({"service": "shop", "tenant": "acme", "maintenance": null, "inherited": on("")});
        assert!(people(&tenant, Look::default()).contains("all of shop"));
        let none = json!({"service": "shop", "maintenance": null, "tenants": []});
        assert_eq!(people(&none, Look::default()), "nothing is in maintenance\n");
    }

    #[test]
    fn what_is_off_is_remarked() {
        let service = json!({
            "maintenance": {"message": "Moving."}, "tenants_in_maintenance": 2, "disabled_versions": ["2.0.0"],
        });
        let expected = ["in maintenance: Moving.", "2 tenants are in maintenance", "disabled: 2.0.0"];
        assert_eq!(remarks(&service), expected);
        assert!(remarks(&json!({"maintenance": null, "tenants_in_maintenance": 0})).is_empty());
    }
}
