//! The load generator's command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use loadgen::{pairs, run, target};

#[derive(Parser)]
#[command(
    version,
    about = "Load for a tidings server: exit code 0 sound, 1 something lost, doubled or reordered, 2 no load",
    arg_required_else_help = true
)]
struct Args {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    target: target::TargetArgs,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Subcommand)]
enum Scenario {
    /// Users in pairs talk to each other.
    Pairs(pairs::PairsArgs),
}

fn main() -> ExitCode {
    let Args { scenario, target, run } = Args::parse();
    let sound = match &scenario {
        Scenario::Pairs(args) => target.resolve().and_then(|target| pairs::run(args, &run, &target)),
    };
    match sound {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(2)
        }
    }
}
