//! `events` and `events -f`: what happened, one line each; rollbacks with their reason in full.

use serde_json::Value;

use super::text_or_nothing;
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::{Output, note};
use crate::cli::stream::follow;
use crate::cli::table::{Ink, Look};
use crate::cli::text::{Fields, NOTHING, clean, cut, first_sentence, span, time, width, wrapped};
use crate::cli::verb_args::EventsArgs;
use crate::cli::watch::until_interrupted;

/// Shows past events, and goes on with new ones if wanted.
pub(super) fn events(client: &Client, output: Output, args: &EventsArgs) -> Result<(), CliError> {
    if args.follow {
        return go_on(client, output, args);
    }
    let document = client.get(&past(args))?;
    output.show(&document, |look| {
        let text: String = oldest_first(&document).map(|event| people(event, look)).collect();
        if text.is_empty() { "nothing happened\n".to_owned() } else { text }
    })?;
    if let (Some(_), Some(next)) = (args.after, document.count("next")) {
        note(&format!("there are more: --after {next}"));
    }
    Ok(())
}

/// Past events in their order first, then live ones. The stream begins after the newest event that was seen, so that
/// none is lost between the two. With `--after` the stream itself brings the past.
fn go_on(client: &Client, output: Output, args: &EventsArgs) -> Result<(), CliError> {
    let after = match args.after {
        Some(after) => after,
        None => {
            let document = client.get(&past(args))?;
            for event in oldest_first(&document) {
                output.show_one(event, |look| people(event, look))?;
            }
            // Where nothing was let through by the filters, the whole history may be offered again: nothing will be.
            document.list("events").iter().filter_map(|event| event.count("id")).max().unwrap_or(0)
        }
    };
    let (client, resource) = (client.clone(), filtered(args));
    until_interrupted(output, move || {
        let show = |event: &Value| output.show_one(event, |_| people(event, output.measured().look()));
        follow(&client, &resource, after, show, note)
    })
}

fn filtered(args: &EventsArgs) -> Resource {
    Resource::new(&["events"])
        .with("service", args.service.as_ref())
        .with("tenant", args.tenant.as_ref())
        .with("kind", args.kind.as_ref())
}

fn past(args: &EventsArgs) -> Resource {
    let resource = filtered(args).with("limit", Some(args.limit)).with("after", args.after);
    resource.with("order", args.after.is_none().then_some("desc"))
}

/// The events by id, however the server ordered them.
fn oldest_first(document: &Value) -> impl Iterator<Item = &Value> {
    let mut events: Vec<&Value> = document.list("events").iter().collect();
    events.sort_by_key(|event| event.count("id"));
    events.into_iter()
}

/// One line; for rollbacks, the whole reason and how long it took below it.
fn people(event: &Value, look: Look) -> String {
    let kind = text_or_nothing(event, "kind");
    let at = time(event.at(if event.get("at").is_some() { "at" } else { "at_ms" }));
    let (subject, author) = (subject(event), author(event.at("author")));
    let reason = event.at("reason").as_str().unwrap_or_default();
    let short = clean(first_sentence(reason)).into_owned();
    let ink = match kind.as_str() {
        "rollback" => Ink::Bad,
        "brake" | "probe" | "hold_slo" | "split_off" => Ink::Warn,
        _ => Ink::Plain,
    };
    let head = format!("{at}  {subject}  {kind}  {author}");
    let painted = format!("{at}  {}  {}  {author}", look.paint(Ink::Bold, &subject), look.paint(ink, &kind));
    let mut text = painted;
    if kind != "rollback" {
        if !short.is_empty() {
            text.push_str("  ");
            text.push_str(&fitting(&short, look.width, width(&head) + 2));
        }
        text.push('\n');
        return text;
    }
    let whole = wrapped(reason, look.width.map_or(usize::MAX, |w| w.saturating_sub(4).max(20)));
    let one_line = whole.len() == 1 && whole.first() == Some(&short);
    if !short.is_empty() {
        text.push_str("  ");
        text.push_str(&fitting(&short, look.width, width(&head) + 2));
    }
    text.push('\n');
    // The first sentence alone says it all when it stands on the line already, uncut.
    if !one_line || text.contains('…') {
        whole.iter().filter(|line| !line.is_empty()).for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    if let Some(ms) = event.number("first_bad_to_rollback_ms") {
        let took = span(ms / 1000.0);
        text.push_str(&format!("    {took} from the first bad request to the rollback\n"));
    }
    text
}

/// Cut to the rest of the line, if there is a terminal and a useful rest.
fn fitting(text: &str, room: Option<usize>, used: usize) -> String {
    match room.map(|room| room.saturating_sub(used)) {
        Some(rest) if rest >= 20 => cut(text, rest).into_owned(),
        _ => text.to_owned(),
    }
}

/// `service`, `service/tenant`, `service/group:name`, with the version if there is one.
fn subject(event: &Value) -> String {
    let mut text = text_or_nothing(event, "service");
    if let Some(tenant) = event.text("tenant") {
        text.push_str(&format!("/{tenant}"));
    }
    if let Some(group) = event.text("group") {
        text.push_str(&format!("/group:{group}"));
    }
    if let Some(version) = event.text("version") {
        text.push_str(&format!(" {version}"));
    }
    text
}

fn author(author: &Value) -> String {
    author.text("name").or_else(|| author.text("kind")).unwrap_or_else(|| NOTHING.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = json!({"id": 1, "at": "then", "kind": "split_set", "service": "a", "tenant": "t",
            "author": {"kind": "person", "name": "ci"}, "reason": "Begin the rollout. More words."});
        assert_eq!(people(&event, Look::default()), "then  a/t  split_set  ci  Begin the rollout.\n");
        let event = json!({"id": 1, "at": "then", "kind": "reloaded", "author": {"kind": "file"}});
        assert_eq!(people(&event, Look::default()), "then  -  reloaded  file\n");
    }

    #[test]
    fn a_rollback_has_its_reason_in_full_and_the_time() {
        let event = json!({"id": 1, "at": "then", "kind": "rollback", "service": "a", "version": "2.0.0",
            "author": {"kind": "autopilot"}, "reason": "2.0.0 fails more. It failed 9 of 100.\u{1b}", "first_bad_to_rollback_ms": 3200});
        let expected = "\
then  a 2.0.0  rollback  autopilot  2.0.0 fails more.
    2.0.0 fails more. It failed 9 of 100.\u{fffd}
    3.2 s from the first bad request to the rollback
";
        assert_eq!(people(&event, Look::default()), expected);
    }

    #[test]
    fn events_come_in_their_order() {
        let document = json!({"events": [{"id": 3}, {"id": 1}, {"id": 2}]});
        let ids: Vec<_> = oldest_first(&document).filter_map(|e| e.count("id")).collect();
        assert_eq!(ids, [1, 2, 3]);
    }
}
