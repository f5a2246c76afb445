//! `loadgen crash`: kill -9 at a random moment under load, repeatedly on the same data. Every acknowledged message must be in
//! the history once. The others are sent again under the same client message id.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tidings::protocol::stomp::Frame;

use crate::engine::{Engine, Proceed, Scenario};
use crate::pairs::{self, CatchUp, Counts, Pace, Pairs, Plan};
use crate::random::Random;
use crate::run::{RunArgs, put_conversations};
use crate::server::{ServerArgs, ServerSetup};
use crate::target::{Target, TargetArgs};
use crate::verify::LogFaults;

#[derive(Args, Clone, Debug)]
pub struct CrashArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Kills.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,
    /// Users, in pairs.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    users: u32,
    /// Messages that wait for their receipt at any time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    inflight: u64,
    /// Longest time under load before a kill, in milliseconds.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    load_ms: u64,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    seed: u64,
    kills: u32,
    users: u32,
    inflight: u64,
    counts: Counts,
    /// All rounds together.
    history: LogFaults,
    finished: bool,
}

/// Kills and checks; true when nothing acknowledged was lost, doubled or reordered.
///
/// # Errors
/// When the server cannot be started, or does not answer.
pub fn run(args: &CrashArgs, run: &RunArgs, target: &TargetArgs) -> Result<bool, String> {
    run.pin()?;
    let seed = run.seed();
    let site = ServerSetup::new(&args.server, &[], seed)?;
    println!("crash: {} kills, {} users, {} in flight, seed {seed}", args.times, args.users, args.inflight);
    println!("  {}", site.command());
    let target = target.resolve_at(site.address, &site.secret);
    let report = rounds(args, run, &site, &target, seed).map_err(|error| format!("{error} (log: {})", site.log().display()))?;
    print(&report);
    run.write_json(&report)?;
    let sound = report.finished && report.history.total() == 0 && report.counts.faults() == 0;
    if sound {
        site.remove();
    } else {
        println!("  data and log left beside {}", site.log().display());
    }
    Ok(sound)
}

fn rounds(args: &CrashArgs, run: &RunArgs, site: &ServerSetup, target: &Target, seed: u64) -> Result<Report, String> {
    let mut random = Random::new(seed);
    let plan = Plan {
        run: random.next_u64() as u32,
        first_sender: 0,
        users: args.users + args.users % 2,
        first_user: run.first_user,
        first_conversation: run.first_conversation,
        messages: u64::MAX,
        bytes: 128,
        client_ids: true,
        pace: Pace::Inflight(args.inflight),
        churn: 0.0,
        reconnect: false,
        mix: pairs::Mix::default(),
        drain_ns: 10_000_000_000,
    };
    let deadline = run.deadline();
    let mut server = site.start(None)?;
    put_conversations(target, "direct", pairs::conversations(&plan))?;
    let hidden = indicatif::ProgressBar::hidden();
    let mut load = Pairs::new(plan, CatchUp::start(target.clone()), Random::new(random.next_u64()), hidden);
    let mut history = LogFaults::default();
    for round in 1..=args.times {
        let after = Duration::from_micros(random.below(args.load_ms * 1_000));
        load.resume(u64::MAX);
        let mut engine = connect(&load, target, &mut random)?;
        let pid = server.pid();
        kill_under_load(&mut load, &mut engine, pid, after, deadline)?;
        server.wait().map_err(|error| error.to_string())?;
        server = site.start(None)?;
        let faults = pairs::verify(&load, target)?;
        println!("  {round:>3}: killed after {after:?}; {} acknowledged in all; {faults:?}", load.counts.acknowledged);
        history.add(faults);
    }
    let finished = settle(&mut load, target, &mut random, deadline)?;
    history.add(pairs::verify(&load, target)?);
    load.finish();
    let Pairs { counts, plan, .. } = load;
    drop(server);
    Ok(Report {
        scenario: "crash",
        seed,
        kills: args.times,
        users: plan.users,
        inflight: args.inflight,
        counts,
        history,
        finished,
    })
}

fn connect(load: &Pairs, target: &Target, random: &mut Random) -> Result<Engine, String> {
    let mut engine = Engine::new(target.clone(), Random::new(random.next_u64())).map_err(|error| error.to_string())?;
    for login in pairs::logins(&load.plan) {
        let slot = engine.add(login);
        engine.open(slot);
    }
    Ok(engine)
}

/// The last round: sends every unanswered message again, and all must settle.
fn settle(load: &mut Pairs, target: &Target, random: &mut Random, deadline: u64) -> Result<bool, String> {
    let assigned = load.counts.assigned;
    load.resume(assigned);
    load.plan.reconnect = true;
    let mut engine = connect(load, target, random)?;
    let finished = engine.run(load, deadline).map_err(|error| error.to_string())?;
    Ok(finished && load.users.iter().all(|client| client.unsettled() == 0))
}

/// The load until the last connection has ended, so that it reads all bytes of the server that the kernel still held.
struct UntilKilled<'a> {
    load: &'a mut Pairs,
    /// Dropped once all users are connected.
    started: Option<Sender<()>>,
    ended: usize,
}

impl Scenario for UntilKilled<'_> {
    fn ready(&mut self, slot: usize, now: u64) {
        self.load.ready(slot, now);
    }

    fn frame(&mut self, slot: usize, frame: &Frame<'_>, now: u64) {
        self.load.frame(slot, frame, now);
    }

    fn closed(&mut self, slot: usize, why: &str, now: u64) {
        self.ended += 1;
        self.load.closed(slot, why, now);
    }

    fn act(&mut self, engine: &mut Engine, now: u64) -> Proceed {
        let proceed = self.load.act(engine, now);
        if self.load.started_at.is_some() {
            self.started = None;
        }
        if self.ended == self.load.users.len() { Proceed::Done } else { proceed }
    }
}

/// Runs the load. Another thread kills the server at `after` from when all users are connected, whatever the load does then.
fn kill_under_load(load: &mut Pairs, engine: &mut Engine, pid: u32, after: Duration, deadline: u64) -> Result<(), String> {
    let (started, starts) = channel::<()>();
    let (stop, stopped) = channel::<()>();
    let killer = thread::spawn(move || {
        // Returns when the sender is dropped, which means that the load has begun.
        let _ = starts.recv();
        if stopped.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
            // SAFETY: no pointers. Nothing has waited for the child, so its id is still its own.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
    });
    let mut scenario = UntilKilled { load, started: Some(started), ended: 0 };
    let finished = engine.run(&mut scenario, deadline).map_err(|error| error.to_string());
    drop(scenario);
    drop(stop);
    killer.join().map_err(|_| "the killing thread panicked")?;
    if finished? { Ok(()) } else { Err("the time limit was reached".into()) }
}

fn print(report: &Report) {
    let Report { counts, history, kills, .. } = report;
    let LogFaults { missing, doubled, reordered, broken_chain } = *history;
    println!(
        "  {kills} kills, {} acknowledged, {} delivered, {} by the history",
        counts.acknowledged, counts.delivered, counts.caught_up
    );
    println!("  history: missing {missing}, doubled {doubled}, reordered {reordered}, broken chain {broken_chain}");
    println!(
        "  live: lost {}, doubled {}, reordered {}, skipped {}, misdelivered {}, unsettled {}",
        counts.lost, counts.doubled, counts.reordered, counts.skipped, counts.misdelivered, counts.unsettled
    );
    if !report.finished {
        println!("  NOT FINISHED: some messages sent again had no receipt in time");
    }
}
