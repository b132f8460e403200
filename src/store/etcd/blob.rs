//! Blobs: bytes that are too large for one request, written before the transaction that makes them true.
//!
//! A write that needs blobs opens a stage: a marker with a random name. Its blobs carry that name, so nobody refers to
//! them yet and no two writers meet. The transaction that makes the write true demands the marker and removes it. A
//! writer that died leaves its marker behind; whoever sees the same marker twice, ten minutes apart, removes it together
//! with the blobs in one transaction. So either the write is true and its blobs stay, or it can never become true.

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, Txn, TxnOp};

use super::Inner;
use super::layout::BlobRef;
use super::link::Trouble;
use super::read::Pages;

/// Bytes of one part: a third of what etcd takes in one request.
pub const PART: usize = 512 << 10;

/// Blobs that are being written.
pub struct Stage {
    name: String,
    blobs: u32,
}

impl Stage {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A name that nobody else uses.
pub fn fresh_name() -> String {
    format!("{:012x}", rand::random::<u64>() >> 16)
}

impl Inner {
    /// Opens a stage.
    pub async fn open_stage(&self) -> Result<Stage, Trouble> {
        let name = fresh_name();
        self.link.txn(Txn::new().and_then([TxnOp::put(self.keys.staging(&name), "", None)])).await?;
        Ok(Stage { name, blobs: 0 })
    }

    /// Writes a blob, part by part.
    pub async fn write_blob(&self, stage: &mut Stage, bytes: &[u8]) -> Result<BlobRef, Trouble> {
        let id = format!("{}-{}", stage.name, stage.blobs);
        stage.blobs += 1;
        let mut parts = 0;
        for part in bytes.chunks(PART) {
            let put = TxnOp::put(self.keys.part(&id, parts), part, None);
            // Nobody else writes this key, so a part that got no answer can be sent again. One that comes late, when the
            // stage was ended or swept, must not stay for ever.
            let txn = Txn::new().when([self.staged_as(&stage.name)]).and_then([put]);
            if !self.link.repeatable(txn).await?.succeeded() {
                return Err(Trouble::Away("a large write took so long that others gave it up".to_owned()));
            }
            parts += 1;
        }
        Ok(BlobRef { id, parts })
    }

    /// The bytes of a blob as they were at etcd's revision `at`.
    pub async fn read_blob(&self, blob: &BlobRef, at: i64) -> Result<Vec<u8>, Trouble> {
        let (from, until) = self.keys.blobs(&format!("{}/", blob.id));
        let mut pages = Pages::new(from, until, at);
        let (mut bytes, mut found) = (Vec::new(), 0);
        while let Some(page) = pages.next(&self.link).await? {
            found += page.len();
            page.iter().for_each(|kv| bytes.extend_from_slice(kv.value()));
        }
        if found != blob.parts as usize {
            let detail = format!("the blob {} has {found} parts instead of {}", blob.id, blob.parts);
            return Err(Trouble::Damaged(detail));
        }
        Ok(bytes)
    }

    /// The operation that removes a blob.
    pub fn remove_blob(&self, blob: &BlobRef) -> TxnOp {
        let (from, until) = self.keys.blobs(&format!("{}/", blob.id));
        TxnOp::delete(from, Some(DeleteOptions::new().with_range(until)))
    }

    /// The condition that a stage is still there, and the operation that ends it.
    pub fn end_stage(&self, stage: &Stage) -> (Compare, TxnOp) {
        (self.staged_as(stage.name()), TxnOp::delete(self.keys.staging(stage.name()), None))
    }

    /// The condition that a stage of that name is there.
    fn staged_as(&self, name: &str) -> Compare {
        Compare::create_revision(self.keys.staging(name), CompareOp::Greater, 0)
    }

    /// Whether nobody has removed the stage.
    pub async fn has_stage(&self, stage: &Stage) -> Result<bool, Trouble> {
        let found = self.link.get(&self.keys.staging(stage.name()), GetOptions::new()).await?;
        Ok(!found.kvs().is_empty())
    }

    /// The names of all stages.
    pub async fn stages(&self) -> Result<Vec<String>, Trouble> {
        let from = self.keys.staging("");
        let until = super::layout::end_of(&from);
        let found = self.link.get(&from, GetOptions::new().with_range(until).with_limit(1_000)).await?;
        let name = |kv: &etcd_client::KeyValue| self.keys.after("staging", kv.key()).map(str::to_owned);
        Ok(found.kvs().iter().filter_map(name).collect())
    }

    /// Removes a stage and its blobs, unless its write has become true.
    pub async fn sweep(&self, stage: &str) -> Result<(), Trouble> {
        let marker = self.keys.staging(stage);
        let (from, until) = self.keys.blobs(&format!("{stage}-"));
        let there = self.staged_as(stage);
        let blobs = TxnOp::delete(from, Some(DeleteOptions::new().with_range(until)));
        self.link.txn(Txn::new().when([there]).and_then([TxnOp::delete(marker, None), blobs])).await?;
        Ok(())
    }
}
