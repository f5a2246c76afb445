//! Access tokens: signed, and verified by a pure function with the time as argument.
//!
//! A token is a JWT (RFC 7519) in the compact form of a JWS (RFC 7515 section 7.1), base64url without padding:
//!
//! ```text
//! token  = header "." claims "." signature
//! header = {"alg": one of a key, "kid"?: text}              "crit" is refused, other members are ignored
//! claims = {"sub": user id, "exp": number, "nbf"?: number, "roles"?: [text], "fam"?: 16 hex digits}
//! ```
//!
//! The library checks the signature; we check the times and the claims here, because the library would read the
//! system's clock. `iss` and `aud` are ignored: any holder of a key is trusted to speak for every user.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{UserId, Wall};
use crate::store::accounts::FamilyId;

/// Longer tokens are refused before any work.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// Bound of the encoded header, the only part that is parsed before the signature is verified.
const HEADER_BYTES_MAX: usize = 1024;
const ROLES_MAX: usize = 32;
const ROLE_BYTES_MAX: usize = 64;

/// Signing and verification keys, each with its algorithm pinned.
#[derive(Debug)]
pub struct Keys {
    verifying: Vec<VerifyingKey>,
    /// Signs the server's own tokens, with HS256.
    signing: EncodingKey,
}

/// A key that tokens may be signed with. The token's `alg` never chooses how to use a key: it must be the key's own,
/// so that a public key cannot pass as a shared secret.
#[derive(Debug)]
struct VerifyingKey {
    /// A token with this `kid` is verified with this key alone; a key without one matches any `kid`.
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub user: UserId,
    pub roles: Vec<Box<str>>,
    /// `exp`, without leeway.
    pub expires: Wall,
    /// The login that issued the token; tokens made elsewhere have none.
    pub family: Option<FamilyId>,
}

/// Why a token is refused. The text quotes no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    TooLong,
    /// Not three parts, or a part is not base64url or not the required JSON.
    Malformed,
    /// `alg: none`.
    Unsigned,
    /// `crit` demands an extension (RFC 7515 section 4.1.11); the server has none.
    UnknownExtension,
    UnknownKey,
    /// The token's `alg` is not the key's.
    WrongAlgorithm,
    WrongSignature,
    ExpiryMissing,
    ExpiryNotNumber,
    Expired,
    NotBeforeNotNumber,
    NotYetValid,
    InvalidSubject,
    InvalidRoles,
    InvalidFamily,
}

