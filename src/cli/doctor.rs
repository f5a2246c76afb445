//! `tidings doctor`: checks the system's requirements before the server needs them.

use std::fs;
use std::path::Path;

use tidings::config::Loaded;
use tidings::io::preflight::{self, Check};

use super::{Failed, print};

/// Prints one line for each check, with the fix where one fails.
pub(super) fn doctor(loaded: &Loaded) -> Result<(), Failed> {
    let settings = &loaded.settings;
    let mut checks = preflight::checks(settings.shards);
    checks.push(preflight::port(settings.listen));
    checks.push(data(&settings.data_dir));

    let mut text = String::new();
    for Check { name, ok, detail, fix } in &checks {
        text.push_str(&format!("{:<5} {name:<9} {detail}\n", if *ok { "ok" } else { "FAIL" }));
        if !ok {
            text.push_str(&format!("{:<15} fix: {fix}\n", ""));
        }
    }
    print(&text)?;
    if checks.iter().all(|check| check.ok) { Ok(()) } else { Err(Failed) }
}

/// Whether the data directory, or the place where it will be created, is writable.
fn data(folder: &Path) -> Check {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(&absolute);
    let probe = existing.join(format!(".tidings-doctor.{}", std::process::id()));
    let outcome = fs::File::create_new(&probe).and_then(|_| fs::remove_file(&probe));
    let detail = match &outcome {
        Ok(()) if existing == absolute => format!("{} is writable", absolute.display()),
        Ok(()) => format!("{} can be made", absolute.display()),
        Err(error) => format!("{}: {error}", existing.display()),
    };
    let fix = if outcome.is_ok() { String::new() } else { "let the server's user write there, or set data_dir".into() };
    Check { name: "data", ok: outcome.is_ok(), detail, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_may_exist_or_not() {
        let folder = tempfile::tempdir().unwrap();
        assert!(data(folder.path()).ok);
        let new = data(&folder.path().join("a/b"));
        assert!(new.ok && new.detail.ends_with("can be made"), "{new:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let below_a_file = data(&file.join("data"));
        assert!(!below_a_file.ok && !below_a_file.fix.is_empty(), "{below_a_file:?}");
    }
}
