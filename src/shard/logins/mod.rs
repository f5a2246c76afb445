//! Logging in and out: one-time codes, refresh tokens, and the revocation of logins.
//!
//! Flows in: [`LoginMail`], replies of the store, deadlines. Flows out: outcomes and revocations by mail, one-time codes for
//! their sender, store requests. Never imports sessions or clients.
//!
//! Invariants: a one-time code and a refresh token are never stored, only their hashes; no login is believed before the
//! store has listed the revoked ones.

use std::net::IpAddr;
use std::time::Duration;

use rand_chacha::rand_core::Rng;
use sha2::{Digest, Sha256};

use crate::access::rate::{Bucket, Rate, retry_after_seconds};
use crate::access::token::Claims;
use crate::model::command::{AuthCommand, LoggedIn, Outcome};
use crate::model::map::{self, Map};
use crate::model::placement::network;
use crate::model::{Mono, Redacted, Refusal, RefusalCode, ShardId, UserId, Wall};
use crate::shard::mail::{LoginMail, ReplyTo, UserMail};
use crate::shard::turn::store_calls::{Part, RETRY_PAUSE, StoreCalls};
use crate::shard::turn::timers::Timers;
use crate::shard::turn::{Turn, store_refusal};
use crate::store::accounts::{
    FamilyId, ListRevoked, LoginAnswer, LoginUser, PutCode, PutCodeAnswer, PutRefresh, RevokeRefresh, RotateAnswer,
    RotateRefresh, SecretHash, TakeCode, TakeCodeAnswer, User,
};
use crate::store::{Call, Failure, Reply, Request};

/// Between two sweeps of what can be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// How far the wall clock may be set back or forth: a token made before lasts by so much longer than its time to live.
const CLOCK_STEP: Duration = Duration::from_secs(4 * 3_600);

/// Lifetime and owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct Logins {
    calls: StoreCalls<OnReply>,
    timers: Timers<Timer>,
    /// Budgets of addresses.
    networks: Map<u64, Bucket>,
    started: bool,
    sweeping: bool,
}

/// What a reply of the store is for.
#[derive(Debug)]
enum OnReply {
    Login(Box<Login>),
    RevokedRead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The revoked logins could not be read at the start, and are read again.
    Revoked,
    Sweep,
}

/// A request of the auth routes on its way through the store.
#[derive(Debug)]
struct Login {
    to: (ShardId, ReplyTo),
    step: LoginStep,
}

#[derive(Debug)]
enum LoginStep {
    CodeKept { phone: Redacted<Box<str>>, code: Redacted<Box<str>> },
    CodeChecked { phone: Redacted<Box<str>> },
    UserFound { phone: Redacted<Box<str>> },
    FamilyBegun { user: User, family: FamilyId, refresh: Redacted<String> },
    Rotated { refresh: Redacted<String> },
    LoggedOut,
}

impl Logins {
    pub(super) fn new(turn: &mut Turn) -> Self {
        Self {
            calls: StoreCalls::new(Part::Logins),
            timers: Timers::default(),
            networks: map::map(turn.random.next_u64()),
            started: false,
            sweeping: false,
        }
    }

    /// Reads the revoked logins before anything else; once.
    pub(super) fn start(&mut self, turn: &mut Turn) {
        if !std::mem::replace(&mut self.started, true) {
            self.read_revoked(turn);
        }
    }

    pub(super) fn handle_mail(&mut self, turn: &mut Turn, mail: LoginMail) {
        match mail {
            LoginMail::Authenticate { shard, reply_to, peer, command } => {
                self.authenticate(turn, (shard, reply_to), &peer, *command);
            }
            LoginMail::Revoked { user, family } => self.revoked(turn, user, family),
        }
    }

    /// The store replied to one of this part's requests.
    pub(super) fn handle_reply(&mut self, turn: &mut Turn, key: usize, reply: Reply) {
        if let Some((continuation, reply)) = self.calls.replied(turn, key, reply) {
            self.go_on(turn, continuation, reply);
        }
    }

    fn go_on(&mut self, turn: &mut Turn, continuation: OnReply, reply: Reply) {
        match continuation {
            OnReply::Login(login) => self.login_goes_on(turn, *login, reply),
            OnReply::RevokedRead => self.revoked_read(turn, reply),
        }
    }

    /// Asks the store. When too much is under way the answer comes at once: busy.
    fn ask_store(&mut self, turn: &mut Turn, request: impl Into<Request>, continuation: OnReply) {
        if let Err(continuation) = self.calls.ask(turn, request, continuation) {
            self.go_on(turn, continuation, Reply::Failed(Failure::Busy));
        }
    }

