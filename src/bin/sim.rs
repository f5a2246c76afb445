//! Runs the simulator: one seed, or many, with or without a planted fault.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tidings::sim::{self, Options, Plant};

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
    /// Plant a fault, which the run must then find.
    #[arg(long)]
    plant: Option<Planted>,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Planted {
    AckBeforeDurable,
    LyingDisk,
    DropDelivery,
    ReorderMesh,
}

impl From<Planted> for Plant {
    fn from(planted: Planted) -> Self {
        match planted {
            Planted::AckBeforeDurable => Self::AckBeforeDurable,
            Planted::LyingDisk => Self::LyingDisk,
            Planted::DropDelivery => Self::DropDelivery,
            Planted::ReorderMesh => Self::ReorderMesh,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..=seed,
        None => arguments.first..=arguments.first.saturating_add(arguments.seeds.saturating_sub(1)),
    };
    let (mut passed, mut failed) = (0, 0);
    for seed in seeds {
        let options = Options { seed, steps: arguments.steps, plant: arguments.plant.map(Into::into), print: arguments.trace };
        match sim::run(options) {
            Ok(report) => {
                passed += 1;
                println!("seed {seed}: {report:?}");
            }
            Err(violation) => {
                failed += 1;
                println!("FAILED {violation}");
                println!("again: cargo run --release --bin sim -- --seed {seed} --steps {} --trace", arguments.steps);
                if !arguments.keep_going {
                    break;
                }
            }
        }
    }
    println!("{passed} seeds passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
