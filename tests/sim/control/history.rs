//! Whether what clients were told can have happened in one order: the search of Wing and Gong, for a document of named
//! fields whose every write gives it a larger revision.
//!
//! A history is linearizable when each operation can be given one moment between its call and its answer so that, in the
//! order of these moments, every answer is the right one. The search tries the operations that may come next, which are
//! those called before the earliest answer that is still to be explained, and goes back when none fits. It remembers
//! where it has been, so that each set of explained operations with one content of the document is looked at once, and
//! nothing comes before an operation of a smaller revision, since that could not come afterwards. Whoever
//! was not told what became of a write did perhaps write, at any time after the call or never: such a write has no answer
//! that others must come before, and need not be explained at the end unless its revision is known.
//!
//! Linearizability is local: if the history of each service is linearizable, the history of all of them together is.

use std::collections::{BTreeMap, HashSet};

/// What a document says, by the names of its fields. A field that is not there is not listed.
pub type Fields = BTreeMap<String, String>;

/// One operation of a client.
#[derive(Debug, Clone)]
pub struct Operation {
    /// What the history calls it when it does not fit.
    pub name: String,
    /// When it was called, in turns: no two things happen in one turn.
    pub called: u64,
    /// When it was answered; none when nobody was told what became of it.
    pub answered: Option<u64>,
    pub what: What,
}

/// What an operation did, or saw.
#[derive(Debug, Clone)]
pub enum What {
    Write {
        field: String,
        /// None removes the field.
        value: Option<String>,
        /// What the field was before, where the answer told.
        before: Option<String>,
        /// The revision that the document had to be at.
        if_revision: Option<u64>,
        /// The revision that the document got, where that was told.
        revision: Option<u64>,
    },
    Read {
        revision: u64,
        fields: Fields,
    },
}

/// A document, as the search imagines it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Content {
    /// Its revision, or what it is at least after a write whose revision nobody was told.
    pub revision: u64,
    pub exact: bool,
    pub fields: Fields,
}

/// More places than these and the history is too hard to judge; a story has few clients, so it never is.
const PLACES: usize = 20_000;

/// Explains the history of one document that began like this.
///
/// # Errors
/// As far as the best explanation came, and what did not fit there.
pub fn explain(begin: &Content, mut history: Vec<Operation>) -> Result<(), String> {
    history.sort_by_key(|operation| operation.called);
    let mut best = (0, String::new());
    let mut been = HashSet::new();
    let mut open = vec![(vec![false; history.len()], begin.clone())];
    while let Some((mut explained, content)) = open.pop() {
        read_all(&history, &mut explained, &content);
        if !been.insert((explained.clone(), content.clone())) {
            continue;
        }
        if been.len() > PLACES {
            return Err("the history is too hard to judge".to_owned());
        }
        let left = || history.iter().zip(&explained).filter(|(operation, done)| !**done && operation.happened());
        let so_far = history.len() - left().count();
        if left().next().is_none() {
            return Ok(());
        }
        if so_far >= best.0 {
            let next = left().take(4).map(|(it, _)| format!("{} {:?}", it.name, it.what)).collect::<Vec<_>>();
            best = (so_far, format!("after {content:?} none of these can have come next: {}", next.join("; ")));
        }
        for at in candidates(&history, &explained) {
            if let Some(after) = content.after(&history[at].what) {
                let mut explained = explained.clone();
                explained[at] = true;
                open.push((explained, after));
            }
        }
    }
    Err(best.1)
}

/// Reads that see what there is come at once: they change nothing, so no other order can fit better.
fn read_all(history: &[Operation], explained: &mut [bool], content: &Content) {
    if !content.exact {
        return;
    }
    let fits =
        |at: &usize| matches!(history[*at].what, What::Read { .. }) && content.after(&history[*at].what).is_some();
    while let Some(at) = candidates(history, explained).into_iter().find(fits) {
        explained[at] = true;
    }
}

/// The operations that may come next. The last is tried first, so those whose end nobody was told come first, and then
/// those of large revisions.
fn candidates(history: &[Operation], explained: &[bool]) -> Vec<usize> {
    let (mut found, mut earliest, mut smallest) = (Vec::new(), u64::MAX, u64::MAX);
    for at in (0..history.len()).filter(|at| !explained[*at]) {
        // They stand in the order of their calls, so what follows was called even later.
        if history[at].called > earliest {
            break;
        }
        found.push(at);
        earliest = earliest.min(history[at].answered.unwrap_or(u64::MAX));
        smallest = smallest.min(history[at].what.revision().unwrap_or(u64::MAX));
    }
    found.retain(|at| history[*at].called <= earliest && history[*at].what.revision().is_none_or(|r| r <= smallest));
    found.sort_by_key(|at| (history[*at].what.revision().is_some(), std::cmp::Reverse(history[*at].what.revision())));
    found
}

impl Operation {
    /// Whether it must be explained.
    fn happened(&self) -> bool {
        self.answered.is_some() || self.what.revision().is_some()
    }
}

impl What {
    /// The revision that the document had afterwards, where that is known.
    fn revision(&self) -> Option<u64> {
        match self {
            Self::Write { revision, .. } => *revision,
            Self::Read { revision, .. } => Some(*revision),
        }
    }
}

impl Content {
    /// The document after an operation; none if it cannot have come here.
    fn after(&self, what: &What) -> Option<Self> {
        match what {
            What::Read { revision, fields } => {
                let same = self.fields == *fields && self.may_be_at(*revision);
                same.then(|| Self { revision: *revision, exact: true, fields: fields.clone() })
            }
            What::Write { field, value, before, if_revision, revision } => {
                if if_revision.is_some_and(|expected| !self.may_be_at(expected)) {
                    return None;
                }
                if before.is_some() && *before != self.fields.get(field).cloned() {
                    return None;
                }
                if revision.is_some_and(|new| new <= self.revision) {
                    return None;
                }
                let mut fields = self.fields.clone();
                match value {
                    Some(value) => drop(fields.insert(field.clone(), value.clone())),
                    None => drop(fields.remove(field)),
                }
                let floor = if_revision.unwrap_or(self.revision).max(self.revision) + 1;
                Some(Self { revision: revision.unwrap_or(floor), exact: revision.is_some(), fields })
            }
        }
    }

    fn may_be_at(&self, revision: u64) -> bool {
        if self.exact { self.revision == revision } else { self.revision <= revision }
    }
}
