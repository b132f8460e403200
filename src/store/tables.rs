//! What is written to and read from the tables, one function per request, each in one transaction.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::error::{BoxError, StoreError};
use super::{Loaded, event_limit, list_limit};
use crate::model::{Commit, Document, DocumentKey, Event, EventQuery};

/// Old events go in steps of this many per write, or twice what the write added if that is more, so that a limit that
/// was made smaller never makes one commit slow and the history still shrinks.
const REMOVE_STEP: u64 = 256;

/// Why a transaction did not happen, before the path of the file is known.
#[derive(Debug)]
pub enum Failure {
    /// SQLite's own error.
    Sqlite(rusqlite::Error),
    /// Something in the tables is not what we wrote.
    Damaged(String),
    /// An answer of the store.
    Answer(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The two counters of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Latest committed revision.
    pub revision: u64,
    /// Id that the next event gets.
    pub next_event: u64,
}

/// Writes a commit; answers the id of its first event.
pub fn commit(connection: &mut Connection, commit: Commit, keep_events: u64) -> Result<u64, Failure> {
    // Taking the write lock before reading is what makes compare-and-set hold between processes.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = counters(&transaction)?;
    if found.revision != commit.expected {
        let conflict = StoreError::Conflict { expected: commit.expected, found: found.revision };
        return Err(Failure::Answer(conflict));
    }
    let revision = to_sql(commit.revision)?;
    write_documents(&transaction, revision, &commit)?;
    let next_event = write_events(&transaction, found.next_event, commit.events)?;
    set_counter(&transaction, "revision", revision)?;
    remove_old(&transaction, found.next_event, next_event, keep_events)?;
    transaction.commit()?;
    Ok(found.next_event)
}

/// Appends events; answers the id of the first.
pub fn append(connection: &mut Connection, events: Vec<Event>, keep_events: u64) -> Result<u64, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let first = counters(&transaction)?.next_event;
    if events.is_empty() {
        return Ok(first);
    }
    let next_event = write_events(&transaction, first, events)?;
    remove_old(&transaction, first, next_event, keep_events)?;
    transaction.commit()?;
    Ok(first)
}

/// Takes the write lock and gives it back; answers the revision.
pub fn ping(connection: &mut Connection) -> Result<u64, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    Ok(counters(&transaction)?.revision)
}

/// Reads everything but the archive at one revision.
pub fn load(connection: &mut Connection) -> Result<Loaded, Failure> {
    let transaction = connection.transaction()?;
    let Counters { revision, next_event } = counters(&transaction)?;
    let mut documents = Vec::new();
    {
        // Two ranges around the archive, whose pages are not touched.
        for range in ["key < 'archive/'", "key >= 'archive0'"] {
            let sql = format!("SELECT key, revision, body FROM documents WHERE {range} ORDER BY key");
            let mut statement = transaction.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (key, revision) = key_and_revision(row)?;
                documents.push(Document { key, revision, body: row.get(2)? });
            }
        }
    }
    Ok(Loaded { revision, next_event, documents })
}

/// Reads one document.
pub fn get(connection: &mut Connection, key: &DocumentKey) -> Result<Option<Document>, Failure> {
    let mut statement = connection.prepare_cached("SELECT key, revision, body FROM documents WHERE key = ?1")?;
    let mut rows = statement.query([key.to_string()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (key, revision) = key_and_revision(row)?;
    Ok(Some(Document { key, revision, body: row.get(2)? }))
}

/// Lists the keys that begin with a text and come after another.
pub fn list(
    connection: &mut Connection,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<(DocumentKey, u64)>, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT key, revision FROM documents WHERE key >= ?1 AND key > ?2 ORDER BY key LIMIT ?3")?;
    let mut rows = statement.query(params![prefix, after, to_sql(list_limit(limit) as u64)?])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // What begins with a text stands together, so the first that does not ends it.
        if !row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?.starts_with(prefix) {
            break;
        }
        found.push(key_and_revision(row)?);
    }
    Ok(found)
}

fn key_and_revision(row: &rusqlite::Row<'_>) -> Result<(DocumentKey, u64), Failure> {
    let text = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
    let key = DocumentKey::parse(text)
        .ok_or_else(|| Failure::Damaged(format!("there is a document with the key {text:?}")))?;
    Ok((key, from_sql(row.get(1)?)?))
}

/// Reads the events that a query wants.
pub fn events(connection: &mut Connection, query: &EventQuery) -> Result<Vec<Event>, Failure> {
    let (sql, values) = select(query);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let body = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let event = serde_json::from_str(body);
        let id: i64 = row.get(0)?;
        events.push(event.map_err(|e| Failure::Damaged(format!("event {id} cannot be read: {e}")))?);
    }
    Ok(events)
}

fn select(query: &EventQuery) -> (String, Vec<Value>) {
    let mut conditions = String::from("id > ?");
    // No id is larger than an i64, so a larger `after` wants nothing as much as the largest does.
    let mut values = vec![Value::from(i64::try_from(query.after).unwrap_or(i64::MAX))];
    if let Some(before) = query.before {
        conditions.push_str(" AND id < ?");
        values.push(Value::from(i64::try_from(before).unwrap_or(i64::MAX)));
    }
    let filters = [
        (" AND service = ?", query.service.as_ref().map(|s| s.as_str())),
        (" AND tenant = ?", query.tenant.as_ref().map(|t| t.as_str())),
        (" AND kind = ?", query.kind.map(|k| k.as_str())),
    ];
    for (condition, value) in filters {
        if let Some(value) = value {
            conditions.push_str(condition);
            values.push(Value::from(value.to_owned()));
        }
    }
    values.push(Value::from(i64::try_from(event_limit(query)).unwrap_or(i64::MAX)));
    let order = if query.newest_first { "DESC" } else { "ASC" };
    let index = index_for(query);
    (format!("SELECT id, body FROM events {index} WHERE {conditions} ORDER BY id {order} LIMIT ?"), values)
}

