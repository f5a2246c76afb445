//! `loadgen cost`: the server's whole CPU time for a delivery and for a message, in multiples of a bare `send()` of the same
//! run. All threads of the server, its store included, run on one CPU; this program runs on the others.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use clap::Args;
use serde::Serialize;
use tidings::protocol::stomp::Frame;

use crate::engine::{Engine, Proceed, Scenario};
use crate::floor;
use crate::meter;
use crate::pairs::{self, Pace};
use crate::random::Random;
use crate::report::Spread;
use crate::run::{RunArgs, put_conversations};
use crate::server::{Server, ServerArgs, ServerSetup};
use crate::socket;
use crate::target::{Target, TargetArgs};
use crate::topic;

#[derive(Args, Clone, Debug)]
pub struct CostArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Rounds of each measurement; the median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Subscribers of the topic, and sockets of the floor.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    subscribers: u32,
    /// Users in pairs.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    users: u32,
    /// Messages of the topic with one in flight; eight times as many with 64.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    topic_messages: u64,
    /// Messages of the pairs.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(2..=100_000_000))]
    pairs_messages: u64,
    /// Messages of the pairs that wait for their receipt at any time.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    pairs_inflight: Vec<u64>,
}

/// One line of the result: every round's microseconds, and their multiples of the bare send of that round.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    each: &'static str,
    us: Vec<f64>,
    ratio: Vec<f64>,
    us_spread: Option<Spread>,
    ratio_spread: Option<Spread>,
    /// Its goal, in bare sends at most.
    bound: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    seed: u64,
    cpu: usize,
    subscribers: u32,
    users: u32,
    delivery_bytes: usize,
    pinned: bool,
    command: String,
    rows: Vec<Row>,
    /// CPU seconds of the server's threads by name, over the whole run.
    threads: Vec<(String, f64)>,
    faults: u64,
}

/// Ids of the topic's conversation and users follow those of the pairs.
const TOPIC_OFFSET: u64 = 1_000_000;
const FLOOR_ROUNDS: u32 = 40;
const FRAMES_TOGETHER: usize = 16;

/// Measures and prints the table; true when nothing was lost, doubled or reordered meanwhile.
///
/// # Errors
/// When the server cannot be started or a measurement fails.
pub fn run(args: &CostArgs, run: &RunArgs, target: &TargetArgs) -> Result<bool, String> {
    let [cpu] = *run.cpu.as_slice() else {
        return Err("--cpu must name one CPU: the server's".into());
    };
    let others: Vec<usize> = socket::allowed_cpus().into_iter().filter(|other| *other != cpu).collect();
    if others.is_empty() {
        return Err("no second CPU exists for the load generator".into());
    }
    socket::raise_file_limit();
    let seed = run.seed();
    let site = ServerSetup::new(&args.server, &["shards=1"], seed)?;
    println!("cost: server on CPU {cpu}, load generator on {others:?}, {} rounds, seed {seed}", args.rounds);
    println!("  {}", site.command());
    let server = site.start(Some(cpu))?;
    socket::pin(&others).map_err(|error| error.to_string())?;
    let target = target.resolve_at(site.address, &site.secret);
    let bench = Bench { args, run, target: &target, server: &server, cpu, deadline: run.deadline() };
    let report = bench.measure(seed, site.command()).map_err(|error| format!("{error} (log: {})", site.log().display()))?;
    drop(server);
    print(&report);
    run.write_json(&report)?;
    site.remove();
    Ok(report.faults == 0 && report.pinned)
}

struct Bench<'a> {
    args: &'a CostArgs,
    run: &'a RunArgs,
    target: &'a Target,
    server: &'a Server,
    cpu: usize,
    deadline: u64,
}

