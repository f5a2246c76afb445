//! `loadgen tables`: compares the latency of pages in long and short histories, and among many and few conversations.
//!
//! Each history is generated, imported into an empty store by the server's own command, served, and read in pages. The
//! medians of the largest are compared with those of the smallest: latency that grew with the history would differ widely.

use clap::Args;
use serde::Serialize;

use crate::clock;
use crate::generate::{GenerateArgs, GeneratedHistory};
use crate::pages::{self, Kind, Row};
use crate::run::RunArgs;
use crate::server::{ServerArgs, ServerSetup};
use crate::target::TargetArgs;

#[derive(Args, Clone, Debug)]
pub struct TablesArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Messages in the one conversation of a history, ascending.
    #[arg(long, value_delimiter = ',', default_value = "1000,30000,1000000")]
    messages: Vec<u64>,
    /// Days that this conversation lasts.
    #[arg(long, default_value_t = 1_400, value_parser = clap::value_parser!(u64).range(1..=1_400))]
    lasting_days: u64,
    /// Conversations of ten messages in a history, ascending.
    #[arg(long, value_delimiter = ',', default_value = "1000,30000,1000000")]
    conversations: Vec<u64>,
    /// Requests of each kind.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    requests: u64,
}

/// Messages and conversations of a page: the server's default.
const LIMIT: u64 = 20;
const MESSAGES_EACH: u64 = 10;
const SHORT_DAYS: u64 = 2;
const SPREAD_DAYS: u64 = 1_000;

/// The median of the largest may be this many times that of the smallest. A few conversations all stay in the shards' memory,
/// and their rows in the store's. Of a million none does: a page then takes one more read, a list some dozens of uncached
/// ones. Latency that grew with the history would differ by a factor of hundreds.
const TIMES_MAX: f64 = 8.0;

#[derive(Debug, Serialize)]
struct Line {
    conversations: u64,
    messages_each: u64,
    import_seconds: f64,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    seed: u64,
    lines: Vec<Line>,
    faults: u64,
    steep: Vec<String>,
}

/// Fills, measures and prints both tables; true when every page was the right one and the tables are flat.
///
/// # Errors
/// When a history cannot be imported or served.
pub fn run(args: &TablesArgs, run: &RunArgs, target: &TargetArgs) -> Result<bool, String> {
    let seed = run.seed();
    println!("tables: seed {seed}, {} requests of each kind, pages of {LIMIT}; p50 / p99 / p99.9 in us", args.requests);
    let long = args.messages.iter().map(|messages| GenerateArgs {
        conversations: 1,
        messages_each: *messages,
        spread_days: 0,
        lasting_days: args.lasting_days,
    });
    let many = args.conversations.iter().map(|conversations| GenerateArgs {
        conversations: *conversations,
        messages_each: MESSAGES_EACH,
        spread_days: SPREAD_DAYS,
        lasting_days: SHORT_DAYS,
    });
    let mut report = Report { scenario: "tables", seed, lines: Vec::new(), faults: 0, steep: Vec::new() };
    print_head();
    for table in [long.collect::<Vec<_>>(), many.collect()] {
        let from = report.lines.len();
        for history in table {
            let number = report.lines.len() as u64;
            let (line, faults) = measure(args, run, target, &history, seed.wrapping_add(number))?;
            print_line(&line);
            report.lines.push(line);
            report.faults += faults;
        }
        let steep = steep(&report.lines[from..]);
        report.steep.extend(steep);
    }
    for steep in &report.steep {
        println!("NOT FLAT: {steep}");
    }
    println!("{} pages were wrong", report.faults);
    run.write_json(&report)?;
    Ok(report.faults == 0 && report.steep.is_empty())
}

fn measure(
    args: &TablesArgs,
    run: &RunArgs,
    target: &TargetArgs,
    history: &GenerateArgs,
    seed: u64,
) -> Result<(Line, u64), String> {
    let history = GeneratedHistory::new(history, seed, run.first_user, run.first_conversation)?;
    // In a database, a separate keyspace replaces the directory.
    let keyspace = format!("scylla.keyspace=tables_{seed}");
    let site = ServerSetup::new(&args.server, &["shards=2", &keyspace], seed)?;
    let began = clock::mono_ns();
    site.import(|out| history.write(out))?;
    let import_seconds = (clock::mono_ns() - began) as f64 / 1e9;
    let server = site.start(None)?;
    let target = target.resolve_at(site.address, &site.secret);
    let (rows, faults) = pages::measure(&history, LIMIT, args.requests, seed, &target, run.deadline())
        .map_err(|error| format!("{error} (log: {})", site.log().display()))?;
    drop(server);
    site.remove();
    Ok((Line { conversations: history.conversations, messages_each: history.messages_each, import_seconds, rows }, faults))
}

/// Describes the kinds of pages that take far longer in the last line than in the first.
fn steep(lines: &[Line]) -> Vec<String> {
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Vec::new() };
    let both = first.rows.iter().zip(&last.rows);
    let grown = both.filter(|(small, large)| large.latency.p50_us > small.latency.p50_us * TIMES_MAX);
    let describe = |(small, large): (&Row, &Row)| {
        format!(
            "{:?}: median of {:.0} us with {} x {}, {:.0} us with {} x {}",
            small.kind,
            small.latency.p50_us,
            first.conversations,
            first.messages_each,
            large.latency.p50_us,
            last.conversations,
            last.messages_each
        )
    };
    grown.map(describe).collect()
}

fn print_head() {
    let kinds: Vec<String> = Kind::ALL.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
    println!("| conversations x messages | imported a second | {} |", kinds.join(" | "));
    println!("|---|---|{}", "---|".repeat(kinds.len()));
}

fn print_line(line: &Line) {
    let Line { conversations, messages_each, import_seconds, rows } = line;
    let rate = (conversations * messages_each) as f64 / import_seconds;
    let cells =
        rows.iter().map(|Row { latency, .. }| format!("{:.0} / {:.0} / {:.0}", latency.p50_us, latency.p99_us, latency.p999_us));
    println!("| {conversations} x {messages_each} | {rate:.0} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Latency;

    #[test]
    fn growth_with_the_history_is_steep() {
        let line = |conversations, p50_us| {
            let rows = Kind::ALL.map(|kind| Row { kind, latency: Latency { p50_us, ..Latency::default() } }).into();
            Line { conversations, messages_each: 10, import_seconds: 1.0, rows }
        };
        assert!(steep(&[]).is_empty());
        assert!(steep(&[line(1, 100.0), line(2, 10_000.0), line(3, 799.0)]).is_empty());
        let found = steep(&[line(1, 100.0), line(3, 801.0)]);
        assert_eq!(found.len(), Kind::ALL.len());
        assert_eq!(found[0], "Newest: median of 100 us with 1 x 10, 801 us with 3 x 10");
    }
}
