//! The server under load: its address, and the tokens that it accepts.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use tidings::client::HeartBeat;

use crate::clock;

/// Tokens outlive every bounded run.
const TOKEN_SECONDS: u64 = 6 * 3_600;

/// Where a session's token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// In the URL of the upgrade: `/ws?token=...`
    Query,
    /// In CONNECT's `Authorization` header.
    Connect,
}

/// `--heart-beat`: two numbers of milliseconds, out and in.
fn parse_heart_beat(text: &str) -> Result<HeartBeat, String> {
    let parse = |part: &str| part.trim().parse::<u32>().map_err(|_| format!("`{text}` is not two numbers of milliseconds"));
    let (out, into) = text.split_once(',').ok_or_else(|| format!("`{text}` has no comma"))?;
    Ok(HeartBeat { out_ms: parse(out)?, in_ms: parse(into)? })
}

#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// IPv4 address and port of the server.
    #[arg(long, global = true, default_value = "127.0.0.1:8080")]
    target: SocketAddrV4,
    /// Allow an address that is not loopback. Use this only on your own machines.
    #[arg(long, global = true)]
    allow_remote: bool,
    /// The server's HS256 secret.
    #[arg(long, global = true, conflicts_with = "secret_file")]
    secret: Option<String>,
    /// File that holds the secret.
    #[arg(long, global = true, default_value = "./data/auth.secret")]
    secret_file: PathBuf,
    /// Where the token is sent.
    #[arg(long, global = true, value_enum, default_value = "query")]
    auth: Auth,
    /// CONNECT's heart-beat: milliseconds out,in.
    #[arg(long, global = true, default_value = "10000,10000", value_parser = parse_heart_beat)]
    heart_beat: HeartBeat,
}

/// One server, and how to log in to it.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddrV4,
    pub auth: Auth,
    pub heart_beat: HeartBeat,
    key: EncodingKey,
}

/// A token's claims: `sub` in decimal, as the server reads it.
#[derive(Serialize)]
struct Claims<'a> {
    sub: String,
    roles: &'a [&'a str],
    iat: u64,
    exp: u64,
}

impl TargetArgs {
    /// # Errors
    /// When the address is neither loopback nor allowed, or the secret cannot be read.
    pub fn resolve(&self) -> Result<Target, String> {
        if !self.target.ip().is_loopback() && !self.allow_remote {
            return Err(format!("{} is not a loopback address; --allow-remote allows it", self.target));
        }
        let secret = match &self.secret {
            Some(secret) => secret.clone(),
            None => read_secret(&self.secret_file)?,
        };
        Ok(self.resolve_at(self.target, &secret))
    }

    /// The same options for a server that this process started.
    pub fn resolve_at(&self, address: SocketAddrV4, secret: &str) -> Target {
        let key = EncodingKey::from_secret(secret.as_bytes());
        Target { address, auth: self.auth, heart_beat: self.heart_beat, key }
    }
}

fn read_secret(path: &PathBuf) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the secret from {}: {error} (--secret-file or --secret)", path.display()))?;
    Ok(text.trim().to_owned())
}

impl Target {
    /// A token of `user` with these roles.
    ///
    /// # Errors
    /// When the signature cannot be made.
    pub fn token(&self, user: u64, roles: &[&str]) -> Result<String, String> {
        let now = clock::wall_seconds();
        let claims = Claims { sub: user.to_string(), roles, iat: now, exp: now + TOKEN_SECONDS };
        encode(&Header::new(Algorithm::HS256), &claims, &self.key).map_err(|error| format!("cannot sign a token: {error}"))
    }
}

#[cfg(test)]
pub fn fixture() -> Target {
    Target {
        address: SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1),
        auth: Auth::Query,
        heart_beat: HeartBeat { out_ms: 0, in_ms: 0 },
        key: EncodingKey::from_secret(b"secret"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_unless_allowed() {
        let args = |target: &str, allow_remote| TargetArgs {
            target: target.parse().unwrap(),
            allow_remote,
            secret: Some("s".into()),
            secret_file: PathBuf::new(),
            auth: Auth::Query,
            heart_beat: HeartBeat::default(),
        };
        assert!(args("127.0.0.2:80", false).resolve().is_ok());
        assert!(args("192.0.2.1:80", false).resolve().is_err());
        assert!(args("192.0.2.1:80", true).resolve().is_ok());
    }

    #[test]
    fn heart_beats_are_two_numbers() {
        assert_eq!(parse_heart_beat("10000, 0"), Ok(HeartBeat { out_ms: 10_000, in_ms: 0 }));
        for text in ["", "1", "1,", "a,b", "-1,0"] {
            assert!(parse_heart_beat(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_has_three_parts() {
        assert_eq!(fixture().token(7, &["admin"]).unwrap().split('.').count(), 3);
    }
}
