//! A thin client of the admin API: one request, one JSON document or one error that says what to do.
//!
//! Blocking on purpose: a verb does one thing after the other. Redirects are not followed, because they would carry the
//! token elsewhere; connections are not reused, because a change must never meet one that the server just closed.

use std::error::Error as _;
use std::io::{self, BufReader};
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderValue, Method, Request, Response, header};
use ureq::{Agent, Body, BodyReader, Timeout};

use super::address::{AdminUrl, Resource};
use super::error::{CliError, Problem};
use super::progress::Progress;

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// Until the whole answer is there.
const WHOLE: Duration = Duration::from_secs(30);
/// Until the whole answer of something long is there; the process gives up an upgrade after three minutes.
const LONG: Duration = Duration::from_secs(200);
/// Between two reads of a stream: the server speaks every 15 seconds, so three silences mean that nobody is there.
const SILENCE: Duration = Duration::from_secs(45);
/// No document of the API is larger.
const LARGEST_BODY: u64 = 64 << 20;

/// Talks to one admin API.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    base: AdminUrl,
    authorization: Option<HeaderValue>,
    /// How long an answer may take.
    patience: Duration,
    /// What people read while they wait; nothing: something else tells them.
    doing: Option<&'static str>,
}

/// A change to ask for.
pub(super) struct Asked<'a> {
    /// PUT, POST or DELETE.
    pub(super) method: Method,
    /// What to change.
    pub(super) resource: Resource,
    /// The body, if the method has one.
    pub(super) body: Option<Value>,
    /// Only if the document is still at this revision.
    pub(super) if_revision: &'a Option<u64>,
}

