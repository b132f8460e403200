//! The way to one receiver: a message goes out once, and what came of it is told without anything secret.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message as Mail, Tokio1Executor};
use serde_json::Value;

use super::forms;
use super::incidents::Matter;
use super::notice::Notice;
use crate::config::{Hidden, NotifyChannel, NotifyTarget, SmtpServer, SmtpTls};
use crate::webhook::{Answer, Caller, ID, Target, origin};

/// Characters of what a receiver says that are kept.
const SAID: usize = 200;

/// A message.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// Something happened.
    Tell(Box<Notice>),
    /// A matter is over; only for those who keep open what they are told.
    Over { id: String, matter: Matter },
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The receiver took the message.
    Sent(String),
    /// It may take it later, but not before this time.
    Later(String, Duration),
    /// It will never take it.
    Refused(String),
}

/// The way to one receiver.
pub(super) struct Channel {
    target: NotifyTarget,
    /// Name of this process, as the source of events.
    source: String,
    way: Way,
}

enum Way {
    Http(Caller),
    Mail(Box<AsyncSmtpTransport<Tokio1Executor>>),
    /// It cannot be used, and why.
    None(String),
}

impl Channel {
    /// What cannot be set up tells so at every attempt.
    pub(super) fn new(target: &NotifyTarget, source: String) -> Self {
        let way = match &target.channel {
            NotifyChannel::Email { smtp, .. } => transport(smtp, target).map(|t| Way::Mail(Box::new(t))),
            _ => caller(target).map(Way::Http),
        };
        Self { target: target.clone(), source, way: way.unwrap_or_else(Way::None) }
    }

    /// Whether it keeps open what it is told, and is to be told when it is over.
    pub(super) fn keeps_open(&self) -> bool {
        matches!(self.target.channel, NotifyChannel::PagerDuty { .. })
    }

    /// Where its receiver is, without what opens the door.
    pub(super) fn address(&self) -> String {
        match &self.target.channel {
            NotifyChannel::Slack { url }
            | NotifyChannel::PagerDuty { url, .. }
            | NotifyChannel::Webhook { url, .. } => origin(url.reveal()),
            NotifyChannel::Email { smtp, .. } => format!("smtp://{}:{}", smtp.host, smtp.port),
        }
    }

    /// One attempt, over within the target's timeout.
    pub(super) async fn send(&self, message: &Message) -> Attempt {
        match &self.way {
            Way::None(why) => Attempt::Refused(why.clone()),
            Way::Http(caller) => self.call(caller, message).await,
            Way::Mail(transport) => match message {
                Message::Tell(notice) => self.mail(transport, notice).await,
                Message::Over { .. } => Attempt::Sent("nothing to tell".to_owned()),
            },
        }
    }

    async fn call(&self, caller: &Caller, message: &Message) -> Attempt {
        let (id, body) = match message {
            Message::Tell(notice) => (&notice.id, self.body(notice)),
            Message::Over { id, matter } => match &self.target.channel {
                NotifyChannel::PagerDuty { routing_key, .. } => {
                    (id, forms::pagerduty_resolve(matter, routing_key.reveal()))
                }
                _ => return Attempt::Sent("nothing to tell".to_owned()),
            },
        };
        let (url, secret, content_type) = match &self.target.channel {
            NotifyChannel::Webhook { url, secret } => {
                (url, secret.clone(), "application/cloudevents+json; charset=utf-8")
            }
            NotifyChannel::Slack { url } | NotifyChannel::PagerDuty { url, .. } => (url, None, "application/json"),
            NotifyChannel::Email { .. } => return Attempt::Refused("is not called".to_owned()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(ID, id);
        }
        let target = Target { url: url.reveal().to_owned(), secret, timeout: self.target.timeout };
        match caller.post(&target, Bytes::from(body.to_string()), headers).await {
            Ok(answer) => self.judge(&answer),
            Err(error) if error.may_pass() => Attempt::Later(error.chain(), Duration::ZERO),
            Err(error) => Attempt::Refused(error.chain()),
        }
    }

    fn body(&self, notice: &Notice) -> Value {
        match &self.target.channel {
            NotifyChannel::PagerDuty { routing_key, .. } => {
                forms::pagerduty_trigger(notice, routing_key.reveal(), &self.source)
            }
            NotifyChannel::Webhook { .. } => forms::cloud_event(notice, &self.source),
            NotifyChannel::Slack { .. } | NotifyChannel::Email { .. } => forms::slack(notice),
        }
    }

    fn judge(&self, answer: &Answer) -> Attempt {
        let status = answer.status;
        if answer.is_success() {
            return Attempt::Sent(format!("answered {status}"));
        }
        let detail = format!("answered {status}: {}", self.said(&answer.body));
        match answer.may_pass() {
            true => Attempt::Later(detail, answer.retry_after.unwrap_or_default()),
            false => Attempt::Refused(detail),
        }
    }

    /// What a receiver said, as far as it can be shown: it may repeat what it was called with.
    fn said(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let text = self.secrets().fold(text.into_owned(), |text, secret| text.replace(secret.reveal(), "[secret]"));
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID).collect()
    }

