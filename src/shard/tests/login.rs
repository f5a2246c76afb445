//! Codes, refresh tokens, logging out, over HTTP.

use std::time::Duration;

use super::harness::{Net, http, member};

const PHONE: &str = r#"{"phone":"+15551234567"}"#;

fn ask(net: &mut Net, path: &str, body: &str) -> String {
    // The store takes an attempt at the very same time for a repetition.
    net.pass(Duration::from_millis(1));
    let client = net.open(0);
    net.write(client, http(&format!("POST /auth/{path}"), "", body));
    let text = net.raw(client);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", &head[9..12])
}

fn code(net: &mut Net) -> String {
    assert_eq!(ask(net, "otp", PHONE), "202 {\"expiresIn\":300}");
    net.codes.pop().unwrap()
}

fn login(net: &mut Net, code: &str) -> String {
    ask(net, "login", &format!(r#"{{"phone":"+1 555 1234567","otp":"{code}"}}"#))
}

fn wrong(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

#[test]
fn a_code_is_good_once_and_for_a_while() {
    let mut net = Net::new(2);
    let good = code(&mut net);
    assert!(login(&mut net, wrong(&good)).starts_with("401 "));
    let tokens = login(&mut net, &good);
    assert!(tokens.starts_with("200 "), "{tokens}");
    assert!(login(&mut net, &good).starts_with("401 "), "used up");
    let token = member(&tokens, "accessToken").unwrap().to_owned();
    let client = net.client_with(&token);
    net.lose(client);
    let late = code(&mut net);
    net.pass(Duration::from_secs(300));
    assert!(login(&mut net, &late).starts_with("401 "), "expired");
    let (older, newer) = (code(&mut net), code(&mut net));
    if older != newer {
        assert!(login(&mut net, &older).starts_with("401 "), "replaced");
    }
    let again = login(&mut net, &newer);
    assert_eq!(again.split_once("\"userId\"").map(|parts| parts.1), tokens.split_once("\"userId\"").map(|parts| parts.1));
}

#[test]
fn attempts_and_codes_are_limited() {
    let mut net = Net::with(1, |limits| (limits.otp_attempts, limits.otp_per_phone_hour) = (3, 2));
    let good = code(&mut net);
    for _ in 0..3 {
        assert!(login(&mut net, wrong(&good)).starts_with("401 "));
    }
    assert!(login(&mut net, &good).starts_with("401 "), "void after too many attempts");
    code(&mut net);
    assert!(ask(&mut net, "otp", PHONE).starts_with("429 "));
    net.pass(Duration::from_secs(3_600));
    code(&mut net);
}

#[test]
fn addresses_are_limited() {
    let mut net = Net::with(2, |limits| limits.auth_per_address_minute = 2);
    for expect in ["401 ", "401 ", "429 "] {
        assert!(ask(&mut net, "refresh", r#"{"refreshToken":"x"}"#).starts_with(expect), "{expect}");
    }
    net.pass(Duration::from_secs(30));
    assert!(ask(&mut net, "refresh", r#"{"refreshToken":"x"}"#).starts_with("401 "));
}

fn refresh_body(answer: &str) -> String {
    format!(r#"{{"refreshToken":"{}"}}"#, member(answer, "refreshToken").unwrap())
}

#[test]
fn refresh_tokens_rotate_and_a_used_one_revokes_its_family() {
    let mut net = Net::new(3);
    let good = code(&mut net);
    let first = login(&mut net, &good);
    let second = ask(&mut net, "refresh", &refresh_body(&first));
    assert!(second.starts_with("200 "), "{second}");
    let token = member(&second, "accessToken").unwrap().to_owned();
    let client = net.client_with(&token);
    assert!(ask(&mut net, "refresh", &refresh_body(&first)).starts_with("401 "), "used before");
    net.check(client, &["ERROR the token has been revoked", "close 1008", "end"]);
    assert!(ask(&mut net, "refresh", &refresh_body(&second)).starts_with("401 "), "of a revoked family");
}

#[test]
fn logging_out_cuts_that_logins_sockets_and_no_other() {
    for shards in [1, 4] {
        let mut net = Net::new(shards);
        let logins = [(); 2].map(|()| {
            let good = code(&mut net);
            login(&mut net, &good)
        });
        let tokens = logins.each_ref().map(|answer| member(answer, "accessToken").unwrap().to_owned());
        let clients = tokens.each_ref().map(|token| net.client_with(token));
        // Its handshake was believed before the logout, its CONNECT comes after.
        let waiting = net.upgrade(0, &format!("?token={}", tokens[0]));
        assert!(ask(&mut net, "logout", &refresh_body(&logins[0])).starts_with("204 "));
        net.check(clients[0], &["ERROR the token has been revoked", "close 1008", "end"]);
        net.check(clients[1], &[]);
        net.stomp(waiting, &[super::harness::CONNECT]);
        net.check(waiting, &["101", "ERROR the token has been revoked", "close 1008", "end"]);
        let client = net.upgrade(0, &format!("?token={}", tokens[0]));
        net.check(client, &["401 unauthorized", "end"]);
        let client = net.open(0);
        net.write(client, http("GET /users/me", &format!("Authorization: Bearer {}\r\n", tokens[0]), ""));
        net.check(client, &["401 unauthorized"]);
    }
}

#[test]
fn roles_come_from_the_configuration() {
    let mut net = Net::new(1);
    ask(&mut net, "otp", r#"{"phone":"+100000"}"#);
    let good = net.codes.pop().unwrap();
    let answer = ask(&mut net, "login", &format!(r#"{{"phone":"+100000","otp":"{good}"}}"#));
    let client = net.open(0);
    let token = member(&answer, "accessToken").unwrap();
    let authorized = format!("Authorization: Bearer {token}\r\n");
    net.write(client, http("PUT /conversations/5", &authorized, r#"{"participants":[1,2]}"#));
    net.write(client, http("PUT /conversations/5", &authorized, r#"{"participants":[1,2]}"#));
    let heard = net.heard(client);
    assert!(heard[0].starts_with("201 ") && heard[1].starts_with("200 "), "{heard:?}");
    assert_eq!(net.request(1, "PUT /conversations/6", r#"{"participants":[1,2]}"#), "403 forbidden");
}
