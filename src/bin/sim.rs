//! Runs the simulator: one seed, or many, with or without an injected bug.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::process::ExitCode;

use clap::Parser;
use tidings::sim::{self, InjectedBug, Options};

/// Fresh seeds begin below this: short enough to be typed.
const FRESH_BELOW: u64 = 1_000_000_000;

#[derive(Parser)]
#[command(about = "Runs whole nodes in one thread from a seed, and checks the promises of the server")]
struct Arguments {
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "first", "fresh"])]
    seed: Option<u64>,
    /// How many seeds to run, the same in every run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many other seeds to run afterwards, different ones in every run; the first is printed.
    #[arg(long, default_value_t = 0)]
    fresh: u64,
    /// Events of each run, before everything comes to rest.
    #[arg(long, default_value_t = 20_000)]
    steps: u64,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Inject a bug, which the run must then find.
    #[arg(long, value_parser = parse_bug)]
    bug: Option<InjectedBug>,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
}

fn parse_bug(name: &str) -> Result<InjectedBug, String> {
    let known = InjectedBug::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, bug)| *bug).ok_or_else(|| format!("one of {}", InjectedBug::ALL.map(|(known, _)| known).join(", ")))
}

impl Arguments {
    fn seeds(&self) -> Vec<u64> {
        if let Some(seed) = self.seed {
            return vec![seed];
        }
        let mut seeds: Vec<u64> = (self.first..self.first.saturating_add(self.seeds)).collect();
        if 0 < self.fresh {
            let first = RandomState::new().hash_one(self.seeds) % FRESH_BELOW;
            println!("{} fresh seeds from {first}", self.fresh);
            seeds.extend(first..first + self.fresh);
        }
        seeds
    }

    /// Returns whether the seed passed.
    fn run(&self, seed: u64) -> bool {
        match sim::run(Options { seed, steps: self.steps, bug: self.bug, print: self.trace }) {
            Ok(report) => {
                println!("seed {seed}: {report:?}");
                true
            }
            Err(violation) => {
                println!("FAILED {violation}");
                let bug = InjectedBug::ALL.iter().find(|(_, bug)| Some(*bug) == self.bug);
                let bug = bug.map(|(name, _)| format!(" --bug {name}")).unwrap_or_default();
                println!("again: cargo run --release --bin sim -- --seed {seed} --steps {}{bug} --trace", self.steps);
                false
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut passed, mut failed) = (0, 0);
    for seed in arguments.seeds() {
        if arguments.run(seed) {
            passed += 1;
            continue;
        }
        failed += 1;
        if !arguments.keep_going {
            break;
        }
    }
    println!("{passed} seeds passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
