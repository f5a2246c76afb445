//! The files for TLS to the database.

use std::fs;
use std::path::PathBuf;

use tidings::config::Scylla;
use tidings::store::scylla::{Tls, TlsFault};

/// The TLS of `scylla.tls` and the keys beside it; `None` when it is off.
///
/// # Errors
/// The key whose file is missing or invalid, the file, and why.
pub(super) fn load(keys: &Scylla) -> Result<Option<Tls>, String> {
    if !keys.tls {
        return Ok(None);
    }
    let authorities = read("scylla.tls_ca", &keys.tls_ca)?;
    let certificate = read("scylla.tls_certificate", &keys.tls_certificate)?;
    let key = read("scylla.tls_key", &keys.tls_key)?;
    let client = certificate.as_deref().zip(key.as_deref());
    let name = (!keys.tls_name.is_empty()).then_some(keys.tls_name.as_str());
    let tls = Tls::new(&authorities.unwrap_or_default(), client, name);
    tls.map(Some).map_err(|fault| match &fault {
        TlsFault::Authorities(_) => at("scylla.tls_ca", &keys.tls_ca, &fault),
        TlsFault::Certificate(_) => at("scylla.tls_certificate", &keys.tls_certificate, &fault),
        TlsFault::Key(_) => at("scylla.tls_key", &keys.tls_key, &fault),
        TlsFault::Name(_) => format!("scylla.tls_name: {:?} {fault}", keys.tls_name),
    })
}

fn read(key: &str, path: &Option<PathBuf>) -> Result<Option<Vec<u8>>, String> {
    path.as_ref().map(|file| fs::read(file).map_err(|error| at(key, path, &error))).transpose()
}

fn at(key: &str, path: &Option<PathBuf>, reason: &dyn std::fmt::Display) -> String {
    format!("{key}: {}: {reason}", path.as_deref().unwrap_or_else(|| "".as_ref()).display())
}
