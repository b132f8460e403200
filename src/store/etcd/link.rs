//! The connection: every call has a limit of time, and every failure is sorted by whether something may have happened.

use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, GetResponse, Identity, TlsOptions, Txn, TxnResponse,
};
use tokio::sync::Mutex;

use super::super::error::StoreError;
use super::Access;

/// How long one call may take. An election among etcd's members takes about a second, and somebody waits for a rollback.
pub const CALL: Duration = Duration::from_millis(1_500);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// etcd closes connections on which pings come more often than every five seconds (`--grpc-keepalive-min-time`). That a
/// member hangs is noticed earlier, by the limits of calls and the heartbeat of the watch.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(2));
/// Largest answer: a page of documents, see `read`.
const LARGEST_ANSWER: usize = 96 << 20;

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

/// The connection to all members.
pub struct Link {
    access: Access,
    client: Mutex<Option<Client>>,
}

impl Link {
    /// Connects when it is first needed.
    pub fn new(access: Access) -> Self {
        Self { access, client: Mutex::new(None) }
    }

    /// What the store is called in messages.
    pub fn name(&self) -> PathBuf {
        PathBuf::from(format!("etcd {}{}", self.access.endpoints.join(","), self.access.prefix))
    }

    /// The client.
    pub async fn client(&self) -> Result<Client, Trouble> {
        let connecting = async {
            let mut client = self.client.lock().await;
            if let Some(client) = &*client {
                return Ok(client.clone());
            }
            let connected = Client::connect(&self.access.endpoints, Some(self.options())).await.map_err(sort)?;
            Ok(client.insert(connected).clone())
        };
        in_time(connecting).await
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

    /// Reads a range. A read that got no answer is tried once more: another member may answer.
    pub async fn get(&self, key: &str, options: GetOptions) -> Result<GetResponse, Trouble> {
        match self.get_once(key, &options).await {
            Err(Trouble::Away(_)) => self.get_once(key, &options).await,
            answer => answer,
        }
    }

    async fn get_once(&self, key: &str, options: &GetOptions) -> Result<GetResponse, Trouble> {
        let mut kv = self.client().await?.kv_client().max_decoding_message_size(LARGEST_ANSWER);
        in_time(async { kv.get(key, Some(options.clone())).await.map_err(sort) }).await
    }

    /// A transaction that may as well be sent twice: it reads, or puts what nobody else puts.
    pub async fn repeatable(&self, txn: Txn) -> Result<TxnResponse, Trouble> {
        match self.txn(txn.clone()).await {
            Err(Trouble::Away(_)) => self.txn(txn).await,
            answer => answer,
        }
    }

    /// One transaction, sent once.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, Trouble> {
        let mut kv = self.client().await?.kv_client().max_decoding_message_size(LARGEST_ANSWER);
        in_time(async { kv.txn(txn).await.map_err(sort) }).await
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let late = || Trouble::Away(format!("etcd gave no answer within {CALL:?}"));
    tokio::time::timeout(CALL, call).await.unwrap_or_else(|_| Err(late()))
}

/// Sorts an error of the client.
pub fn sort(error: Error) -> Trouble {
    let Error::GRpcStatus(status) = &error else { return Trouble::Away(chain(&error)) };
    // The numbers of gRPC, whose names are in a crate that we do not otherwise need.
    const INVALID: i32 = 3;
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
        INVALID | PRECONDITION => Trouble::Refused(message),
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
