//! `tidings erase-user`: removes a user's data from the store.

use tidings::config::{Loaded, Settings, Store};
use tidings::io::bulk::Bulk;
use tidings::io::clock;
use tidings::log;
use tidings::model::UserId;
use tidings::store::Failure;
use tidings::store::erasure::{EraseAnswer, EraseUser, Erased};

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
    erase_all(arguments.user, &mut |erase| store.ask(erase))?;
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

fn erase_all(user: UserId, ask: &mut dyn FnMut(EraseUser) -> Result<EraseAnswer, Failure>) -> Result<(), Failed> {
    let (mut sum, mut cursor) = (Erased::default(), None);
    loop {
        let answer = ask(EraseUser { user, cursor, limit: STEP_ROWS, now: clock::wall() });
        let EraseAnswer { erased, next } = answer.map_err(|failure| {
            let so_far = counts(user, &sum);
            Failed::because(format!("the store failed ({failure:?}); run it again to erase the rest. So far: {so_far}"))
        })?;
        sum += erased;
        cursor = next;
        if cursor.is_none() {
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
    use tidings::store::accounts::LoginUser;
    use tidings::store::memory::Memory;

    #[test]
    fn an_unknown_user_is_a_failure() {
        let mut store = Memory::new();
        let user = UserId::new(7).unwrap();
        assert!(erase_all(user, &mut |erase| store.ask(erase)).is_err());
        let roles = Vec::new();
        store.ask(LoginUser { login: "+49".into(), candidate: user, roles, now: clock::wall() }).unwrap();
        assert!(erase_all(user, &mut |erase| store.ask(erase)).is_ok());
        assert!(erase_all(user, &mut |_| Err(Failure::Busy)).is_err());
    }

    #[test]
    fn no_store_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let settings = Settings { data_dir: path.clone(), ..Settings::defaults(Profile::Development) };
        assert!(open(&settings).is_err() && !path.exists());
    }
}
