//! `loadgen idle`: connections that only stay open: the memory of each, and the cost of keeping them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use tidings::protocol::stomp::{Command, Frame};

use crate::clock;
use crate::connection::Login;
use crate::engine::{Engine, Proceed, Scenario};
use crate::meter::{self, KernelMemory, Memory};
use crate::random::Random;
use crate::report;
use crate::run::RunArgs;
use crate::socket;
use crate::target::Target;

#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    /// Connections, each of its own user: authenticated, CONNECTED, one subscription, one frame each way.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// How long to stay connected, in seconds (60 or 60s), answering pings and heart-beats.
    #[arg(long, default_value = "60", value_parser = parse_seconds)]
    hold: Duration,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}

/// Connections of one source address: below the usual range of ephemeral ports.
const PER_SOURCE: u32 = 20_000;

/// One reading of the server and the kernel.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Reading {
    cpu_ns: u64,
    wall_ns: u64,
    memory: Memory,
    kernel: KernelMemory,
}

impl Reading {
    fn take(pid: Option<u32>) -> Result<Self, String> {
        let kernel = meter::kernel_memory().map_err(|error| format!("/proc: {error}"))?;
        let wall_ns = clock::mono_ns();
        let Some(pid) = pid else { return Ok(Self { wall_ns, kernel, ..Self::default() }) };
        let read = || Ok((clock::process_cpu_ns(pid)?, meter::memory(pid)?));
        let (cpu_ns, memory) = read().map_err(|error: std::io::Error| format!("process {pid}: {error}"))?;
        Ok(Self { cpu_ns, wall_ns, memory, kernel })
    }
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    connections: u32,
    held: u64,
    heart_beat: String,
    before: Reading,
    connected: Reading,
    after: Reading,
    resident_bytes_each_connected: f64,
    resident_bytes_each: f64,
    /// Of both ends, as both are on this machine.
    kernel_bytes_each: f64,
    hold_seconds: f64,
    hold_cpu_percent: f64,
    reasons: BTreeMap<Box<str>, u64>,
}

/// Connects, holds, and prints the memory of a connection; true when all connections stayed.
///
/// # Errors
/// When the load could not be applied.
pub fn run(args: &IdleArgs, run: &RunArgs, target: &Target) -> Result<bool, String> {
    run.pin()?;
    let files = socket::raise_file_limit();
    if files < u64::from(args.connections) + 50 {
        return Err(format!("the limit of open files is {files}: raise it with `ulimit -n`"));
    }
    println!("idle: {} connections for {} s, heart-beat {}", args.connections, args.hold.as_secs(), target.heart_beat);
    let before = Reading::take(run.server_pid)?;
    let mut engine = Engine::new(target.clone(), Random::new(run.seed())).map_err(|error| error.to_string())?;
    for index in 0..args.connections {
        let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + index / PER_SOURCE);
        let slot = engine.add(Login {
            user: run.first_user + u64::from(index),
            destinations: vec!["/user/queue/messages".to_owned()],
            source: (args.connections > PER_SOURCE && target.address.ip().is_loopback()).then_some(source),
            ..Login::default()
        });
        engine.open(slot);
    }
    let mut idle = Idle {
        connections: args.connections.into(),
        hold: args.hold,
        server_pid: run.server_pid,
        unsent: Vec::new(),
        answered: 0,
        ended: 0,
        until: None,
        readings: Vec::new(),
        progress: report::progress(args.connections.into(), "connected"),
    };
    let finished = engine.run(&mut idle, run.deadline()).map_err(|error| error.to_string())?;
    idle.progress.finish_and_clear();
    let [connected, after] = *idle.readings.as_slice() else {
        return Err(format!(
            "{} of {} connected: {}",
            idle.answered,
            args.connections,
            report::describe_reasons(&engine.reasons)
        ));
    };
    let report = summarize(args, target, [before, connected, after], idle.connections - idle.ended, engine.reasons);
    print(&report, run.server_pid.is_some());
    run.write_json(&report)?;
    Ok(finished && idle.ended == 0)
}

