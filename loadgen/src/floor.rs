//! The floor: the bare kernel work of a delivery, one `send()` of the same bytes to each of many loopback sockets.
//!
//! A server's work for a delivery is a multiple of this, on any machine and under any noise, as long as one run measures
//! both. The CPU time of the sending thread comes from the same accounting of the kernel as that of a process.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender};

use crate::socket::{self, Epoll};

/// Connected pairs of loopback sockets, non-blocking and without Nagle's delay: the ends to send on, and to read from.
///
/// # Errors
/// Those of the sockets; most likely at the limit of open files.
pub fn connect(count: usize) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (mut senders, mut receivers) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let receiver = TcpStream::connect(address)?;
        let (sender, _) = listener.accept()?;
        for socket in [&sender, &receiver] {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        senders.push(sender);
        receivers.push(receiver);
    }
    Ok((senders, receivers))
}

/// Sends `bytes` once to each socket, `rounds` times, and returns the thread's CPU time of one `send()` in nanoseconds.
/// Between rounds `wait` returns when the receivers have read everything; its time does not count.
///
/// # Errors
/// Those of `send` and of `wait`. A full socket buffer is an error too, since every byte must be sent.
pub fn measure(senders: &[TcpStream], bytes: &[u8], rounds: u32, wait: &mut impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let mut cpu_ns = 0;
    for _ in 0..rounds {
        let begin = thread_cpu_ns();
        for sender in senders {
            send(sender, bytes)?;
        }
        cpu_ns += thread_cpu_ns() - begin;
        wait()?;
    }
    Ok(cpu_ns as f64 / f64::from(rounds) / senders.len() as f64)
}

fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let count = socket::send(socket.as_raw_fd(), bytes)?;
    if count == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads all sockets. For each number of bytes requested in `asked`, reports to `read` when that many have arrived. Ends
/// when a channel closes.
///
/// # Errors
/// Those of epoll and of `recv`.
pub fn read(receivers: &[TcpStream], asked: &Receiver<u64>, read: &Sender<()>) -> io::Result<()> {
    let epoll = Epoll::new()?;
    for (at, receiver) in receivers.iter().enumerate() {
        epoll.add(receiver.as_raw_fd(), at as u64, false)?;
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1_024];
    let mut buffer = vec![0; 64 * 1024];
    for bytes in asked {
        let mut left = bytes;
        while left > 0 {
            let count = epoll.wait(&mut events, -1)?;
            for event in events.iter().take(count) {
                let Some(receiver) = receivers.get(event.u64 as usize) else { continue };
                let count = socket::receive(receiver.as_raw_fd(), &mut buffer)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left = left.saturating_sub(count as u64);
            }
        }
        if read.send(()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// CPU time of the calling thread, as in `/proc/PID/task/*/schedstat`.
fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for a timespec.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(code, 0, "every thread has a CPU clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