    fn secrets(&self) -> impl Iterator<Item = &Hidden> {
        let (one, other) = match &self.target.channel {
            NotifyChannel::Slack { url } | NotifyChannel::Webhook { url, .. } => (Some(url), None),
            NotifyChannel::PagerDuty { url, routing_key } => (Some(url), Some(routing_key)),
            NotifyChannel::Email { smtp, .. } => (smtp.login.as_ref().map(|(_, password)| password), None),
        };
        one.into_iter().chain(other)
    }

    async fn mail(&self, transport: &AsyncSmtpTransport<Tokio1Executor>, notice: &Notice) -> Attempt {
        let mail = match self.write(notice) {
            Ok(mail) => mail,
            Err(wrong) => return Attempt::Refused(wrong),
        };
        match tokio::time::timeout(self.target.timeout, transport.send(mail)).await {
            Err(_) => {
                Attempt::Later(format!("no answer within {} ms", self.target.timeout.as_millis()), Duration::ZERO)
            }
            Ok(Ok(_)) => Attempt::Sent("the server took it".to_owned()),
            Ok(Err(error)) => {
                let detail = self.said(chain(&error).as_bytes());
                match error.is_permanent() {
                    true => Attempt::Refused(detail),
                    false => Attempt::Later(detail, Duration::ZERO),
                }
            }
        }
    }

    fn write(&self, notice: &Notice) -> Result<Mail, String> {
        let NotifyChannel::Email { from, to, .. } = &self.target.channel else { return Err("is no e-mail".to_owned()) };
        let address = |text: &str| text.parse::<lettre::message::Mailbox>().map_err(|e| e.to_string());
        let mut mail = Mail::builder().from(address(from)?);
        for to in to {
            mail = mail.to(address(to)?);
        }
        // A repetition has the same id, so that whoever got it twice sees it once.
        mail.message_id(Some(format!("<{}@switchback.invalid>", notice.id)))
            .subject(format!("[Switchback {}] {}", notice.severity, notice.title))
            .header(ContentType::TEXT_PLAIN)
            .body(forms::mail_text(notice))
            .map_err(|e| e.to_string())
    }
}

fn caller(target: &NotifyTarget) -> Result<Caller, String> {
    let caller = target.ca.as_ref().map_or_else(Caller::new, |pem| Caller::with_authorities(pem));
    caller.map_err(|e| chain(&e))
}

fn transport(smtp: &SmtpServer, target: &NotifyTarget) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let tls = || -> Result<TlsParameters, lettre::transport::smtp::Error> {
        let mut tls = TlsParameters::builder(smtp.host.clone());
        if let Some(pem) = &target.ca {
            tls = tls.add_root_certificate(Certificate::from_pem(pem)?);
        }
        tls.build()
    };
    let tls = match smtp.tls {
        SmtpTls::None => Tls::None,
        SmtpTls::StartTls => Tls::Required(tls().map_err(|e| chain(&e))?),
        SmtpTls::Tls => Tls::Wrapper(tls().map_err(|e| chain(&e))?),
    };
    // The name is about the absence of a choice for TLS, which is made here.
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(target.timeout));
    if let Some((user, password)) = &smtp.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    Ok(builder.build())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
