//! One-time codes, logins and refresh tokens.

use crate::store::accounts::{
    FamilyId, ListRevoked, LoginAnswer, LoginUser, PutCode, PutCodeAnswer, PutRefresh, ReadUser, RevokeRefresh, RotateAnswer,
    RotateRefresh, TakeCode, TakeCodeAnswer,
};

use super::{Ask, Store, at, on_every_store, stores, user};

on_every_store! {
    stores:
    one_time_codes,
    logins_have_one_user,
    refresh_tokens_rotate_and_reuse_revokes,
}

pub(super) fn rotate(token: u8, next: u8, now: u64) -> RotateRefresh {
    RotateRefresh { token: [token; 32], next: [next; 32], now: at(now), expires: at(now + 100) }
}

/// Makes a family of user 1, with the family's number as its first token.
pub(super) fn login(store: &mut dyn Store, family: u8) {
    let (token, family) = ([family; 32], FamilyId(u64::from(family)));
    assert!(store.ask(PutRefresh { token, user: user(1), family, now: at(0), expires: at(100) }).changed);
}

fn one_time_codes(store: &mut dyn Store) {
    let put = |code: u8, now, per_hour| {
        let (login, code) = ("+49".into(), [code; 32]);
        PutCode { login, code, now: at(now), expires: at(now + 300), per_hour }
    };
    let take = |code: u8, now| TakeCode { login: "+49".into(), code: [code; 32], now: at(now), attempts_max: 3 };
    let (kept, again) = (PutCodeAnswer::Keep { changed: true }, PutCodeAnswer::Keep { changed: false });
    let limit = |retry_after| PutCodeAnswer::Limit { retry_after };
    let (accept, reject) = (TakeCodeAnswer::Accept, TakeCodeAnswer::Reject);
    assert_eq!(store.ask(take(1, 0)), reject);
    assert_eq!(store.ask(put(1, 0, 5)), kept);
    // The same request once more is not another code.
    assert_eq!(store.ask(put(1, 0, 5)), again);
    assert_eq!(store.ask(take(1, 1)), accept);
    assert_eq!(store.ask(take(1, 1)), accept);
    assert_eq!(store.ask(take(1, 2)), reject);
    // A later code replaces the earlier one.
    assert_eq!(store.ask(put(2, 10, 5)), kept);
    assert_eq!(store.ask(put(3, 11, 5)), kept);
    assert_eq!(store.ask(take(2, 12)), reject);
    assert_eq!(store.ask(take(3, 13)), accept);
    // Too many wrong ones make it void; a repetition of one is not counted.
    assert_eq!(store.ask(put(4, 20, 5)), kept);
    for now in [21, 21, 22] {
        assert_eq!(store.ask(take(9, now)), reject);
    }
    assert_eq!(store.ask(take(9, 23)), reject);
    assert_eq!(store.ask(take(4, 24)), reject);
    // It expires.
    assert_eq!(store.ask(put(5, 30, 5)), kept);
    assert_eq!(store.ask(take(5, 330)), reject);
    // At most five within an hour, which slides.
    assert_eq!(store.ask(put(6, 1_000, 5)), limit(2_600));
    assert_eq!(store.ask(put(6, 3_599, 5)), limit(1));
    assert_eq!(store.ask(put(6, 3_600, 5)), kept);
    assert_eq!(store.ask(put(7, 3_600, 0)), limit(10));
    assert_eq!(store.ask(take(6, 3_601)), accept);
}

fn logins_have_one_user(store: &mut dyn Store) {
    let mut ask = |login: &str, candidate| {
        let (login, roles) = (login.into(), vec!["admin".into()]);
        match store.ask(LoginUser { login, candidate: user(candidate), roles, now: at(0) }) {
            LoginAnswer::User(user) => {
                assert_eq!(*user.roles, ["admin".into()]);
                user.user.value()
            }
            LoginAnswer::CandidateTaken => 0,
        }
    };
    assert_eq!([ask("a", 1), ask("a", 2), ask("b", 1), ask("b", 2), ask("a", 1)], [1, 1, 0, 2, 1]);
    assert_eq!(store.ask(ReadUser { user: user(2) }).map(|found| found.user), Some(user(2)));
}

fn refresh_tokens_rotate_and_reuse_revokes(store: &mut dyn Store) {
    login(store, 1);
    let rotated = |answer| match answer {
        RotateAnswer::Rotate { family, user } => Some((family.0, user.user.value())),
        RotateAnswer::Reject { family: None } => None,
        RotateAnswer::Reject { family: Some((user, family)) } => Some((family.0 + 100, user.value())),
    };
    assert_eq!(rotated(store.ask(rotate(9, 10, 0))), None);
    assert_eq!(rotated(store.ask(rotate(1, 11, 1))), Some((1, 1)));
    // The same request once more is no reuse.
    assert_eq!(rotated(store.ask(rotate(1, 11, 1))), Some((1, 1)));
    assert_eq!(rotated(store.ask(rotate(11, 12, 2))), Some((1, 1)));
    assert_eq!(rotated(store.ask(rotate(1, 13, 3))), Some((101, 1)));
    // The whole family is gone.
    assert_eq!(rotated(store.ask(rotate(12, 14, 4))), Some((101, 1)));
    login(store, 2);
    // Expired at the very time, and then nobody's.
    assert_eq!(rotated(store.ask(rotate(2, 21, 100))), None);
    let revoked = |store: &mut dyn Store, since| {
        store.ask(ListRevoked { since: at(since) }).iter().map(|(_, family)| family.0).collect::<Vec<_>>()
    };
    // At the first time.
    assert_eq!((revoked(store, 0), revoked(store, 3), revoked(store, 4)), (vec![1], vec![1], vec![]));
    login(store, 3);
    let revoke = |store: &mut dyn Store, token: u8, now| {
        store.ask(RevokeRefresh { token: [token; 32], now: at(now) }).map(|(_, family)| family.0)
    };
    assert_eq!((revoke(store, 3, 50), revoke(store, 3, 60), revoke(store, 99, 60)), (Some(3), Some(3), None));
    assert_eq!(rotated(store.ask(rotate(3, 31, 61))), Some((103, 1)));
    assert_eq!((revoked(store, 0), revoked(store, 50), revoked(store, 51)), (vec![1, 3], vec![3], vec![]));
}
