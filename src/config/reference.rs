//! `docs/configuration.md`, written from the table of keys.

use std::fmt::Write as _;

use super::keys::{KEYS, Key};
use super::settings::{Profile, Settings};

const HEAD: &str = "\
# Configuration

`UPDATE_DOCS=1 cargo test reference` writes this page from the table of keys in `src/config/keys.rs`; a test compares the two.

The server takes a key's value from the first of these sources that has it:

1. `--set KEY=VALUE`, any number of times; of two for one key the later counts;
2. the environment: the variable in the table;
3. the file that `--config FILE` or `TIDINGS_CONFIG` names, in [TOML](https://toml.io/);
4. the default.

`limits.frame_bytes = \"64KiB\"` is the same as `frame_bytes = \"64KiB\"` under `[limits]`. Durations are a number with `ms`, `s`,
`m`, `h` or `d`; sizes a number of bytes, or with `KiB`, `MiB` or `GiB`. Lists are arrays in the file; elsewhere their
elements stand with commas between them.

A wrong key or value stops the start with exit code 2 and a line for each, such as
`tidings.toml:12: limits.frame_bytes: expected size ...`. A variable that begins with `TIDINGS_` and names no key only
warns, because orchestrators inject their own. `tidings check-config` prints each value in force with its source.

";

/// The page.
#[must_use]
pub fn reference() -> String {
    let development = Settings::defaults(Profile::Development);
    let production = Settings::defaults(Profile::Production);
    let mut page = HEAD.to_owned();
    page.push_str("| key | environment | value | default | |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let default = default(key, &development, &production);
        let _ = writeln!(page, "| `{}` | `{}` | {} | {default} | {} |", key.name, key.variable(), key.kind, key.doc);
    }
    page
}

fn default(key: &Key, development: &Settings, production: &Settings) -> String {
    // These two depend on the machine, or `show` must not print them.
    match key.name {
        "profile" => return "`\"development\"`".into(),
        "shards" => return "cores".into(),
        "auth.fixed_code" => return "development `\"000000\"`, production `\"\"`".into(),
        _ => {}
    }
    let (development, production) = (key.show(development), key.show(production));
    if development == production {
        format!("`{development}`")
    } else {
        format!("development `{development}`, production `{production}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == reference(), "docs/configuration.md is not current: run UPDATE_DOCS=1 cargo test reference");
    }
}
