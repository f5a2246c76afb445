//! The sources as layers of keys and values, each value with the place it was written at.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::Fault;
use super::keys::{KEYS, Key};

/// The sources of configuration, weakest first. No `Debug`: they include secrets.
#[derive(Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// All variables of the environment; those without the prefix `TIDINGS_` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// `KEY=VALUE`, as given to `--set`.
    pub set: Vec<String>,
}

/// Names the file when no flag does.
pub const FILE_VARIABLE: &str = "TIDINGS_CONFIG";
const VARIABLE_PREFIX: &str = "TIDINGS_";
/// A larger file is no configuration but a mistake in the path.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The known keys of one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    key: &'static Key,
    value: ValueKind,
    place: String,
}

/// The layers of all sources, weakest first. Unreadable sources and unknown keys go to `faults`;
/// unknown variables only to `warnings`, since orchestrators inject their own.
pub(super) fn read(sources: &Sources, faults: &mut Vec<Fault>, warnings: &mut Vec<String>) -> Vec<Layer> {
    let mut layers = Vec::new();
    let variable = sources.environment.iter().find(|(name, _)| name == OsStr::new(FILE_VARIABLE));
    if let Some(path) = sources.file.clone().or_else(|| variable.map(|(_, value)| PathBuf::from(value))) {
        match read_file(&path) {
            Ok(text) => layers.push(file(&path.display().to_string(), &text, faults)),
            Err(problem) => faults.push(Fault { place: Some(path.display().to_string()), key: String::new(), problem }),
        }
    }
    layers.push(environment(&sources.environment, faults, warnings));
    layers.push(flags(&sources.set, faults));
    layers
}

fn read_file(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if length > FILE_BYTES_MAX {
        return Err("is larger than 1 MiB".into());
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

fn file(name: &str, text: &str, faults: &mut Vec<Fault>) -> Layer {
    let mut layer = Layer::default();
    let place = |offset: usize| {
        let line = 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        format!("{name}:{line}")
    };
    match DeTable::parse(text) {
        Ok(table) => file_table(&mut layer, "", table.get_ref(), &place, faults),
        Err(error) => {
            let place = error.span().map_or_else(|| name.to_owned(), |span| place(span.start));
            faults.push(Fault { place: Some(place), key: String::new(), problem: error.message().replace('\n', ", ") });
        }
    }
    layer
}

fn file_table(layer: &mut Layer, prefix: &str, table: &DeTable<'_>, place: &dyn Fn(usize) -> String, faults: &mut Vec<Fault>) {
    for (name, value) in table {
        let path = format!("{prefix}{}", name.get_ref());
        let place_of_name = place(name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) if find(&path).is_none() => file_table(layer, &format!("{path}."), inner, place, faults),
            found => layer.push(&path, file_value(found), place_of_name, faults),
        }
    }
}

/// Scalars as text: values are parsed from it, whatever their source.
fn file_value(value: &DeValue<'_>) -> ValueKind {
    match value {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => ValueKind::String(number.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| number.to_string().into(), ValueKind::from)
        }
        DeValue::Float(number) => ValueKind::String(number.to_string()),
        DeValue::Boolean(value) => ValueKind::Boolean(*value),
        DeValue::Datetime(time) => ValueKind::String(time.to_string()),
        DeValue::Array(elements) => {
            ValueKind::Array(elements.iter().map(|element| Value::new(None, file_value(element.get_ref()))).collect())
        }
        DeValue::Table(_) => ValueKind::Table(Map::new()),
    }
}

fn environment(variables: &[(OsString, OsString)], faults: &mut Vec<Fault>, warnings: &mut Vec<String>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX) && *name != FILE_VARIABLE) else {
            continue;
        };
        let place = format!("environment variable {name}");
        match (KEYS.iter().find(|key| key.variable() == name), value.to_str()) {
            (Some(key), Some(value)) => layer.entries.push(Entry { key, value: value.to_owned().into(), place }),
            (Some(key), None) => {
                faults.push(Fault { place: Some(place), key: key.name.into(), problem: "is not valid UTF-8".into() });
            }
            (None, _) => warnings.push(format!("{place} names no key{}", suggest(name, |key| key.variable()))),
        }
    }
    layer
}

fn flags(set: &[String], faults: &mut Vec<Fault>) -> Layer {
    let mut layer = Layer::default();
    for flag in set {
        match flag.split_once('=') {
            Some((key, value)) => layer.push(key.trim(), value.trim().to_owned().into(), "--set".into(), faults),
            None => faults.push(Fault { place: Some("--set".into()), key: flag.clone(), problem: "expected KEY=VALUE".into() }),
        }
    }
    layer
}

