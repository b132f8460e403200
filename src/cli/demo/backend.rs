//! A version of the demo's small API: answers after a few milliseconds, and can be broken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;

/// Share of requests that a broken version fails.
const FAILS: f64 = 0.3;

/// One version; ends with its owner's runtime.
pub(super) struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    broken: Arc<AtomicBool>,
}

impl Backend {
    /// Starts to serve on a free port.
    pub async fn start(version: &'static str) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let broken = Arc::new(AtomicBool::new(false));
        let flag = broken.clone();
        let router = Router::new().fallback(move || answer(version, flag.load(Relaxed)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, broken })
    }

    /// From now on it fails.
    pub fn break_it(&self) {
        self.broken.store(true, Relaxed);
    }
}

async fn answer(version: &'static str, broken: bool) -> (StatusCode, String) {
    let chance: f64 = rand::random();
    tokio::time::sleep(Duration::from_micros((2_000.0 + 6_000.0 * chance) as u64)).await;
    if broken && rand::random::<f64>() < FAILS {
        return (StatusCode::INTERNAL_SERVER_ERROR, "a bug\n".to_owned());
    }
    (StatusCode::OK, format!("hello from {version}\n"))
}
