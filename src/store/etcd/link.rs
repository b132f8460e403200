//! The connection: every call has a limit of time, and every failure is sorted by whether something may have happened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, GetResponse, Identity, TlsOptions, Txn, TxnResponse,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::error::StoreError;
use super::Access;

/// How long one call may take. An election among etcd's members takes about a second, and somebody waits for a rollback.
pub const CALL: Duration = Duration::from_millis(1_500);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// etcd closes connections on which pings come more often than every five seconds (`--grpc-keepalive-min-time`). That a
/// member hangs is noticed earlier, by the limits of calls and the heartbeat of the watch.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(2));
/// Largest answer: a page of documents (see `read`), or what a watch catches up with.
pub const LARGEST_ANSWER: usize = 96 << 20;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No answer: a write may have happened, or may still happen.
    Away(String),
    /// etcd refused it, and nothing happened.
    Refused(String),
    /// etcd knows no such user, or the user may not do that. Nothing happened.
    Denied(String),
    /// etcd's quota is used up. Nothing happened.
    Full,
    /// The revision that was asked for is in etcd's history no more.
    Compacted,
    /// What is stored is not what we wrote.
    Damaged(String),
    /// Another release wrote it.
    Newer(u64),
}

/// The connection: to one member at a time, and to the next one when that gives no answer.
///
/// Spreading calls over all members would send every third one to a member that hangs; this way one call is late.
pub struct Link {
    access: Access,
    place: Mutex<Place>,
}

/// Where calls go now.
struct Place {
    endpoint: usize,
    /// Grows with each connection that was given up.
    connection: u64,
    client: Option<Arc<Client>>,
}

/// A client, and by which connection.
pub struct Line {
    /// The client.
    pub client: Arc<Client>,
    connection: u64,
}

impl Link {
    /// Connects when it is first needed, to any of the members: a fleet spreads over them.
    pub fn new(access: Access) -> Self {
        let endpoint = rand::random_range(0..access.endpoints.len().max(1));
        Self { access, place: Mutex::new(Place { endpoint, connection: 0, client: None }) }
    }

    /// What the store is called in messages.
    pub fn name(&self) -> PathBuf {
        PathBuf::from(format!("etcd {}{}", self.access.endpoints.join(","), self.access.prefix))
    }

    /// The client.
    pub async fn line(&self) -> Result<Line, Trouble> {
        let (endpoint, connection) = {
            let place = self.place.lock();
            if let Some(client) = &place.client {
                return Ok(Line { client: client.clone(), connection: place.connection });
            }
            (self.access.endpoints.get(place.endpoint).cloned(), place.connection)
        };
        let endpoint = endpoint.ok_or_else(|| Trouble::Refused("there is no address of etcd".to_owned()))?;
        let endpoints = [endpoint];
        let connecting = Box::pin(Client::connect(&endpoints, Some(self.options())));
        let connecting = async { connecting.await.map_err(sort) };
        let client = Arc::new(self.noted(connection, in_time(CALL, connecting).await)?);
        let mut place = self.place.lock();
        if place.connection == connection {
            place.client = Some(client.clone());
        }
        Ok(Line { client, connection })
    }

    /// Looks at what a connection came to; after no answer the next calls take another one, to the next member.
    fn noted<T>(&self, connection: u64, result: Result<T, Trouble>) -> Result<T, Trouble> {
        let mut place = self.place.lock();
        // One connection's many failures at the same time count once.
        if matches!(result, Err(Trouble::Away(_))) && place.connection == connection {
            let endpoint = (place.endpoint + 1) % self.access.endpoints.len().max(1);
            *place = Place { endpoint, connection: connection + 1, client: None };
        }
        result
    }

    /// Does something with the client within a limit of time.
    pub async fn call<T>(
        &self,
        limit: Duration,
        call: impl AsyncFnOnce(Arc<Client>) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        let line = self.line().await?;
        // Boxed, since calls stand deep within others and the client's futures are large.
        let calling = Box::pin(call(line.client.clone()));
        let result = in_time(limit, async { calling.await.map_err(sort) }).await;
        self.noted(line.connection, result)
    }

