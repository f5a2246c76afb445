//! `loadgen pairs`: users in pairs send each other messages, each durable, acknowledged, delivered and in the history.

pub mod catch_up;
pub mod mix;
pub mod scenario;
pub mod user;

use std::collections::BTreeMap;
use std::thread;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

pub use catch_up::CatchUp;
pub use mix::Mix;
pub use scenario::{Counts, DESTINATIONS, Pace, Pairs, Plan};

use crate::connection::Login;
use crate::engine::Engine;
use crate::meter::{Meter, Spent};
use crate::random::Random;
use crate::report::{self, Latency};
use crate::rest::RestClient;
use crate::run::{RunArgs, put_conversations};
use crate::socket;
use crate::target::Target;
use crate::verify::{self, LogFaults};
use tidings::client::Transport;

#[derive(Args, Clone, Debug)]
pub struct PairsArgs {
    /// Users, in pairs; one connection each.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    users: u32,
    /// The transport of all users: websocket, sockjs-websocket, xhr-streaming, xhr-polling or eventsource.
    #[arg(long, value_parser = mix::parse_transport, default_value = "websocket")]
    transport: Transport,
    /// Users by transport, such as websocket=2000,xhr-streaming=1000,xhr-polling=1000. In this order, the first half is in
    /// pairs with the second half.
    #[arg(long, conflicts_with_all = ["users", "transport"])]
    mix: Option<Mix>,
    /// Messages in all.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    messages: u64,
    /// Open loop: messages a second in all, with latency from when each was due.
    #[arg(long, conflicts_with = "inflight")]
    rate: Option<f64>,
    /// Closed loop: messages in all that wait for their receipt at any time (default 64).
    #[arg(long)]
    inflight: Option<u64>,
    /// Bytes of a SEND's JSON body, or as few as its marker needs.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(..=4_000))]
    bytes: u16,
    /// Send without client message ids, as the guide's clients do. Dropped messages cannot be repeated then.
    #[arg(long, conflicts_with = "churn")]
    no_client_ids: bool,
    /// Connections dropped a second, half of them by a reset; each comes back within 200 ms.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// At the end, read every history and check that it has each acknowledged message once, in order.
    #[arg(long)]
    verify_history: bool,
    /// Seconds to wait at the end for acknowledged messages.
    #[arg(long, default_value_t = 10)]
    drain: u64,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    seed: u64,
    users: u32,
    transports: BTreeMap<&'static str, u32>,
    messages: u64,
    pace: Pace,
    churn: f64,
    threads: u32,
    finished: bool,
    counts: Counts,
    history: Option<LogFaults>,
    seconds: f64,
    messages_per_second: f64,
    delivery: Latency,
    receipt: Latency,
    server: Option<Spent>,
    reasons: BTreeMap<Box<str>, u64>,
}

/// How to drive a plan.
pub struct Drive {
    pub verify_history: bool,
    pub server_pid: Option<u32>,
    /// Monotonic time in nanoseconds.
    pub deadline: u64,
}

/// The counts and times of one thread.
pub struct Share {
    pub finished: bool,
    pub counts: Counts,
    pub spent: Option<Spent>,
    history: Option<LogFaults>,
    delivery: Histogram<u64>,
    receipt: Histogram<u64>,
    started_at: u64,
    settled_at: u64,
    reasons: BTreeMap<Box<str>, u64>,
}

