//! `tidings import`: imports history from a file into the configured store.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use tidings::config::{Loaded, Profile};
use tidings::import::{Counts, Import, LINE_BYTES_MAX, Rules};
use tidings::io::bulk::Bulk;
use tidings::io::clock;
use tidings::log;
use tidings::model::Mono;

use super::{Failed, open_bulk, print};

/// Bytes of the file per read.
const READ_BYTES: usize = 1 << 20;

const PROGRESS_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Lines of JSON: conversations, and messages in the order of their times; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Stores line by line until the end or the first bad line. May be run again with the same file at any time.
pub(super) fn import(arguments: &Arguments, loaded: Loaded) -> Result<(), Failed> {
    log::init(loaded.settings.log.format, &loaded.settings.log.level).map_err(Failed::because)?;
    let mut lines = open_lines(arguments)?;
    let mut store = open_bulk(&loaded.settings, loaded.settings.profile == Profile::Development)?;
    let settings = loaded.settings;
    let mut import = Import::new(Rules { limits: settings.limits, sanitize: settings.content.sanitize });
    let began = clock::mono();
    let outcome = import_lines(&mut import, &mut lines, &mut store, began);
    let said = print(&summary(import.counts(), began));
    outcome?;
    said
}

fn open_lines(arguments: &Arguments) -> Result<Box<dyn BufRead>, Failed> {
    if arguments.file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::with_capacity(READ_BYTES, io::stdin())));
    }
    let failed = |error| Failed::because(format_args!("{}: {error}", arguments.file.display()));
    let file = File::open(&arguments.file).map_err(failed)?;
    Ok(Box::new(BufReader::with_capacity(READ_BYTES, file)))
}

fn import_lines(import: &mut Import, lines: &mut dyn BufRead, store: &mut Bulk, began: Mono) -> Result<(), Failed> {
    let mut ask = |chains| store.carry_out(chains);
    let mut line = Vec::new();
    let mut reported = began;
    for number in 1.. {
        line.clear();
        // Read one byte more than allowed: the line's end.
        let read = lines.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        let now = clock::wall();
        let outcome = match read {
            Ok(0) => return import.store(now, &mut ask).map_err(Failed::because),
            Ok(_) if line.len() > LINE_BYTES_MAX && !line.ends_with(b"\n") => {
                import.refuse(number, format!("longer than {LINE_BYTES_MAX} bytes"), now, &mut ask)
            }
            Ok(_) => import.line(number, &line, now, &mut ask),
            Err(error) => import.refuse(number, error.to_string(), now, &mut ask),
        };
        outcome.map_err(Failed::because)?;
        let mono = clock::mono();
        if mono.since(reported) >= PROGRESS_EVERY {
            reported = mono;
            eprintln!("line {number}: {}", summary(import.counts(), began).trim_end());
        }
    }
    Ok(())
}

fn summary(counts: Counts, began: Mono) -> String {
    let Counts { conversations, conversations_existing, participants_added, messages, messages_existing } = counts;
    let seconds = clock::mono().since(began).as_secs_f64();
    let rate = (messages + messages_existing) as f64 / seconds.max(0.001);
    format!(
        "imported {conversations} conversations and {messages} messages in {seconds:.1} s ({rate:.0} messages a second); \
         there already: {conversations_existing} conversations, {messages_existing} messages; \
         {participants_added} participants joined groups that were there\n"
    )
}
