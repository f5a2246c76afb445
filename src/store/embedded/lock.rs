//! One process at a time opens a directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::open_error::OpenError;

const LOCK_FILE: &str = "tidings.lock";
/// Exists as long as the store runs, or has crashed, without syncing.
pub(super) const UNSYNCED_FILE: &str = "unsynced";

/// Keeps other processes out of a directory, by a lock that ends with the process. The file names the process that has it.
pub(super) struct Lock {
    _file: File,
    /// [`UNSYNCED_FILE`] of the directory.
    unsynced: PathBuf,
}

impl Lock {
    pub(super) fn take(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(LOCK_FILE);
        let io = |error| OpenError::Io { path: path.clone(), error };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message: without it the process is not named.
                let _ = file.take(32).read_to_string(&mut text);
                return Err(OpenError::InUse { directory: directory.into(), process: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file, unsynced: directory.join(UNSYNCED_FILE) })
    }

    /// A clean end of a run that did not sync: everything is on disk now.
    pub(super) fn forget_unsynced(&self) {
        if let Err(error) = std::fs::remove_file(&self.unsynced) {
            tracing::warn!(%error, "the mark of an unsynced run stays");
        }
    }
}
