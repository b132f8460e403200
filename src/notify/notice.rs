//! A message in words, before it takes the form of a receiver.

use serde_json::Value;

use super::gather::Gathered;
use super::incidents::Matter;
use super::severity::severity_of;
use super::story::Story;
use crate::analysis::EvidenceWindow;
use crate::model::{Event, EventKind, Severity};

/// What people read.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    /// Different for every message, the same on every attempt.
    pub id: String,
    pub severity: Severity,
    /// The matter by which receivers recognise it.
    pub matter: Matter,
    /// One line.
    pub title: String,
    /// Why, in sentences.
    pub reason: String,
    /// What else is known, as label and text.
    pub facts: Vec<(&'static str, String)>,
    /// Where to look.
    pub link: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The event and what is known about it, for programs; null for a test.
    pub data: Value,
}

impl Notice {
    /// What is told about events. `public_url`: where the dashboard is.
    pub(super) fn new(gathered: &Gathered, public_url: Option<&str>) -> Self {
        let story = &*gathered.story;
        let event = &story.event;
        let link = public_url.map(|url| link(url, event));
        let mut data = serde_json::json!({
            "severity": severity_of(event.kind),
            "event": event,
            "events": gathered.events,
            "tenants": gathered.tenants,
            "tenant_count": gathered.tenant_count,
            "suppressed": gathered.suppressed,
            "routes": story.routes.iter().map(|(r, n)| serde_json::json!({ "route": r, "excess": n })).collect::<Vec<_>>(),
            "worst_tenants": story.tenants.iter()
                .map(|(t, bad, n)| serde_json::json!({ "tenant": t, "failures": bad, "requests": n })).collect::<Vec<_>>(),
        });
        if let Some(link) = &link {
            data["link"] = link.clone().into();
        }
        Self {
            id: format!("msg_{:032x}", rand::random::<u128>()),
            severity: severity_of(event.kind),
            matter: Matter::of(event),
            title: title(gathered),
            reason: event.reason.clone(),
            facts: facts(gathered),
            link,
            at_ms: event.at_ms,
            data,
        }
    }

    /// A message that only shows that messages arrive.
    pub(super) fn test(target: &str, at_ms: u64, public_url: Option<&str>) -> Self {
        let id = format!("msg_{:032x}", rand::random::<u128>());
        let matter = Matter { service: None, kind: "test", version: None };
        Self {
            id,
            severity: Severity::Info,
            matter,
            title: "This is a test of Switchback's notifications".to_owned(),
            reason: format!("Somebody asked whether the target {target:?} can be reached. It can."),
            facts: Vec::new(),
            link: public_url.map(str::to_owned),
            at_ms,
            data: Value::Null,
        }
    }
}

/// `shop: 2.0.0 was rolled back for 37 tenants`.
fn title(gathered: &Gathered) -> String {
    let event = &gathered.story.event;
    let service = event.service.as_ref().map(|s| format!("{s}: ")).unwrap_or_default();
    let version = event.version.as_ref().map(|v| v.to_string());
    let what = match (event.kind, version) {
        (EventKind::Rollback, Some(version)) => format!("{version} was rolled back"),
        (EventKind::RolloutRolledBack, Some(version)) => format!("the rollout of {version} was rolled back"),
        (EventKind::Brake, Some(version)) => format!("{version} is held back"),
        (EventKind::Probe, Some(version)) => format!("{version} is being probed at half of the traffic"),
        (EventKind::HoldSlo, Some(version)) => format!("{version} and its baseline both fail"),
        (EventKind::SplitOff, Some(version)) => format!("the share of {version} is not what was configured"),
        (kind, Some(version)) => format!("{} {version}", words(kind)),
        (kind, None) => words(kind),
    };
    let whom = match (gathered.tenant_count, &event.tenant, &event.group) {
        (2.., ..) => format!(" for {} tenants", gathered.tenant_count),
        (_, Some(tenant), _) => format!(" for tenant {tenant}"),
        (_, _, Some(group)) => format!(" for group {group}"),
        _ => String::new(),
    };
    format!("{service}{what}{whom}")
}

fn words(kind: EventKind) -> String {
    kind.as_str().replace('_', " ")
}