/// Runs the load and prints its counts and times; true when nothing was lost, doubled or reordered, and only the churn
/// ended connections or sessions.
///
/// # Errors
/// When the load could not be applied.
pub fn run(args: &PairsArgs, run: &RunArgs, target: &Target) -> Result<bool, String> {
    run.pin()?;
    socket::raise_file_limit();
    let seed = run.seed();
    let pace = match (args.rate, args.inflight) {
        (Some(rate), _) if rate > 0.0 => Pace::Rate(rate),
        (Some(_), _) => return Err("--rate must be above zero".into()),
        (None, inflight) => Pace::Inflight(inflight.unwrap_or(64).max(1)),
    };
    let mix = args.mix.clone().unwrap_or_else(|| Mix::all(args.transport, args.users.next_multiple_of(2)));
    let plans = split(args, &mix, run, pace, Random::new(seed).next_u64() as u32);
    let users: u32 = plans.iter().map(|plan| plan.users).sum();
    println!("pairs: {users} users, {} messages, {pace:?}, churn {}/s, seed {seed}", args.messages, args.churn);
    println!("  {}", describe_mix(&mix.sums()));
    for plan in &plans {
        put_conversations(target, "direct", conversations(plan))?;
    }
    let mut shares = Vec::new();
    // Reading the server's CPU needs the count of one moment, which several threads do not have.
    let options = Drive {
        verify_history: args.verify_history,
        server_pid: run.server_pid.filter(|_| run.threads == 1),
        deadline: run.deadline(),
    };
    thread::scope(|scope| {
        let start = |plan: Plan| {
            let mut random = Random::new(seed ^ u64::from(plan.first_sender));
            let options = &options;
            scope.spawn(move || drive(plan, options, target, &mut random))
        };
        let threads: Vec<_> = plans.into_iter().map(start).collect();
        for thread in threads {
            shares.push(thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))?);
        }
        Ok::<(), String>(())
    })?;
    let report = merge(shares, args, &mix, run, pace, users, seed)?;
    print(&report);
    run.write_json(&report)?;
    let faults = report.counts.faults() + report.history.map_or(0, LogFaults::total);
    Ok(report.finished && faults == 0 && report.counts.unsettled == 0 && report.counts.disconnected == 0)
}

fn describe_mix(sums: &BTreeMap<Transport, u32>) -> String {
    let name = |(transport, users): (&Transport, &u32)| format!("{users} by {transport}");
    sums.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The pairs' conversations with their users.
pub fn conversations(plan: &Plan) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
    (0..plan.users as usize).step_by(2).map(|slot| (plan.conversation(slot), plan.user(slot)..plan.user(slot) + 2))
}

pub fn logins(plan: &Plan) -> impl Iterator<Item = Login> {
    let destinations = DESTINATIONS.map(String::from).to_vec();
    (0..plan.users as usize).map(move |slot| Login {
        user: plan.user(slot),
        destinations: destinations.clone(),
        source: None,
        transport: plan.mix.of(plan.sender(slot)),
    })
}

/// Each thread has its own pairs, and its share of the pace.
fn split(args: &PairsArgs, mix: &Mix, run: &RunArgs, pace: Pace, run_id: u32) -> Vec<Plan> {
    let pairs = mix.users() / 2;
    let threads = run.threads.min(pairs);
    let mut plans = Vec::new();
    let mut first_pair = 0;
    for thread in 0..threads {
        let pairs_here = pairs / threads + u32::from(thread < pairs % threads);
        let share = |whole: u64| whole / u64::from(threads) + u64::from(u64::from(thread) < whole % u64::from(threads));
        plans.push(Plan {
            run: run_id,
            first_sender: first_pair * 2,
            users: pairs_here * 2,
            first_user: run.first_user,
            first_conversation: run.first_conversation,
            messages: share(args.messages),
            bytes: usize::from(args.bytes),
            client_ids: !args.no_client_ids,
            pace: match pace {
                Pace::Rate(rate) => Pace::Rate(rate / f64::from(threads)),
                Pace::Inflight(most) => Pace::Inflight(share(most).max(1)),
            },
            churn: args.churn / f64::from(threads),
            reconnect: true,
            mix: mix.clone(),
            drain_ns: args.drain * 1_000_000_000,
        });
        first_pair += pairs_here;
    }
    plans
}

/// Connects all users, sends all messages, and returns the counts and times.
///
/// # Errors
/// Those of epoll, and of the histories if they are read.
pub fn drive(plan: Plan, options: &Drive, target: &Target, random: &mut Random) -> Result<Share, String> {
    let mut engine = Engine::new(target.clone(), Random::new(random.next_u64())).map_err(|error| error.to_string())?;
    for login in logins(&plan) {
        let slot = engine.add(login);
        engine.open(slot);
    }
    let messages = plan.messages;
    let progress = report::progress(messages, "settled");
    let mut pairs = Pairs::new(plan, CatchUp::start(target.clone()), Random::new(random.next_u64()), progress);
    // The first tenth warms caches and branch predictors on both sides.
    pairs.meter = options.server_pid.filter(|_| messages > 1).map(|pid| Meter::new(pid, messages / 10, messages));
    let finished = engine.run(&mut pairs, options.deadline).map_err(|error| error.to_string())?;
    pairs.finish();
    let history = if options.verify_history { Some(verify(&pairs, target)?) } else { None };
    Ok(Share {
        finished,
        history,
        started_at: pairs.started_at.unwrap_or(0),
        settled_at: pairs.settled_at,
        spent: pairs.meter.as_ref().and_then(Meter::spent),
        counts: pairs.counts,
        delivery: pairs.delivery,
        receipt: pairs.receipt,
        reasons: engine.reasons,
    })
}