impl Bench<'_> {
    fn measure(&self, seed: u64, command: String) -> Result<Report, String> {
        let mut random = Random::new(seed);
        let mut faults = 0;
        topic::put(&self.topic(1, 1), self.target)?;
        put_conversations(self.target, "direct", pairs::conversations(&self.pairs(1, 0)))?;
        // The first measurement does not count: it yields the bytes that the floor sends, and warms the server.
        let (_, bytes) = self.time_topic(1, 20, &mut random, &mut faults)?;
        let bytes = bytes.ok_or("no delivery appeared on the wire")?;
        let mut rows = self.rows();
        for _ in 0..self.args.rounds {
            let bare = self.time_floor(&bytes, &mut random)?;
            let together = self.time_floor(&bytes.repeat(FRAMES_TOGETHER), &mut random)? / FRAMES_TOGETHER as f64;
            let one = self.time_topic(1, self.args.topic_messages, &mut random, &mut faults)?.0;
            let many = self.time_topic(64, self.args.topic_messages * 8, &mut random, &mut faults)?.0;
            let mut measured = vec![bare, together, one, many];
            for inflight in &self.args.pairs_inflight {
                measured.push(self.time_pairs(*inflight, &mut random, &mut faults)?);
            }
            for (row, us) in rows.iter_mut().zip(measured) {
                row.us.push(us);
                row.ratio.push(us / bare);
            }
        }
        for row in &mut rows {
            (row.us_spread, row.ratio_spread) = (Spread::of(&row.us), Spread::of(&row.ratio));
        }
        let pid = self.server.pid();
        let threads = meter::threads(pid).map_err(|error| error.to_string())?;
        Ok(Report {
            scenario: "cost",
            seed,
            cpu: self.cpu,
            subscribers: self.args.subscribers,
            users: self.args.users,
            delivery_bytes: bytes.len(),
            pinned: meter::is_pinned(pid, self.cpu).map_err(|error| error.to_string())?,
            command,
            rows,
            threads: threads.into_iter().map(|(name, cpu_ns)| (name, cpu_ns as f64 / 1e9)).collect(),
            faults,
        })
    }

    fn rows(&self) -> Vec<Row> {
        let row = |what: String, each, bound| Row {
            what,
            each,
            us: Vec::new(),
            ratio: Vec::new(),
            us_spread: None,
            ratio_spread: None,
            bound,
        };
        let mut rows = vec![
            row("bare send".into(), "send", None),
            row(format!("{FRAMES_TOGETHER} frames in one bare send"), "frame", None),
            row("topic, 1 in flight".into(), "delivery", Some(1.4)),
            row("topic, 64 in flight".into(), "delivery", Some(0.2)),
        ];
        rows.extend(
            self.args.pairs_inflight.iter().map(|inflight| row(format!("pairs, {inflight} in flight"), "message", Some(6.0))),
        );
        rows
    }

    fn topic(&self, inflight: u64, messages: u64) -> topic::Plan {
        topic::Plan {
            conversation: self.run.first_conversation + TOPIC_OFFSET,
            first_user: self.run.first_user + TOPIC_OFFSET,
            subscribers: self.args.subscribers,
            inflight,
            messages,
            bytes: 128,
        }
    }

    fn pairs(&self, inflight: u64, run_id: u32) -> pairs::Plan {
        pairs::Plan {
            run: run_id,
            first_sender: 0,
            users: self.args.users + self.args.users % 2,
            first_user: self.run.first_user,
            first_conversation: self.run.first_conversation,
            messages: self.args.pairs_messages,
            bytes: 128,
            // As the guide's clients send them; nothing is repeated here.
            client_ids: false,
            pace: Pace::Inflight(inflight),
            churn: 0.0,
            reconnect: true,
            mix: pairs::Mix::default(),
            drain_ns: 10_000_000_000,
        }
    }

    /// Returns the microseconds of a delivery, and the bytes of one.
    fn time_topic(
        &self,
        inflight: u64,
        messages: u64,
        random: &mut Random,
        faults: &mut u64,
    ) -> Result<(f64, Option<Vec<u8>>), String> {
        let plan = self.topic(inflight, messages);
        let pid = Some(self.server.pid());
        let outcome = topic::drive(&plan, self.target, pid, self.deadline, Random::new(random.next_u64()))?;
        *faults += outcome.counts.faults();
        let spent = outcome.spent.filter(|_| outcome.finished);
        let spent = spent.ok_or_else(|| format!("the topic with {inflight} in flight did not finish: {:?}", outcome.counts))?;
        Ok((spent.cpu_us_each(), outcome.delivery_bytes))
    }

    /// Returns the microseconds of a message: received, stored, acknowledged, delivered.
    fn time_pairs(&self, inflight: u64, random: &mut Random, faults: &mut u64) -> Result<f64, String> {
        let plan = self.pairs(inflight, random.next_u64() as u32);
        let options = pairs::Drive { verify_history: false, server_pid: Some(self.server.pid()), deadline: self.deadline };
        let share = pairs::drive(plan, &options, self.target, random)?;
        *faults += share.counts.faults();
        let spent = share.spent.filter(|_| share.finished);
        let spent = spent.ok_or_else(|| format!("the pairs with {inflight} in flight did not finish: {:?}", share.counts))?;
        Ok(spent.cpu_us_each())
    }

    /// Returns the microseconds of one send. The sender runs on the server's CPU, and this thread receives as in the other
    /// measurements.
    fn time_floor(&self, bytes: &[u8], random: &mut Random) -> Result<f64, String> {
        let count = self.args.subscribers as usize;
        let (senders, receivers) = floor::connect(count).map_err(|error| format!("the floor's sockets: {error}"))?;
        let mut engine = Engine::new(self.target.clone(), Random::new(random.next_u64())).map_err(|error| error.to_string())?;
        for receiver in receivers {
            let slot = engine.add(crate::connection::Login::default());
            engine.adopt(slot, OwnedFd::from(receiver)).map_err(|error| error.to_string())?;
        }
        let (read, waits) = channel();
        let (cpu, payload) = (self.cpu, bytes.to_vec());
        let sender = thread::spawn(move || {
            time_sends(cpu, &senders, &payload, &mut || waits.recv().map_err(|_| io::ErrorKind::BrokenPipe.into()))
        });
        // Count frames, not bytes: a frame that a read cuts has not arrived yet.
        let frames = bytes.windows(8).filter(|window| window == b"MESSAGE\n").count();
        let mut reader = FloorReader { per_round: (count * frames) as u64, read: 0, rounds: 0, ended: 0, ended_rounds: read };
        let finished = engine.run(&mut reader, self.deadline).map_err(|error| error.to_string())?;
        drop(reader);
        let ns = sender.join().map_err(|_| "the floor's sender panicked")?.map_err(|error| format!("the floor: {error}"))?;
        if finished { Ok(ns / 1_000.0) } else { Err("the time limit was reached".into()) }
    }
}

