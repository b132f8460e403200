//! `[[notify]]`: what each type needs, what it does not know, and that nothing secret is ever shown.

use std::time::Duration;

use super::{good, load};
use crate::config::{NotifyChannel, SmtpTls};
use crate::model::{EventKind, Severity};

const SERVICE: &str = "proxy.listen = [\"127.0.0.1:1\"]\n\
    services.shop = { match = [{ path = \"/\" }], baseline = \"1\", versions = { 1 = { endpoints = [\"a:1\"] } } }\n";

fn with(notify: &str) -> String {
    format!("{SERVICE}{notify}")
}

fn wrong(notify: &str) -> Vec<String> {
    let mistakes = load(&with(notify)).unwrap_err();
    mistakes.list().iter().map(ToString::to_string).collect()
}

#[test]
fn every_type_is_read() {
    let settings = good(&with(
        "[[notify]]\nname = \"a\"\ntype = \"slack\"\nurl = \"https://hooks.example.com/a\"\n\
         [[notify]]\nname = \"b\"\ntype = \"pagerduty\"\nrouting_key = \"hidden-key\"\n\
         [[notify]]\nname = \"c\"\ntype = \"email\"\nfrom = \"Switchback <sb@example.com>\"\nto = [\"ops@example.com\"]\n\
         smtp = { host = \"mail.example.com\", username = \"sb\", password = \"hidden-password\" }\n\
         [[notify]]\nname = \"d\"\ntype = \"webhook\"\nurl = \"https://example.com/hidden-path\"\n\
         secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\nservices = [\"shop\"]\nseverity = \"info\"\n\
         kinds = [\"rollback\"]\ngather = \"0s\"\n",
    ));
    let [slack, pagerduty, email, webhook] = &settings.notify[..] else { panic!("{:?}", settings.notify) };
    assert_eq!((slack.severity, slack.gather), (Severity::Warning, Duration::from_secs(2)));
    assert_eq!(pagerduty.severity, Severity::Critical);
    let NotifyChannel::PagerDuty { url, .. } = &pagerduty.channel else { panic!() };
    assert_eq!(url.reveal(), "https://events.pagerduty.com/v2/enqueue");
    let NotifyChannel::Email { smtp, .. } = &email.channel else { panic!() };
    assert_eq!((smtp.port, smtp.tls), (587, SmtpTls::StartTls));
    assert_eq!((webhook.severity, &webhook.kinds[..]), (Severity::Info, &[EventKind::Rollback][..]));
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hidden") && !shown.contains("hooks.example.com/a"), "{shown}");
}

#[test]
fn what_a_type_needs_and_does_not_know_is_said() {
    let target = |keys: &str| wrong(&format!("[[notify]]\nname = \"a\"\n{keys}"));
    assert_eq!(target("type = \"slack\""), ["notify[0].url: is missing; type \"slack\" needs url"]);
    assert_eq!(
        target("type = \"slack\"\nurl = \"https://a/b\"\nrouting_key = \"k\""),
        ["notify[0].routing_key: means nothing for type \"slack\"; allowed is it for pagerduty"]
    );
    assert_eq!(target("type = \"email\"").len(), 3);
    assert_eq!(
        target("type = \"webhook\"\nurl = \"https://a/b\"\nsecret = \"hidden\""),
        ["notify[0].secret: does not begin with \"whsec_\"; allowed is \"whsec_\" and 24 to 64 bytes in base64"]
    );
    assert_eq!(
        target("type = \"slack\"\nurl = \"hidden\""),
        [
            "notify[0].url: is not an http or https address; allowed is an address such as \"https://hooks.example.com/in\""
        ]
    );
    let page = target("type = \"pagerduty\"\nrouting_key = \"k\"\nseverity = \"info\"");
    assert!(page[0].starts_with("notify[0].severity: is \"info\""), "{page:?}");
    let service = target("type = \"slack\"\nurl = \"https://a/b\"\nservices = [\"shpo\"]");
    assert_eq!(service, ["notify[0].services: \"shpo\" is no service of this file; allowed are \"shop\""]);
    let kind = target("type = \"slack\"\nurl = \"https://a/b\"\nkinds = [\"rolback\"]");
    assert!(kind[0].contains("\"rolback\" is no kind of event; allowed is the kind of an event"), "{kind:?}");
    let mail = "type = \"email\"\nfrom = \"a@b.c\"\nto = [\"nobody\"]\nsmtp = { host = \"h\", username = \"u\" }";
    let mail = target(mail);
    assert!(
        mail[0].contains("\"nobody\" is not an e-mail address") && mail[1].contains("password: is missing"),
        "{mail:?}"
    );
    let twice = "[[notify]]\nname = \"a\"\ntype = \"slack\"\nurl = \"https://a/b\"\n".repeat(2);
    assert_eq!(wrong(&twice), ["notify[1].name: is that of a target before; each target needs its own"]);
}