struct Idle {
    connections: u64,
    hold: Duration,
    server_pid: Option<u32>,
    /// Ready connections that have not sent their one frame yet.
    unsent: Vec<usize>,
    answered: u64,
    ended: u64,
    until: Option<u64>,
    /// One when all are connected, one after holding.
    readings: Vec<Reading>,
    progress: ProgressBar,
}

impl Idle {
    fn take_reading(&mut self) {
        // If the server has ended, its connections report that; no memory remains to be read.
        self.readings.extend(Reading::take(self.server_pid));
    }
}

impl Scenario for Idle {
    fn ready(&mut self, slot: usize, _now: u64) {
        self.unsent.push(slot);
    }

    fn frame(&mut self, _slot: usize, frame: &Frame<'_>, _now: u64) {
        self.answered += u64::from(frame.command == Command::Receipt);
    }

    fn closed(&mut self, _slot: usize, _why: &str, _now: u64) {
        self.ended += 1;
    }

    fn act(&mut self, engine: &mut Engine, now: u64) -> Proceed {
        for slot in self.unsent.drain(..) {
            engine.send(slot, Command::Send, &[("destination", "/app/heartbeat"), ("receipt", "m")], b"");
        }
        self.progress.set_position(self.answered);
        match self.until {
            Some(until) if now >= until => {
                self.take_reading();
                Proceed::Done
            }
            Some(until) => Proceed::Until(until),
            None if self.answered == self.connections => {
                self.take_reading();
                let until = now + self.hold.as_nanos() as u64;
                self.until = Some(until);
                Proceed::Until(until)
            }
            None if self.ended > 0 => Proceed::Done,
            None => Proceed::Until(u64::MAX),
        }
    }
}

fn summarize(
    args: &IdleArgs,
    target: &Target,
    [before, connected, after]: [Reading; 3],
    held: u64,
    reasons: BTreeMap<Box<str>, u64>,
) -> Report {
    let count = f64::from(args.connections);
    let each = |from: u64, to: u64| (to as f64 - from as f64) / count;
    let kernel = |reading: Reading| reading.kernel.slab + reading.kernel.tcp_buffers;
    let hold_ns = after.wall_ns.saturating_sub(connected.wall_ns) as f64;
    Report {
        scenario: "idle",
        connections: args.connections,
        held,
        heart_beat: target.heart_beat.to_string(),
        resident_bytes_each_connected: each(before.memory.resident, connected.memory.resident),
        resident_bytes_each: each(before.memory.resident, after.memory.resident),
        kernel_bytes_each: each(kernel(before), kernel(after)),
        hold_seconds: hold_ns / 1e9,
        hold_cpu_percent: after.cpu_ns.saturating_sub(connected.cpu_ns) as f64 / hold_ns * 100.0,
        before,
        connected,
        after,
        reasons,
    }
}

fn print(report: &Report, with_server: bool) {
    println!("  {} of {} connections stayed for {:.0} s", report.held, report.connections, report.hold_seconds);
    if with_server {
        println!(
            "  server: {:.0} bytes resident each when connected, {:.0} after holding; {:.2} % of a core while holding",
            report.resident_bytes_each_connected, report.resident_bytes_each, report.hold_cpu_percent
        );
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let [before, after] = [report.before.memory, report.after.memory].map(|memory| (memory.resident, memory.anonymous));
        println!(
            "  server: resident {:.1} to {:.1} MiB, anonymous {:.1} to {:.1}",
            mib(before.0),
            mib(after.0),
            mib(before.1),
            mib(after.1)
        );
    } else {
        println!("  no --server-pid: the server's memory and CPU were not read");
    }
    println!("  kernel: {:.0} bytes a connection, both ends (slab and socket buffers)", report.kernel_bytes_each);
    if !report.reasons.is_empty() {
        println!("  reasons: {}", report::describe_reasons(&report.reasons));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_in_seconds() {
        assert_eq!(parse_seconds("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_seconds("5"), Ok(Duration::from_secs(5)));
        assert!(parse_seconds("1m").is_err());
    }
}