/// Reads every conversation's whole log and checks it against the receipts.
///
/// # Errors
/// When the server does not answer.
pub fn verify(pairs: &Pairs, target: &Target) -> Result<LogFaults, String> {
    let plan = &pairs.plan;
    let mut client = RestClient::new(target.address);
    let mut faults = LogFaults::default();
    for slot in (0..pairs.users.len()).step_by(2) {
        let token = target.token(plan.user(slot), &[])?;
        let entries = verify::read_after(&mut client, &token, plan.conversation(slot), tidings::model::MessageId::MIN)?;
        let acknowledged = [slot, slot + 1].map(|slot| (plan.sender(slot), &pairs.users[slot].acknowledged));
        faults.add(verify::check(&entries, plan.run, &acknowledged));
    }
    Ok(faults)
}

fn merge(
    shares: Vec<Share>,
    args: &PairsArgs,
    mix: &Mix,
    run: &RunArgs,
    pace: Pace,
    users: u32,
    seed: u64,
) -> Result<Report, String> {
    let (mut delivery, mut receipt) = (report::histogram(), report::histogram());
    let (mut counts, mut finished, mut history, mut server) = (Counts::default(), true, None, None);
    let mut reasons = BTreeMap::new();
    let started_at = shares.iter().map(|share| share.started_at).min().unwrap_or(0);
    let settled_at = shares.iter().map(|share| share.settled_at).max().unwrap_or(0);
    for share in shares {
        delivery.add(&share.delivery).and_then(|()| receipt.add(&share.receipt)).map_err(|error| error.to_string())?;
        counts.add(&share.counts);
        finished &= share.finished;
        if let Some(faults) = share.history {
            history.get_or_insert_with(LogFaults::default).add(faults);
        }
        server = server.or(share.spent);
        for (why, count) in share.reasons {
            *reasons.entry(why).or_insert(0) += count;
        }
    }
    let seconds = settled_at.saturating_sub(started_at) as f64 / 1e9;
    Ok(Report {
        scenario: "pairs",
        seed,
        users,
        transports: mix.sums().into_iter().map(|(transport, users)| (transport.name(), users)).collect(),
        messages: args.messages,
        pace,
        churn: args.churn,
        threads: run.threads,
        finished,
        messages_per_second: if seconds > 0.0 { counts.acknowledged as f64 / seconds } else { 0.0 },
        counts,
        history,
        seconds,
        delivery: Latency::from(&delivery),
        receipt: Latency::from(&receipt),
        server,
        reasons,
    })
}

fn print(report: &Report) {
    let Report { counts, seconds, messages_per_second, .. } = report;
    println!("  {} acknowledged in {seconds:.2} s: {messages_per_second:.0}/s", counts.acknowledged);
    println!("  delivered {}, {} by the history, refused {:?}", counts.delivered, counts.caught_up, counts.refused);
    println!("  receipt   {}", report.receipt);
    println!("  delivery  {}", report.delivery);
    if let Some(spent) = report.server {
        println!("  server CPU {:.1} us a message, {:.0} % of a core", spent.cpu_us_each(), spent.cpu_share() * 100.0);
    }
    println!(
        "  lost {}, doubled {}, reordered {}, skipped {}, misdelivered {}, unsettled {}",
        counts.lost, counts.doubled, counts.reordered, counts.skipped, counts.misdelivered, counts.unsettled
    );
    if let Some(LogFaults { missing, doubled, reordered, broken_chain }) = report.history {
        println!("  history: missing {missing}, doubled {doubled}, reordered {reordered}, broken chain {broken_chain}");
    }
    println!("  connections: {} dropped by the churn, {} ended otherwise", counts.churned, counts.disconnected);
    if !report.reasons.is_empty() {
        println!("  reasons: {}", report::describe_reasons(&report.reasons));
    }
    if !report.finished {
        println!("  NOT FINISHED: the time limit was reached");
    }
}