impl Keys {
    /// One shared secret. RFC 7518 section 3.2 requires 32 bytes or more; the configuration checks that.
    #[must_use]
    pub fn hs256(secret: &[u8]) -> Self {
        let verifying = VerifyingKey { kid: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) };
        Self { verifying: vec![verifying], signing: EncodingKey::from_secret(secret) }
    }

    /// Checks signature, time and claims; `leeway` widens both ends of the token's life.
    ///
    /// # Errors
    /// The first fault of the token. Use none of its claims then.
    pub fn verify(&self, token: &str, now: Wall, leeway: Duration) -> Result<Claims, TokenFault> {
        self.read(token)?.check(now, leeway)
    }

    /// The user of a token, whether or not it is valid at this time: for requests that continue something which a valid token
    /// began, and which has an end of its own.
    ///
    /// # Errors
    /// The first fault of the token, except its time.
    pub fn identify(&self, token: &str) -> Result<UserId, TokenFault> {
        self.read(token)?.user()
    }

    fn read(&self, token: &str) -> Result<RawClaims, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
        if header.len() > HEADER_BYTES_MAX || claims.contains('.') {
            return Err(TokenFault::Malformed);
        }
        let key = self.verify_choose(&decode_json::<Header>(header)?)?;
        match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => decode_json::<RawClaims>(claims),
            Ok(false) | Err(_) => Err(TokenFault::WrongSignature),
        }
    }

    /// Signs `claims` as a token issued at `now`. `expires` is cut to whole seconds.
    ///
    /// # Panics
    /// Never: a shared secret signs anything, and the claims are plain text and numbers.
    #[must_use]
    pub fn sign(&self, claims: &Claims, now: Wall) -> String {
        let claims = SignedClaims {
            sub: claims.user.to_string(),
            iat: now.unix_seconds(),
            exp: claims.expires.unix_seconds(),
            roles: &claims.roles,
            fam: claims.family.map(|family| format!("{:016x}", family.0)),
        };
        jsonwebtoken::encode(&jsonwebtoken::Header::new(Algorithm::HS256), &claims, &self.signing)
            .expect("an HMAC key signs plain claims")
    }

    fn verify_choose(&self, header: &Header) -> Result<&VerifyingKey, TokenFault> {
        if header.crit.is_some() {
            return Err(TokenFault::UnknownExtension);
        }
        if header.alg.eq_ignore_ascii_case("none") {
            return Err(TokenFault::Unsigned);
        }
        let mut fault = TokenFault::UnknownKey;
        for key in &self.verifying {
            if key.kid.is_some() && key.kid != header.kid {
                continue;
            }
            if header.alg.parse::<Algorithm>().is_ok_and(|algorithm| algorithm == key.algorithm) {
                return Ok(key);
            }
            fault = TokenFault::WrongAlgorithm;
        }
        Err(fault)
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the token is longer than 4 KiB",
            Self::Malformed => "the token is not a JWT",
            Self::Unsigned => "the token is not signed",
            Self::UnknownExtension => "the token demands an extension that is not known here",
            Self::UnknownKey => "the token names a key that is not known here",
            Self::WrongAlgorithm => "the token is signed with an algorithm that is not accepted",
            Self::WrongSignature => "the token's signature is wrong",
            Self::ExpiryMissing => "the token has no expiry",
            Self::ExpiryNotNumber => "the token's expiry is not a number",
            Self::Expired => "the token has expired",
            Self::NotBeforeNotNumber => "the token's start is not a number",
            Self::NotYetValid => "the token is not valid yet",
            Self::InvalidSubject => "the token's subject is not a user id",
            Self::InvalidRoles => "the token's roles are not a short list of names",
            Self::InvalidFamily => "the token's login is not 16 hexadecimal digits",
        })
    }
}

impl std::error::Error for TokenFault {}

/// The members of a JOSE header that the server uses (RFC 7515 section 4.1).
#[derive(Deserialize)]
struct Header {
    alg: Box<str>,
    kid: Option<Box<str>>,
    crit: Option<IgnoredAny>,
}

/// Claims as they were sent: any JSON may appear where a claim is expected. A claim that is `null` counts as absent.
#[derive(Deserialize)]
struct RawClaims {
    sub: Option<Claim>,
    exp: Option<Claim>,
    nbf: Option<Claim>,
    roles: Option<Claim>,
    fam: Option<Claim>,
}

#[derive(Serialize)]
struct SignedClaims<'a> {
    sub: String,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    fam: Option<String>,
}

impl RawClaims {
    fn check(self, now: Wall, leeway: Duration) -> Result<Claims, TokenFault> {
        let expires = self.exp.as_ref().ok_or(TokenFault::ExpiryMissing)?.date().ok_or(TokenFault::ExpiryNotNumber)?;
        // RFC 7519 section 4.1.4: not accepted on or after this time.
        if now >= expires.after(leeway) {
            return Err(TokenFault::Expired);
        }
        if let Some(start) = &self.nbf {
            let start = start.date().ok_or(TokenFault::NotBeforeNotNumber)?;
            if now.after(leeway) < start {
                return Err(TokenFault::NotYetValid);
            }
        }
        let user = self.user()?;
        let roles = match self.roles {
            None => Vec::new(),
            Some(Claim::Names(names)) => names,
            Some(_) => return Err(TokenFault::InvalidRoles),
        };
        let family = match self.fam {
            None => None,
            Some(Claim::Text(text)) => Some(parse_family(&text).ok_or(TokenFault::InvalidFamily)?),
            Some(_) => return Err(TokenFault::InvalidFamily),
        };
        Ok(Claims { user, roles, expires, family })
    }

    fn user(&self) -> Result<UserId, TokenFault> {
        match &self.sub {
            Some(Claim::Text(text)) => text.parse().map_err(|_| TokenFault::InvalidSubject),
            Some(Claim::Integer(number)) => UserId::new(*number).map_err(|_| TokenFault::InvalidSubject),
            _ => Err(TokenFault::InvalidSubject),
        }
    }
}

fn parse_family(text: &str) -> Option<FamilyId> {
    if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(FamilyId)
}

