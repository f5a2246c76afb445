//! Messages between executors arrive in time on a contended processor.
//!
//! glommio 0.9.0 may put an executor to sleep while it has a task to run. The permanent tick bounds the cost of that, and
//! this test checks the bound: no message waits longer than the tick plus the longest stall of a bare thread that wants to
//! run all the time on the same processor in the same run.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement, spawn_local, timer, yield_if_needed};
use rustix::thread::{CpuSet, sched_setaffinity};
use tidings::io::clock;
use tidings::io::mesh::{MeshReceiver, MeshSender, mesh};
use tidings::io::node::allowed_cpus;
use tidings::io::tick::{self, Tick};
use tidings::model::{Mono, ShardId};

const SHARDS: u16 = 3;
const BURSTS: u32 = 200;
const BURST: u32 = 100;
/// Room for several bursts: a message kept back waits for two executors to run, which is more than one stall.
const DEPTH: usize = 4_096;
/// Threads that never rest, besides the executors.
const BURNERS: usize = 4;

/// One end of the mesh, as a shard's pump holds it.
struct End {
    receiver: MeshReceiver<Mono>,
    sender: MeshSender<Mono>,
    received: u32,
    worst: Duration,
}

impl End {
    fn turn(&mut self) -> bool {
        self.sender.retry();
        let mut taken = Vec::new();
        self.receiver.take(64, &mut taken);
        self.received += u32::try_from(taken.len()).unwrap();
        let now = clock::mono();
        for (_, sent) in &taken {
            self.worst = self.worst.max(now.since(*sent));
        }
        !taken.is_empty()
    }

    fn has_mail(&self) -> bool {
        !self.receiver.is_empty() || self.sender.has_room()
    }
}

async fn turns(end: &RefCell<End>, tick: &Tick) {
    let mut happened = false;
    loop {
        let more = end.borrow_mut().turn();
        if !more {
            return tick.put_off(happened, None);
        }
        happened = true;
        yield_if_needed().await;
    }
}

/// Sends this shard's bursts, receives those of the others, and returns the longest wait.
async fn run(me: ShardId, receiver: MeshReceiver<Mono>, sender: MeshSender<Mono>) -> Duration {
    // Each shard sends every second message of a burst to each of the two others.
    let expected = BURSTS * BURST;
    let waker = receiver.waker();
    let end = Rc::new(RefCell::new(End { receiver, sender, received: 0, worst: Duration::ZERO }));
    let tick = Rc::new(Tick::default());
    let (time_tick, time_end, time_waker) = (Rc::clone(&tick), Rc::clone(&end), Arc::clone(&waker));
    let time = spawn_local(async move {
        loop {
            time_tick.wait().await;
            turns(&time_end, &time_tick).await;
            // This turn may have taken the last message, which the task below waits for.
            time_waker.wake();
        }
    });
    let sending_end = Rc::clone(&end);
    let sending = spawn_local(async move {
        for burst in 0..BURSTS {
            for number in 0..BURST {
                let to = ShardId((me.0 + 1 + u16::try_from(number).unwrap() % (SHARDS - 1)) % SHARDS);
                let now = clock::mono();
                sending_end.borrow_mut().sender.send(to, now);
            }
            // Uneven, so that bursts meet executors that are busy, falling asleep and waking up.
            timer::sleep(Duration::from_micros(u64::from(burst * 7_919 % 12_000))).await;
        }
    });
    while end.borrow().received < expected {
        waker.wait(|| end.borrow().has_mail() || end.borrow().received == expected).await;
        turns(&end, &tick).await;
    }
    sending.await;
    while end.borrow().sender.waiting() > 0 {
        timer::sleep(tick::SHORTEST).await;
    }
    time.cancel().await;
    end.borrow().worst
}

/// Burns the processor until `stop` is set; returns the longest time in which it did not run.
fn burn(cpu: usize, stop: &AtomicBool) -> Duration {
    pin(cpu);
    let mut longest = Duration::ZERO;
    let mut last = clock::mono();
    while !stop.load(Ordering::Relaxed) {
        let now = clock::mono();
        longest = longest.max(now.since(last));
        last = now;
    }
    longest
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap();
}

#[test]
fn no_message_waits_longer_than_the_tick_plus_a_stall() {
    let cpu = allowed_cpus()[0];
    let stop = Arc::new(AtomicBool::new(false));
    let mut burners = Vec::new();
    for _ in 0..BURNERS {
        let stop = Arc::clone(&stop);
        burners.push(thread::spawn(move || burn(cpu, &stop)));
    }
    let mut executors = Vec::new();
    for (me, (receiver, sender)) in (0..SHARDS).map(ShardId).zip(mesh(SHARDS, DEPTH)) {
        let builder = LocalExecutorBuilder::new(Placement::Fixed(cpu)).io_memory(0);
        executors.push(builder.spawn(move || run(me, receiver, sender)).unwrap());
    }
    let worst = executors.into_iter().map(|executor| executor.join().unwrap()).max().unwrap();
    stop.store(true, Ordering::Relaxed);
    let stall = burners.into_iter().map(|burner| burner.join().unwrap()).max().unwrap();
    println!("longest wait {worst:?}, longest stall of a bare thread {stall:?}");
    assert!(worst <= tick::LONGEST + stall, "a message waited {worst:?}; a bare thread stalled for {stall:?} at most");
}