impl Client {
    /// A client for that address, with a token if one is needed.
    ///
    /// # Errors
    /// When the token has characters that no token has; the message does not repeat it.
    pub(super) fn new(base: AdminUrl, token: Option<&str>, version: &str) -> Result<Self, CliError> {
        let authorization = token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose();
        let mut authorization = authorization
            .map_err(|_| CliError::Usage("the token has characters that cannot stand in a header".to_owned()))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT))
            .user_agent(format!("switchback-cli/{version}"));
        if base.is_loopback() {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().into(),
            base,
            authorization,
            patience: WHOLE,
            doing: Some("waiting for the admin API"),
        })
    }

    /// The same for what takes its time: a new process that loads a million tenants, thousands of simulated rollouts.
    pub(super) fn patient(&self) -> Self {
        Self { patience: LONG, ..self.clone() }
    }

    /// The same for what is to be finished within that time.
    pub(super) fn within(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// The same, saying what is being done while it takes.
    pub(super) fn doing(&self, what: &'static str) -> Self {
        Self { doing: Some(what), ..self.clone() }
    }

    /// The same, saying nothing while it takes.
    pub(super) fn silent(&self) -> Self {
        Self { doing: None, ..self.clone() }
    }

    /// Reads a document.
    pub(super) fn get(&self, resource: &Resource) -> Result<Value, CliError> {
        self.json(Method::GET, resource, None, None)
    }

    /// Asks for a change and returns the receipt.
    pub(super) fn change(&self, asked: Asked<'_>) -> Result<Value, CliError> {
        self.json(asked.method, &asked.resource, asked.body, *asked.if_revision)
    }

    /// Asks whether the process takes traffic; if not, answers why. Waits five seconds at most, since whoever asks this
    /// asks again.
    pub(super) fn ready(&self) -> Result<Option<String>, CliError> {
        let request = self.request(&Method::GET, &Resource::readyz(), "text/plain")?;
        let hurried = Self { patience: CONNECT, ..self.clone() };
        let mut response = hurried.run(self.finish(request, ())?).map_err(|e| hurried.failed(e, false))?;
        if !content_type(&response).starts_with("text/plain") {
            return Err(self.not_the_api(&response));
        }
        let text = response.body_mut().with_config().limit(LARGEST_BODY).read_to_string();
        let text = text.map_err(|e| hurried.failed(e, false))?;
        Ok((!response.status().is_success()).then_some(text))
    }

    /// Opens the stream of events after that id.
    pub(super) fn stream(&self, resource: &Resource, after: u64) -> Result<BufReader<BodyReader<'static>>, CliError> {
        let request = self
            .request(&Method::GET, resource, "text/event-stream")?
            .header("last-event-id", after)
            .header(header::CACHE_CONTROL, "no-cache");
        let request = self.finish(request, ())?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_recv_response(Some(WHOLE))
            .timeout_per_read(Some(SILENCE))
            .build();
        let response = self.agent.run(request).map_err(|e| self.failed(e, false))?;
        if response.status().is_success() && !content_type(&response).starts_with("text/event-stream") {
            return Err(self.not_the_api(&response));
        }
        if !response.status().is_success() {
            return Err(self.read(response, false).err().unwrap_or(CliError::Ended));
        }
        // Streams have no end, so they have no limit either; the reader of lines has one.
        Ok(BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    fn json(
        &self,
        method: Method,
        resource: &Resource,
        body: Option<Value>,
        if_revision: Option<u64>,
    ) -> Result<Value, CliError> {
        let changes = method != Method::GET;
        let _line = self.doing.map(|what| Progress::begin(what.to_owned()));
        let mut request = self.request(&method, resource, "application/json, application/problem+json")?;
        if let Some(revision) = if_revision {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        let response = match body {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json");
                self.run(self.finish(request, body.to_string())?)
            }
            None => self.run(self.finish(request, ())?),
        };
        self.read(response.map_err(|e| self.failed(e, changes))?, changes)
    }

    fn request(
        &self,
        method: &Method,
        resource: &Resource,
        accept: &str,
    ) -> Result<ureq::http::request::Builder, CliError> {
        let mut request =
            Request::builder().method(method).uri(self.base.join(resource)).header(header::ACCEPT, accept);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        Ok(request)
    }

    fn finish<B>(&self, request: ureq::http::request::Builder, body: B) -> Result<Request<B>, CliError> {
        request.body(body).map_err(|e| CliError::Usage(format!("no request can be made for {}: {e}", self.base)))
    }

    fn run(&self, request: Request<impl ureq::AsSendBody>) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(self.patience)).build();
        self.agent.run(request)
    }

    fn read(&self, mut response: Response<Body>, changes: bool) -> Result<Value, CliError> {
        let status = response.status();
        if !content_type(&response).contains("json") {
            return Err(self.not_the_api(&response));
        }
        let text = response.body_mut().with_config().limit(LARGEST_BODY).read_to_string();
        let text = text.map_err(|e| self.failed(e, changes))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| CliError::NotTheApi {
            url: self.base.to_string(),
            what: format!("with status {status} and JSON that cannot be read ({e})"),
        })?;
        match status.is_success() {
            true => Ok(value),
            false => Err(CliError::Refused(Box::new(Problem::from_json(status.as_u16(), &value)))),
        }
    }

    fn not_the_api(&self, response: &Response<Body>) -> CliError {
        let status = response.status().as_u16();
        // A gateway in front of the API speaks for it in its own words; these two mean "later", not "elsewhere".
        if matches!(status, 502..=504) {
            let title = format!("the server in front of the admin API answered with status {status}");
            return CliError::Refused(Box::new(Problem { status, title, ..Problem::default() }));
        }
        let kind = match content_type(response) {
            "" => "without a content type".to_owned(),
            kind => format!("with {}", super::text::clean(kind)),
        };
        CliError::NotTheApi { url: self.base.to_string(), what: format!("with status {status} {kind}, not JSON") }
    }

    fn failed(&self, error: ureq::Error, changes: bool) -> CliError {
        let url = self.base.to_string();
        let unreachable = |reason: String| CliError::Unreachable { url: url.clone(), reason };
        match error {
            ureq::Error::HostNotFound => unreachable("there is no host of that name".to_owned()),
            ureq::Error::ConnectionFailed => unreachable("no connection".to_owned()),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                unreachable(format!("no connection within {} s", CONNECT.as_secs()))
            }
            ureq::Error::Timeout(_) => CliError::Late { url, after: self.patience, changes },
            ureq::Error::Io(e) => match e.kind() {
                io::ErrorKind::ConnectionRefused => unreachable("connection refused".to_owned()),
                // Connections that stood: the server may have read the request.
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut => CliError::Broken { url, changes, source: Box::new(e) },
                // Names that are not found, networks without a way: nothing was sent.
                _ => unreachable(e.to_string()),
            },
            other => {
                let tls = matches!(other, ureq::Error::Tls(_) | ureq::Error::Rustls(_));
                let reason = other.source().map_or_else(|| other.to_string(), |cause| format!("{other}: {cause}"));
                if tls { unreachable(reason) } else { CliError::Broken { url, changes, source: Box::new(other) } }
            }
        }
    }
}

fn content_type(response: &Response<Body>) -> &str {
    response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("")
}
