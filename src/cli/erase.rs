//! `tidings erase-user`: what the store has of a user, removed.

use std::path::Path;

use tidings::config::{Loaded, Store};
use tidings::io::clock;
use tidings::io::scylla::Asking;
use tidings::log;
use tidings::model::UserId;
use tidings::store::embedded::Embedded;
use tidings::store::{Erased, Reply, Request};

use super::serve::{embedded_options, scylla_options};
use super::{Failed, print};

/// Rows that one step looks at: a step is one commit of the embedded store, and one request with a time-out to a database.
const STEP_ROWS: u16 = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The user whose data is erased
    #[arg(long, value_name = "ID")]
    user: UserId,
}

/// May be run again at any time, and goes on where it was interrupted.
pub(super) fn erase(arguments: &Arguments, loaded: &Loaded) -> Result<(), Failed> {
    let settings = &loaded.settings;
    log::init(settings.log.format, &settings.log.level).map_err(Failed::because)?;
    match settings.store {
        Store::Embedded => {
            let mut store = open(&settings.data_dir, &embedded_options(settings))?;
            let mut ask = |request| {
                let mut replies = Vec::new();
                store.apply([((), request)], &mut replies);
                replies.pop().map_or(Reply::Missing, |((), reply)| reply)
            };
            erase_all(arguments.user, &mut ask)?;
            store.compact().map_err(Failed::because)?;
            print("the files have been written anew without it\n")
        }
        Store::Scylla => {
            let options = scylla_options(settings).map_err(Failed::because)?;
            let database = Asking::open(options).map_err(Failed::because)?;
            erase_all(arguments.user, &mut |request| database.ask(request))
        }
    }
}

/// Of a directory that is not there no store is made.
fn open(data_dir: &Path, options: &tidings::store::embedded::Options) -> Result<Embedded, Failed> {
    if !data_dir.is_dir() {
        return Err(Failed::because(format!("there is no data directory {}", data_dir.display())));
    }
    Embedded::open(data_dir, options).map_err(Failed::because)
}

fn erase_all(user: UserId, ask: &mut dyn FnMut(Request) -> Reply) -> Result<(), Failed> {
    let (mut sum, mut place) = (Erased::default(), None);
    loop {
        match ask(Request::EraseUser { user, place: place.take(), limit: STEP_ROWS, now: clock::wall() }) {
            Reply::Erased { erased, next } => {
                sum += erased;
                place = next;
            }
            Reply::Failed(failure) => {
                let reason =
                    format!("the store failed ({failure:?}); run it again to erase the rest. So far: {}", counts(user, &sum));
                return Err(Failed::because(reason));
            }
            other => return Err(Failed::because(format!("the store answered {other:?}"))),
        }
        if place.is_none() {
            break;
        }
    }
    if sum.found == 0 {
        return Err(Failed::because(format!("the store has nothing of user {user}")));
    }
    print(&format!("{}\n", counts(user, &sum)))
}

fn counts(user: UserId, erased: &Erased) -> String {
    let Erased { found: _, messages, conversations, blocks, logins, families } = erased;
    format!(
        "user {user}: messages {messages}, conversations {conversations}, blocks {blocks}, logins {logins}, sessions {families}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings::store::memory::Memory;

    #[test]
    fn a_user_that_nobody_knows_is_a_failure() {
        let mut store = Memory::new();
        let user = UserId::new(7).unwrap();
        assert!(erase_all(user, &mut |request| store.apply(&request)).is_err());
        let roles = Vec::new();
        store.apply(&Request::LoginUser { login: "+49".into(), candidate: user, roles, now: clock::wall() });
        assert!(erase_all(user, &mut |request| store.apply(&request)).is_ok());
        let mut fails = |_| Reply::Failed(tidings::store::Failure::Busy);
        assert!(erase_all(user, &mut fails).is_err());
    }

    #[test]
    fn no_store_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        assert!(open(&path, &tidings::store::embedded::Options::default()).is_err() && !path.exists());
    }
}