fn decode_json<T: DeserializeOwned>(part: &str) -> Result<T, TokenFault> {
    let mut json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)?;
    simd_json::serde::from_slice(&mut json).map_err(|_| TokenFault::Malformed)
}

/// Any JSON value, kept only as far as a claim needs it.
enum Claim {
    Integer(u64),
    /// A number with a fraction, or below zero.
    Real(f64),
    Text(Box<str>),
    /// At most [`ROLES_MAX`] strings of 1 to [`ROLE_BYTES_MAX`] bytes.
    Names(Vec<Box<str>>),
    Other,
}

impl Claim {
    /// A NumericDate: seconds since 1970, perhaps with a fraction (RFC 7519 section 2). Dates before 1970 count as 1970.
    fn date(&self) -> Option<Wall> {
        match *self {
            Self::Integer(seconds) => Some(Wall::from_unix_seconds(seconds)),
            // A float cast saturates, so that a date beyond the end of the calendar becomes its end.
            Self::Real(seconds) => Some(Wall((seconds * Wall::TICKS_PER_SECOND as f64) as u64)),
            Self::Text(_) | Self::Names(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimVisitor)
    }
}

struct ClaimVisitor;

impl<'de> Visitor<'de> for ClaimVisitor {
    type Value = Claim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Claim, E> {
        Ok(Claim::Integer(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Claim, E> {
        Ok(u64::try_from(value).map_or(Claim::Real(value as f64), Claim::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Claim, E> {
        Ok(Claim::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Claim, E> {
        Ok(Claim::Text(value.into()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Claim, E> {
        Ok(Claim::Other)
    }

    fn visit_unit<E>(self) -> Result<Claim, E> {
        Ok(Claim::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Claim, A::Error> {
        let mut names = Vec::new();
        let mut fits = true;
        while let Some(element) = seq.next_element::<Claim>()? {
            match element {
                Claim::Text(name) if fits && names.len() < ROLES_MAX && (1..=ROLE_BYTES_MAX).contains(&name.len()) => {
                    names.push(name);
                }
                _ => fits = false,
            }
        }
        Ok(if fits { Claim::Names(names) } else { Claim::Other })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claim, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Claim::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"a secret of more than 32 bytes, for tests only";
    const NOW: Wall = Wall(1_800_000_000 * Wall::TICKS_PER_SECOND);

    /// Signs any header and claims with HS256.
    fn token(header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(SECRET);
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{signed}.{signature}")
    }

    fn verify(token: &str) -> Result<Claims, TokenFault> {
        Keys::hs256(SECRET).verify(token, NOW, Duration::ZERO)
    }

    fn check_claims(claims: &str, expect: Result<u64, TokenFault>) {
        let found = verify(&token(r#"{"alg":"HS256","typ":"JWT"}"#, claims)).map(|claims| claims.user.value());
        assert_eq!(found, expect, "{claims}");
    }

    fn check_header(header: &str, expect: Result<u64, TokenFault>) {
        let found = verify(&token(header, r#"{"sub":"7","exp":1800000001}"#)).map(|claims| claims.user.value());
        assert_eq!(found, expect, "{header}");
    }

    #[test]
    fn a_signed_token_is_verified_to_the_same_claims() {
        let keys = Keys::hs256(SECRET);
        for (roles, family) in [(vec![], None), (vec!["admin".into(), "ops".into()], Some(FamilyId(0xfe)))] {
            let claims = Claims { user: UserId::new(42).unwrap(), roles, expires: NOW.after(Duration::from_secs(60)), family };
            let token = keys.sign(&claims, NOW);
            assert_eq!(keys.verify(&token, NOW, Duration::ZERO), Ok(claims));
            assert_eq!(
                Keys::hs256(b"another secret of more than 32 bytes").verify(&token, NOW, Duration::ZERO),
                Err(TokenFault::WrongSignature)
            );
        }
    }

    #[test]
    fn headers() {
        check_header(r#"{"alg":"HS256"}"#, Ok(7));
        check_header(r#"{"alg":"HS256","kid":"k1","x":[{"y":null}]}"#, Ok(7));
        for none in ["none", "None", "nOnE"] {
            check_header(&format!(r#"{{"alg":"{none}"}}"#), Err(TokenFault::Unsigned));
        }
        for other in ["HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", "HS257", ""] {
            check_header(&format!(r#"{{"alg":"{other}"}}"#), Err(TokenFault::WrongAlgorithm));
        }
        check_header(r#"{"alg":"HS256","crit":["exp"]}"#, Err(TokenFault::UnknownExtension));
        for garbage in
            ["", "{}", "[]", "null", r#"{"alg":1}"#, r#"{"alg":"HS256""#, r#"{"alg":"HS256","alg":"none"}"#, "\u{fffd}"]
        {
            check_header(garbage, Err(TokenFault::Malformed));
        }
        let deep = format!(r#"{{"x":{}{},"alg":"HS256"}}"#, "[".repeat(300), "]".repeat(300));
        check_header(&deep, Ok(7));
        let long = format!(r#"{{"alg":"HS256","x":"{}"}}"#, "y".repeat(HEADER_BYTES_MAX));
        check_header(&long, Err(TokenFault::Malformed));
    }

    #[test]
    fn a_key_is_used_with_its_own_algorithm_only() {
        // The attacker signs with HMAC and the server's public RSA key.
        let rsa = DecodingKey::from_rsa_raw_components(SECRET, &[1, 0, 1]);
        let verifying = vec![VerifyingKey { kid: Some("k1".into()), algorithm: Algorithm::RS256, key: rsa }];
        let keys = Keys { verifying, signing: EncodingKey::from_secret(SECRET) };
        let check = |header: &str, expect| {
            let token = token(header, r#"{"sub":"7","exp":1800000001}"#);
            assert_eq!(keys.verify(&token, NOW, Duration::ZERO).unwrap_err(), expect, "{header}");
        };
        check(r#"{"alg":"HS256","kid":"k1"}"#, TokenFault::WrongAlgorithm);
        check(r#"{"alg":"RS256","kid":"k1"}"#, TokenFault::WrongSignature);
        check(r#"{"alg":"RS256","kid":"k2"}"#, TokenFault::UnknownKey);
        check(r#"{"alg":"RS256"}"#, TokenFault::UnknownKey);
    }

    #[test]
    fn times() {
        check_claims(r#"{"sub":"7","exp":1800000001}"#, Ok(7));
        check_claims(r#"{"sub":"7","exp":1800000000.5}"#, Ok(7));
        check_claims(r#"{"sub":"7","exp":1e300}"#, Ok(7));
        for past in ["1800000000", "1799999999.9", "0", "-1", "-1e300"] {
            check_claims(&format!(r#"{{"sub":"7","exp":{past}}}"#), Err(TokenFault::Expired));
        }
        for missing in [r#"{"sub":"7"}"#, r#"{"sub":"7","exp":null}"#] {
            check_claims(missing, Err(TokenFault::ExpiryMissing));
        }
        for other in [r#""1800000001""#, r#""soon""#, "true", "[1800000001]", r#"{"a":1}"#] {
            check_claims(&format!(r#"{{"sub":"7","exp":{other}}}"#), Err(TokenFault::ExpiryNotNumber));
        }
        check_claims(r#"{"sub":"7","exp":1800000009,"nbf":1800000000}"#, Ok(7));
        check_claims(r#"{"sub":"7","exp":1800000009,"nbf":1800000001}"#, Err(TokenFault::NotYetValid));
        check_claims(r#"{"sub":"7","exp":1800000009,"nbf":"1"}"#, Err(TokenFault::NotBeforeNotNumber));
    }

    #[test]
    fn leeway_widens_both_ends() {
        let keys = Keys::hs256(SECRET);
        let leeway = Duration::from_secs(10);
        let check = |claims: &str, expect| {
            let token = token(r#"{"alg":"HS256"}"#, claims);
            assert_eq!(keys.verify(&token, NOW, leeway).err(), expect, "{claims}");
        };
        check(r#"{"sub":"7","exp":1799999991}"#, None);
        check(r#"{"sub":"7","exp":1799999990}"#, Some(TokenFault::Expired));
        check(r#"{"sub":"7","exp":1800000100,"nbf":1800000010}"#, None);
        check(r#"{"sub":"7","exp":1800000100,"nbf":1800000011}"#, Some(TokenFault::NotYetValid));
    }

    #[test]
    fn subjects() {
        for good in ["1", r#""1""#] {
            check_claims(&format!(r#"{{"sub":{good},"exp":1800000001}}"#), Ok(1));
        }
        let greatest = crate::model::ids::ID_MAX;
        check_claims(&format!(r#"{{"sub":{greatest},"exp":1800000001}}"#), Ok(greatest));
        let over = greatest + 1;
        for bad in ["0", "-1", "1.0", "1.5", r#""""#, r#""01""#, r#""+1""#, r#"" 1""#, r#""alice""#, "null", "true", "[1]"] {
            check_claims(&format!(r#"{{"sub":{bad},"exp":1800000001}}"#), Err(TokenFault::InvalidSubject));
        }
        check_claims(&format!(r#"{{"sub":{over},"exp":1800000001}}"#), Err(TokenFault::InvalidSubject));
        check_claims(r#"{"exp":1800000001}"#, Err(TokenFault::InvalidSubject));
    }

    #[test]
    fn roles_and_families() {
        let check = |field: &str, expect| check_claims(&format!(r#"{{"sub":7,"exp":1800000001,{field}}}"#), expect);
        let list = |length: usize| vec![r#""r""#; length].join(",");
        check(r#""roles":[]"#, Ok(7));
        check(r#""roles":null"#, Ok(7));
        check(&format!(r#""roles":[{}]"#, list(ROLES_MAX)), Ok(7));
        check(&format!(r#""roles":[{}]"#, list(ROLES_MAX + 1)), Err(TokenFault::InvalidRoles));
        check(&format!(r#""roles":["{}"]"#, "r".repeat(ROLE_BYTES_MAX)), Ok(7));
        check(&format!(r#""roles":["{}"]"#, "r".repeat(ROLE_BYTES_MAX + 1)), Err(TokenFault::InvalidRoles));
        for bad in [r#""admin""#, "[1]", r#"["admin",null]"#, r#"[["admin"]]"#, r#"[""]"#, "{}", "7"] {
            check(&format!(r#""roles":{bad}"#), Err(TokenFault::InvalidRoles));
        }
        check(r#""fam":"00000000000000fe""#, Ok(7));
        for bad in [r#""fe""#, r#""+0000000000000fe""#, r#""00000000000000fg""#, "254", "[]"] {
            check(&format!(r#""fam":{bad}"#), Err(TokenFault::InvalidFamily));
        }
    }

    #[test]
    fn garbage() {
        let good = token(r#"{"alg":"HS256"}"#, r#"{"sub":"7","exp":1800000001}"#);
        for cut in 0..good.len() {
            assert!(verify(&good[..cut]).is_err(), "cut at {cut}");
        }
        for bad in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            "eyJ.eyJ.x",
            &format!("{good}."),
            &format!(".{good}"),
            &format!("{good}="),
            &format!(" {good}"),
        ] {
            assert!(verify(bad).is_err(), "{bad}");
        }
        for claims in ["", "null", "[]", "7", "{", r#"{"sub":"7","sub":"8","exp":1800000001}"#] {
            check_claims(claims, Err(TokenFault::Malformed));
        }
        let other = token(r#"{"alg":"HS256"}"#, r#"{"sub":"8","exp":1800000001}"#);
        let (signed, _) = other.rsplit_once('.').unwrap();
        let (_, signature) = good.rsplit_once('.').unwrap();
        assert_eq!(verify(&format!("{signed}.{signature}")), Err(TokenFault::WrongSignature));
    }

    #[test]
    fn length_is_bounded_before_any_work() {
        let padded = |length: usize| {
            let bare = token(r#"{"alg":"HS256"}"#, r#"{"sub":"7","exp":1800000001,"x":""}"#).len();
            let padding = (0..length).rev().find(|padding| bare + padding.div_ceil(3) * 4 + 4 <= length).unwrap();
            (padding..)
                .map(|padding| {
                    token(r#"{"alg":"HS256"}"#, &format!(r#"{{"sub":"7","exp":1800000001,"x":"{}"}}"#, "y".repeat(padding)))
                })
                .find(|token| token.len() >= length)
                .unwrap()
        };
        assert_eq!(padded(TOKEN_BYTES_MAX).len(), TOKEN_BYTES_MAX);
        assert!(verify(&padded(TOKEN_BYTES_MAX)).is_ok());
        assert_eq!(verify(&padded(TOKEN_BYTES_MAX + 1)), Err(TokenFault::TooLong));
        assert_eq!(verify(&".".repeat(1 << 20)), Err(TokenFault::TooLong));
    }
}