fn facts(gathered: &Gathered) -> Vec<(&'static str, String)> {
    let story = &*gathered.story;
    let event = &story.event;
    let mut facts = vec![("By", event.author.to_string())];
    if let Some(rollout) = &event.rollout {
        facts.push(("Rollout", rollout.to_string()));
    }
    if let Some(evidence) = evidence(story) {
        facts.push(("Evidence", evidence));
    }
    if gathered.tenant_count > 1 {
        let rest = gathered.tenant_count - gathered.tenants.len() as u64;
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        facts.push(("Tenants", gathered.tenants.join(", ") + &more));
    }
    if !story.routes.is_empty() {
        let routes: Vec<_> = story.routes.iter().map(|(route, n)| format!("{route} ({n} more than usual)")).collect();
        facts.push(("Worst routes", routes.join(", ")));
    }
    if !story.tenants.is_empty() {
        let tenant = |(tenant, bad, n): &(String, u64, u64)| format!("{tenant} ({bad} of {n} failed)");
        facts.push(("Worst tenants", story.tenants.iter().map(tenant).collect::<Vec<_>>().join(", ")));
    }
    if let Some(ms) = event.first_bad_to_rollback_ms {
        facts.push(("From the first failure to the rollback", format!("{:.1} s", ms as f64 / 1_000.0)));
    }
    if gathered.suppressed > 0 {
        facts.push(("Not told before", format!("{} times the same", gathered.suppressed)));
    }
    facts
}

/// The counts behind the decision in one line.
fn evidence(story: &Story) -> Option<String> {
    let window: EvidenceWindow = serde_json::from_value(story.event.evidence.get("window")?.clone()).ok()?;
    let bad = match window.signal.as_str() {
        "error" => "failed",
        "client_error" => "were refused with 4xx",
        _ => "were slow",
    };
    let arm = |name: Option<String>, bad_count: u64, n: u64| {
        let percent = if n == 0 { 0.0 } else { bad_count as f64 * 100.0 / n as f64 };
        format!("{} {bad_count} of {n} {bad} ({percent:.2} %)", name.unwrap_or_default())
    };
    let canary = arm(story.event.version.as_ref().map(ToString::to_string), window.canary.bad, window.canary.n);
    let baseline = arm(story.baseline.as_ref().map(ToString::to_string), window.baseline.bad, window.baseline.n);
    Some(format!("{canary}, {baseline}, in {:.1} s", window.seconds))
}

/// The dashboard at this service and event.
fn link(public_url: &str, event: &Event) -> String {
    // Of what names of services may hold, only a plus means something else in a query.
    let service = event.service.as_ref().map(|s| format!("service={}&", s.as_str().replace('+', "%2B")));
    format!("{public_url}/?{}event={}", service.unwrap_or_default(), event.id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::tests::{event, story};
    use super::*;

    #[test]
    fn a_rollback_is_told_with_reason_evidence_and_who_suffers() {
        let window = json!({
            "signal": "error", "baseline": { "n": 900, "bad": 1 }, "canary": { "n": 100, "bad": 40 },
            "baseline_bad_keys": 1, "canary_bad_keys": 40, "share": 0.1, "seconds": 4.25, "started_ms": 0, "first_bad_ms": 0
        });
        let event = Event {
            reason: "2.0.0 fails more.".to_owned(),
            evidence: json!({ "window": window }),
            first_bad_to_rollback_ms: Some(1_234),
            ..event(EventKind::Rollback, None)
        };
        let told = Story {
            routes: vec![("GET /v1/orders".to_owned(), 38)],
            tenants: vec![("acme".to_owned(), 30, 50)],
            ..(*story(event)).clone()
        };
        let notice = Notice::new(&Gathered::one(&Arc::new(told)), Some("https://sb.example.com"));
        assert_eq!(notice.title, "shop: 2.0.0 was rolled back");
        assert_eq!((notice.reason.as_str(), notice.severity), ("2.0.0 fails more.", Severity::Critical));
        assert_eq!(notice.link.as_deref(), Some("https://sb.example.com/?service=shop&event=7"));
        let fact = |label: &str| notice.facts.iter().find(|f| f.0 == label).map(|f| f.1.as_str());
        let evidence = "2.0.0 40 of 100 failed (40.00 %), 1.0.0 1 of 900 failed (0.11 %), in 4.2 s";
        assert_eq!(fact("Evidence"), Some(evidence));
        assert_eq!(fact("Worst routes"), Some("GET /v1/orders (38 more than usual)"));
        assert_eq!(fact("Worst tenants"), Some("acme (30 of 50 failed)"));
        assert_eq!(fact("From the first failure to the rollback"), Some("1.2 s"));
        assert_eq!(notice.data["event"]["kind"], "rollback");
    }

    #[test]
    fn titles_say_whom_it_is_about() {
        let told = |kind, tenant| Notice::new(&Gathered::one(&story(event(kind, tenant))), None).title;
        assert_eq!(told(EventKind::Rollback, Some("acme")), "shop: 2.0.0 was rolled back for tenant acme");
        assert_eq!(told(EventKind::BrakeReleased, None), "shop: brake released 2.0.0");
        let mut many = Gathered::one(&story(event(EventKind::Rollback, Some("acme"))));
        many.tenant_count = 37;
        assert_eq!(Notice::new(&many, None).title, "shop: 2.0.0 was rolled back for 37 tenants");
    }
}
