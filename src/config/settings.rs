//! The settings as types, their defaults, and the rules that span more than one of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::access::origins::Origins;
use crate::access::token::Keys;
use crate::log::Format;
use crate::model::limits::LIFE_MAX;
use crate::model::{Limits, Redacted};
use crate::session::Policy;
use crate::session::endpoints::Endpoints;

/// Everything that can be configured. The fields follow the names of the keys.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// At least 1.
    pub shards: u16,
    pub profile: Profile,
    /// Number of this node in its cluster.
    pub node: u16,
    pub store: Store,
    pub embedded: Embedded,
    pub scylla: Scylla,
    pub retention: Retention,
    pub auth: Auth,
    pub cors: Cors,
    pub sockjs: SockJs,
    pub stomp: Stomp,
    pub content: Content,
    pub page: Page,
    pub log: Log,
    pub limits: Limits,
}

/// The profile chooses defaults and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// Works at once and prints its secrets on standard output.
    #[default]
    Development,
    /// Refuses to start with settings that are safe only on a developer's machine.
    Production,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Embedded,
    Scylla,
}

#[derive(Clone, Debug)]
pub struct Embedded {
    /// Whether to sync a write to disk before it is acknowledged.
    pub sync: bool,
}

/// The address of the database, and the terms of requests to it.
#[derive(Clone, Debug)]
pub struct Scylla {
    /// `host:port`.
    pub nodes: Vec<String>,
    pub keyspace: String,
    pub replication: String,
    pub keyspace_options: String,
    pub consistency: Consistency,
    /// Empty: any.
    pub datacenter: String,
    /// Empty: none.
    pub user: String,
    pub password: Option<Redacted<Box<str>>>,
    /// Whether connections are encrypted.
    pub tls: bool,
    pub tls_ca: Option<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Empty: the address.
    pub tls_name: String,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    pub lost_after: Duration,
    /// Zero: only at the end.
    pub report_every: Duration,
    pub speculative_delay: Duration,
    pub bucket: Duration,
}

/// The replicas of which a majority must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    LocalQuorum,
    Quorum,
}

#[derive(Clone, Debug)]
pub struct Retention {
    /// Zero: for ever.
    pub messages: Duration,
}

impl Retention {
    /// Greatest age of messages, if limited.
    #[must_use]
    pub fn of_messages(&self) -> Option<Duration> {
        (!self.messages.is_zero()).then_some(self.messages)
    }
}

#[derive(Clone, Debug)]
pub struct Auth {
    /// HS256 secret; `None` in development: the one in the data directory.
    pub secret: Option<Redacted<Box<str>>>,
    /// A one-time code that always works.
    pub fixed_code: Option<Redacted<Box<str>>>,
    pub admin_phones: Vec<Redacted<Box<str>>>,
}

#[derive(Clone, Debug)]
pub struct Cors {
    pub origins: Origins,
}

#[derive(Clone, Debug)]
pub struct SockJs {
    /// Whether clients are offered WebSockets.
    pub websocket: bool,
    /// Whether responses set a cookie for load balancers.
    pub cookie_needed: bool,
    /// Address from which frames of other origins load SockJS's client script.
    pub client_url: String,
}

/// STOMP on plain TCP.
#[derive(Clone, Debug)]
pub struct Stomp {
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
pub struct Content {
    pub sanitize: bool,
}

#[derive(Clone, Debug)]
pub struct Page {
    /// Whether the page at `/` is served.
    pub enabled: bool,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: Format,
    /// Directives as of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// RFC 7518 section 3.2: a key for HS256 is at least as long as the hash.
const SECRET_BYTES_MIN: usize = 32;

/// Shorter ones would create more partitions than pages.
const BUCKET_MIN: Duration = Duration::from_secs(3_600);

/// Messages are removed some time after their retention ends, not to the second.
const RETENTION_MIN: Duration = Duration::from_secs(86_400);

impl Settings {
    #[must_use]
    pub fn defaults(profile: Profile) -> Self {
        let development = profile == Profile::Development;
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            data_dir: PathBuf::from("./data"),
            shards: cores(),
            profile,
            node: 0,
            store: Store::Embedded,
            embedded: Embedded { sync: true },
            scylla: Scylla {
                nodes: vec!["127.0.0.1:9042".into()],
                keyspace: "tidings".into(),
                replication: if development {
                    "{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}".into()
                } else {
                    "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}".into()
                },
                keyspace_options: String::new(),
                consistency: Consistency::LocalQuorum,
                datacenter: String::new(),
                user: String::new(),
                password: None,
                tls: false,
                tls_ca: None,
                tls_certificate: None,
                tls_key: None,
                tls_name: String::new(),
                connect_timeout: Duration::from_secs(2),
                request_timeout: Duration::from_millis(900),
                lost_after: Duration::from_millis(600),
                report_every: Duration::from_secs(300),
                speculative_delay: Duration::from_millis(100),
                bucket: Duration::from_secs(10 * 86_400),
            },
            retention: Retention { messages: Duration::ZERO },
            auth: Auth {
                secret: None,
                fixed_code: development.then(|| Redacted::new("000000".into())),
                admin_phones: Vec::new(),
            },
            cors: Cors { origins: if development { Origins::all() } else { Origins::default() } },
            sockjs: SockJs { websocket: true, cookie_needed: false, client_url: "/sockjs.js".into() },
            stomp: Stomp { listen: None },
            content: Content { sanitize: true },
            page: Page { enabled: true },
            log: Log { format: Format::Text, level: "info".into() },
            limits: Limits::default(),
        }
    }

