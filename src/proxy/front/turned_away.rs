//! Tells clients for whom there is no place that they may come again, where that costs next to nothing.

use std::sync::Arc;
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::proxy::refusal;

/// How many such clients are waited for at a time. Each costs a file and 512 bytes.
const AT_A_TIME: usize = 64;
/// How long one is waited for.
const LINGER: Duration = Duration::from_millis(500);

/// The clients that are waited for until they have read their answer.
pub(in crate::proxy) struct TurnedAway(Arc<Semaphore>);

impl TurnedAway {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }

    /// Answers on a connection that nothing was written to, and closes it.
    pub fn answer(&self, stream: TcpStream) {
        // The socket's buffer is empty, so the answer fits; a client that has left already needs none.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if rustix::net::send(&stream, refusal::raw_full().as_bytes(), flags).is_err() {
            return;
        }
        // In a flood the others see their connection reset, perhaps before they have read why.
        if let Ok(waits) = self.0.clone().try_acquire_owned() {
            tokio::spawn(async move {
                let _gone = tokio::time::timeout(LINGER, linger(stream)).await;
                drop(waits);
            });
        }
    }
}

/// Waits until the client closes. Closing before its request was read would reset the connection under the answer.
async fn linger(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut part = [0; 512];
    while stream.read(&mut part).await? > 0 {}
    Ok(())
}
