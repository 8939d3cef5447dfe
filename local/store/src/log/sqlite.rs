use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};

use super::lock::{LockFile, create_private};
use super::{Log, LogError, Record, RecordKind};
use crate::key::ObjectKey;

/// What every SQLite file starts with.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";
/// Marks our files in SQLite's header: "MSTR".
const APPLICATION_ID: i64 = 0x4d53_5452;
/// The version of the tables below.
const SCHEMA_VERSION: i64 = 1;
/// Size to which the write-ahead log is cut back after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 16 << 20;

/// `previous_revision` is what `revision` supersedes: null for a creation.
const SCHEMA: &str = "
    CREATE TABLE revisions (
        revision INTEGER PRIMARY KEY,
        resource TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        deleted INTEGER NOT NULL,
        create_revision INTEGER NOT NULL,
        previous_revision INTEGER,
        object BLOB NOT NULL
    ) STRICT;
    CREATE TABLE compaction (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), through INTEGER NOT NULL) STRICT;
    INSERT INTO compaction (only_row, through) VALUES (0, 0);
";

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The death of the process, at any moment. At power loss the newest writes may be lost.
    #[default]
    Process,
    /// Power loss too: every batch waits for the disk.
    Power,
}

/// A log in one SQLite file that any SQLite tool can read.
///
/// Beside the file lie SQLite's own `-wal` and `-shm` and a `.lock` that keeps a second process out.
#[derive(Debug)]
pub struct SqliteLog {
    // Closed before the lock is released: fields drop in this order.
    connection: Connection,
    _lock: LockFile,
    path: PathBuf,
}

impl SqliteLog {
    /// Opens the file, or creates it for its owner alone.
    pub fn open(path: impl Into<PathBuf>, durability: Durability) -> Result<Self, LogError> {
        let path = path.into();
        let lock = LockFile::acquire(&path)?;
        if !is_empty_or_database(&path).map_err(|source| LogError::Io { path: path.clone(), source })? {
            return Err(LogError::NotAStore { path });
        }
        let connection = prepare(&path, durability)?;
        Ok(Self { connection, _lock: lock, path })
    }

    fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T, LogError> {
        result.map_err(|source| LogError::Sqlite { path: self.path.clone(), source })
    }

    fn try_append(&mut self, records: &[Record]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO revisions (revision, resource, namespace, name, deleted, create_revision,
                 previous_revision, object) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for record in records {
                insert.execute(params![
                    record.revision as i64,
                    &*record.key.resource,
                    &*record.key.namespace,
                    &*record.key.name,
                    record.kind == RecordKind::Delete,
                    record.create_revision as i64,
                    record.previous_revision.map(|revision| revision as i64),
                    &*record.json,
                ])?;
            }
        }
        transaction.commit()
    }

    fn try_compact(&mut self, through: i64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let from = compacted(&transaction)?;
        if through > from {
            transaction.execute(
                "DELETE FROM revisions WHERE revision IN (SELECT previous_revision FROM revisions
                 WHERE revision > ?1 AND revision <= ?2 AND previous_revision IS NOT NULL)",
                params![from, through],
            )?;
            transaction.execute(
                "DELETE FROM revisions WHERE revision > ?1 AND revision <= ?2 AND deleted",
                params![from, through],
            )?;
            transaction.execute("UPDATE compaction SET through = ?1", params![through])?;
        }
        transaction.commit()
    }
}

impl Log for SqliteLog {
    fn load(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), LogError>) -> Result<u64, LogError> {
        let mut statement = self.wrap(self.connection.prepare(
            "SELECT revision, resource, namespace, name, deleted, create_revision, previous_revision, object
             FROM revisions ORDER BY revision",
        ))?;
        let mut rows = self.wrap(statement.query([]))?;
        while let Some(row) = self.wrap(rows.next())? {
            visit(self.wrap(record(row))?)?;
        }
        self.wrap(compacted(&self.connection)).map(|through| through as u64)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), LogError> {
        let result = self.try_append(records);
        self.wrap(result)
    }

    fn truncate(&mut self, above: u64) -> Result<(), LogError> {
        let result = self.connection.execute("DELETE FROM revisions WHERE revision > ?1", [above as i64]);
        self.wrap(result).map(drop)
    }

    fn compact(&mut self, through: u64) -> Result<(), LogError> {
        let result = self.try_compact(through as i64);
        self.wrap(result)
    }

    fn close(&mut self) -> Result<(), LogError> {
        // Whoever copies the file now gets all of it.
        self.wrap(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    }
}

