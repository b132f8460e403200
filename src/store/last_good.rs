//! The last state that was good, in a plain file beside the database: what traffic starts from when the database fails.
//!
//! The file is written under another name, flushed, renamed into place and its directory flushed, so there is always
//! one whole copy. A checksum over every byte that matters tells a copy that can be trusted from one that cannot; a
//! damaged copy is refused, because starting from half a state is worse than starting from the configuration file.

use std::borrow::Borrow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::Loaded;
use super::error::{BoxError, StoreError};
use super::schema::{beside, sync_directory};
use crate::model::{DOCUMENT_FORMAT, Document, DocumentKey};

/// Length of the first line without its end. The counts are known only after everything else is written, so room is
/// kept for the longest header.
const HEADER: usize = 160;

/// A state as it was saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// Revision of the state.
    pub revision: u64,
    /// Every document, in the order in which they were saved.
    pub documents: Vec<Document>,
}

/// For a start without the store. The copy has no history, so the events begin anew.
impl From<Saved> for Loaded {
    fn from(saved: Saved) -> Self {
        Self { revision: saved.revision, next_event: 1, documents: saved.documents }
    }
}

/// The copy of one store.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
    /// Two at once would write the same temporary file.
    saving: Mutex<()>,
}

/// The first line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    revision: u64,
    count: u64,
    /// Over the documents' lines, then over the three numbers above.
    xxh3: String,
}

/// The part of the header that no release may change.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl LastGood {
    /// The copy that belongs to the database at `database`: the same name with `.last-good` added.
    pub fn beside(database: &Path) -> Self {
        Self { path: beside(database, ".last-good"), saving: Mutex::new(()) }
    }

    /// Where the copy is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the copy; the old one stays until the new one is whole and durable. Takes the documents one by one,
    /// so a caller that makes them on the way needs memory for one only. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Save`]; the copy from before is then still there.
    pub fn save<I>(&self, revision: u64, documents: I) -> Result<(), StoreError>
    where
        I: IntoIterator,
        I::Item: Borrow<Document>,
    {
        let _one = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let temporary = beside(&self.path, &format!(".{}", std::process::id()));
        let saved = write(&temporary, revision, documents)
            .and_then(|()| Ok(fs::rename(&temporary, &self.path)?))
            .and_then(|()| Ok(sync_directory(&self.path)?));
        saved.map_err(|source| {
            // It is not there after the rename, and in the way before it.
            let _ = fs::remove_file(&temporary);
            StoreError::Save { path: self.path.clone(), source }
        })
    }

    /// Reads the copy; nothing if none was ever saved. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it cannot be read, [`StoreError::Newer`] when a newer release wrote it,
    /// [`StoreError::Damaged`] when it is not what was saved.
    pub fn load(&self) -> Result<Option<Saved>, StoreError> {
        let open = |e: io::Error| StoreError::Open { path: self.path.clone(), source: e.into() };
        let file = match File::open(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(open)?,
        };
        let size = file.metadata().map_err(open)?.len();
        let mut reader = BufReader::new(file);
        match read(&mut reader, size) {
            Ok(saved) => Ok(Some(saved)),
            Err(Unreadable::Io(e)) => Err(open(e)),
            Err(Unreadable::Newer(found)) => {
                Err(StoreError::Newer { found_format: u64::from(found), supported: DOCUMENT_FORMAT })
            }
            Err(Unreadable::Damaged(detail)) => Err(StoreError::Damaged { path: self.path.clone(), detail }),
        }
    }
}

