//! `[[notify]]`: who is told of what happens, and how.

use std::fmt;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::formats;
use super::view::View;
use crate::model::{EventKind, ServiceName, Severity, SigningSecret};

/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyTarget {
    /// Its name; no other has it.
    pub name: String,
    /// How it is told.
    pub channel: NotifyChannel,
    /// Authorities in PEM that are trusted besides those of the system.
    pub ca: Option<Vec<u8>>,
    /// Only events of these services; empty: all.
    pub services: Vec<ServiceName>,
    /// The least severity that is told of.
    pub severity: Severity,
    /// Only these kinds; empty: all.
    pub kinds: Vec<EventKind>,
    /// How long one attempt may take, 100 ms to 60 s.
    pub timeout: Duration,
    /// How long an event waits for others like it, 0 to 60 s.
    pub gather: Duration,
    /// How long the same event is not told again, 0 to 24 h.
    pub repeat_after: Duration,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq)]
pub enum NotifyChannel {
    /// An incoming webhook of Slack, or of something that speaks its format.
    Slack {
        /// The address, which is all it takes to write there.
        url: Hidden,
    },
    /// PagerDuty Events v2.
    PagerDuty {
        /// The address.
        url: Hidden,
        /// The integration key.
        routing_key: Hidden,
    },
    /// E-mail.
    Email {
        /// The server.
        smtp: SmtpServer,
        /// Sender.
        from: String,
        /// Recipients; at least one.
        to: Vec<String>,
    },
    /// CloudEvents 1.0 as JSON.
    Webhook {
        /// The address.
        url: Hidden,
        /// Signs the calls.
        secret: Option<SigningSecret>,
    },
}

impl NotifyChannel {
    /// The name in the file and in the API.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Slack { .. } => "slack",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Email { .. } => "email",
            Self::Webhook { .. } => "webhook",
        }
    }
}

/// A server that takes e-mail.
#[derive(Debug, Clone, PartialEq)]
pub struct SmtpServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: SmtpTls,
    /// User and password.
    pub login: Option<(String, Hidden)>,
}

/// When a server of e-mail speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Never.
    None,
    /// After the greeting, and nothing is sent before.
    StartTls,
    /// From the start.
    Tls,
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever needs it to work.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Every target of the file.
pub(super) fn targets(root: &View<'_>) -> Vec<NotifyTarget> {
    let tables = root.tables("notify");
    for (i, table) in tables.iter().enumerate() {
        if table.text("name").is_some_and(|name| tables[..i].iter().any(|t| t.text("name") == Some(name))) {
            table.wrong_at("name", "is that of a target before; each target needs its own");
        }
        known_services(root, table);
    }
    tables.iter().filter_map(target).collect()
}

fn known_services(root: &View<'_>, table: &View<'_>) {
    let services = root.entries("services");
    for name in table.read_list("services", formats::not_empty) {
        if !services.iter().any(|(known, _)| *known == name) {
            let known = services.iter().map(|(known, _)| format!("{known:?}")).collect::<Vec<_>>().join(", ");
            table.wrong_at("services", format!("{name:?} is no service of this file; allowed are {known}"));
        }
    }
}

fn target(view: &View<'_>) -> Option<NotifyTarget> {
    let name = view.read("name", formats::not_empty)?;
    let channel = channel(view)?;
    let pages = matches!(channel, NotifyChannel::PagerDuty { .. });
    let severity = view.text("severity").and_then(Severity::parse);
    if pages && severity == Some(Severity::Info) {
        view.wrong_at(
            "severity",
            "is \"info\", and nobody is to be paged for every change; allowed are \"warning\", \"critical\"",
        );
    }
    Some(NotifyTarget {
        name,
        channel,
        ca: authorities(view),
        services: view.read_list("services", formats::name::<ServiceName>),
        severity: severity.unwrap_or(if pages { Severity::Critical } else { Severity::Warning }),
        kinds: view.read_list("kinds", formats::event_kind),
        timeout: view.duration("timeout").unwrap_or(Duration::from_secs(10)),
        gather: view.duration("gather").unwrap_or(Duration::from_secs(2)),
        repeat_after: view.duration("repeat_after").unwrap_or(Duration::from_secs(300)),
    })
}

/// Keys that only some types know, each with those that do.
const OWN_KEYS: [(&str, &[&str]); 6] = [
    ("url", &["slack", "pagerduty", "webhook"]),
    ("routing_key", &["pagerduty"]),
    ("secret", &["webhook"]),
    ("smtp", &["email"]),
    ("from", &["email"]),
    ("to", &["email"]),
];

fn channel(view: &View<'_>) -> Option<NotifyChannel> {
    let kind = view.text("type")?;
    for (key, types) in OWN_KEYS {
        if view.get(key).is_some() && !types.contains(&kind) {
            view.wrong_at(key, format!("means nothing for type {kind:?}; allowed is it for {}", types.join(", ")));
        }
    }
    let needed: &[&str] = match kind {
        "slack" | "webhook" => &["url"],
        "pagerduty" => &["routing_key"],
        _ => &["smtp", "from", "to"],
    };
    for key in needed.iter().filter(|key| view.get(key).is_none()) {
        view.wrong_at(key, format!("is missing; type {kind:?} needs {}", needed.join(", ")));
    }
    let url = || view.read("url", formats::link).map(Hidden::new);
    match kind {
        "slack" => Some(NotifyChannel::Slack { url: url()? }),
        "pagerduty" => Some(NotifyChannel::PagerDuty {
            url: url().unwrap_or_else(|| Hidden::new(PAGERDUTY)),
            routing_key: Hidden::new(view.read("routing_key", formats::not_empty)?),
        }),
        "email" => Some(NotifyChannel::Email {
            smtp: smtp(&view.table("smtp"))?,
            from: view.read("from", formats::mailbox)?,
            to: view.read_list("to", formats::mailbox),
        }),
        "webhook" => Some(NotifyChannel::Webhook { url: url()?, secret: view.read("secret", formats::signing_secret) }),
        _ => None,
    }
}

fn smtp(view: &View<'_>) -> Option<SmtpServer> {
    let (tls, usual) = match view.text("tls") {
        Some("tls") => (SmtpTls::Tls, 465),
        Some("none") => (SmtpTls::None, 25),
        _ => (SmtpTls::StartTls, 587),
    };
    let login = view.text("username").map(|user| (user.to_owned(), view.text("password").map(Hidden::new)));
    if let Some((_, None)) = login {
        view.wrong_at("password", "is missing; allowed is it beside the key username");
    }
    Some(SmtpServer {
        host: view.read("host", formats::host)?,
        port: view.integer("port").unwrap_or(usual),
        tls,
        login: login.and_then(|(user, password)| Some((user, password?))),
    })
}

fn authorities(view: &View<'_>) -> Option<Vec<u8>> {
    let pem = view.cx.contents(view.get("ca")?, view.text("ca")?)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    if !found.is_ok_and(|found| !found.is_empty()) {
        view.wrong_at("ca", "names a file without certificates; allowed is a PEM file of authorities");
    }
    Some(pem)
}