    /// Gives up a line whose stream broke, when nobody did yet.
    pub fn broke<T>(&self, line: &Line, trouble: Trouble) -> Result<T, Trouble> {
        self.noted(line.connection, Err(trouble))
    }

    fn options(&self) -> ConnectOptions {
        let access = &self.access;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            // etcd forgets its tokens after five minutes, and all of them when it starts again.
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &access.user {
            options = options.with_user(user, password);
        }
        if access.endpoints.iter().any(|e| e.starts_with("https://")) {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &access.ca {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((cert, key)) = &access.identity {
                tls = tls.identity(Identity::from_pem(cert, key));
            }
            options = options.with_tls(tls);
        }
        options
    }

    /// Reads a range. A read that got no answer is tried again: another member may answer.
    pub async fn get(&self, key: &str, options: GetOptions) -> Result<GetResponse, Trouble> {
        self.repeated(|| {
            self.call(CALL, async |client| {
                let mut kv = client.kv_client().max_decoding_message_size(LARGEST_ANSWER);
                kv.get(key, Some(options.clone())).await
            })
        })
        .await
    }

    /// A transaction that may as well be sent twice: it reads, or puts what nobody else puts.
    pub async fn repeatable(&self, txn: Txn) -> Result<TxnResponse, Trouble> {
        self.repeated(|| self.txn(txn.clone())).await
    }

    /// One transaction, sent once.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, Trouble> {
        self.call(CALL, async |client| client.kv_client().max_decoding_message_size(LARGEST_ANSWER).txn(txn).await)
            .await
    }

    /// Tries again when there was no answer: twice, and as often as there are members while they refuse quickly.
    async fn repeated<T, F: Future<Output = Result<T, Trouble>>>(&self, call: impl Fn() -> F) -> Result<T, Trouble> {
        let (began, mut attempt) = (Instant::now(), 1);
        loop {
            match call().await {
                Err(Trouble::Away(_)) if attempt < 2 => {}
                Err(Trouble::Away(_)) if attempt < self.access.endpoints.len() && began.elapsed() < CALL => {}
                answer => return answer,
            }
            attempt += 1;
        }
    }
}

async fn in_time<T>(limit: Duration, call: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let late = || Trouble::Away(format!("etcd gave no answer within {limit:?}"));
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(late()))
}

/// Sorts an error of the client.
pub fn sort(error: Error) -> Trouble {
    let Error::GRpcStatus(status) = &error else { return Trouble::Away(chain(&error)) };
    // The numbers of gRPC, whose names are in a crate that we do not otherwise need.
    const INVALID: i32 = 3;
    /// Of leases only.
    const NOT_FOUND: i32 = 5;
    const DENIED: [i32; 2] = [7, 16];
    const EXHAUSTED: i32 = 8;
    const PRECONDITION: i32 = 9;
    let message = status.message().to_owned();
    let about_access = ["user name", "password", "auth", "permission denied"].iter().any(|word| message.contains(word));
    match i32::from(status.code()) {
        _ if message.contains("has been compacted") => Trouble::Compacted,
        EXHAUSTED if message.contains("space exceeded") => Trouble::Full,
        code if DENIED.contains(&code) => Trouble::Denied(message),
        INVALID | PRECONDITION if about_access => Trouble::Denied(message),
        INVALID | PRECONDITION | NOT_FOUND => Trouble::Refused(message),
        _ => Trouble::Away(chain(&error)),
    }
}

/// An error with its causes, since the client's own text often leaves out the one that matters.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl Link {
    /// The error that the rest of the program sees, when nothing was written.
    pub fn error(&self, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Away(detail) => StoreError::Away { detail },
            Trouble::Compacted => StoreError::Away { detail: "etcd removed its history while we read".to_owned() },
            Trouble::Refused(detail) => StoreError::Invalid { detail: format!("etcd says: {detail}") },
            Trouble::Denied(detail) => StoreError::Denied { store: self.name(), detail },
            Trouble::Full => StoreError::Full { path: self.name() },
            Trouble::Damaged(detail) => StoreError::Damaged { path: self.name(), detail },
            Trouble::Newer(found_format) => StoreError::Newer { found_format, supported: super::layout::LAYOUT },
        }
    }
}
