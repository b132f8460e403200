//! The database file itself: made whole or not at all, and refused untouched when it is not what we can read.
//!
//! A new file is prepared under another name and linked into place, so that a file under the real name always has our
//! tables: an empty one there is damage, never a beginning. An existing file is judged through a connection that cannot
//! write. It is never read through `std::fs`, because closing such a handle would drop the locks that SQLite holds on
//! the same file elsewhere in this process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags};

use super::error::{BoxError, StoreError};
use crate::model::DOCUMENT_FORMAT;

/// Marks the file as ours: `swbk`. `file` and `sqlite3` show it.
pub const APPLICATION_ID: i64 = 0x7377_626b;

/// The layout of the tables, kept as `user_version`.
pub const TABLES_FORMAT: u32 = 1;

/// Overlapping processes commit one after the other in milliseconds; longer than this means that something is stuck.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Up to this size the whole file is checked at the start: 0.3 s were measured for a file half as large again. Beyond
/// it, a start must not wait for the history, so only what traffic depends on is checked.
const FULL_CHECK_BYTES: u64 = 256 << 20;

/// The smallest page that SQLite knows, in bytes.
const SHORTEST_DATABASE: u64 = 512;

const TABLES: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE documents (
    key      TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    body     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    service  TEXT,
    tenant   TEXT,
    body     TEXT NOT NULL
) STRICT;
-- Every index ends with the id, so each serves its filter in both orders without sorting.
CREATE INDEX events_service ON events (service) WHERE service IS NOT NULL;
CREATE INDEX events_tenant ON events (tenant) WHERE tenant IS NOT NULL;
CREATE INDEX events_kind ON events (kind);
CREATE INDEX events_service_kind ON events (service, kind) WHERE service IS NOT NULL;
INSERT INTO meta (key, value) VALUES ('revision', 0), ('next_event', 1);
";

/// Which file we opened, so that we notice when another one takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The identity of the file that is under this path now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }
}

/// Makes the store if there is none, and refuses one that is damaged, foreign or newer without touching it.
///
/// # Errors
/// [`StoreError::Create`], or those of [`check`].
pub fn prepare(path: &Path) -> Result<(), StoreError> {
    let exists = path.try_exists().map_err(|e| StoreError::Open { path: path.to_owned(), source: e.into() })?;
    if exists {
        return check(path);
    }
    // SQLite would replay an orphaned log into the new file.
    let log = beside(path, "-wal");
    if fs::metadata(&log).is_ok_and(|m| m.len() > 0) {
        let detail = format!("the file is missing but its write-ahead log {} is there", log.display());
        return Err(StoreError::Damaged { path: path.to_owned(), detail });
    }
    create(path).map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
    check(path)
}

/// The connection that writes.
///
/// # Errors
/// [`StoreError::Open`], or what [`StoreError::from_sqlite`] makes of the cause.
pub fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let opened = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|connection| {
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        // With NORMAL the last commits are lost when the power fails: measured, not feared.
        connection.pragma_update(None, "synchronous", "full")?;
        // A large import must not leave a large log behind for ever.
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('document_format', ?1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value < excluded.value",
            [DOCUMENT_FORMAT],
        )?;
        Ok((connection, mode))
    });
    let (connection, mode) = opened.map_err(|e| open_error(path, e))?;
    if mode.eq_ignore_ascii_case("wal") {
        Ok(connection)
    } else {
        let source = format!("the file system does not support a write-ahead log (journal mode is {mode})").into();
        Err(StoreError::Open { path: path.to_owned(), source })
    }
}

/// The connection that reads.
///
/// # Errors
/// [`StoreError::Open`], or what [`StoreError::from_sqlite`] makes of the cause.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|e| open_error(path, e))
}

fn open(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection stays on its own thread, so SQLite need not lock around every call.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A page that the kernel cannot read would be a signal instead of an error.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Looks at an existing file without writing to it.
fn check(path: &Path) -> Result<(), StoreError> {
    let failed = |e| open_error(path, e);
    let damaged = |detail: String| StoreError::Damaged { path: path.to_owned(), detail };
    let size = fs::metadata(path).map_err(|e| StoreError::Open { path: path.to_owned(), source: e.into() })?.len();
    // SQLite takes so short a file for an empty database and would begin a new one in it.
    if size < SHORTEST_DATABASE {
        return Err(damaged(format!("the file has {size} bytes, which is too short")));
    }
    let connection = open_reader(path)?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |r| r.get(0)).map_err(failed)?;
    if application != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let tables: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
    refuse_newer(tables, TABLES_FORMAT)?;
    if let Some(detail) = quick_check(&connection, size <= FULL_CHECK_BYTES).map_err(failed)? {
        return Err(damaged(detail));
    }
    let documents = connection
        .query_row("SELECT max(value) FROM meta WHERE key = 'document_format'", [], |r| r.get::<_, Option<i64>>(0))
        .map_err(failed)?;
    refuse_newer(documents.unwrap_or(0), DOCUMENT_FORMAT)
}

