//! Logging in and out: one-time codes, refresh tokens, and the tokens that count no longer.

use std::net::IpAddr;
use std::time::Duration;

use rand_chacha::rand_core::Rng;
use sha2::{Digest, Sha256};

use crate::model::command::{AuthCommand, LoggedIn, Outcome};
use crate::model::ids::ID_MAX;
use crate::model::map::{self, Map};
use crate::model::{Close, Mono, Redacted, Refusal, RefusalCode, ShardId, UserId, Wall};
use crate::session::frames;
use crate::session::rate::{Bucket, Rate, retry_after_seconds};
use crate::session::token::Claims;
use crate::shard::boundary::Effect;
use crate::shard::mail::{Asked, Mail};
use crate::shard::storing::{Errand, RETRY_PAUSE};
use crate::shard::timers::Timer;
use crate::shard::{Shard, Turn};
use crate::store::accounts::{
    FamilyId, ListRevoked, LoginAnswer, LoginUser, PutCode, PutCodeAnswer, PutRefresh, RevokeRefresh, RotateAnswer,
    RotateRefresh, SecretHash, TakeCode, TakeCodeAnswer, User,
};
use crate::store::{Call, Failure, Reply, Request};

/// Between two looks at what can be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// How far the wall clock may be put back or forth: a token that was made before lasts by so much longer than its time to live.
const CLOCK_STEP: Duration = Duration::from_secs(4 * 3_600);

/// Budgets of networks, and logins whose tokens count no longer. Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct Logins {
    networks: Map<u64, Bucket>,
    /// Until when a revoked login's access tokens would still be in date.
    revoked: Map<FamilyId, Wall>,
    /// The store has said what was revoked before this start; until then no login is believed.
    known: bool,
    sweeping: bool,
}

impl Logins {
    pub(super) fn new(seed: u64) -> Self {
        Self { networks: map::map(seed), revoked: map::map(seed), known: false, sweeping: false }
    }

    /// # Errors
    /// A refusal when the login was revoked, or it is not known yet whether it was. Tokens made elsewhere have no login.
    pub(super) fn check(&self, family: Option<FamilyId>) -> Result<(), Refusal> {
        match family {
            None => Ok(()),
            Some(_) if !self.known => {
                Err(Refusal::new(RefusalCode::StoreUnavailable, "logins cannot be checked yet").retry_after(1))
            }
            Some(family) if self.revoked.contains_key(&family) => {
                Err(Refusal::new(RefusalCode::Unauthorized, "the token has been revoked"))
            }
            Some(_) => Ok(()),
        }
    }
}

/// A request of the auth routes on its way through the store.
#[derive(Debug)]
pub(super) struct Login {
    to: (ShardId, Asked),
    step: Step,
}

#[derive(Debug)]
enum Step {
    CodeKept { phone: Redacted<Box<str>>, code: Redacted<Box<str>> },
    CodeChecked { phone: Redacted<Box<str>> },
    UserFound { phone: Redacted<Box<str>> },
    FamilyBegun { user: User, family: FamilyId, refresh: Redacted<String> },
    Rotated { refresh: Redacted<String> },
    LoggedOut,
}

