//! The table of keys of `[[notify]]`.

use super::formats::{EVENT_KIND, FILE, HOST, MAILBOX, SECRET, SECRET_LINK, SERVICE, SIGNING_SECRET, TEXT};
use super::kinds::{Key, Kind, Table, hours, ms, secs};

pub(super) static NOTIFY: Table = Table::new(
    "Somebody who is told of what happens.",
    &[
        Key::required("name", Kind::Text(&TEXT), "Its name, in the API and in metrics."),
        Key::required(
            "type",
            Kind::Choice(&["slack", "pagerduty", "email", "webhook"]),
            "How it is told. webhook: CloudEvents 1.0 as JSON.",
        ),
        Key::optional(
            "url",
            Kind::Text(&SECRET_LINK),
            "PagerDuty's own; slack and webhook need one",
            "Where slack, pagerduty and webhook are reached. Treated as a secret.",
        ),
        Key::optional(
            "routing_key",
            Kind::Text(&SECRET),
            "pagerduty needs one",
            "Integration key of PagerDuty Events v2.",
        ),
        Key::optional(
            "secret",
            Kind::Text(&SIGNING_SECRET),
            "calls are not signed",
            "Signs the calls of a webhook in the manner of Standard Webhooks.",
        ),
        Key::optional("smtp", Kind::Table(&SMTP), "email needs one", "The server that takes e-mail."),
        Key::optional("from", Kind::Text(&MAILBOX), "email needs one", "Sender of e-mail."),
        Key::optional("to", Kind::List(&Kind::Text(&MAILBOX), 1), "email needs one", "Recipients of e-mail."),
        Key::optional(
            "ca",
            Kind::Text(&FILE),
            "the authorities of the system and of browsers",
            "PEM file of authorities that are trusted besides.",
        ),
        Key::default(
            "services",
            Kind::List(&Kind::Text(&SERVICE), 0),
            "[]",
            "Only events of these services; empty: all.",
        ),
        Key::optional(
            "severity",
            Kind::Choice(&["info", "warning", "critical"]),
            "critical for pagerduty, warning for the others",
            "The least severity that is told of. critical: rollbacks. pagerduty takes no info.",
        ),
        Key::default("kinds", Kind::List(&Kind::Text(&EVENT_KIND), 0), "[]", "Only events of these kinds; empty: all."),
        Key::default(
            "timeout",
            Kind::Duration(ms(100), secs(60)),
            "\"10s\"",
            "How long one attempt may take as a whole.",
        ),
        Key::default(
            "gather",
            Kind::Duration(ms(0), secs(60)),
            "\"2s\"",
            "How long an event waits for others of the same kind, service and version, to be told in one message.",
        ),
        Key::default(
            "repeat_after",
            Kind::Duration(ms(0), hours(24)),
            "\"5m\"",
            "How long the same event of the same tenant is counted instead of told again.",
        ),
    ],
);

static SMTP: Table = Table::new(
    "A server that takes e-mail.",
    &[
        Key::required("host", Kind::Text(&HOST), "Its name or address."),
        Key::optional("port", Kind::Integer(1, 65_535), "587 with starttls, 465 with tls, 25 with none", "Its port."),
        Key::default(
            "tls",
            Kind::Choice(&["starttls", "tls", "none"]),
            "\"starttls\"",
            "starttls: from the greeting on. tls: from the start. none: in plain text, for this machine.",
        ),
        Key::optional("username", Kind::Text(&TEXT), "nobody logs in", "Who logs in."),
        Key::optional("password", Kind::Text(&SECRET), "nobody logs in", "The password.").with("username"),
    ],
);