fn refuse_newer(found: i64, supported: u32) -> Result<(), StoreError> {
    if found <= i64::from(supported) {
        return Ok(());
    }
    Err(StoreError::Newer { found_format: found.unsigned_abs(), supported })
}

/// The first thing that is wrong with the database, or with all of it but the history.
fn quick_check(connection: &Connection, whole: bool) -> rusqlite::Result<Option<String>> {
    let parts: &[&str] = if whole { &["1"] } else { &["'meta'", "'documents'"] };
    for part in parts {
        let sql = format!("PRAGMA quick_check({part})");
        let found: String = connection.query_row(&sql, [], |row| row.get(0))?;
        if found != "ok" {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn open_error(path: &Path, error: rusqlite::Error) -> StoreError {
    StoreError::from_sqlite(path, error, |source| StoreError::Open { path: path.to_owned(), source })
}

/// Makes the database under a name of its own, then links it into place unless somebody was faster.
fn create(path: &Path) -> Result<(), BoxError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = beside(path, &format!(".new-{}-{}-{count}", std::process::id(), since_epoch.as_nanos()));
    let made = fill(&temporary).and_then(|()| link(&temporary, path));
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // What is left over is small and harmless; the error that counts is the one above.
        let _ = fs::remove_file(beside(&temporary, suffix));
    }
    made?;
    sync_directory(path)?;
    Ok(())
}

fn fill(temporary: &Path) -> Result<(), BoxError> {
    // SQLite gives its log and shared memory the mode of this file. It holds keys that sign cookies.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let connection = open(temporary, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.execute_batch(&format!(
        "BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {TABLES_FORMAT}; {TABLES} COMMIT;"
    ))?;
    let unfinished: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if unfinished != 0 {
        return Err("the new file could not be completed".into());
    }
    connection.close().map_err(|(_, e)| e)?;
    file.sync_all()?;
    Ok(())
}

fn link(temporary: &Path, path: &Path) -> Result<(), BoxError> {
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(()),
        // Another process made it in the meantime; its file is as good as ours.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Some file systems have no hard links.
        Err(_) => Ok(fs::rename(temporary, path)?),
    }
}

/// Makes a new name in a directory durable.
///
/// # Errors
/// What the file system answers.
pub fn sync_directory(of: &Path) -> io::Result<()> {
    let directory = of.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// The path with something added to its last part.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_what_durability_rests_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        prepare(&path).unwrap();
        let (writer, reader) = (open_writer(&path).unwrap(), open_reader(&path).unwrap());
        let number = |name: &str| writer.pragma_query_value::<i64, _>(None, name, |r| r.get(0)).unwrap();
        assert_eq!(writer.pragma_query_value::<String, _>(None, "journal_mode", |r| r.get(0)).unwrap(), "wal");
        assert_eq!(number("synchronous"), 2, "FULL");
        assert_eq!(number("mmap_size"), 0);
        assert_eq!(number("busy_timeout"), 5_000);
        assert!(reader.execute("DELETE FROM events", []).is_err(), "the reader cannot write");
        let format: i64 =
            writer.query_row("SELECT value FROM meta WHERE key = 'document_format'", [], |r| r.get(0)).unwrap();
        assert_eq!(format, i64::from(DOCUMENT_FORMAT));
    }

    #[test]
    fn a_large_file_is_checked_where_traffic_depends_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        prepare(&path).unwrap();
        let writer = open_writer(&path).unwrap();
        assert_eq!(quick_check(&writer, true).unwrap(), None);
        assert_eq!(quick_check(&writer, false).unwrap(), None);
        let root = |table: &str| -> i64 {
            writer.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |r| r.get(0)).unwrap()
        };
        let (events, documents) = (root("events"), root("documents"));
        writer.close().unwrap();
        let good = fs::read(&path).unwrap();
        for (page, whole, sound) in
            [(events, true, false), (events, false, true), (documents, true, false), (documents, false, false)]
        {
            let mut bytes = good.clone();
            let from = (page as usize - 1) * 4096;
            bytes[from..from + 4096].fill(0xa5);
            fs::write(&path, bytes).unwrap();
            let found = quick_check(&open_reader(&path).unwrap(), whole);
            assert_eq!(matches!(found, Ok(None)), sound, "{page} {whole} {found:?}");
        }
    }

    #[test]
    fn two_that_make_the_same_file_end_with_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| prepare(&path).unwrap());
            }
        });
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        prepare(&path).unwrap();
    }
}
