//! Belonging to the fleet: a card under a lease, kept alive, and taken anew when it was lost.
//!
//! The card's key is created once in each membership, so etcd's revision of its creation tells who joined before whom.
//! The lease has a connection of its own, and a keep-alive that gets no answer is tried again at once on another one, to
//! the next of etcd's members: within the time of the lease four may fail.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Error, PutOptions, Txn, TxnOp, TxnOpResponse};
use tokio::time::Instant;

use super::follow::RETRY;
use super::link::{CALL, Link, Trouble};
use super::members::{CARD, Fleet, Place};

/// How long etcd waits for a sign of life before it takes a member for gone. etcd grants no less than two seconds, and a
/// process that is stopped for one is not gone.
const LEASE: Duration = Duration::from_secs(3);
/// How much earlier this process takes itself for gone: its clock and etcd's do not run alike.
const MARGIN: Duration = Duration::from_millis(200);
/// How often it gives a sign of life.
const EVERY: Duration = Duration::from_secs(1);
/// How long one of them may take.
const LIMIT: Duration = Duration::from_millis(700);
/// How long to wait after one that failed, so that a port on which nobody listens is not asked all the time.
const PAUSE: Duration = Duration::from_millis(30);

impl Link {
    /// A new lease.
    async fn grant(&self) -> Result<i64, Trouble> {
        let seconds = i64::try_from(LEASE.as_secs()).unwrap_or(i64::MAX);
        let granted = self.call(CALL, async |client| client.lease_client().grant(seconds, None).await).await?;
        Ok(granted.id())
    }

    /// A sign of life; whether the lease still stands.
    async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble> {
        self.call(LIMIT, async |client| match client.lease_client().keep_alive(lease).await {
            Ok(_) => Ok(true),
            // The client's word for a remaining time of zero.
            Err(Error::LeaseKeepAliveError(why)) if why == "lease not found" => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    /// Ends a lease, and with it all its keys.
    pub async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        match self.call(CALL, async |client| client.lease_client().revoke(lease).await).await {
            // It ended by itself.
            Err(Trouble::Refused(why)) if why.contains("lease not found") => Ok(()),
            answer => answer.map(drop),
        }
    }
}

impl Fleet {
    /// Joins, and again whenever this process was taken for gone, until it leaves.
    pub async fn belong(&self) {
        let mut leaving = self.me.leaving.subscribe();
        tokio::select! {
            _ = leaving.wait_for(|leaving| *leaving) => {}
            () = self.join_again() => {}
        }
        self.me.change(|known| known.place = None);
        let granted = *self.me.granted.lock();
        if let Some(lease) = granted
            && let Err(trouble) = self.end(lease).await
        {
            tracing::debug!(?trouble, "etcd takes this process for a member until its lease ends");
        }
        self.me.left.send_replace(true);
    }

    async fn join_again(&self) {
        let mut retry = RETRY.0;
        loop {
            match self.join().await {
                Ok((place, sent)) => {
                    retry = RETRY.0;
                    self.me.change(|known| {
                        known.place = Some(place);
                        known.sure_until = sure_until(sent);
                    });
                    tracing::debug!(member = %self.me.id, joined = place.joined, "joined the fleet");
                    self.keep(place, sent).await;
                    self.me.change(|known| known.place = None);
                    tracing::info!(member = %self.me.id, "was taken for gone, and joins the fleet again");
                    // When only the card is gone, the other notes must not stay for a member that nobody knows.
                    if let Err(trouble) = self.line.revoke(place.lease).await {
                        tracing::debug!(?trouble, "what is left of the old lease ends by itself");
                    }
                    tokio::time::sleep(RETRY.0).await;
                }
                Err(trouble) => {
                    tracing::debug!(?trouble, "joins the fleet later");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn end(&self, lease: i64) -> Result<(), Trouble> {
        match self.line.revoke(lease).await {
            Err(Trouble::Away(_)) => self.line.revoke(lease).await,
            answer => answer,
        }
    }

    /// Joins under a new lease; also when the request for it was sent.
    async fn join(&self) -> Result<(Place, Instant), Trouble> {
        let sent = Instant::now();
        let lease = self.line.grant().await?;
        *self.me.granted.lock() = Some(lease);
        let card = self.inner.keys.note(CARD, &self.me.id);
        let absent = Compare::create_revision(card.as_str(), CompareOp::Equal, 0);
        let put = TxnOp::put(card.as_str(), "", Some(PutOptions::new().with_lease(lease)));
        let txn = Txn::new().when([absent]).and_then([put]).or_else([TxnOp::get(card, None)]);
        let answer = self.line.txn(txn).await?;
        if answer.succeeded() {
            let joined = answer.header().map_or(0, |header| header.revision());
            return Ok((Place { lease, joined }, sent));
        }
        // An earlier attempt got no answer, or the card stands until an old lease ends.
        for response in answer.op_responses() {
            if let TxnOpResponse::Get(found) = response {
                for kv in found.kvs() {
                    self.line.revoke(kv.lease()).await?;
                }
            }
        }
        Err(Trouble::Away("an earlier card of this process stood in the way".to_owned()))
    }

    /// Gives signs of life until the membership is lost.
    async fn keep(&self, place: Place, mut sent: Instant) {
        let mut next = sent + EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.me.vanished.notified() => {}
            }
            if self.me.is_gone(place) {
                return;
            }
            if Instant::now() < next {
                continue;
            }
            sent = Instant::now();
            match self.line.keep_alive(place.lease).await {
                Ok(true) => {
                    self.me.change(|known| known.sure_until = sure_until(sent));
                    next = sent + EVERY;
                }
                Ok(false) => return,
                Err(trouble) => {
                    tracing::debug!(?trouble, "a sign of life got no answer");
                    next = Instant::now() + PAUSE;
                }
            }
        }
    }
}

/// Until when nobody takes this process for gone, when a sign of life that was sent then had an answer.
fn sure_until(sent: Instant) -> Instant {
    sent + LEASE - MARGIN
}
