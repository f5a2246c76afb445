//! Opening a directory: locked against a second process, checked, and with errors that say what to do.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fjall::config::CompressionPolicy;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::lock::{Lock, UNSYNCED_FILE};
use super::open_error::{FORMAT, OpenError};
use super::tables::Tables;
use super::{Options, journal, keys, manifest, values};

const ENGINE_DIRECTORY: &str = "rows";
/// Files that the engine makes in its directory.
const ENGINE_VERSION_FILE: &str = "version";
const ENGINE_TABLES_DIRECTORY: &str = "keyspaces";

/// The tables of a directory, and the epoch of this start.
pub(super) fn open(directory: &Path, options: &Options) -> Result<(Tables, u64), OpenError> {
    let io = |error| OpenError::Io { path: directory.into(), error };
    std::fs::create_dir_all(directory).map_err(io)?;
    let lock = Lock::take(directory)?;

    let unsynced = directory.join(UNSYNCED_FILE);
    let was_unsynced = unsynced.try_exists().map_err(io)?;
    let engine = directory.join(ENGINE_DIRECTORY);
    let has_batches = prepare(&engine, was_unsynced)?;
    if !options.sync {
        File::create(&unsynced).and_then(|file| file.sync_all()).and_then(|()| sync_directory(directory)).map_err(io)?;
    }
    let (database, rows) = open_engine(&engine, options).map_err(|error| engine_error(&engine, error))?;
    if options.sync && was_unsynced {
        // What this run found is on disk from here on: opening syncs the journal.
        std::fs::remove_file(&unsynced).map_err(io)?;
    }
    let tables = Tables { rows, database, lock: Arc::new(lock) };
    // The engine syncs its directories, but not the directory in which it made them.
    for directory in [&engine.join(ENGINE_TABLES_DIRECTORY), &engine, directory] {
        sync_directory(directory).map_err(io)?;
    }
    let epoch = begin_epoch(directory, &tables, has_batches)?;
    Ok((tables, epoch))
}

/// Makes the engine's directory fit to be opened after any crash, or says why it is not. Answers whether a batch is in
/// its journal.
fn prepare(engine: &Path, unsynced: bool) -> Result<bool, OpenError> {
    let io = |error| OpenError::Io { path: engine.into(), error };
    if !engine.try_exists().map_err(io)? {
        return Ok(false);
    }
    if engine.join(ENGINE_VERSION_FILE).try_exists().map_err(io)? {
        manifest::check(&engine.join(ENGINE_TABLES_DIRECTORY)).map_err(|fault| match fault {
            manifest::Fault::Io(path, error) => OpenError::Io { path, error },
            manifest::Fault::Damage(path) => OpenError::Corrupt { path, detail: "what it lists is unreadable".into() },
        })?;
        return journal::check(engine, unsynced).map_err(|fault| match fault {
            journal::Fault::Io(path, error) => OpenError::Io { path, error },
            journal::Fault::Damage(damage) => {
                OpenError::Corrupt { path: damage.journal, detail: format!("the batch at byte {} is unreadable", damage.offset) }
            }
        });
    }
    // The version is written last when an engine is made: without it, that was interrupted before anything was stored.
    // Tables without it are another matter.
    let tables = engine.join(ENGINE_TABLES_DIRECTORY);
    let has_tables = tables.try_exists().map_err(io)? && std::fs::read_dir(&tables).map_err(io)?.next().is_some();
    if has_tables {
        return Err(OpenError::Corrupt { path: engine.into(), detail: "its version file is missing".into() });
    }
    std::fs::remove_dir_all(engine).map_err(io)?;
    Ok(false)
}

fn open_engine(engine: &Path, options: &Options) -> Result<(Database, fjall::Keyspace), fjall::Error> {
    let database =
        Database::builder(engine).cache_size(options.cache_bytes).worker_threads(1).manual_journal_persist(true).open()?;
    let rows = database.keyspace("rows", || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(options.memtable_bytes)
            .data_block_compression_policy(CompressionPolicy::disabled())
    })?;
    Ok((database, rows))
}

fn engine_error(engine: &Path, error: fjall::Error) -> OpenError {
    let path = engine.to_path_buf();
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => OpenError::Io { path, error },
        fjall::Error::Locked => OpenError::InUse { directory: path, process: None },
        fjall::Error::InvalidVersion(Some(version)) => OpenError::Newer { directory: path, format: version as u64 },
        error => OpenError::Corrupt { path, detail: error.to_string() },
    }
}