impl Layer {
    pub(super) fn places(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.entries.iter().map(|entry| (entry.key.name, entry.place.clone()))
    }

    fn push(&mut self, name: &str, value: ValueKind, place: String, faults: &mut Vec<Fault>) {
        match find(name) {
            Some(key) => self.entries.push(Entry { key, value, place }),
            None => {
                let group = KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
                let problem = if group {
                    "is a group of keys, not a key".into()
                } else {
                    format!("there is no such key{}", suggest(name, |key| key.name.into()))
                };
                faults.push(Fault { place: Some(place), key: name.into(), problem });
            }
        }
    }
}

/// Hides the value, which may be a secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.key.name)
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self
            .entries
            .iter()
            .map(|entry| (entry.key.name.to_owned(), Value::new(Some(&entry.place), entry.value.clone())))
            .collect())
    }
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// `: did you mean "..."?` when a key is similar to the written one.
fn suggest(written: &str, name: impl Fn(&Key) -> String) -> String {
    let written: String = written.chars().take(64).collect();
    let nearest = KEYS.iter().map(&name).min_by_key(|name| distance(&written, name));
    match nearest {
        Some(nearest) if distance(&written, &nearest) <= 3 => format!(": did you mean {nearest:?}?"),
        _ => String::new(),
    }
}