/// Creates the file if it is missing. SQLite itself takes a very short file of any content for an empty one.
fn is_empty_or_database(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    create_private(path)?.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start.is_empty() || start == SQLITE_MAGIC)
}

/// Opens the database, refuses one that is not ours and creates the tables in an empty one.
fn prepare(path: &Path, durability: Durability) -> Result<Connection, LogError> {
    let refuse = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => LogError::NotAStore { path: path.to_owned() },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            LogError::Locked { path: path.to_owned(), pid: None }
        }
        _ => LogError::Sqlite { path: path.to_owned(), source },
    };
    let mut connection = Connection::open(path).map_err(refuse)?;
    let identity = Identity::read(&connection).map_err(refuse)?;
    match identity {
        Identity::Empty | Identity::Store { version: SCHEMA_VERSION } => {}
        Identity::Store { version } => {
            return Err(LogError::TooNew {
                path: path.to_owned(),
                found: version,
                supported: SCHEMA_VERSION,
            });
        }
        Identity::Foreign => return Err(LogError::NotAStore { path: path.to_owned() }),
    }
    configure(&connection, durability).map_err(refuse)?;
    if identity == Identity::Empty {
        create_tables(&mut connection).map_err(refuse)?;
    }
    Ok(connection)
}

/// Whose file it is.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    Empty,
    Store { version: i64 },
    Foreign,
}

impl Identity {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if application == APPLICATION_ID {
            return Ok(Self::Store { version });
        }
        let tables =
            connection.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(())).optional()?;
        let untouched = application == 0 && version == 0 && tables.is_none();
        Ok(if untouched { Self::Empty } else { Self::Foreign })
    }
}

fn configure(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}"), [], |_| Ok(()))
}

/// The tables and the marks in the header appear together or not at all.
fn create_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

fn compacted(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT through FROM compaction", [], |row| row.get(0))
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let text = |column: usize| -> rusqlite::Result<Arc<str>> { Ok(row.get_ref(column)?.as_str()?.into()) };
    Ok(Record {
        revision: row.get::<_, i64>(0)? as u64,
        key: ObjectKey { resource: text(1)?, namespace: text(2)?, name: text(3)? },
        kind: if row.get(4)? { RecordKind::Delete } else { RecordKind::Put },
        create_revision: row.get::<_, i64>(5)? as u64,
        previous_revision: row.get::<_, Option<i64>>(6)?.map(|revision| revision as u64),
        json: Bytes::copy_from_slice(row.get_ref(7)?.as_blob()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: u64, bytes: usize) -> Record {
        Record {
            revision,
            key: ObjectKey::new("core/pods", "default", format!("pod-{revision}")),
            kind: RecordKind::Put,
            create_revision: revision,
            previous_revision: None,
            json: format!("\"{}\"", "x".repeat(bytes)).into(),
        }
    }

    fn revisions(log: &mut SqliteLog) -> Vec<u64> {
        let mut revisions = Vec::new();
        log.load(&mut |record| {
            revisions.push(record.revision);
            Ok(())
        })
        .unwrap();
        revisions
    }

    #[test]
    fn a_full_disk_fails_the_batch_whole_and_space_heals_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = SqliteLog::open(folder.path().join("api.db"), Durability::Process).unwrap();
        log.append(&[put(2, 10)]).unwrap();
        let limit = |log: &SqliteLog, pages: i64| {
            log.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        };
        limit(&log, 16);
        let full = log.append(&[put(3, 10), put(4, 1 << 20)]).unwrap_err();
        assert!(full.is_full() && full.to_string().contains("full"), "{full}");
        assert_eq!(revisions(&mut log), [2]);
        log.truncate(2).unwrap();
        log.append(&[put(3, 10)]).unwrap();
        limit(&log, 1 << 20);
        log.append(&[put(4, 1 << 20)]).unwrap();
        assert_eq!(revisions(&mut log), [2, 3, 4]);
    }
}
