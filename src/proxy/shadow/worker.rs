//! The thread that sends copies and compares their answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use http::HeaderValue;
use pingora::http::RequestHeader;
use pingora::prelude::{Error, Result};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OnceCell, Semaphore, mpsc};

use super::super::clock::{Clock, unix_ms};
use super::super::endpoints::{EndpointKeeper, is_label};
use super::super::upstream;
use super::copy;
use super::sample::{Answer, Sample};
use super::send::{Limits, ask};
use crate::routing::{InUse, ShadowRoute, VersionRoute, Waiting};
use crate::shadow::{Differences, Exchange, Missed, Result as Judged, differences};
use crate::telemetry::ShadowResult;

/// Unused connections that are kept, to all shadows together.
const CONNECTIONS_KEPT: usize = 128;

/// A copy that waits for its turn.
struct Job {
    route: Arc<ShadowRoute>,
    tenant: Option<String>,
    strip: usize,
    host: Option<HeaderValue>,
    head: RequestHeader,
    answer: Answer,
    /// Header by which testers choose a version, with their secret.
    secret_choice: Option<http::HeaderName>,
}

/// Where requests leave their copies.
#[derive(Clone)]
pub(in super::super) struct Queue(mpsc::UnboundedSender<(Waiting, Job)>);

impl Queue {
    /// Queues the copy of a request whose client has its answer; drops and counts it when the queue is full. Never waits.
    pub fn submit(&self, sample: Sample, choose: Option<&http::HeaderName>) {
        let Sample { route, tenant, strip, host, head, answer, .. } = sample;
        let (Some(head), Some(answer)) = (head, answer) else { return };
        // Each service has its own bound, so that one that hangs does not use up the others' room.
        let Some(place) = route.queue() else { return };
        let job = Job { route, tenant, strip, host, head, answer, secret_choice: choose.cloned() };
        let _ending = self.0.send((place, job));
    }
}

