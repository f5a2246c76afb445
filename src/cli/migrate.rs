//! `tidings migrate`: updates the database's schema to this version.

use tidings::config::{Loaded, Store};
use tidings::io::scylla;

use super::serve::scylla_options;
use super::{Failed, print};

/// May be run again at any time, also while servers run and by several processes at once.
pub(super) fn migrate(loaded: &Loaded) -> Result<(), Failed> {
    if loaded.settings.store == Store::Embedded {
        return print("the embedded store needs no migration\n");
    }
    let (from, to) = scylla_options(&loaded.settings)
        .map_err(Into::into)
        .and_then(|options| scylla::migrate_schema(&options))
        .map_err(Failed::because)?;
    let keyspace = &loaded.settings.scylla.keyspace;
    if from == to {
        print(&format!("{keyspace} has version {to} already\n"))
    } else {
        print(&format!("{keyspace}: version {from} to {to}\n"))
    }
}