    /// Due at once until the part has started.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        if !self.started {
            return Some(Mono(0));
        }
        self.timers.next_deadline().into_iter().chain(self.calls.next_deadline()).min()
    }

    pub(super) fn handle_due(&mut self, turn: &mut Turn) {
        self.calls.handle_due(turn);
        while let Some((_, timer)) = self.timers.pop_due(turn.now.mono) {
            match timer {
                Timer::Revoked => self.read_revoked(turn),
                Timer::Sweep => self.sweep(turn),
            }
        }
    }

    /// No request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_idle()
    }

    fn authenticate(&mut self, turn: &mut Turn, to: (ShardId, ReplyTo), peer: &Redacted<IpAddr>, command: AuthCommand) {
        let limits = turn.limits().clone();
        let rate = Rate::new(limits.auth_per_address_minute, limits.auth_per_address_minute);
        let budget = self.networks.entry(network(peer)).or_insert_with(|| Bucket::new(turn.now.mono));
        if let Err(wait) = budget.take(turn.now.mono, rate) {
            let refusal = Refusal::new(RefusalCode::RateLimited, "too many requests from this address");
            return turn.reply(to.0, to.1, Outcome::Refused(refusal.retry_after(retry_after_seconds(wait))));
        }
        self.schedule_sweep(turn);
        let now = turn.now.wall;
        match command {
            AuthCommand::RequestCode { .. } if !turn.policy.sends_codes => {
                let refusal = Refusal::new(RefusalCode::NotImplemented, "this server has no sender for one-time codes");
                turn.reply(to.0, to.1, Outcome::Refused(refusal));
            }
            AuthCommand::RequestCode { phone } => {
                let code: Box<str> = format!("{:06}", turn.random.next_u64() % 1_000_000).into();
                let request = PutCode {
                    login: phone.expose().clone(),
                    code: secret_hash("code", &[phone.expose(), &code]),
                    now,
                    expires: now.after(limits.otp_ttl),
                    per_hour: limits.otp_per_phone_hour,
                };
                let step = LoginStep::CodeKept { phone, code: Redacted::new(code) };
                self.login_step(turn, to, request, step);
            }
            AuthCommand::Login { phone, code, .. } => {
                let fixed = turn.policy.fixed_code.as_ref().is_some_and(|fixed| fixed == &code);
                if fixed {
                    return self.find_user(turn, to, phone);
                }
                let request = TakeCode {
                    login: phone.expose().clone(),
                    code: secret_hash("code", &[phone.expose(), code.expose()]),
                    now,
                    attempts_max: limits.otp_attempts,
                };
                self.login_step(turn, to, request, LoginStep::CodeChecked { phone });
            }
            AuthCommand::Refresh { token } => {
                let refresh = refresh_token(turn);
                let request = RotateRefresh {
                    token: secret_hash("refresh", &[token.expose()]),
                    next: secret_hash("refresh", &[refresh.expose()]),
                    now,
                    expires: now.after(limits.refresh_ttl),
                };
                self.login_step(turn, to, request, LoginStep::Rotated { refresh });
            }
            AuthCommand::Logout { token } => {
                let request = RevokeRefresh { token: secret_hash("refresh", &[token.expose()]), now };
                self.login_step(turn, to, request, LoginStep::LoggedOut);
            }
        }
    }

    fn login_step(&mut self, turn: &mut Turn, to: (ShardId, ReplyTo), request: impl Into<Request>, step: LoginStep) {
        self.ask_store(turn, request, OnReply::Login(Box::new(Login { to, step })));
    }

    fn login_goes_on(&mut self, turn: &mut Turn, login: Login, reply: Reply) {
        let Login { to, step } = login;
        let outcome = self.login_step_done(turn, to, step, reply);
        match outcome {
            Ok(Some(outcome)) => turn.reply(to.0, to.1, outcome),
            Ok(None) => {}
            Err(failure) => turn.reply(to.0, to.1, Outcome::Refused(store_refusal(failure))),
        }
    }

    /// The outcome, or `None` when another step follows.
    fn login_step_done(
        &mut self,
        turn: &mut Turn,
        to: (ShardId, ReplyTo),
        step: LoginStep,
        reply: Reply,
    ) -> Result<Option<Outcome>, Failure> {
        let outcome = match step {
            LoginStep::CodeKept { phone, code } => match PutCode::answer(reply)? {
                PutCodeAnswer::Keep { .. } => {
                    turn.send_otp(phone, code);
                    let seconds = u32::try_from(turn.limits().otp_ttl.as_secs()).unwrap_or(u32::MAX);
                    Outcome::CodeSent { expires_in_seconds: seconds }
                }
                PutCodeAnswer::Limit { retry_after } => {
                    let refusal = Refusal::new(RefusalCode::RateLimited, "too many codes for this phone");
                    Outcome::Refused(refusal.retry_after(retry_after))
                }
            },
            LoginStep::CodeChecked { phone } => match TakeCode::answer(reply)? {
                TakeCodeAnswer::Accept => {
                    self.find_user(turn, to, phone);
                    return Ok(None);
                }
                TakeCodeAnswer::Reject => unauthorized("the code is wrong, used or expired"),
            },
            LoginStep::UserFound { phone } => {
                match LoginUser::answer(reply)? {
                    LoginAnswer::CandidateTaken => self.find_user(turn, to, phone),
                    LoginAnswer::User(user) => self.begin_family(turn, to, user),
                }
                return Ok(None);
            }
            LoginStep::FamilyBegun { user, family, refresh } => {
                PutRefresh::answer(reply)?;
                logged_in(turn, user, family, refresh)
            }
            LoginStep::Rotated { refresh } => match RotateRefresh::answer(reply)? {
                RotateAnswer::Rotate { user, family } => logged_in(turn, user, family, refresh),
                RotateAnswer::Reject { family } => {
                    spread_revocation(turn, family);
                    unauthorized("the refresh token is not valid")
                }
            },
            LoginStep::LoggedOut => {
                let family = RevokeRefresh::answer(reply)?;
                spread_revocation(turn, family);
                Outcome::Done
            }
        };
        Ok(Some(outcome))
    }

    fn find_user(&mut self, turn: &mut Turn, to: (ShardId, ReplyTo), phone: Redacted<Box<str>>) {
        let candidate = UserId::new(turn.random_id()).expect("52 bits are an id");
        let admin = turn.policy.admin_phones.contains(&phone);
        let roles = if admin { vec!["admin".into()] } else { Vec::new() };
        let request = LoginUser { login: phone.expose().clone(), candidate, roles, now: turn.now.wall };
        self.login_step(turn, to, request, LoginStep::UserFound { phone });
    }

    fn begin_family(&mut self, turn: &mut Turn, to: (ShardId, ReplyTo), user: User) {
        let family = FamilyId(turn.random.next_u64());
        let refresh = refresh_token(turn);
        let request = PutRefresh {
            token: secret_hash("refresh", &[refresh.expose()]),
            user: user.user,
            family,
            now: turn.now.wall,
            expires: turn.now.wall.after(turn.limits().refresh_ttl),
        };
        self.login_step(turn, to, request, LoginStep::FamilyBegun { user, family, refresh });
    }

    /// Reads what was revoked before this start and would still be in date.
    fn read_revoked(&mut self, turn: &mut Turn) {
        let since = Wall(turn.now.wall.0.saturating_sub(Wall(0).after(revocation_life(turn)).0));
        self.ask_store(turn, ListRevoked { since }, OnReply::RevokedRead);
    }

    fn revoked_read(&mut self, turn: &mut Turn, reply: Reply) {
        match ListRevoked::answer(reply) {
            Ok(families) => {
                turn.revocations.set_loaded();
                for (_, family) in families {
                    turn.revocations.insert(family, turn.now.wall.after(revocation_life(turn)));
                }
                self.schedule_sweep(turn);
            }
            Err(failure) => {
                tracing::warn!(shard = turn.id.0, ?failure, "revoked logins could not be read, trying again");
                self.timers.schedule(turn.after(RETRY_PAUSE), Timer::Revoked);
            }
        }
    }

    /// A login's tokens no longer count: this shard forgets none of them while they would be in date.
    fn revoked(&mut self, turn: &mut Turn, user: UserId, family: FamilyId) {
        turn.revocations.insert(family, turn.now.wall.after(revocation_life(turn)));
        self.schedule_sweep(turn);
        if turn.placement.user(user) == turn.id {
            turn.mail(turn.id, UserMail::Revoked { user, family });
        }
    }

    fn schedule_sweep(&mut self, turn: &Turn) {
        if !self.sweeping {
            self.sweeping = true;
            self.timers.schedule(turn.after(SWEEP), Timer::Sweep);
        }
    }

    /// Forgets what no longer matters.
    fn sweep(&mut self, turn: &mut Turn) {
        let Mono(now) = turn.now.mono;
        self.sweeping = false;
        self.networks.retain(|_, budget| budget.full_at().0 > now);
        turn.revocations.sweep(turn.now.wall);
        if !self.networks.is_empty() || !turn.revocations.is_empty() {
            self.schedule_sweep(turn);
        }
    }
}

fn logged_in(turn: &Turn, user: User, family: FamilyId, refresh_token: Redacted<String>) -> Outcome {
    let ttl = turn.limits().access_ttl;
    let claims = Claims { user: user.user, roles: user.roles, expires: turn.now.wall.after(ttl), family: Some(family) };
    Outcome::LoggedIn(LoggedIn {
        user: claims.user,
        access_token: Redacted::new(turn.policy.keys.sign(&claims, turn.now.wall)),
        refresh_token,
        expires_in_seconds: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
    })
}

/// How long a revocation matters.
fn revocation_life(turn: &Turn) -> Duration {
    turn.limits().access_ttl + turn.limits().token_leeway + CLOCK_STEP
}

/// Tells every shard that a login's tokens no longer count.
fn spread_revocation(turn: &mut Turn, family: Option<(UserId, FamilyId)>) {
    let Some((user, family)) = family else { return };
    for shard in turn.placement.all() {
        turn.mail(shard, LoginMail::Revoked { user, family });
    }
}

/// 256 random bits.
fn refresh_token(turn: &mut Turn) -> Redacted<String> {
    let words = [(); 4].map(|()| format!("{:016x}", turn.random.next_u64()));
    Redacted::new(words.concat())
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