    /// The policy of every session. `secret` is `auth.secret`, or the one that [`secret`](super::secret) keeps.
    #[must_use]
    pub fn policy(&self, secret: &Redacted<Box<str>>) -> Policy {
        Policy {
            limits: self.limits.clone(),
            keys: Keys::hs256(secret.expose().as_bytes()),
            origins: self.cors.origins.clone(),
            endpoints: Endpoints::messaging(
                self.sockjs.client_url.as_str().into(),
                self.sockjs.websocket,
                self.sockjs.cookie_needed,
            ),
            fixed_code: self.auth.fixed_code.clone(),
            // Production has no sender yet, and must not promise a code that is never sent.
            sends_codes: self.profile == Profile::Development,
            admin_phones: self.auth.admin_phones.clone(),
            sanitize: self.content.sanitize,
            retention: self.retention.of_messages(),
            page: self.page.enabled,
        }
    }

    /// Rules over several keys: `fault` receives the key to change and the reason.
    pub(super) fn check(&self, fault: &mut dyn FnMut(&'static str, String)) {
        if self.scylla.keyspace.is_empty() {
            fault("scylla.keyspace", "needs a name".into());
        }
        if self.scylla.bucket < BUCKET_MIN {
            fault("scylla.bucket", "is shorter than an hour".into());
        }
        if self.scylla.tls && self.scylla.tls_ca.is_none() {
            fault("scylla.tls_ca", "is needed with scylla.tls".into());
        }
        match (&self.scylla.tls_certificate, &self.scylla.tls_key) {
            (Some(_), None) => fault("scylla.tls_key", "is needed with scylla.tls_certificate".into()),
            (None, Some(_)) => fault("scylla.tls_certificate", "is needed with scylla.tls_key".into()),
            _ => {}
        }
        if let Some(retention) = self.retention.of_messages() {
            if !(RETENTION_MIN..=LIFE_MAX).contains(&retention) {
                fault("retention.messages", "is neither 0s nor between a day and twenty years".into());
            } else if retention < self.limits.idempotency_ttl {
                fault("retention.messages", "is shorter than limits.idempotency_ttl: a repetition would find nothing".into());
            }
        }
        if self.stomp.listen.is_some_and(|address| address == self.listen && address.port() != 0) {
            fault("stomp.listen", "is the address of `listen`".into());
        }
        if self.auth.secret.as_ref().is_some_and(|secret| secret.expose().len() < SECRET_BYTES_MIN) {
            fault("auth.secret", format!("is shorter than {SECRET_BYTES_MIN} bytes"));
        }
        if self.profile == Profile::Production {
            self.check_production(fault);
        }
        self.check_limits(fault);
    }

    fn check_production(&self, fault: &mut dyn FnMut(&'static str, String)) {
        if self.auth.secret.is_none() {
            fault("auth.secret", format!("the production profile needs one of at least {SECRET_BYTES_MIN} bytes"));
        }
        if self.auth.fixed_code.is_some() {
            fault("auth.fixed_code", "the production profile refuses a code that always works".into());
        }
        if self.cors.origins.allows_all() {
            fault("cors.origins", "the production profile refuses \"*\": name the origins".into());
        }
    }

    fn check_limits(&self, fault: &mut dyn FnMut(&'static str, String)) {
        let limits = &self.limits;
        if limits.page_default > limits.page_max {
            fault("limits.page_default", format!("is above limits.page_max ({})", limits.page_max));
        }
        if limits.frame_header_bytes > limits.frame_bytes {
            fault("limits.frame_header_bytes", format!("is above limits.frame_bytes ({})", limits.frame_bytes));
        }
        if limits.outbox_bytes < limits.frame_bytes {
            fault("limits.outbox_bytes", format!("does not hold one frame of limits.frame_bytes ({})", limits.frame_bytes));
        }
        if limits.append_batch > limits.conversation_pending {
            let pending = limits.conversation_pending;
            fault("limits.append_batch", format!("is above limits.conversation_pending ({pending})"));
        }
        if limits.access_ttl > limits.refresh_ttl {
            fault("auth.access_ttl", "is longer than auth.refresh_ttl".into());
        }
    }

    /// Valid settings that deserve a warning at the start.
    pub(super) fn warn(&self, warning: &mut dyn FnMut(String)) {
        if self.stomp.listen.is_some_and(|address| !address.ip().is_loopback()) {
            warning("stomp.listen is reachable from elsewhere, and its tokens travel in the clear".into());
        }
        if self.profile == Profile::Development && !self.listen.ip().is_loopback() {
            warning(format!(
                "the development profile listens on {}, where others may reach it: its login codes are no secret",
                self.listen
            ));
        }
        let keys = &self.scylla;
        if !keys.tls && (keys.tls_ca.is_some() || keys.tls_certificate.is_some() || !keys.tls_name.is_empty()) {
            warning("scylla.tls is off: the database is spoken to in the clear, and the other keys of TLS have no effect".into());
        }
        if !self.embedded.sync {
            warning("embedded.sync is off: a crash of the machine loses messages that were acknowledged".into());
        }
    }
}

/// Cores that this process may use, limited by affinity and by the control group's quota.
fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Settings), expect: &[&str]) {
        let mut settings = Settings::defaults(Profile::Production);
        settings.auth.secret = Some(Redacted::new("s".repeat(SECRET_BYTES_MIN).into()));
        change(&mut settings);
        let mut keys = Vec::new();
        settings.check(&mut |key, _| keys.push(key));
        assert_eq!(keys, expect);
    }

