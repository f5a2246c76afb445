//! `tidings token`: an access token without a login, for tools and tests.

use std::time::Duration;

use tidings::access::token::Claims;
use tidings::config::{Loaded, parse_duration, secret};
use tidings::io::clock;
use tidings::model::UserId;

use super::{Failed, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The user that the token speaks for
    #[arg(long, value_name = "ID")]
    user: UserId,
    /// A role of the user, such as admin; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Box<str>>,
    /// How long the token is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
}

/// Prints a token that a server with the same configuration accepts.
pub(super) fn token(arguments: &Arguments, loaded: &Loaded) -> Result<(), Failed> {
    let secret = secret::load_or_create(&loaded.settings).map_err(Failed::because)?;
    let now = clock::wall();
    let claims = Claims { user: arguments.user, roles: arguments.roles.clone(), expires: now.after(arguments.ttl), family: None };
    let keys = loaded.settings.policy(&secret).keys;
    let token = keys.sign(&claims, now);
    // Report a role that is too long, or one too many, here and not at the server.
    keys.verify(&token, now, loaded.settings.limits.token_leeway).map_err(Failed::because)?;
    print(&format!("{token}\n"))
}

fn parse_ttl(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).filter(|ttl| *ttl >= Duration::from_secs(1)).ok_or("expected a duration such as \"1h\"")
}
