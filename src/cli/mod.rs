//! The command line: the command, its configuration, and the exit code.
//!
//! Flows in: arguments and the environment. Flows out: an exit code; results on standard output, faults on standard
//! error. Never decides how the server behaves: it reads the configuration and passes it on.
//!
//! Invariants: 0 is success, [`FAILED`] a failure, [`MISUSED`] a wrong argument or configuration; `tidings token` prints
//! the token and nothing else.

mod doctor;
mod erase;
mod import;
mod migrate;
mod serve;
mod tls;
mod token;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tidings::config::{self, KEYS, Loaded, Settings, Sources, Store};
use tidings::io::bulk::Bulk;

/// The command could not be carried out.
const FAILED: u8 = 1;
/// The arguments or the configuration are wrong; clap exits with the same code.
const MISUSED: u8 = 2;

/// A real-time messaging server: STOMP over WebSocket, one executor per core.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration.")]
struct Arguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// Default: serve
    #[command(subcommand)]
    command: Option<Command>,
}

// No `Debug`: the values may include a secret.
#[derive(Args)]
struct SourceArguments {
    /// Configuration file (TOML); default: the variable TIDINGS_CONFIG, or none
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Sets one key, over file and environment
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT
    Serve,
    /// Prints an access token, signed with the configured secret
    Token(token::Arguments),
    /// Makes the database's keyspace and tables, or brings them up to what this version needs
    Migrate,
    /// Erases what the store has of a user; with the embedded store while no server runs
    EraseUser(erase::Arguments),
    /// Puts history from elsewhere into the store, while no server uses it
    Import(import::Arguments),
    /// Prints the configuration in force and where each value came from
    CheckConfig,
    /// Checks what the system must give: kernel, io_uring, limits, port, data directory
    Doctor,
}

/// Carries out the command of the process's arguments.
pub(crate) fn run() -> ExitCode {
    let Arguments { sources, command } = Arguments::parse();
    let sources = Sources { file: sources.config, environment: std::env::vars_os().collect(), set: sources.set };
    let loaded = match config::load(&sources) {
        Ok(loaded) => loaded,
        Err(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            return ExitCode::from(MISUSED);
        }
    };
    let outcome = match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(loaded),
        Command::Token(arguments) => token::token(&arguments, &loaded),
        Command::Migrate => migrate::migrate(&loaded),
        Command::EraseUser(arguments) => erase::erase(&arguments, &loaded),
        Command::Import(arguments) => import::import(&arguments, loaded),
        Command::CheckConfig => check_config(&loaded),
        Command::Doctor => doctor::doctor(&loaded),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed) => ExitCode::from(FAILED),
    }
}

/// The command failed, and has reported why on standard error.
struct Failed;

impl Failed {
    fn because(reason: impl Display) -> Self {
        eprintln!("tidings: {reason}");
        Self
    }
}

/// The configured store, for a command that runs alone on it; `migrates` updates a database's schema.
fn open_bulk(settings: &Settings, migrates: bool) -> Result<Bulk, Failed> {
    match settings.store {
        Store::Embedded => {
            let directory = std::path::absolute(&settings.data_dir).map_err(Failed::because)?;
            Bulk::open_embedded(&directory, &serve::embedded_options(settings)).map_err(Failed::because)
        }
        Store::Scylla => {
            let options = serve::scylla_options(settings).map_err(Failed::because)?;
            Bulk::open_database(options, migrates).map_err(Failed::because)
        }
    }
}

/// The effective configuration as TOML that can be used as a file; secrets are comments.
fn check_config(loaded: &Loaded) -> Result<(), Failed> {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let mut text = String::new();
    for key in KEYS {
        let line = format!("{} = {}", key.name, key.show(&loaded.settings));
        let comment = if line.contains("[redacted]") { "# " } else { "" };
        let place = loaded.places.get(key.name).map_or("default", String::as_str);
        text.push_str(&format!("{:<50} # {place}\n", format!("{comment}{line}")));
    }
    print(&text)?;
    // The files that the keys name must exist, too.
    tls::load(&loaded.settings.scylla).map(drop).map_err(Failed::because)
}

/// Writes to standard output at once; the reader may have gone.
fn print(text: &str) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failed::because)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serving_is_the_default_and_sources_may_precede_or_follow_the_command() {
        let bare = parse("tidings --set shards=1 --set node=2").unwrap();
        assert!(bare.command.is_none());
        assert_eq!(bare.sources.set, ["shards=1", "node=2"]);
        let behind = parse("tidings serve --config a.toml --set shards=1").unwrap();
        assert!(matches!(behind.command, Some(Command::Serve)));
        assert_eq!((behind.sources.config, behind.sources.set), (Some("a.toml".into()), vec!["shards=1".into()]));
    }

    #[test]
    fn wrong_arguments_exit_with_the_documented_code() {
        for line in [
            "tidings fly",
            "tidings --shards 1",
            "tidings token",
            "tidings token --user 0",
            "tidings token --user 1 --ttl 5",
            "tidings erase-user",
            "tidings import",
        ] {
            assert_eq!(parse(line).err().unwrap().exit_code(), i32::from(MISUSED), "{line}");
        }
        for line in ["tidings --version", "tidings --help"] {
            assert_eq!(parse(line).err().unwrap().exit_code(), 0, "{line}");
        }
    }
}