/// Levenshtein's distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, Profile, load};
    use super::*;

    fn sources(text: &str, environment: &[(&str, &str)], set: &[&str]) -> (Sources, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        (Sources { file: Some(path), environment, set: set.iter().map(|&flag| flag.into()).collect() }, folder)
    }

    fn loaded(text: &str, environment: &[(&str, &str)], set: &[&str]) -> Loaded {
        load(&sources(text, environment, set).0).unwrap()
    }

    /// Compares faults by their text, the file's folder cut off.
    fn check_faults(text: &str, environment: &[(&str, &str)], set: &[&str], expect: &[&str]) {
        let (sources, folder) = sources(text, environment, set);
        let folder = format!("{}/", folder.path().display());
        let faults: Vec<_> = load(&sources).unwrap_err().iter().map(|fault| fault.to_string().replace(&folder, "")).collect();
        assert_eq!(faults, expect);
    }

    #[test]
    fn later_sources_win() {
        let file = "shards = 2\nnode = 2\n[limits]\npage_max = 50\npage_default = 5\n";
        let environment = [("TIDINGS_NODE", "3"), ("TIDINGS_LIMITS_PAGE_MAX", "60"), ("PATH", "/bin")];
        let Loaded { settings, places, warnings } = loaded(file, &environment, &["limits.page_max=70", "limits.page_max = 80"]);
        assert_eq!((settings.shards, settings.node), (2, 3));
        assert_eq!((settings.limits.page_default, settings.limits.page_max), (5, 80));
        assert!(places["shards"].ends_with("tidings.toml:1"));
        assert!(places["limits.page_default"].ends_with("tidings.toml:5"));
        assert_eq!(places["node"], "environment variable TIDINGS_NODE");
        assert_eq!(places["limits.page_max"], "--set");
        assert!(!places.contains_key("listen"));
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn every_default_round_trips_through_its_text() {
        for profile in [Profile::Development, Profile::Production] {
            let defaults = super::super::Settings::defaults(profile);
            let mut text = String::new();
            for key in KEYS.iter().filter(|key| !key.secret) {
                text.push_str(&format!("{} = {}\n", key.name, key.show(&defaults)));
            }
            let secret = format!("auth.secret={}", "s".repeat(32));
            let settings = loaded(&text, &[], &[&secret]).settings;
            for key in KEYS.iter().filter(|key| key.name != "auth.secret") {
                assert_eq!(key.show(&settings), key.show(&defaults), "{}", key.name);
            }
        }
    }

    #[test]
    fn lists_are_arrays_or_comma_separated() {
        let expect = "https://a.com,https://*.b.com";
        let file = "cors.origins = [\"https://a.com\", \"https://*.b.com\"]";
        assert_eq!(loaded(file, &[], &[]).settings.cors.origins.to_string(), expect);
        let variable = ("TIDINGS_CORS_ORIGINS", "https://a.com, https://*.b.com");
        assert_eq!(loaded("", &[variable], &[]).settings.cors.origins.to_string(), expect);
        assert_eq!(loaded("", &[], &["cors.origins="]).settings.cors.origins.to_string(), "");
    }

    #[test]
    fn faults_name_key_and_place() {
        check_faults("a = 1", &[], &[], &["tidings.toml:1: a: there is no such key"]);
        check_faults(
            "\n[limits]\nframe_byte = 1\n",
            &[],
            &[],
            &["tidings.toml:3: limits.frame_byte: there is no such key: did you mean \"limits.frame_bytes\"?"],
        );
        check_faults("limits = 1", &[], &[], &["tidings.toml:1: limits: is a group of keys, not a key"]);
        check_faults(
            "[store]\nsync = true",
            &[],
            &[],
            &["tidings.toml:1: store: expected \"embedded\" or \"scylla\", found map"],
        );
        check_faults("shards = [1]", &[], &[], &["tidings.toml:1: shards: expected number above 0, found sequence"]);
        check_faults("shards = 1\n\nshards = 2", &[], &[], &["tidings.toml:3: duplicate key"]);
        check_faults("shards 1", &[], &[], &["tidings.toml:1: key with no value, expected `=`"]);
        check_faults("shards = 2.5", &[], &[], &["tidings.toml:1: shards: expected number above 0, found \"2.5\""]);
        check_faults("shards = -1", &[], &[], &["tidings.toml:1: shards: expected number above 0, found \"-1\""]);
        check_faults(
            "",
            &[("TIDINGS_LIMITS_PING", "30")],
            &["shards=0", "colour=red", "novalue"],
            &[
                "--set: colour: there is no such key",
                "--set: novalue: expected KEY=VALUE",
                "--set: shards: expected number above 0, found \"0\"",
                "environment variable TIDINGS_LIMITS_PING: limits.ping: expected duration such as \"30s\", found \"30\"",
            ],
        );
        check_faults("store = \"scylla\"\nscylla.keyspace = \"\"", &[], &[], &["tidings.toml:2: scylla.keyspace: needs a name"]);
    }

    #[test]
    fn production_refuses_settings_of_development() {
        check_faults(
            "profile = \"production\"\ncors.origins = [\"*\"]\nauth.fixed_code = \"000000\"",
            &[],
            &[],
            &[
                "auth.secret: the production profile needs one of at least 32 bytes",
                "tidings.toml:3: auth.fixed_code: the production profile refuses a code that always works",
                "tidings.toml:2: cors.origins: the production profile refuses \"*\": name the origins",
            ],
        );
        let settings = loaded("profile = \"production\"", &[("TIDINGS_AUTH_SECRET", &"s".repeat(32))], &[]).settings;
        assert!(settings.auth.fixed_code.is_none() && !settings.cors.origins.allows_all());
    }

    #[test]
    fn unknown_variables_only_warn() {
        let warnings = loaded("", &[("TIDINGS_PORT_8080_TCP", "tcp://10.0.0.1"), ("TIDINGS_SHARD", "2")], &[]).warnings;
        assert_eq!(
            warnings,
            [
                "environment variable TIDINGS_PORT_8080_TCP names no key",
                "environment variable TIDINGS_SHARD names no key: did you mean \"TIDINGS_SHARDS\"?"
            ]
        );
    }

    #[test]
    fn secrets_are_in_no_fault_and_no_listing() {
        for (key, value) in [("auth.secret", "hunter2"), ("auth.fixed_code", "hunter2"), ("auth.admin_phones", "+hunter2")] {
            let flag = format!("{key}={value}");
            match load(&Sources { set: vec![flag], ..Sources::default() }) {
                Ok(loaded) => {
                    let shown: String = KEYS.iter().map(|key| key.show(&loaded.settings)).collect();
                    assert!(!shown.contains("hunter2") && !format!("{loaded:?}").contains("hunter2"));
                }
                Err(faults) => assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}"),
            }
        }
    }

    #[test]
    fn a_missing_file_is_a_fault() {
        let sources = Sources { file: Some("missing/tidings.toml".into()), ..Sources::default() };
        let faults = load(&sources).unwrap_err();
        assert!(faults[0].to_string().starts_with("missing/tidings.toml: cannot be read: "), "{faults:?}");
        let environment = vec![(FILE_VARIABLE.into(), "missing/other.toml".into())];
        let faults = load(&Sources { environment, ..Sources::default() }).unwrap_err();
        assert!(faults[0].to_string().starts_with("missing/other.toml: "), "{faults:?}");
    }
}