fn write<I>(temporary: &Path, revision: u64, documents: I) -> Result<(), BoxError>
where
    I: IntoIterator,
    I::Item: Borrow<Document>,
{
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    writeln!(out, "{:HEADER$}", "")?;
    let mut hash = Xxh3::new();
    let mut count = 0;
    let mut line = Vec::new();
    for document in documents {
        let document = document.borrow();
        line.clear();
        serde_json::to_writer(&mut line, &(document.key.to_string(), document.revision, &document.body))?;
        line.push(b'\n');
        hash.update(&line);
        out.write_all(&line)?;
        count += 1;
    }
    let mut header = Header { format: DOCUMENT_FORMAT, revision, count, xxh3: String::new() };
    header.xxh3 = checksum(hash, &header);
    out.rewind()?;
    write!(out, "{:HEADER$}", serde_json::to_string(&header)?)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

enum Unreadable {
    Io(io::Error),
    Newer(u32),
    Damaged(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn read(reader: &mut impl BufRead, size: u64) -> Result<Saved, Unreadable> {
    let damaged = |detail: &str| Unreadable::Damaged(detail.to_owned());
    let mut first = vec![0; HEADER + 1];
    match reader.read_exact(&mut first) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Err(damaged("it is too short")),
        other => other?,
    }
    let not_ours = |e: serde_json::Error| Unreadable::Damaged(format!("its first line is not ours: {e}"));
    // The format comes first and alone: a newer release may have changed everything else.
    let Format { format } = serde_json::from_slice(&first).map_err(not_ours)?;
    if format > DOCUMENT_FORMAT {
        return Err(Unreadable::Newer(format));
    }
    let header: Header = serde_json::from_slice(&first).map_err(not_ours)?;
    // A count that was damaged must not make us reserve memory that no document could fill.
    const SHORTEST_LINE: u64 = 16;
    let mut documents = Vec::with_capacity(usize::try_from(header.count.min(size / SHORTEST_LINE)).unwrap_or(0));
    let mut hash = Xxh3::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        hash.update(&line);
        documents.push(parse(&line).ok_or_else(|| damaged(&format!("line {} is not ours", documents.len() + 2)))?);
    }
    let count = documents.len() as u64;
    if count != header.count {
        return Err(Unreadable::Damaged(format!("it has {count} documents of {}", header.count)));
    }
    if checksum(hash, &header) != header.xxh3 {
        return Err(damaged("its checksum does not match"));
    }
    Ok(Saved { revision: header.revision, documents })
}

fn parse(line: &[u8]) -> Option<Document> {
    let (key, revision, body): (String, u64, String) = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    Some(Document { key: DocumentKey::parse(&key)?, revision, body })
}

fn checksum(mut hash: Xxh3, header: &Header) -> String {
    hash.update(&header.format.to_le_bytes());
    hash.update(&header.revision.to_le_bytes());
    hash.update(&header.count.to_le_bytes());
    format!("{:016x}", hash.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(count: u64) -> Vec<Document> {
        (0..count)
            .map(|n| Document {
                key: DocumentKey::Secret(format!("n{n}")),
                revision: n,
                body: format!("{{\"text\":\"line\\nof ü {n}\"}}\n"),
            })
            .collect()
    }

    fn saved() -> (LastGood, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let copy = LastGood::beside(&directory.path().join("switchback.db"));
        copy.save(12, documents(20)).unwrap();
        (copy, directory)
    }

    #[test]
    fn what_was_saved_comes_back() {
        let (copy, directory) = saved();
        assert!(copy.path().ends_with("switchback.db.last-good"));
        assert_eq!(copy.load().unwrap().unwrap(), Saved { revision: 12, documents: documents(20) });
        copy.save(u64::MAX, documents(0)).unwrap();
        assert_eq!(copy.load().unwrap().unwrap(), Saved { revision: u64::MAX, documents: vec![] });
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["switchback.db.last-good"], "nothing else stays");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(copy.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nothing_saved_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(LastGood::beside(&directory.path().join("x.db")).load().unwrap().is_none());
    }

    #[test]
    fn every_changed_byte_and_every_missing_end_is_noticed() {
        let (copy, _directory) = saved();
        let good = fs::read(copy.path()).unwrap();
        let padding = good.iter().position(|&b| b == b'}').unwrap() + 1..HEADER + 1;
        for at in (0..good.len()).filter(|at| !padding.contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(copy.path(), &bad).unwrap();
            assert!(copy.load().is_err(), "byte {at}");
        }
        for end in 0..good.len() {
            fs::write(copy.path(), &good[..end]).unwrap();
            assert!(matches!(copy.load(), Err(StoreError::Damaged { .. })), "end {end}");
        }
        fs::write(copy.path(), &good).unwrap();
        copy.load().unwrap();
    }

    #[test]
    fn a_newer_copy_is_refused_as_such() {
        let (copy, _directory) = saved();
        fs::write(copy.path(), format!("{:HEADER$}\n", r#"{"format":99,"other":true}"#)).unwrap();
        assert!(matches!(copy.load(), Err(StoreError::Newer { found_format: 99, supported: DOCUMENT_FORMAT })));
    }

    #[test]
    fn a_save_that_fails_leaves_the_old_copy() {
        let (copy, directory) = saved();
        let in_the_way = directory.path().join(format!("switchback.db.last-good.{}", std::process::id()));
        fs::create_dir(&in_the_way).unwrap();
        assert!(matches!(copy.save(13, documents(1)), Err(StoreError::Save { .. })));
        assert_eq!(copy.load().unwrap().unwrap().revision, 12);
    }
}
