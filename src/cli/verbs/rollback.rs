//! `rollback`: all traffic of a scope back to the baseline, and what still leads to the canary afterwards.

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::split::{moved, people, place};
use super::{ask, receipt_text, text_or_nothing};
use crate::cli::address::Resource;
use crate::cli::args::Format;
use crate::cli::client::Client;
use crate::cli::error::{CliError, with_causes};
use crate::cli::output::{Output, note};
use crate::cli::table::{Ink, Look};
use crate::cli::text::{Fields, counted};
use crate::cli::verb_args::{RollbackArgs, ScopeArgs};

/// Most pins that are named one by one.
const NAMED: usize = 10;

/// Rolls back, then looks at what is left.
pub(super) fn rollback(client: &Client, output: Output, args: &RollbackArgs) -> Result<(), CliError> {
    let mut body = Map::from_iter([("reason".to_owned(), json!(args.reason))]);
    if let Some(version) = &args.version {
        body.insert("version".to_owned(), json!(version));
    }
    let service = args.service.as_str();
    let resource = match &args.tenant {
        Some(tenant) => Resource::new(&["services", service, "tenants", tenant, "rollback"]),
        None => Resource::new(&["services", service, "rollback"]),
    };
    let receipt = ask(client, Method::POST, resource, Some(Value::Object(body)), &args.how)?;
    if output.format() != Format::Table {
        return output.show(&receipt, |_| String::new());
    }
    let done = match args.version.as_deref() {
        Some(version) => format!("{version} gives its share to the baseline"),
        None => "all traffic goes to the baseline".to_owned(),
    };
    let whose = args.tenant.as_ref().map_or_else(|| service.to_owned(), |t| format!("{service}, tenant {t}"));
    // The sentence comes out before anything else is asked: it is done, whatever happens to the rest.
    output.show(&receipt, |_| format!("{}\n", receipt_text(&receipt, &format!("{whose}: {done}"))))?;
    if args.how.dry_run {
        return output.show(&receipt, |_| format!("{}\n", moved(&receipt)));
    }
    match remains(client, args) {
        Ok((split, document)) => output
            .show(&receipt, |look| format!("\n{}{}", people(&split, &whose, look), pins_text(&document, args, look))),
        Err(e) => {
            note(&format!("The rollback is done, but what is left cannot be shown: {}", with_causes(&e)));
            Ok(())
        }
    }
}

/// The scope's split and the service, as they are now.
fn remains(client: &Client, args: &RollbackArgs) -> Result<(Value, Value), CliError> {
    let scope = ScopeArgs { tenant: args.tenant.clone(), group: None };
    let split = client.get(&place(&args.service, &scope))?;
    Ok((split, client.get(&Resource::new(&["services", &args.service]))?))
}

/// How many pins still lead away from the baseline. A rollback leaves them alone: somebody set them on purpose.
fn pins_text(service: &Value, args: &RollbackArgs, look: Look) -> String {
    let baseline = service.text("baseline").unwrap_or_default();
    let pins: Vec<&Value> = service.list("pins").iter().filter(|pin| leads_away(pin, args, &baseline)).collect();
    if pins.is_empty() {
        return format!("no pin leads to {}\n", canaries(args));
    }
    let verb = if pins.len() == 1 { "leads" } else { "lead" };
    let count = counted(pins.len() as u64, "pin");
    let head = format!("{count} still {verb} to {}:", canaries(args));
    let mut text = format!("{}\n", look.paint(Ink::Warn, &head));
    for pin in pins.iter().take(NAMED) {
        let (kind, name) = (text_or_nothing(pin, "kind"), text_or_nothing(pin, "name"));
        text.push_str(&format!("  {kind} {name} to {}\n", text_or_nothing(pin.at("pin"), "version")));
    }
    if pins.len() > NAMED {
        text.push_str(&format!("  and {} more\n", pins.len() - NAMED));
    }
    text.push_str(&format!("  remove one with: switchback unpin {} KIND NAME\n", args.service));
    text
}

fn leads_away(pin: &Value, args: &RollbackArgs, baseline: &str) -> bool {
    let Some(version) = pin.at("pin").text("version") else { return false };
    let of_scope = match (&args.tenant, pin.text("kind").as_deref()) {
        (Some(tenant), Some("tenant")) => pin.text("name").as_deref() == Some(tenant),
        _ => true,
    };
    of_scope && version != baseline && args.version.as_ref().is_none_or(|asked| *asked == version)
}

/// What the pins lead to, in words.
fn canaries(args: &RollbackArgs) -> &str {
    args.version.as_deref().unwrap_or("versions other than the baseline")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verb_args::HowArgs;

    fn args(tenant: Option<&str>, version: Option<&str>) -> RollbackArgs {
        RollbackArgs {
            service: "a".into(),
            tenant: tenant.map(Into::into),
            version: version.map(Into::into),
            reason: "r".into(),
            how: HowArgs { dry_run: false, if_revision: None },
        }
    }

    fn service() -> Value {
        let pin = |kind: &str, name: &str, pin: Value| json!({"kind": kind, "name": name, "pin": pin});
        json!({"baseline": "1", "pins": [
            pin("tenant", "acme", json!({"version": "2"})), pin("tenant", "other", json!({"version": "3"})),
            pin("user", "u", json!({"exclude": "2"})), pin("user", "w", json!({"version": "1"})),
        ]})
    }

    #[test]
    fn pins_to_canaries_are_counted() {
        let text = |args: &RollbackArgs| pins_text(&service(), args, Look::default());
        let all = text(&args(None, None));
        assert!(
            all.starts_with("2 pins still lead to versions other than the baseline:\n  tenant acme to 2\n"),
            "{all}"
        );
        assert!(
            text(&args(Some("acme"), None)).starts_with("1 pin still leads to"),
            "other tenants' pins do not count"
        );
        assert!(text(&args(None, Some("3"))).starts_with("1 pin still leads to 3:\n  tenant other to 3\n"));
        assert_eq!(text(&args(None, Some("4"))), "no pin leads to 4\n");
    }

    #[test]
    fn many_pins_are_not_all_named() {
        let pins: Vec<Value> =
            (0..13).map(|i| json!({"kind": "user", "name": i.to_string(), "pin": {"version": "2"}})).collect();
        let text = pins_text(&json!({"baseline": "1", "pins": pins}), &args(None, None), Look::default());
        assert!(text.contains("13 pins still lead") && text.contains("and 3 more"), "{text}");
    }
}
