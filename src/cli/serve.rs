//! `tidings serve`: from settings to a running node, and the lines for developers at its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidings::config::{Consistency, Loaded, Profile, Settings, Store, secret};
use tidings::io::node::{self, NodeOptions, Ready};
use tidings::io::scylla::{Database, Start, Times};
use tidings::io::store_bridge::Backing;
use tidings::log;
use tidings::shard::ListenerKind;
use tidings::store::embedded::{self, Embedded};
use tidings::store::scylla;

use super::{Failed, print, tls};

/// Runs the node until a signal ends it and its work in flight is finished.
pub(super) fn serve(loaded: Loaded) -> Result<(), Failed> {
    let Loaded { settings, warnings, .. } = loaded;
    log::init(settings.log.format, &settings.log.level).map_err(Failed::because)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match settings.store {
        Store::Embedded => serve_with(settings, open_embedded),
        Store::Scylla => serve_with(settings, open_scylla),
    }
}

fn serve_with<S: Backing>(settings: Settings, open: fn(PathBuf, &Settings) -> node::OpenStore<S>) -> Result<(), Failed> {
    let secret = secret::load_or_create(&settings).map_err(Failed::because)?;
    let policy = Arc::new(settings.policy(&secret));
    let data_dir = std::path::absolute(&settings.data_dir).map_err(Failed::because)?;
    let listen = std::iter::once((settings.listen, ListenerKind::Http))
        .chain(settings.stomp.listen.map(|address| (address, ListenerKind::Stomp)));
    let options = NodeOptions {
        listen: listen.collect(),
        shards: settings.shards,
        cpus: None,
        node: settings.node,
        policy,
        store: open(data_dir.clone(), &settings),
        connections: settings.limits.connections_per_shard.saturating_mul(usize::from(settings.shards)),
        send_otp: code_sender(settings.profile),
        on_ready: Box::new(move |ready| serve_ready(ready, &settings, &data_dir)),
    };
    node::run(options).map_err(Failed::because)
}

/// In development the schema is updated, and a missing database is fatal; in production the operator updates the schema, and the
/// database may be up in seconds.
fn open_scylla(_data_dir: PathBuf, settings: &Settings) -> node::OpenStore<Database> {
    let options = scylla_options(settings);
    let (node, keys) = (settings.node, &settings.scylla);
    let times = Times { lost_after: keys.lost_after, report_every: keys.report_every };
    let start = match settings.profile {
        Profile::Development => Start::Once,
        Profile::Production => Start::Wait,
    };
    Box::new(move || Database::open(options?, node, start, times))
}

/// The options for connecting to the database.
///
/// # Errors
/// The invalid file of `scylla.tls`, and why.
pub(super) fn scylla_options(settings: &Settings) -> Result<scylla::Options, String> {
    let keys = &settings.scylla;
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let password = || keys.password.as_ref().map_or_else(String::new, |password| password.expose().to_string());
    Ok(scylla::Options {
        nodes: keys.nodes.clone(),
        keyspace: keys.keyspace.clone(),
        replication: keys.replication.clone(),
        keyspace_options: keys.keyspace_options.clone(),
        local: keys.consistency == Consistency::LocalQuorum,
        datacenter: some(&keys.datacenter),
        user: some(&keys.user).map(|user| (user, password())),
        tls: tls::load(keys)?,
        connect_timeout: keys.connect_timeout,
        request_timeout: keys.request_timeout,
        speculative_delay: keys.speculative_delay,
        bucket: keys.bucket,
        retention: settings.retention.of_messages(),
        ..scylla::Options::default()
    })
}

fn open_embedded(data_dir: PathBuf, settings: &Settings) -> node::OpenStore<Embedded> {
    let options = embedded_options(settings);
    Box::new(move || Embedded::open(&data_dir, &options).map_err(Into::into))
}

pub(super) fn embedded_options(settings: &Settings) -> embedded::Options {
    let (sync, retention) = (settings.embedded.sync, settings.retention.of_messages());
    embedded::Options { sync, retention, ..embedded::Options::default() }
}

/// One-time codes go to standard output in development. They never go to the log.
fn code_sender(profile: Profile) -> node::SendOtp {
    match profile {
        Profile::Development => Box::new(|phone, code| {
            let _ = print(&format!("one-time code for {phone}: {code}\n"));
        }),
        Profile::Production => {
            Box::new(|_, _| tracing::error!("a one-time code was not sent: there is no sender for production yet"))
        }
    }
}

fn serve_ready(ready: &Ready, settings: &Settings, data_dir: &Path) {
    for address in &ready.addresses {
        tracing::info!(%address, shards = ready.shards, connections_max = ready.connections_max, epoch = ready.epoch, "serving");
    }
    if settings.profile == Profile::Development
        && let Some(address) = ready.addresses.first()
    {
        let _ = print(&start_lines(*address, settings, data_dir));
    }
}

/// Everything that a developer needs to talk to the server at once.
fn start_lines(address: SocketAddr, settings: &Settings, data_dir: &Path) -> String {
    let reachable = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => IpAddr::from(Ipv4Addr::LOCALHOST),
    };
    let url = format!("http://{}", SocketAddr::new(reachable, address.port()));
    let mut lines = format!(
        "tidings {} (development profile)\n\n  listens on     {url}\n  data           {}\n",
        env!("CARGO_PKG_VERSION"),
        data_dir.display()
    );
    if let Some(code) = &settings.auth.fixed_code {
        let code = code.expose();
        lines.push_str(&format!("  one-time code  {code} (for every phone)\n\n"));
        lines.push_str("Log in:\n\n");
        lines.push_str(&format!(
            "  curl {url}/auth/login -H 'Content-Type: application/json' \\\n    -d '{{\"phone\": \"+491511234567\", \"otp\": \"{code}\"}}'\n\n"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_lines_name_address_and_login() {
        let mut settings = Settings::defaults(Profile::Development);
        let lines = start_lines("0.0.0.0:9000".parse().unwrap(), &settings, Path::new("/srv/data"));
        for part in ["http://127.0.0.1:9000/auth/login", "/srv/data", "000000"] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
        settings.auth.fixed_code = None;
        let lines = start_lines("[::1]:9000".parse().unwrap(), &settings, Path::new("/srv/data"));
        assert!(lines.contains("http://[::1]:9000") && !lines.contains("curl"), "{lines}");
    }
}