fn time_sends(cpu: usize, senders: &[TcpStream], bytes: &[u8], wait: &mut impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    socket::pin(&[cpu])?;
    // The first rounds do not count: they grow buffers and windows.
    floor::measure(senders, bytes, FLOOR_ROUNDS / 10, wait)?;
    floor::measure(senders, bytes, FLOOR_ROUNDS, wait)
}

/// Reads what the floor sends, and reports the end of each round.
struct FloorReader {
    per_round: u64,
    read: u64,
    rounds: u64,
    ended: u64,
    ended_rounds: Sender<()>,
}

impl Scenario for FloorReader {
    fn ready(&mut self, _slot: usize, _now: u64) {}

    fn frame(&mut self, _slot: usize, _frame: &Frame<'_>, _now: u64) {
        self.read += 1;
    }

    fn closed(&mut self, _slot: usize, _why: &str, _now: u64) {
        self.ended += 1;
    }

    fn act(&mut self, _engine: &mut Engine, _now: u64) -> Proceed {
        if self.read == self.per_round * (self.rounds + 1) {
            self.rounds += 1;
            // If the sender has failed, its sockets close, which ends the round too.
            let _ = self.ended_rounds.send(());
        }
        let all = u64::from(FLOOR_ROUNDS / 10 + FLOOR_ROUNDS);
        if self.rounds == all || self.ended > 0 { Proceed::Done } else { Proceed::Until(u64::MAX) }
    }
}

fn print(report: &Report) {
    println!("  {} bytes a delivery, {} subscribers, {} users in pairs", report.delivery_bytes, report.subscribers, report.users);
    println!("  {:<28} {:>9} {:>17}   {:>7} {:>15}  bound", "CPU of the server", "us each", "min - max", "ratio", "min - max");
    for Row { what, each, us_spread, ratio_spread, bound, .. } in &report.rows {
        let (Some(us), Some(ratio)) = (us_spread, ratio_spread) else { continue };
        let bound =
            bound.map_or_else(String::new, |bound| format!("{bound} {}", if ratio.median <= bound { "within" } else { "OVER" }));
        println!(
            "  {what:<28} {:>9.3} {:>8.3} {:>8.3}   {:>7.3} {:>7.3} {:>7.3}  {bound}  (a {each})",
            us.median, us.min, us.max, ratio.median, ratio.min, ratio.max
        );
    }
    let threads: Vec<_> = report.threads.iter().map(|(name, seconds)| format!("{name} {seconds:.2} s")).collect();
    println!("  server threads: {}", threads.join(", "));
    if !report.pinned {
        println!("  NOT VALID: a thread of the server may run on another CPU");
    }
    if report.faults > 0 {
        println!("  NOT VALID: {} messages lost, doubled or reordered", report.faults);
    }
}
