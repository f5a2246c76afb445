//! The secret of access tokens: from the configuration, or in development created once and kept in the data directory,
//! so that tokens outlive a restart and `tidings token` signs for the server that uses the same directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Settings;
use crate::model::Redacted;

/// File in the data directory.
const NAME: &str = "auth.secret";
/// 256 bits, written as hexadecimal digits: the text is the secret.
const SECRET_BYTES: usize = 32;

/// The secret in force. Creates the data directory and the file when the configuration names no secret.
///
/// # Errors
/// The file or its directory cannot be created or read, or holds no secret.
pub fn load_or_create(settings: &Settings) -> io::Result<Redacted<Box<str>>> {
    match &settings.auth.secret {
        Some(secret) => Ok(secret.clone()),
        None => kept(&settings.data_dir),
    }
}

fn kept(folder: &Path) -> io::Result<Redacted<Box<str>>> {
    let path = folder.join(NAME);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(folder, &path).map_err(|error| at(&path, &error))?;
            fs::read_to_string(&path)
        }
        read => read,
    };
    let text = text.map_err(|error| at(&path, &error))?;
    let mode = fs::metadata(&path).map_err(|error| at(&path, &error))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others may read the secret: chmod 600 it, or delete it to get a new one");
    }
    let text = text.trim();
    if text.len() < SECRET_BYTES {
        return Err(at(&path, &io::Error::other("holds no secret of 32 bytes or more: delete it to get a new one")));
    }
    Ok(Redacted::new(text.into()))
}

/// Creates the file completely or not at all; when two processes try, both read the first one's.
fn create(folder: &Path, path: &Path) -> io::Result<()> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut text = String::with_capacity(2 * SECRET_BYTES + 1);
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');

    fs::create_dir_all(folder)?;
    let draft: PathBuf = folder.join(format!("{NAME}.{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    fs::remove_file(&draft)?;
    linked
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    #[test]
    fn is_created_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::defaults(Profile::Development);
        settings.data_dir = folder.path().join("new/data");
        let first = load_or_create(&settings).unwrap();
        assert_eq!(first.expose().len(), 2 * SECRET_BYTES);
        assert_eq!(load_or_create(&settings).unwrap(), first);
        let names: Vec<_> = fs::read_dir(&settings.data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
        let mode = fs::metadata(settings.data_dir.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        settings.auth.secret = Some(Redacted::new("of the configuration".into()));
        assert_eq!(load_or_create(&settings).unwrap(), settings.auth.secret.clone().unwrap());
    }

    #[test]
    fn a_file_without_a_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "short\n").unwrap();
        let mut settings = Settings::defaults(Profile::Development);
        settings.data_dir = folder.path().into();
        assert!(load_or_create(&settings).unwrap_err().to_string().contains(NAME));
    }
}
