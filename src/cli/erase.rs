//! `tidings erase-user`: removes a user's data from the store.

use tidings::config::{Loaded, Settings, Store};
use tidings::io::bulk::Bulk;
use tidings::io::clock;
use tidings::log;
use tidings::model::UserId;
use tidings::store::{Erased, Reply, Request};

use super::{Failed, open_bulk, print};

/// Rows of one step: a step is one commit of the embedded store, and one request with a time-out to a database.
const STEP_ROWS: u16 = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The user whose data is erased
    #[arg(long, value_name = "ID")]
    user: UserId,
}

/// May be run again at any time, and continues where it was interrupted.
pub(super) fn erase(arguments: &Arguments, loaded: &Loaded) -> Result<(), Failed> {
    let settings = &loaded.settings;
    log::init(settings.log.format, &settings.log.level).map_err(Failed::because)?;
    let mut store = open(settings)?;
    erase_all(arguments.user, &mut |request| store.ask(request))?;
    if store.compact().map_err(Failed::because)? {
        print("the files have been written anew without it\n")?;
    }
    Ok(())
}

fn open(settings: &Settings) -> Result<Bulk, Failed> {
    // Do not create a store in a directory that does not exist.
    if settings.store == Store::Embedded && !settings.data_dir.is_dir() {
        return Err(Failed::because(format!("there is no data directory {}", settings.data_dir.display())));
    }
    open_bulk(settings, false)
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
    use tidings::config::Profile;
    use tidings::store::memory::Memory;

    #[test]
    fn an_unknown_user_is_a_failure() {
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
    fn no_store_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let settings = Settings { data_dir: path.clone(), ..Settings::defaults(Profile::Development) };
        assert!(open(&settings).is_err() && !path.exists());
    }
}