fn secret_hash(purpose: &str, parts: &[&str]) -> SecretHash {
    let mut hash = Sha256::new();
    for part in [&[purpose], parts].concat() {
        // Lengths keep ("ab", "c") apart from ("a", "bc").
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn unauthorized(message: &'static str) -> Outcome {
    Outcome::Refused(Refusal::new(RefusalCode::Unauthorized, message))
}

/// What has one budget: an IPv4 address, or the IPv6 network of 64 bits that one customer has.
fn network(peer: &Redacted<IpAddr>) -> u64 {
    match peer.expose().to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

impl Shard {
    /// Believes an access token, or says why not.
    pub(super) fn verify(&self, turn: &Turn<'_>, token: &str) -> Result<Claims, Refusal> {
        let unauthorized = |what: String| Refusal::new(RefusalCode::Unauthorized, what);
        let claims = self
            .policy
            .keys
            .verify(token, turn.now.wall, self.policy.limits.token_leeway)
            .map_err(|fault| unauthorized(fault.to_string()))?;
        self.logins.check(claims.family)?;
        Ok(claims)
    }

    /// The shard that keeps an address's budget.
    pub(super) fn address_shard(&self, peer: &Redacted<IpAddr>) -> ShardId {
        ShardId::of(network(peer), self.shards)
    }

    pub(super) fn authenticate(
        &mut self,
        turn: &mut Turn<'_>,
        to: (ShardId, Asked),
        peer: &Redacted<IpAddr>,
        command: AuthCommand,
    ) {
        let limits = self.policy.limits.clone();
        let rate = Rate::new(limits.auth_per_address_minute, limits.auth_per_address_minute);
        let budget = self.logins.networks.entry(network(peer)).or_insert_with(|| Bucket::new(turn.now.mono));
        if let Err(wait) = budget.take(turn.now.mono, rate) {
            let refusal = Refusal::new(RefusalCode::RateLimited, "too many requests from this address");
            return self.reply_to(turn, to, Outcome::Refused(refusal.retry_after(retry_after_seconds(wait))));
        }
        self.schedule_sweep(turn);
        let now = turn.now.wall;
        match command {
            AuthCommand::RequestCode { .. } if !self.policy.sends_codes => {
                let refusal = Refusal::new(RefusalCode::NotImplemented, "this server has no sender for one-time codes");
                self.reply_to(turn, to, Outcome::Refused(refusal));
            }
            AuthCommand::RequestCode { phone } => {
                let code: Box<str> = format!("{:06}", self.random.next_u64() % 1_000_000).into();
                let request = PutCode {
                    login: phone.expose().clone(),
                    code: secret_hash("code", &[phone.expose(), &code]),
                    now,
                    expires: now.after(limits.otp_ttl),
                    per_hour: limits.otp_per_phone_hour,
                };
                let step = Step::CodeKept { phone, code: Redacted::new(code) };
                self.login_step(turn, to, request, step);
            }
            AuthCommand::Login { phone, code, .. } => {
                let fixed = self.policy.fixed_code.as_ref().is_some_and(|fixed| fixed == &code);
                if fixed {
                    return self.find_user(turn, to, phone);
                }
                let request = TakeCode {
                    login: phone.expose().clone(),
                    code: secret_hash("code", &[phone.expose(), code.expose()]),
                    now,
                    attempts_max: limits.otp_attempts,
                };
                self.login_step(turn, to, request, Step::CodeChecked { phone });
            }
            AuthCommand::Refresh { token } => {
                let refresh = self.refresh_token();
                let request = RotateRefresh {
                    token: secret_hash("refresh", &[token.expose()]),
                    next: secret_hash("refresh", &[refresh.expose()]),
                    now,
                    expires: now.after(limits.refresh_ttl),
                };
                self.login_step(turn, to, request, Step::Rotated { refresh });
            }
            AuthCommand::Logout { token } => {
                let request = RevokeRefresh { token: secret_hash("refresh", &[token.expose()]), now };
                self.login_step(turn, to, request, Step::LoggedOut);
            }
        }
    }

    fn login_step(&mut self, turn: &mut Turn<'_>, to: (ShardId, Asked), request: impl Into<Request>, step: Step) {
        self.ask_store(turn, request, Errand::Login(Box::new(Login { to, step })));
    }

    fn reply_to(&mut self, turn: &mut Turn<'_>, to: (ShardId, Asked), outcome: Outcome) {
        self.mail(turn, to.0, Mail::Answer { asked: to.1, outcome: Box::new(outcome) });
    }

    pub(super) fn login_goes_on(&mut self, turn: &mut Turn<'_>, login: Login, reply: Reply) {
        let Login { to, step } = login;
        let outcome = self.login_step_done(turn, to, step, reply);
        match outcome {
            Ok(Some(outcome)) => self.reply_to(turn, to, outcome),
            Ok(None) => {}
            Err(failure) => self.reply_to(turn, to, Outcome::Refused(Self::failed(failure))),
        }
    }

    /// The outcome, or `None` when another step follows.
    fn login_step_done(
        &mut self,
        turn: &mut Turn<'_>,
        to: (ShardId, Asked),
        step: Step,
        reply: Reply,
    ) -> Result<Option<Outcome>, Failure> {
        let outcome = match step {
            Step::CodeKept { phone, code } => match PutCode::answer(reply)? {
                PutCodeAnswer::Keep { .. } => {
                    turn.effects.push(Effect::SendCode { phone, code });
                    let seconds = u32::try_from(self.policy.limits.otp_ttl.as_secs()).unwrap_or(u32::MAX);
                    Outcome::CodeSent { expires_in_seconds: seconds }
                }
                PutCodeAnswer::Limit { retry_after } => {
                    let refusal = Refusal::new(RefusalCode::RateLimited, "too many codes for this phone");
                    Outcome::Refused(refusal.retry_after(retry_after))
                }
            },
            Step::CodeChecked { phone } => match TakeCode::answer(reply)? {
                TakeCodeAnswer::Accept => {
                    self.find_user(turn, to, phone);
                    return Ok(None);
                }
                TakeCodeAnswer::Reject => unauthorized("the code is wrong, used or expired"),
            },
            Step::UserFound { phone } => {
                match LoginUser::answer(reply)? {
                    LoginAnswer::CandidateTaken => self.find_user(turn, to, phone),
                    LoginAnswer::User(user) => self.begin_family(turn, to, user),
                }
                return Ok(None);
            }
            Step::FamilyBegun { user, family, refresh } => {
                PutRefresh::answer(reply)?;
                self.logged_in(turn, user, family, refresh)
            }
            Step::Rotated { refresh } => match RotateRefresh::answer(reply)? {
                RotateAnswer::Rotate { user, family } => self.logged_in(turn, user, family, refresh),
                RotateAnswer::Reject { family } => {
                    self.spread_revocation(turn, family);
                    unauthorized("the refresh token is not valid")
                }
            },
            Step::LoggedOut => {
                let family = RevokeRefresh::answer(reply)?;
                self.spread_revocation(turn, family);
                Outcome::Done
            }
        };
        Ok(Some(outcome))
    }

    fn find_user(&mut self, turn: &mut Turn<'_>, to: (ShardId, Asked), phone: Redacted<Box<str>>) {
        let candidate = loop {
            if let Ok(id) = UserId::new(self.random.next_u64() & (ID_MAX >> 1)) {
                break id;
            }
        };
        let admin = self.policy.admin_phones.contains(&phone);
        let roles = if admin { vec!["admin".into()] } else { Vec::new() };
        let request = LoginUser { login: phone.expose().clone(), candidate, roles, now: turn.now.wall };
        self.login_step(turn, to, request, Step::UserFound { phone });
    }

    fn begin_family(&mut self, turn: &mut Turn<'_>, to: (ShardId, Asked), user: User) {
        let family = FamilyId(self.random.next_u64());
        let refresh = self.refresh_token();
        let request = PutRefresh {
            token: secret_hash("refresh", &[refresh.expose()]),
            user: user.user,
            family,
            now: turn.now.wall,
            expires: turn.now.wall.after(self.policy.limits.refresh_ttl),
        };
        self.login_step(turn, to, request, Step::FamilyBegun { user, family, refresh });
    }

    /// 256 random bits.
    fn refresh_token(&mut self) -> Redacted<String> {
        let words = [(); 4].map(|()| format!("{:016x}", self.random.next_u64()));
        Redacted::new(words.concat())
    }

    fn logged_in(&self, turn: &Turn<'_>, user: User, family: FamilyId, refresh_token: Redacted<String>) -> Outcome {
        let ttl = self.policy.limits.access_ttl;
        let claims = Claims { user: user.user, roles: user.roles, expires: turn.now.wall.after(ttl), family: Some(family) };
        Outcome::LoggedIn(LoggedIn {
            user: claims.user,
            access_token: Redacted::new(self.policy.keys.sign(&claims, turn.now.wall)),
            refresh_token,
            expires_in_seconds: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
        })
    }

    fn spread_revocation(&mut self, turn: &mut Turn<'_>, family: Option<(UserId, FamilyId)>) {
        let Some((user, family)) = family else { return };
        for shard in self.all_shards() {
            self.mail(turn, shard, Mail::Revoked { user, family });
        }
    }

    /// A login's tokens count no longer: its sessions end now.
    pub(super) fn revoked(&mut self, turn: &mut Turn<'_>, user: UserId, family: FamilyId) {
        self.logins.revoked.insert(family, turn.now.wall.after(self.revocation_life()));
        self.schedule_sweep(turn);
        let Some(known) = self.users.find(user) else { return };
        for key in known.sessions.clone() {
            let Some(live) = self.sessions.find(key) else { continue };
            if live.session.principal.family == Some(family) {
                let error = frames::error(live.format, "the token has been revoked", None);
                self.close_session(turn, key, Close::Policy, Some(error));
            }
        }
    }

    /// How long a revocation matters.
    fn revocation_life(&self) -> Duration {
        self.policy.limits.access_ttl + self.policy.limits.token_leeway + CLOCK_STEP
    }

    /// What was revoked before this start and would still be in date.
    pub(super) fn load_revoked(&mut self, turn: &mut Turn<'_>) {
        let since = Wall(turn.now.wall.0.saturating_sub(Wall(0).after(self.revocation_life()).0));
        self.ask_store(turn, ListRevoked { since }, Errand::Revoked);
    }

    pub(super) fn revoked_loaded(&mut self, turn: &mut Turn<'_>, reply: Reply) {
        match ListRevoked::answer(reply) {
            Ok(families) => {
                self.logins.known = true;
                for (user, family) in families {
                    self.revoked(turn, user, family);
                }
            }
            Err(_) => {
                tracing::warn!(shard = self.id.0, "revoked logins could not be read, trying again");
                self.timers.schedule(turn.now.mono.after(RETRY_PAUSE), Timer::Revoked);
            }
        }
    }

    fn schedule_sweep(&mut self, turn: &Turn<'_>) {
        if !self.logins.sweeping {
            self.logins.sweeping = true;
            self.timers.schedule(turn.now.mono.after(SWEEP), Timer::Sweep);
        }
    }

    /// Forgets what no longer matters.
    pub(super) fn sweep_logins(&mut self, turn: &mut Turn<'_>) {
        let Mono(now) = turn.now.mono;
        self.logins.sweeping = false;
        self.logins.networks.retain(|_, budget| budget.full_at().0 > now);
        self.logins.revoked.retain(|_, until| *until > turn.now.wall);
        if !self.logins.networks.is_empty() || !self.logins.revoked.is_empty() {
            self.schedule_sweep(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_budget() {
        let check = |one: &str, other: &str, same: bool| {
            let [one_network, other_network] = [one, other].map(|address| network(&Redacted::new(address.parse().unwrap())));
            assert_eq!(one_network == other_network, same, "{one} {other}");
        };
        check("10.0.0.1", "10.0.0.2", false);
        check("10.0.0.1", "::ffff:10.0.0.1", true);
        check("::ffff:10.0.0.1", "::ffff:10.0.0.2", false);
        check("2001:db8::1", "2001:db8::2:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
    }
}
