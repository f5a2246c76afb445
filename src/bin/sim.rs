//! Runs the simulator: one seed, or many, with or without an injected fault.

use std::process::ExitCode;

use clap::Parser;
use tidings::sim::{self, InjectedBug, Options};

#[derive(Parser)]
#[command(about = "Runs a whole node in one thread from a seed, and checks what must hold")]
struct Arguments {
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Events of each run, before everything comes to rest.
    #[arg(long, default_value_t = 20_000)]
    steps: u64,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// InjectedBug a fault, which the run must then find.
    #[arg(long, value_parser = parse_plant)]
    bug: Option<InjectedBug>,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
}

fn parse_plant(name: &str) -> Result<InjectedBug, String> {
    let known = InjectedBug::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, bug)| *bug).ok_or_else(|| format!("one of {}", InjectedBug::ALL.map(|(known, _)| known).join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..=seed,
        None => arguments.first..=arguments.first.saturating_add(arguments.seeds.saturating_sub(1)),
    };
    let (mut passed, mut failed) = (0, 0);
    for seed in seeds {
        let options = Options { seed, steps: arguments.steps, bug: arguments.bug, print: arguments.trace };
        match sim::run(options) {
            Ok(report) => {
                passed += 1;
                println!("seed {seed}: {report:?}");
            }
            Err(violation) => {
                failed += 1;
                println!("FAILED {violation}");
                let bug = InjectedBug::ALL.iter().find(|(_, bug)| Some(*bug) == arguments.bug);
                let bug = bug.map(|(name, _)| format!(" --bug {name}")).unwrap_or_default();
                println!("again: cargo run --release --bin sim -- --seed {seed} --steps {}{bug} --trace", arguments.steps);
                if !arguments.keep_going {
                    break;
                }
            }
        }
    }
    println!("{passed} seeds passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
