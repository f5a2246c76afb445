//! Configuration: one table of every key, read from a file, the environment and flags, in growing precedence.
//!
//! Flows in: a TOML file, `TIDINGS_*` variables, `--set KEY=VALUE`. Flows out: [`Settings`], or every [`Fault`] at once,
//! each with its key and place. Never imports io; it reads files itself, and creates one: the development secret.
//!
//! Invariants: a key exists if and only if it is in the table ([`keys`]), and so do its variable, its default and its
//! line in `docs/configuration.md`; the value of a secret key appears in no fault and no listing.

pub mod keys;
mod kinds;
mod layers;
mod reference;
pub mod secret;
mod settings;

use std::collections::BTreeMap;
use std::fmt;

pub use keys::{KEYS, Key};
pub use kinds::parse_duration;
pub use layers::{FILE_VARIABLE, Sources};
pub use reference::reference;
pub use settings::{Auth, Consistency, Content, Cors, Embedded, Log, Page, Profile, Retention, Scylla, Settings, Store};

use layers::Layer;

/// Settings in force, with the source of each.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// Place of every key that is not at its default.
    pub places: BTreeMap<&'static str, String>,
    /// Warnings to log; they do not prevent the start.
    pub warnings: Vec<String>,
}

/// One fault: `tidings.toml:12: limits.frame_bytes: expected ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// File and line, variable or flag; `None` for a default.
    pub place: Option<String>,
    /// Empty when the fault concerns the place as a whole.
    pub key: String,
    pub problem: String,
}

/// Reads all sources and checks the whole.
///
/// # Errors
/// All faults; never empty.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    let layers = layers::read(sources, &mut faults, &mut warnings);
    let (settings, places) = merge(&layers, &mut faults);
    if faults.is_empty() {
        let place = |key: &str| places.get(key).cloned();
        settings.check(&mut |key, problem| faults.push(Fault { place: place(key), key: key.into(), problem }));
        settings.warn(&mut |warning| warnings.push(warning));
    }
    if faults.is_empty() { Ok(Loaded { settings, places, warnings }) } else { Err(faults) }
}

/// Merges later layers over earlier ones, and all over the defaults of the profile that they choose.
fn merge(layers: &[Layer], faults: &mut Vec<Fault>) -> (Settings, BTreeMap<&'static str, String>) {
    let mut places = BTreeMap::new();
    let mut builder = config::Config::builder();
    for layer in layers {
        places.extend(layer.places());
        builder = builder.add_source(layer.clone());
    }
    let mut settings = Settings::defaults(Profile::default());
    match builder.build() {
        Ok(merged) => {
            if let Ok(profile) = kinds::profile(&merged) {
                settings = Settings::defaults(profile);
            }
            for key in KEYS {
                if let Err(problem) = key.read(&mut settings, &merged) {
                    faults.push(Fault { place: places.get(key.name).cloned(), key: key.name.into(), problem });
                }
            }
        }
        Err(error) => faults.push(Fault { place: None, key: String::new(), problem: error.to_string() }),
    }
    (settings, places)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Fault {}
