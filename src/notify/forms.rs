//! What each kind of receiver takes: a notice as Slack, PagerDuty, CloudEvents or e-mail want it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::incidents::Matter;
use super::notice::Notice;
use crate::model::Severity;

/// Characters that a Slack header takes.
const SLACK_HEADER: usize = 150;
/// Characters that a text of a Slack section takes.
const SLACK_TEXT: usize = 3_000;
/// Characters that a summary of PagerDuty takes.
const SUMMARY: usize = 1_024;

/// A message of Slack's incoming webhooks.
pub(super) fn slack(notice: &Notice) -> Value {
    let section = |text: String| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } });
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "text": shorten(&escape(&notice.title), SLACK_HEADER), "emoji": false },
    })];
    if !notice.reason.is_empty() {
        blocks.push(section(shorten(&escape(&notice.reason), SLACK_TEXT)));
    }
    if !notice.facts.is_empty() {
        let lines: Vec<_> = notice.facts.iter().map(|(label, text)| format!("*{label}:* {}", escape(text))).collect();
        blocks.push(section(shorten(&lines.join("\n"), SLACK_TEXT)));
    }
    if let Some(link) = &notice.link {
        blocks.push(section(format!("<{}|Open the dashboard>", escape(link))));
    }
    let when = Timestamp::from_millisecond(notice.at_ms as i64).map(|t| t.to_string()).unwrap_or_default();
    let context = json!({ "type": "mrkdwn", "text": format!("{} · {when}", notice.severity) });
    blocks.push(json!({ "type": "context", "elements": [context] }));
    let color = match notice.severity {
        Severity::Critical => "#d92d20",
        Severity::Warning => "#f79009",
        Severity::Info => "#667085",
    };
    json!({ "text": escape(&notice.title), "attachments": [{ "color": color, "blocks": blocks }] })
}

/// Opens an incident of PagerDuty, or adds to one that is open.
pub(super) fn pagerduty_trigger(notice: &Notice, routing_key: &str, source: &str) -> Value {
    let mut details: serde_json::Map<String, Value> =
        notice.facts.iter().map(|(label, text)| ((*label).to_owned(), json!(text))).collect();
    details.insert("Reason".to_owned(), json!(notice.reason));
    let when = Timestamp::from_millisecond(notice.at_ms as i64).map(|t| t.to_string()).ok();
    let links: Vec<_> = notice.link.iter().map(|href| json!({ "href": href, "text": "Dashboard" })).collect();
    json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": notice.matter.key(),
        "client": "Switchback",
        "client_url": notice.link,
        "links": links,
        "payload": {
            "summary": shorten(&notice.title, SUMMARY),
            "source": source,
            "severity": notice.severity,
            "timestamp": when,
            "component": notice.matter.service,
            "group": notice.matter.version,
            "class": notice.matter.kind,
            "custom_details": details,
        },
    })
}

/// Resolves an incident of PagerDuty.
pub(super) fn pagerduty_resolve(matter: &Matter, routing_key: &str) -> Value {
    json!({ "routing_key": routing_key, "event_action": "resolve", "dedup_key": matter.key() })
}

/// An event of CloudEvents 1.0 in its structured form.
pub(super) fn cloud_event(notice: &Notice, source: &str) -> Value {
    let when = Timestamp::from_millisecond(notice.at_ms as i64).map(|t| t.to_string()).ok();
    let mut data = json!({ "severity": notice.severity, "title": notice.title, "reason": notice.reason });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, &notice.data) {
        data.extend(more.clone());
    }
    let mut event = json!({
        "specversion": "1.0",
        "id": notice.id,
        "source": source,
        "type": format!("io.switchback.{}", notice.matter.kind),
        "time": when,
        "datacontenttype": "application/json",
        "data": data,
    });
    // An attribute of CloudEvents may be absent, but not null.
    if let Some(service) = &notice.matter.service {
        event["subject"] = json!(service);
    }
    event
}

/// The text of an e-mail.
pub(super) fn mail_text(notice: &Notice) -> String {
    let mut text = format!("{}\n\n", notice.title);
    if !notice.reason.is_empty() {
        text.push_str(&format!("{}\n\n", notice.reason));
    }
    for (label, fact) in &notice.facts {
        text.push_str(&format!("{label}: {fact}\n"));
    }
    let when = Timestamp::from_millisecond(notice.at_ms as i64).map(|t| t.to_string()).unwrap_or_default();
    text.push_str(&format!("When: {when}\nSeverity: {}\n", notice.severity));
    if let Some(link) = &notice.link {
        text.push_str(&format!("\n{link}\n"));
    }
    text
}

/// What means something to Slack: names and reasons come from many hands, and none of them may call a channel.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most - 1) {
        Some((at, _)) if text.chars().count() > most => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::Gathered;
    use super::super::tests::{event, story};
    use super::*;
    use crate::model::{Event, EventKind};

    fn notice(reason: &str) -> Notice {
        let event = Event { reason: reason.to_owned(), ..event(EventKind::Rollback, Some("a&b<!channel>")) };
        Notice::new(&Gathered::one(&story(event)), Some("https://sb.example.com"))
    }

    #[test]
    fn nobody_calls_a_channel_by_a_name_or_a_reason() {
        let message = slack(&notice("<!here> & more")).to_string();
        assert!(!message.contains("<!"), "{message}");
        assert!(message.contains("&lt;!here&gt; &amp; more"));
    }

    #[test]
    fn long_texts_are_cut_to_what_receivers_take() {
        let message = slack(&notice(&"ü".repeat(5_000)));
        let text = message["attachments"][0]["blocks"][1]["text"]["text"].as_str().unwrap();
        assert_eq!((text.chars().count(), text.chars().last()), (SLACK_TEXT, Some('…')));
        assert_eq!((shorten("abc", 3), shorten("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
    }

    #[test]
    fn incidents_are_opened_and_resolved_by_the_same_key() {
        let notice = notice("why");
        let (open, close) = (pagerduty_trigger(&notice, "k", "s"), pagerduty_resolve(&notice.matter, "k"));
        assert_eq!(open["dedup_key"], close["dedup_key"]);
        assert_eq!((&open["payload"]["severity"], &close["event_action"]), (&json!("critical"), &json!("resolve")));
    }

    #[test]
    fn cloud_events_have_no_null_attributes() {
        let event = cloud_event(&Notice::test("a", 0, None), "/switchback/here");
        assert!(event.get("subject").is_none() && event["id"].is_string());
        assert_eq!((&event["type"], &event["time"]), (&json!("io.switchback.test"), &json!("1970-01-01T00:00:00Z")));
        assert_eq!(cloud_event(&notice("why"), "/s")["subject"], "shop");
    }
}