/// Checks the format and counts this start.
fn begin_epoch(directory: &Path, tables: &Tables, has_batches: bool) -> Result<u64, OpenError> {
    let corrupt = |detail: &str| OpenError::Corrupt { path: directory.into(), detail: detail.into() };
    let find = |name| -> Result<Option<u64>, OpenError> {
        let value = tables.rows.get(keys::meta(name)).map_err(|error| engine_error(directory, error))?;
        value.map(|value| values::number(&value)).transpose().map_err(|_| corrupt("a meta row is unreadable"))
    };
    let epoch = match (find("format")?, find("epoch")?) {
        (Some(format), _) if FORMAT < format => return Err(OpenError::Newer { directory: directory.into(), format }),
        (Some(_), Some(epoch)) => epoch + 1,
        // The first batch of all is the one below.
        (None, None) if !has_batches => 1,
        _ => return Err(corrupt("a meta row is missing")),
    };
    let mut batch = tables.database.batch().durability(Some(PersistMode::SyncAll));
    for (name, number) in [("format", FORMAT), ("epoch", epoch)] {
        let mut value = Vec::new();
        values::put_number(&mut value, number);
        batch.insert(&tables.rows, keys::meta(name), value);
    }
    batch.commit().map_err(|error| engine_error(directory, error))?;
    Ok(epoch)
}

/// So that the files of a directory are found in it after a crash.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Embedded;

    fn open(directory: &Path) -> Result<Embedded, OpenError> {
        Embedded::open(directory, &Options::default())
    }

    fn check(outcome: Result<Embedded, OpenError>, expect: &str) {
        match outcome {
            Ok(_) => panic!("opened, but should say {expect:?}"),
            Err(error) => assert!(error.to_string().contains(expect), "{error}"),
        }
    }

    #[test]
    fn each_start_has_its_epoch() {
        let directory = tempfile::tempdir().unwrap();
        for epoch in 1..=4 {
            let options = Options { sync: epoch % 2 == 0, ..Options::default() };
            assert_eq!(Embedded::open(directory.path(), &options).unwrap().epoch(), epoch);
            assert!(!directory.path().join(UNSYNCED_FILE).exists());
        }
    }

    #[test]
    fn a_directory_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).unwrap();
        check(open(directory.path()), &format!("in use by process {}: stop it", std::process::id()));
        let reader = store.reader();
        drop(store);
        check(open(directory.path()), "in use");
        drop(reader);
        open(directory.path()).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_written_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        File::create(&file).unwrap();
        check(open(&file), "choose a path that is a directory");
        check(open(&file.join("below")), "choose a path that is a directory");
        // A file system that even root cannot write to.
        check(open(Path::new("/proc/self/store")), "/proc/self/store: ");
        let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let error = OpenError::Io { path: "/data".into(), error };
        assert!(error.to_string().contains("mounted for writing"), "{error}");
    }

    #[test]
    fn another_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).unwrap();
        let mut value = Vec::new();
        values::put_number(&mut value, FORMAT + 1);
        store.tables.rows.insert(keys::meta("format"), value).unwrap();
        drop(store);
        check(open(directory.path()), "has format 3, this version reads up to 2: run the version that wrote it");
    }

    #[test]
    fn missing_pieces_are_refused_unless_nothing_was_stored() {
        let directory = tempfile::tempdir().unwrap();
        let engine = directory.path().join(ENGINE_DIRECTORY);
        // Interrupted while it was made for the first time.
        std::fs::create_dir(&engine).unwrap();
        File::create(engine.join("0.jnl")).unwrap();
        drop(open(directory.path()).unwrap());

        let version = std::fs::read(engine.join(ENGINE_VERSION_FILE)).unwrap();
        std::fs::remove_file(engine.join(ENGINE_VERSION_FILE)).unwrap();
        check(open(directory.path()), "version file is missing");
        std::fs::write(engine.join(ENGINE_VERSION_FILE), version).unwrap();
        drop(open(directory.path()).unwrap());

        std::fs::remove_dir_all(engine.join(ENGINE_TABLES_DIRECTORY)).unwrap();
        std::fs::create_dir(engine.join(ENGINE_TABLES_DIRECTORY)).unwrap();
        check(open(directory.path()), "a meta row is missing");
    }
}
