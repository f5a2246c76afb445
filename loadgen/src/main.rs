//! The load generator's command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use loadgen::{cost, crash, generate, guide, idle, pages, pairs, run, tables, target, topic};

#[derive(Parser)]
#[command(
    version,
    about = "Load for a tidings server: exit code 0 sound, 1 something lost, doubled or reordered, 2 no load",
    arg_required_else_help = true
)]
struct Args {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    /// A load with fixed settings.
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    #[command(flatten)]
    target: target::TargetArgs,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Profile {
    /// Ten connections a second for a minute; each sends "Test message" to conversation 1.
    Guide,
}

#[derive(Subcommand)]
enum Scenario {
    /// Users in pairs send messages to each other.
    Pairs(pairs::PairsArgs),
    /// One sender; all other users subscribe to the conversation's topic.
    Topic(topic::TopicArgs),
    /// Connections that only stay open.
    Idle(idle::IdleArgs),
    /// Kills its own server under load, and checks that no acknowledged message is lost.
    Crash(crash::CrashArgs),
    /// Measures the CPU time of its own server for a delivery and for a message, in bare sends.
    Cost(cost::CostArgs),
    /// Writes a made-up history for `tidings import`; the same --seed reproduces it.
    Generate(generate::GenerateArgs),
    /// Requests pages of such a history and lists, checks them, and reports their latency.
    Pages(pages::PagesArgs),
    /// Imports histories of several sizes, each into its own store, and reports the latency of their pages.
    Tables(tables::TablesArgs),
}

fn main() -> ExitCode {
    let Args { scenario, profile, target, run } = Args::parse();
    let sound = match (&scenario, profile) {
        (Some(_), Some(_)) => Err("a scenario and --profile exclude each other".into()),
        (Some(Scenario::Pairs(args)), _) => target.resolve().and_then(|target| pairs::run(args, &run, &target)),
        (Some(Scenario::Topic(args)), _) => target.resolve().and_then(|target| topic::run(args, &run, &target)),
        (Some(Scenario::Idle(args)), _) => target.resolve().and_then(|target| idle::run(args, &run, &target)),
        (Some(Scenario::Crash(args)), _) => crash::run(args, &run, &target),
        (Some(Scenario::Cost(args)), _) => cost::run(args, &run, &target),
        (Some(Scenario::Generate(args)), _) => generate::run(args, run.seed(), run.first_user, run.first_conversation),
        (Some(Scenario::Pages(args)), _) => target.resolve().and_then(|target| pages::run(args, &run, &target)),
        (Some(Scenario::Tables(args)), _) => tables::run(args, &run, &target),
        (None, Some(Profile::Guide)) => target.resolve().and_then(|target| guide::run(&run, &target)),
        (None, None) => Err("name a scenario, or --profile guide".into()),
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