/// The index is named because SQLite knows nothing about how many events a tenant or a kind has, and would sometimes
/// guess the one that reads half of the history.
fn index_for(query: &EventQuery) -> &'static str {
    match (&query.tenant, &query.service, &query.kind) {
        (Some(_), _, _) => "INDEXED BY events_tenant",
        (None, Some(_), Some(_)) => "INDEXED BY events_service_kind",
        (None, Some(_), None) => "INDEXED BY events_service",
        (None, None, Some(_)) => "INDEXED BY events_kind",
        (None, None, None) => "NOT INDEXED",
    }
}

/// Reads the counters.
pub fn counters(connection: &Connection) -> Result<Counters, Failure> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    let mut counter = |key: &str| -> Result<u64, Failure> {
        match statement.query_row([key], |row| row.get(0)).optional()? {
            Some(value) => from_sql(value),
            None => Err(Failure::Damaged(format!("the counter {key:?} is missing"))),
        }
    };
    Ok(Counters { revision: counter("revision")?, next_event: counter("next_event")? })
}

fn set_counter(transaction: &Transaction<'_>, key: &str, value: i64) -> Result<(), Failure> {
    let mut statement = transaction.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
    statement.execute(params![key, value])?;
    Ok(())
}

fn write_documents(transaction: &Transaction<'_>, revision: i64, commit: &Commit) -> Result<(), Failure> {
    let mut delete = transaction.prepare_cached("DELETE FROM documents WHERE key = ?1")?;
    for key in &commit.deletes {
        delete.execute([key.to_string()])?;
    }
    let mut put = transaction.prepare_cached(
        "INSERT INTO documents (key, revision, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
    )?;
    for (key, body) in &commit.puts {
        put.execute(params![key.to_string(), revision, body])?;
    }
    Ok(())
}

/// Numbers the events from `next` on and writes them; answers the id after the last.
fn write_events(transaction: &Transaction<'_>, mut next: u64, events: Vec<Event>) -> Result<u64, Failure> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO events (id, revision, at_ms, kind, service, tenant, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for mut event in events {
        event.id = next;
        let body = serde_json::to_string(&event).map_err(|e| write_failure(e.into()))?;
        let service = event.service.as_ref().map(|s| s.as_str());
        let tenant = event.tenant.as_ref().map(|t| t.as_str());
        let (id, revision, at_ms) = (to_sql(event.id)?, to_sql(event.revision)?, to_sql(event.at_ms)?);
        insert.execute(params![id, revision, at_ms, event.kind.as_str(), service, tenant, body])?;
        next += 1;
    }
    set_counter(transaction, "next_event", to_sql(next)?)?;
    Ok(next)
}

/// Removes a few of the events beyond the limit. Ids have no gaps, so they tell how many events there are.
fn remove_old(transaction: &Transaction<'_>, first: u64, next: u64, keep: u64) -> Result<(), Failure> {
    let oldest: Option<i64> =
        transaction.prepare_cached("SELECT min(id) FROM events")?.query_row([], |row| row.get(0))?;
    let Some(oldest) = oldest.map(from_sql).transpose()? else { return Ok(()) };
    let floor = next.saturating_sub(keep.max(1));
    if oldest < floor {
        let step = REMOVE_STEP.max(2 * (next - first));
        let until = to_sql(floor.min(oldest + step))?;
        transaction.prepare_cached("DELETE FROM events WHERE id < ?1")?.execute([until])?;
    }
    Ok(())
}

/// SQLite's integers are signed.
fn to_sql(value: u64) -> Result<i64, Failure> {
    i64::try_from(value)
        .map_err(|_| Failure::Answer(StoreError::Invalid { detail: format!("the number {value} is too large") }))
}

fn from_sql(value: i64) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_| Failure::Damaged(format!("there is a negative number, {value}")))
}

fn write_failure(source: BoxError) -> Failure {
    Failure::Answer(StoreError::Write { source })
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;
    use crate::model::{EventKind, ServiceName, TenantName};

    #[test]
    fn no_listing_sorts_or_reads_everything() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        schema::prepare(&path).unwrap();
        let connection = schema::open_writer(&path).unwrap();
        for bits in 0..32u32 {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let query = EventQuery {
                service: on(0).then(|| ServiceName::new("a").unwrap()),
                tenant: on(1).then(|| TenantName::new("t").unwrap()),
                kind: on(2).then_some(EventKind::Brake),
                newest_first: on(3),
                before: on(4).then_some(1_000),
                ..EventQuery::default()
            };
            let (sql, values) = select(&query);
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
            let plan: Vec<_> = rows.map(Result::unwrap).collect();
            assert!(plan.len() == 1 && plan[0].starts_with("SEARCH events USING "), "{query:?}: {plan:?}");
        }
    }
}