    #[test]
    fn rules_over_several_keys() {
        check(|_| {}, &[]);
        check(|s| s.store = Store::Scylla, &[]);
        check(|s| s.scylla.keyspace = String::new(), &["scylla.keyspace"]);
        check(|s| s.scylla.bucket = BUCKET_MIN - Duration::from_millis(1), &["scylla.bucket"]);
        for (seconds, expect) in [(86_399, 1), (86_400, 0), (20 * 365 * 86_400, 0), (20 * 365 * 86_400 + 1, 1)] {
            let expect = &["retention.messages"][..expect];
            check(|s| s.retention.messages = Duration::from_secs(seconds), expect);
        }
        let two_days = Duration::from_secs(2 * 86_400);
        check(|s| (s.retention.messages, s.limits.idempotency_ttl) = (two_days, two_days), &[]);
        check(|s| (s.retention.messages, s.limits.idempotency_ttl) = (two_days / 2, two_days), &["retention.messages"]);
        check(|s| s.scylla.tls = true, &["scylla.tls_ca"]);
        check(|s| s.scylla.tls_certificate = Some("certificate.pem".into()), &["scylla.tls_key"]);
        check(|s| s.scylla.tls_key = Some("key.pem".into()), &["scylla.tls_certificate"]);
        check(|s| s.auth.secret = None, &["auth.secret"]);
        check(|s| s.auth.secret = Some(Redacted::new("s".repeat(SECRET_BYTES_MIN - 1).into())), &["auth.secret"]);
        check(|s| s.auth.fixed_code = Some(Redacted::new("123456".into())), &["auth.fixed_code"]);
        check(|s| s.cors.origins = Origins::all(), &["cors.origins"]);
        check(|s| s.limits.page_default = s.limits.page_max + 1, &["limits.page_default"]);
        check(|s| s.limits.frame_header_bytes = s.limits.frame_bytes + 1, &["limits.frame_header_bytes"]);
        check(|s| s.limits.outbox_bytes = s.limits.frame_bytes - 1, &["limits.outbox_bytes"]);
        check(|s| s.limits.append_batch = s.limits.conversation_pending + 1, &["limits.append_batch"]);
        check(|s| s.limits.access_ttl = s.limits.refresh_ttl * 2, &["auth.access_ttl"]);
    }

    #[test]
    fn development_needs_nothing() {
        let mut settings = Settings::defaults(Profile::Development);
        let mut said = Vec::new();
        settings.check(&mut |_, problem| said.push(problem));
        settings.warn(&mut |warning| said.push(warning));
        assert!(said.is_empty(), "{said:?}");
        settings.listen = "0.0.0.0:8080".parse().unwrap();
        settings.embedded.sync = false;
        settings.scylla.tls_ca = Some("ca.pem".into());
        settings.warn(&mut |warning| said.push(warning));
        assert_eq!(said.len(), 3);
    }
}
