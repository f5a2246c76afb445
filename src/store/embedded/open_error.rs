//! Why a directory cannot be opened as a store.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Grows when rows are laid out in a way that older code cannot read.
pub(super) const FORMAT: u64 = 2;

/// Why a store cannot be opened. The text says how to mend it.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    InUse { directory: PathBuf, process: Option<u32> },
    /// The file system refuses.
    Io { path: PathBuf, error: io::Error },
    /// Something is not as it was written, and no crash explains it.
    Corrupt { path: PathBuf, detail: String },
    /// Written by a newer version.
    Newer { directory: PathBuf, format: u64 },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { directory, process: Some(process) } => {
                write!(f, "{} is in use by process {process}: stop it, or choose another directory", directory.display())
            }
            Self::InUse { directory, process: None } => {
                write!(f, "{} is in use by another process: stop it, or choose another directory", directory.display())
            }
            Self::Io { path, error } => {
                let fix = match error.kind() {
                    io::ErrorKind::PermissionDenied => "make it writable for the user the server runs as",
                    io::ErrorKind::ReadOnlyFilesystem => "choose a directory on a file system that is mounted for writing",
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on its file system",
                    io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "choose a path that is a directory",
                    _ => "check the path and the disk",
                };
                write!(f, "{}: {error}; {fix}", path.display())
            }
            Self::Corrupt { path, detail } => write!(
                f,
                "{} is damaged ({detail}); check the disk and restore the directory from a backup: \
                 to start without it would lose acknowledged messages",
                path.display()
            ),
            Self::Newer { directory, format } => write!(
                f,
                "{} has format {format}, this version reads up to {FORMAT}: run the version that wrote it, or a newer one",
                directory.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}
