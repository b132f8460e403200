//! What a client has sent and its version has not taken yet.
//!
//! Pingora hands parts of a tunnel over through a queue, and asks nothing of the client's side while that is full. So a
//! stream whose version takes nothing could not be closed. Here each part tells when it is dropped, which is when it has
//! been written, and the client is read only while so few are on their way that the queue is never full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use tokio::sync::Notify;

/// Parts that may be on their way: one less than Pingora's queue holds.
const MOST: usize = 3;

/// Counts the parts that are on their way.
#[derive(Default)]
pub(super) struct Given(Arc<Count>);

#[derive(Default)]
struct Count {
    parts: AtomicUsize,
    taken: Notify,
}

/// A part, until it has been written.
struct Part {
    data: Bytes,
    count: Arc<Count>,
}

impl Given {
    /// A part on its way.
    pub(super) fn give(&self, data: Bytes) -> Bytes {
        self.0.parts.fetch_add(1, SeqCst);
        Bytes::from_owner(Part { data, count: self.0.clone() })
    }

    /// Whether all was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.0.parts.load(SeqCst) == 0
    }

    /// Ends when another part may be given.
    pub(super) async fn room(&self) {
        self.at_most(MOST - 1).await;
    }

    /// Ends when all was taken.
    pub(super) async fn taken(&self) {
        self.at_most(0).await;
    }

    async fn at_most(&self, parts: usize) {
        loop {
            let next = self.0.taken.notified();
            if self.0.parts.load(SeqCst) <= parts {
                return;
            }
            next.await;
        }
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.count.parts.fetch_sub(1, SeqCst);
        self.count.taken.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_client_waits_until_a_part_was_taken() {
        let given = Given::default();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut parts: Vec<Bytes> = (0..MOST).map(|n| given.give(Bytes::from(vec![n as u8]))).collect();
        assert_eq!(parts[2], [2].as_slice());
        let mut room = pin!(given.room());
        assert_eq!(room.as_mut().poll(cx), Poll::Pending);
        let copy = parts[0].clone();
        drop(parts.remove(0));
        assert_eq!(room.as_mut().poll(cx), Poll::Pending, "a copy of it is still there");
        drop(copy);
        assert_eq!(room.as_mut().poll(cx), Poll::Ready(()));
        let mut taken = pin!(given.taken());
        assert_eq!((taken.as_mut().poll(cx), given.is_taken()), (Poll::Pending, false));
        parts.clear();
        assert_eq!((taken.as_mut().poll(cx), given.is_taken()), (Poll::Ready(()), true));
    }
}
