//! The bare kernel work of a delivery, so that other benches can be compared with it on the same machine.
//!
//! `cargo bench -p loadgen`: one `send()` of 150 and of 300 bytes to each of 1,000 loopback sockets, and sixteen frames
//! in one `send()`. CPU time of the sending thread, medians of five and their spread. Another thread reads everything
//! meanwhile, on another CPU if the kernel finds one.

use std::io;
use std::sync::mpsc::channel;
use std::thread;

use loadgen::{floor, socket};

const SOCKETS: usize = 1_000;
const SENDS_PER_ROUND: u32 = 20;
const ROUNDS: usize = 5;
const FRAMES_TOGETHER: usize = 16;

fn main() -> io::Result<()> {
    // `cargo test` also runs benches, to check that they work: once, and small.
    let (sockets, rounds) = if std::env::args().any(|arg| arg == "--bench") { (SOCKETS, ROUNDS) } else { (8, 1) };
    let allowed = socket::allowed_cpus();
    let (senders, receivers) = floor::connect(sockets)?;
    let (read, waits) = channel();
    let (ask, asked) = channel();
    let [first, .., last] = *allowed.as_slice() else {
        return Err(io::Error::other("only one CPU: the reader would slow the sender"));
    };
    thread::spawn(move || {
        let result = socket::pin(&[last]).and_then(|()| floor::read(&receivers, &asked, &read));
        if let Err(error) = result {
            eprintln!("floor: the reader ended: {error}");
        }
    });
    socket::pin(&[first])?;
    println!("{sockets} sockets, sender on CPU {first}, reader on CPU {last}: CPU ns a frame, median of {rounds} (min - max)");
    for frame_bytes in [150, 300] {
        for frames in [1, FRAMES_TOGETHER] {
            let bytes = vec![b'x'; frame_bytes * frames];
            let round_bytes = (bytes.len() * sockets) as u64;
            let mut each = Vec::new();
            for round in 0..=rounds {
                // Ask before each round, so that the reader works while the sender does.
                ask.send(round_bytes).map_err(|_| io::ErrorKind::BrokenPipe)?;
                let mut left = SENDS_PER_ROUND;
                let ns = floor::measure(&senders, &bytes, SENDS_PER_ROUND, &mut || {
                    waits.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
                    left -= 1;
                    if left > 0 { ask.send(round_bytes).map_err(|_| io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
                })?;
                // The first round warms buffers and windows.
                if round > 0 {
                    each.push(ns / frames as f64);
                }
            }
            each.sort_by(f64::total_cmp);
            let [min, median, max] = [0, each.len() / 2, each.len() - 1].map(|at| each[at]);
            println!("{frame_bytes:>5} bytes, {frames:>2} in one send: {median:>7.0} ({min:.0} - {max:.0})");
        }
    }
    Ok(())
}
