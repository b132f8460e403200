//! `status` and `status -w`: how the proxy and its services stand.

use serde_json::Value;

use super::services::summary_table;
use super::text_or_nothing;
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::live::{Watched, watch};
use crate::cli::output::Output;
use crate::cli::table::{Cell, Column, Ink, Look, Table};
use crate::cli::text::{Fields, clean, counted, span};
use crate::cli::verb_args::StatusArgs;

/// Shows the status once, or again and again.
pub(super) fn status(client: &Client, output: Output, args: &StatusArgs) -> Result<(), CliError> {
    let resource = Resource::new(&["status"]);
    let document = client.get(&resource)?;
    if !args.watch {
        return output.show(&document, |look| people(&document, look));
    }
    let no_news = &["uptime_seconds"];
    let watched = Watched { resource, every: args.interval, people, is_over: |_| false, no_news };
    watch(&client.silent(), output, document, &watched)
}

/// The process in two lines, then its services, then what to look at.
fn people(status: &Value, look: Look) -> String {
    let (state, ink) = match (status.is("draining"), status.is("ready")) {
        (true, _) => ("draining", Ink::Warn),
        (false, true) => ("ready", Ink::Good),
        (false, false) => ("not ready", Ink::Bad),
    };
    let mut text = look.paint(Ink::Bold, &format!("switchback {}", text_or_nothing(status, "version")));
    text.push_str(&format!("  {}  {}", text_or_nothing(status, "instance"), look.paint(ink, state)));
    if let Some(uptime) = status.number("uptime_seconds") {
        text.push_str(&format!("  up {}", span(uptime.floor())));
    }
    text.push_str(&format!("  revision {}\n", status.count("revision").unwrap_or(0)));
    let store = status.at("store");
    let (state, ink) = if store.is("up") { ("up", Ink::Good) } else { ("away", Ink::Bad) };
    text.push_str(&format!("store {} {}", text_or_nothing(store, "kind"), look.paint(ink, state)));
    if status.is("read_only") {
        text.push_str(&look.paint(Ink::Warn, ", read only"));
    }
    let proxy = status.at("proxy");
    text.push_str(&format!("  listening on {}", proxy.texts("listen").join(", ")));
    if let Some(open) = proxy.count("open_connections") {
        text.push_str(&format!("  {}", counted(open, "open connection")));
    }
    text.push('\n');
    if let Some(frozen) = super::freeze::remark(status) {
        text.push_str(&format!("{}\n", look.paint(Ink::Warn, &frozen)));
    }
    text.push('\n');
    text.push_str(&fleet(status.at("fleet"), look));
    text.push_str(&summary_table(status.list("services"), look));
    for warning in status.list("warnings").iter().filter_map(Value::as_str) {
        text.push_str(&look.paint(Ink::Warn, &format!("warning: {}", clean(warning))));
        text.push('\n');
    }
    text
}

/// The proxies that share the store; nothing for one alone.
fn fleet(fleet: &Value, look: Look) -> String {
    let members = fleet.list("members");
    if fleet.is_null() {
        return String::new();
    }
    let mut text = String::new();
    if fleet.text("role").as_deref() == Some("alone") {
        let alone = "cut off from the fleet: traffic goes back by what this proxy sees, and nothing advances";
        text.push_str(&format!("{}\n", look.paint(Ink::Warn, alone)));
    }
    let mut table = Table::new([
        Column::Left("PROXY"),
        Column::Left("VERSION"),
        Column::Left("ROLE"),
        Column::Right("REVISION"),
        Column::Right("LAG"),
        Column::Left("HEALTH"),
    ])
    .dispensable(&["LAG"]);
    for member in members {
        let health = text_or_nothing(member, "health");
        let ink = if health == "ok" { Ink::Good } else { Ink::Warn };
        let here = if member.is("here") { " (this one)" } else { "" };
        table.row([
            format!("{}{here}", text_or_nothing(member, "instance")).into(),
            text_or_nothing(member, "version").into(),
            text_or_nothing(member, "role").into(),
            member.count("revision").unwrap_or(0).to_string().into(),
            member.count("lag").unwrap_or(0).to_string().into(),
            Cell::new(ink, health),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&format!("{}\n", table.render(look)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_says_what_is_wrong() {
        let status = json!({
            "instance": "h-1", "version": "0.1.0", "revision": 17, "uptime_seconds": 61.7, "ready": true, "draining": true,
            "read_only": true, "store": {"kind": "embedded", "up": false},
            "proxy": {"listen": ["127.0.0.1:8080"], "open_connections": 1}, "services": [], "warnings": ["look\u{7}"],
        });
        let expected = "\
switchback 0.1.0  h-1  draining  up 1 min 1 s  revision 17
store embedded away, read only  listening on 127.0.0.1:8080  1 open connection

there are no services
warning: look\u{fffd}
";
        assert_eq!(people(&status, Look::default()), expected);
    }

    #[test]
    fn a_fleet_is_a_table_and_being_cut_off_is_said_first() {
        let member = |instance: &str, role: &str, here: bool, lag: u64, health: &str| {
            json!({ "instance": instance, "version": "0.1.0", "role": role, "here": here, "revision": 9 - lag,
                "lag": lag, "health": health })
        };
        let members = [member("a-1", "leader", false, 0, "ok"), member("b-2", "standby", true, 2, "refused")];
        let whole = json!({ "role": "standby", "members": members });
        let expected = "\
PROXY           VERSION  ROLE     REVISION  LAG  HEALTH
a-1             0.1.0    leader          9    0  ok
b-2 (this one)  0.1.0    standby         7    2  refused

";
        assert_eq!(fleet(&whole, Look::default()), expected);
        assert_eq!(fleet(&Value::Null, Look::default()), "");
        let alone = fleet(&json!({ "role": "alone", "members": [] }), Look::default());
        assert!(alone.starts_with("cut off from the fleet"), "{alone}");
    }
}
