//! What survives a crash: documents, and how many events there are.

use std::collections::BTreeMap;

use switchback::model::{Commit, Document, DocumentKey, State};

/// A store as far as the simulation needs one.
#[derive(Default)]
pub struct Store {
    pub revision: u64,
    pub events: u64,
    pub documents: BTreeMap<DocumentKey, (u64, String)>,
}

impl Store {
    pub fn commit(&mut self, commit: &Commit) {
        assert_eq!(commit.expected, self.revision, "made against another revision than the store's");
        assert!(commit.revision > commit.expected);
        for key in &commit.deletes {
            self.documents.remove(key);
        }
        for (key, body) in commit.puts.iter().filter(|(key, _)| !key.is_archived()) {
            self.documents.insert(key.clone(), (commit.revision, body.clone()));
        }
        for event in &commit.events {
            self.events += 1;
            assert_eq!(event.id, self.events, "ids of events continue those of the store");
        }
        self.revision = commit.revision;
    }

    /// The state as a process finds it when it begins.
    pub fn load(&self) -> State {
        let document = |(key, (revision, body)): (&DocumentKey, &(u64, String))| Document {
            key: key.clone(),
            revision: *revision,
            body: body.clone(),
        };
        let documents: Vec<_> = self.documents.iter().map(document).collect();
        State::from_documents(self.revision, &documents).expect("it wrote these documents itself")
    }
}