/// The thread. Whatever is still on its way when it is dropped is given up.
pub(in super::super) struct Worker {
    runtime: Option<Runtime>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(keeper: Arc<EndpointKeeper>, clock: Clock) -> std::io::Result<(Self, Queue)> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .thread_name("switchback-shadow")
            .enable_all()
            .build()?;
        let (sender, jobs) = mpsc::unbounded_channel();
        let sending = Arc::new(Sending { keeper, clock, connector: OnceCell::new(), copies: AtomicU64::new(0) });
        runtime.spawn(take_turns(jobs, sending));
        Ok((Self { runtime: Some(runtime) }, Queue(sender)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // At once: a shadow that hangs must not hold up the end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Gives each copy its turn: as many at a time as its service allows, in the order in which they came.
async fn take_turns(mut jobs: mpsc::UnboundedReceiver<(Waiting, Job)>, sending: Arc<Sending>) {
    let mut turns: HashMap<usize, (Weak<ShadowRoute>, Arc<Semaphore>)> = HashMap::new();
    while let Some((place, job)) = jobs.recv().await {
        // A weak reference keeps the address from being given to another.
        let id = Arc::as_ptr(&job.route).addr();
        if !turns.contains_key(&id) {
            turns.retain(|_, (route, _)| route.strong_count() > 0);
            let permits = Arc::new(Semaphore::new(job.route.spec.concurrency as usize));
            turns.insert(id, (Arc::downgrade(&job.route), permits));
        }
        let Some((_, permits)) = turns.get(&id) else { continue };
        let (permits, sending) = (permits.clone(), sending.clone());
        tokio::spawn(async move {
            let Ok(_turn) = permits.acquire().await else { return };
            drop(place);
            sending.work(job).await;
        });
    }
}

/// What sending needs.
struct Sending {
    keeper: Arc<EndpointKeeper>,
    clock: Clock,
    /// Made for the first copy, since most processes never send one.
    connector: OnceCell<Connector>,
    copies: AtomicU64,
}

impl Sending {
    async fn work(&self, job: Job) {
        let route = &job.route;
        let sent = self.copy(&job).await;
        let (result, missed) = match sent {
            Ok(Some(shadow)) => (self.compare(&job, &shadow).await, None),
            Ok(None) => (ShadowResult::Timeout, Some(Missed::Timeout)),
            Err(error) => {
                tracing::debug!(version = %route.version.name, %error, "a copy was not answered");
                (ShadowResult::Failed, Some(Missed::Failed))
            }
        };
        if let Some(missed) = missed {
            route.judge().missed(unix_ms(), missed);
        }
        route.count(result);
    }

    /// The shadow's answer; none when it took too long.
    async fn copy(&self, job: &Job) -> Result<Option<Answer>> {
        let route = &job.route;
        let mut head = copy::head_for(&route.version, &job.head, job.strip, job.host.as_ref())?;
        if !route.spec.credentials && copy::strip_credentials(&mut head, job.secret_choice.as_ref()) {
            route.count_stripped();
        }
        self.send(job, &route.version, &head).await
    }

    /// Compares the two answers, and asks the baseline once more where that tells noise from differences.
    async fn compare(&self, job: &Job, shadow: &Answer) -> ShadowResult {
        let (route, spec) = (&job.route, &job.route.spec);
        let body = job.answer.body(spec.body);
        let same_status = job.answer.side.status == shadow.side.status;
        let found = if same_status { differences(&body, &shadow.body(spec.body), &spec.ignore) } else { None };
        let number = self.copies.fetch_add(1, Relaxed);
        let wanted = route.draws_noise(number) || route.judge().wants_noise(found.as_ref());
        if spec.noise_share.points() > 0
            && wanted
            && let Some(again) = self.baseline_again(job).await
            && let Some(noise) = differences(&body, &again.body(spec.body), &spec.ignore)
        {
            route.judge().learn(&noise, found.as_ref().unwrap_or(&Differences::default()));
        }
        let exchange = Exchange { baseline: job.answer.side, shadow: shadow.side, bodies: found };
        match route.judge().record(unix_ms(), &exchange) {
            Judged::Same => ShadowResult::Same,
            Judged::Different => ShadowResult::Different,
            Judged::Unjudged => ShadowResult::Unjudged,
        }
    }

    /// The baseline's second answer to the same request, if it is one of the same status.
    async fn baseline_again(&self, job: &Job) -> Option<Answer> {
        let route = &job.route;
        let head = copy::head_for(&route.baseline, &job.head, job.strip, job.host.as_ref()).ok()?;
        let answer = self.send(job, &route.baseline, &head).await.ok()??;
        (answer.side.status == job.answer.side.status).then_some(answer)
    }

    async fn send(&self, job: &Job, version: &Arc<VersionRoute>, head: &RequestHeader) -> Result<Option<Answer>> {
        let spec = &job.route.spec;
        let once = async {
            let random = rand::random();
            let now_ms = self.clock.now_ms();
            let tenant = job.tenant.as_deref().filter(|t| version.per_tenant && is_label(t));
            let endpoint = match tenant {
                Some(tenant) => self.keeper.of_tenant(version, tenant).await.pick(random, now_ms, |_| false),
                None => version.endpoints.pick(random, now_ms, |_| false),
            };
            let no_endpoint = || Error::explain(pingora::ErrorType::ConnectNoRoute, "the version has no endpoint");
            let endpoint = endpoint.ok_or_else(no_endpoint)?;
            let identity = self.keeper.identity(version).await?;
            let peer = upstream::peer(version, &endpoint, identity.as_deref(), None);
            let _in_use = InUse::new(endpoint);
            let limits = Limits { read: spec.timeout, body: spec.body, keepalive: version.spec.timeouts.keepalive };
            let connector = self.connector.get_or_init(async || Connector::new(Some(options()))).await;
            ask(connector, &peer, head, limits).await
        };
        match tokio::time::timeout(spec.timeout, once).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) if is_timeout(&error) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

fn options() -> ConnectorOptions {
    ConnectorOptions::new(CONNECTIONS_KEPT)
}

fn is_timeout(error: &Error) -> bool {
    use pingora::ErrorType::{ConnectTimedout, ReadTimedout, TLSHandshakeTimedout, WriteTimedout};
    matches!(error.etype(), ConnectTimedout | ReadTimedout | TLSHandshakeTimedout | WriteTimedout)
}
