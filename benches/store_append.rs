//! Appending to the embedded store: wall time and CPU time of a durable message, all threads of the process counted.
//!
//!     cargo bench --bench store_append [-- <directory on a real disk>]
//!
//! 500 conversations in use out of 20,000, messages of about 250 bytes with a client message id, one sync for each
//! batch; then pages of 20 of the history. CPU time comes from the kernel's accounting of this process, less the time to
//! make the requests, which is measured separately.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidings::model::ids::{ConversationId, MessageId, MessageIds, ShardId, UserId};
use tidings::model::message::{Conversation, ConversationKind, Draft, Head, Participant, ParticipantRole};
use tidings::model::time::Wall;
use tidings::store::Call;
use tidings::store::conversations::CreateConversation;
use tidings::store::embedded::{Embedded, Options};
use tidings::store::log::{Append, NewMessage, ReadBefore};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONVERSATIONS: u64 = 20_000;
const IN_USE: u64 = 500;
const DAY: Duration = Duration::from_secs(86_400);

fn main() {
    // Cargo passes `--bench` on.
    let parent = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let parent = parent.map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_path_buf(), PathBuf::from);
    let directory = tempfile::tempdir_in(parent).expect("a directory to write to");
    let mut store = Embedded::open(directory.path(), &Options::default()).expect("the store opens");
    let mut load = Load::new();
    load.create_conversations(&mut store);

    println!(
        "{:>8} {:>9} {:>14} {:>13} {:>16} {:>16}",
        "batch", "messages", "us a message", "CPU us", "us a commit p50", "us a commit max"
    );
    for (batch, messages) in [(1, 2_000), (16, 32_000), (64, 192_000), (256, 256_000)] {
        load.append(&mut store, batch, messages);
    }
    load.read_pages(&store);
    drop(store);
    let begun = Instant::now();
    Embedded::open(directory.path(), &Options::default()).expect("the store opens again");
    println!("opened again in {} ms", begun.elapsed().as_millis());
}

struct Load {
    ids: MessageIds,
    now: Wall,
    random: u64,
}

impl Load {
    fn new() -> Self {
        let now = Wall::from_unix_seconds(1_800_000_000);
        Self { ids: MessageIds::new(ShardId(0), 0, 1), now, random: 0x9E37_79B9_7F4A_7C15 }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn create_conversations(&self, store: &mut Embedded) {
        let mut replies = Vec::new();
        let batch = (0..CONVERSATIONS).map(|number| {
            let participants = [user(number, 0), user(number, 1)];
            let participants = participants.map(|user| Participant { user, role: ParticipantRole::Member, joined_at: self.now });
            let conversation = Conversation {
                id: conversation(number),
                kind: ConversationKind::Direct,
                title: None,
                created_by: participants[0].user,
                created_at: self.now,
                participants: participants.to_vec(),
            };
            ((), CreateConversation { conversation }.into())
        });
        store.apply(batch, &mut replies);
        assert!(replies.into_iter().all(|(_, reply)| CreateConversation::answer(reply).is_ok_and(|answer| answer.created)));
    }

    fn request(&mut self) -> Append {
        self.now = self.now.after(Duration::from_micros(100));
        let number = self.next_random() % IN_USE * (CONVERSATIONS / IN_USE);
        let words: Vec<String> = (0..28).map(|_| format!("{:x}", 0x1000 + self.next_random() % 0xEFFF)).collect();
        let client_id = format!("{:016x}-{:016x}", self.next_random(), self.next_random()).into();
        let draft = Draft { content: words.join(" ").into(), client_id: Some(client_id), headers: Vec::new() };
        let message = NewMessage { id: self.ids.next_id(self.now, None), sender: user(number, self.random % 2), draft };
        Append {
            conversation: conversation(number),
            head: Head::default(),
            messages: vec![message],
            keys_expire: self.now.after(DAY),
            now: self.now,
        }
    }

    fn append(&mut self, store: &mut Embedded, batch: usize, messages: usize) {
        let mut replies = Vec::new();
        let (mut making, mut commits) = (Duration::ZERO, Vec::new());
        let (started, cpu) = (Instant::now(), cpu_time());
        for _ in 0..messages / batch {
            let before = cpu_time();
            let requests: Vec<_> = (0..batch).map(|_| ((), self.request().into())).collect();
            making += cpu_time() - before;
            let begun = Instant::now();
            store.apply(requests, &mut replies);
            commits.push(begun.elapsed());
            assert!(replies.drain(..).all(|(_, reply)| matches!(Append::answer(reply), Ok(Some(_)))));
        }
        let (wall, cpu) = (started.elapsed(), cpu_time() - cpu - making);
        commits.sort_unstable();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / messages as f64;
        println!(
            "{batch:>8} {messages:>9} {:>14.1} {:>13.2} {:>16} {:>16}",
            each(wall),
            each(cpu),
            commits[commits.len() / 2].as_micros(),
            commits[commits.len() - 1].as_micros(),
        );
    }

    fn read_pages(&mut self, store: &Embedded) {
        let reader = store.reader();
        let pages = 20_000;
        let (started, cpu) = (Instant::now(), cpu_time());
        for _ in 0..pages {
            let conversation = conversation(self.next_random() % IN_USE * (CONVERSATIONS / IN_USE));
            let read = ReadBefore { conversation, before: MessageId::MAX, limit: 20 };
            let page = ReadBefore::answer(reader.read(&read.into()));
            assert!(page.is_ok_and(|page| page.is_some_and(|page| page.messages.len() == 20)));
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(pages);
        println!("newest page of 20: {:.1} us, CPU {:.1} us", each(started.elapsed()), each(cpu_time() - cpu));
    }
}

/// Ids spread over their range, as real ones are.
fn conversation(number: u64) -> ConversationId {
    ConversationId::new(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 12 | 1).expect("in range")
}

fn user(number: u64, which: u64) -> UserId {
    UserId::new((number * 2 + which + 1).wrapping_mul(0xD1B5_4A32_D192_ED03) >> 12 | 1).expect("in range")
}

/// User and system time of all threads of this process.
fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a `rusage`, which the call fills; all zeros is a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
