//! The embedded store on a disk that keeps only synced data at a crash.
//!
//! `fsync` and `fdatasync` of this test's process are replaced. Each call records what it made durable: the bytes of a file,
//! or the names in a directory. From that a second directory is created as a power failure would leave the first: unsynced
//! data is gone, or, in the torn variants, present in some sectors and not in others. The engine's own
//! files pass through the same two functions, so that its tables and manifests are under test with its journal.
//!
//! Not covered: a disk that reports a sync it did not do, sectors that tear, metadata that reaches the disk without
//! being asked to. Also here, as they need the same replacement: syncs that fail, a disk that is full, and the order of
//! syncs and replies.

#[path = "../src/fuzz.rs"]
mod fuzz;

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidings::model::ids::{ConversationId, MessageId, UserId};
use tidings::model::message::{Conversation, ConversationKind, Draft, Head, Message, Participant, ParticipantRole};
use tidings::model::time::Wall;
use tidings::store::conversations::CreateConversation;
use tidings::store::embedded::{Embedded, Options, Trace};
use tidings::store::log::{self, Append, Appended, FindMessage, NewMessage, ReadAfter};
use tidings::store::{Call, Failure, Reply, Request};

#[expect(clippy::disallowed_types, reason = "the replaced functions are called from every thread of the process")]
type Shared<T> = std::sync::Mutex<T>;

/// The disk under the watched directory. One at a time: tests lock `TEST_LOCK` first.
static DISK: Shared<Option<Disk>> = Shared::new(None);
static TEST_LOCK: Shared<()> = Shared::new(());
/// Calls to sync since the watch began.
static SYNCS: AtomicU64 = AtomicU64::new(0);
/// Appends that were acknowledged since the watch began.
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);

/// Whether nothing can be written to a journal.
static FULL: AtomicBool = AtomicBool::new(false);

const SECTOR_BYTES: usize = 512;

type Inode = u64;

#[derive(Clone, Default)]
struct Disk {
    root: PathBuf,
    /// Files as of their last sync.
    files: BTreeMap<Inode, FileContent>,
    /// Directories as of their last sync.
    names: BTreeMap<Inode, BTreeMap<String, (Inode, bool)>>,
    plan: Plan,
    /// The crash that the plan asked for.
    crash: Option<Crash>,
}

/// Faults by call to sync.
#[derive(Clone, Copy, Default)]
struct Plan {
    crash_at: Option<u64>,
    fail_from: Option<u64>,
    /// Chooses the sectors that reach the disk without a sync; zero: none.
    torn_seed: u64,
}

/// The disk after a power failure, and the appends acknowledged by then.
#[derive(Clone)]
struct Crash {
    disk: Box<Disk>,
    acknowledged: u64,
}

/// A file that may be long and mostly hole.
#[derive(Clone, Default, PartialEq, Eq)]
struct FileContent {
    length: u64,
    data: Vec<u8>,
}

#[unsafe(no_mangle)]
extern "C" fn fsync(descriptor: c_int) -> c_int {
    sync(descriptor, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    sync(descriptor, libc::SYS_fdatasync)
}

/// A disk that is full: for the journals, which is where a commit goes.
#[unsafe(no_mangle)]
extern "C" fn write(descriptor: c_int, bytes: *const c_void, length: usize) -> isize {
    if FULL.load(Ordering::SeqCst) {
        let path = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            // SAFETY: the address is that of this thread's `errno`.
            unsafe { *libc::__errno_location() = libc::ENOSPC };
            return -1;
        }
    }
    // SAFETY: the same call, with the caller's arguments, that this function stands for.
    unsafe { libc::syscall(libc::SYS_write, descriptor, bytes, length) as isize }
}

fn sync(descriptor: c_int, call: libc::c_long) -> c_int {
    let mut disk = DISK.lock().unwrap();
    if let Some(disk) = disk.as_mut() {
        let number = SYNCS.fetch_add(1, Ordering::SeqCst) + 1;
        if disk.plan.crash_at == Some(number) {
            disk.record_crash();
        }
        if disk.plan.fail_from.is_some_and(|first| first <= number) {
            // SAFETY: the address is that of this thread's `errno`.
            unsafe { *libc::__errno_location() = libc::EIO };
            return -1;
        }
        disk.note(descriptor);
        // Only this disk counts: do not wait for the real one.
        return 0;
    }
    // SAFETY: the same call, with the caller's descriptor, that this function stands for.
    unsafe { libc::syscall(call, descriptor) as c_int }
}

impl Disk {
    fn watch(root: &Path, plan: Plan) {
        SYNCS.store(0, Ordering::SeqCst);
        ACKNOWLEDGED.store(0, Ordering::SeqCst);
        *DISK.lock().unwrap() = Some(Self { root: root.into(), plan, ..Self::default() });
    }

    fn end() -> Self {
        DISK.lock().unwrap().take().expect("watching")
    }

    fn note(&mut self, descriptor: c_int) {
        let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{descriptor}")) else { return };
        let Ok(metadata) = std::fs::metadata(&path) else { return };
        if !path.starts_with(&self.root) {
            return;
        }
        if metadata.is_dir() {
            self.names.insert(metadata.ino(), names(&path));
        } else {
            self.files.insert(metadata.ino(), FileContent::read(&path));
        }
    }

    fn record_crash(&mut self) {
        let acknowledged = ACKNOWLEDGED.load(Ordering::SeqCst);
        let mut disk = Self { plan: Plan::default(), crash: None, ..self.clone() };
        let mut random = Random(self.plan.torn_seed);
        if self.plan.torn_seed != 0 {
            disk.tear(&self.root, &mut random);
        }
        self.crash = Some(Crash { disk: Box::new(disk), acknowledged });
    }

    /// Lets some unsynced sectors reach the disk.
    fn tear(&mut self, directory: &Path, random: &mut Random) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                self.tear(&entry.path(), random);
            } else if let Some(durable) = self.files.get_mut(&metadata.ino()) {
                durable.tear(&FileContent::read(&entry.path()), random);
            }
        }
    }

    /// Creates the directory that the crash left.
    fn restore(&self, inode: Inode, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for (name, (inode, is_directory)) in self.names.get(&inode).into_iter().flatten() {
            if *is_directory {
                self.restore(*inode, &to.join(name));
                continue;
            }
            let content = self.files.get(inode).cloned().unwrap_or_default();
            let file = File::create(to.join(name)).unwrap();
            file.write_all_at(&content.data, 0).unwrap();
            file.set_len(content.length).unwrap();
        }
    }
}

fn names(directory: &Path) -> BTreeMap<String, (Inode, bool)> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let name = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().ok()?;
        Some((entry.file_name().into_string().ok()?, (metadata.ino(), metadata.is_dir())))
    };
    entries.filter_map(name).collect()
}

impl FileContent {
    fn read(path: &Path) -> Self {
        let Ok(file) = File::open(path) else { return Self::default() };
        let length = file.metadata().unwrap().len();
        let mut data = vec![0; data_bytes(&file, length)];
        let read = file.read_at(&mut data, 0).unwrap_or(0);
        data.truncate(read);
        Self { length, data }
    }

    fn tear(&mut self, current: &Self, random: &mut Random) {
        // Four kinds of failure: hardly any, half of, nearly all, or all sectors arrive.
        let chance = [10, 50, 95, 100][random.below(4) as usize];
        let end = current.data.len();
        for start in (0..end).step_by(SECTOR_BYTES) {
            let sector = start..end.min(start + SECTOR_BYTES);
            if random.below(100) < chance {
                let reached = self.data.len().max(sector.end);
                self.data.resize(reached, 0);
                self.data[sector.clone()].copy_from_slice(&current.data[sector]);
            }
        }
        self.length = self.length.max(self.data.len() as u64);
    }
}

/// Bytes before the first hole: the journals are one piece of data and a hole.
fn data_bytes(file: &File, length: u64) -> usize {
    // SAFETY: `lseek` takes any descriptor; this one is open.
    let hole = unsafe { libc::lseek(BorrowedFd::borrow_raw(file.as_raw_fd()).as_raw_fd(), 0, libc::SEEK_HOLE) };
    usize::try_from(hole).unwrap_or(0).min(length as usize)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Memory for rows is small, so that tables are written and merged within a few hundred messages.
fn options() -> Options {
    Options { memtable_bytes: 24 << 10, heads_max: 8, cache_bytes: 1 << 20, ..Options::default() }
}

fn conversation(number: u64) -> ConversationId {
    ConversationId::new(number + 1).unwrap()
}

const CONVERSATIONS: u64 = 5;
const NOW: Wall = Wall(17_000_000_000_000_000);

fn create() -> Vec<(u64, Request)> {
    let user = UserId::new(1).unwrap();
    let participants = vec![Participant { user, role: ParticipantRole::Member, joined_at: NOW }];
    let group = |number| Conversation {
        id: conversation(number),
        kind: ConversationKind::Group,
        title: None,
        created_by: user,
        created_at: NOW,
        participants: participants.clone(),
    };
    (0..CONVERSATIONS).map(|number| (0, CreateConversation { conversation: group(number) }.into())).collect()
}

/// The append with this number, from 1: always the same one.
fn append(number: u64) -> Append {
    let mut random = Random(number);
    let content: String = (0..random.below(400)).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    let draft = Draft { content: content.into(), client_id: Some(format!("key {number}").into()), headers: Vec::new() };
    let id = MessageId::from_parts(Wall(NOW.0 + number), 0, 1);
    Append {
        conversation: conversation(number % CONVERSATIONS),
        head: Head::default(),
        messages: vec![NewMessage { id, sender: UserId::new(1).unwrap(), draft }],
        keys_expire: Wall(u64::MAX),
        now: NOW,
    }
}

fn is_stored(reply: &Reply) -> bool {
    let Reply::Log(log::Reply::Append(Some(answer))) = reply else { return false };
    matches!(answer.results[..], [Appended::Stored(_)])
}

/// Appends in batches of one to nine up to `last`, until one is not acknowledged; the first number of each batch.
fn run(store: &mut Embedded, last: u64) -> Vec<u64> {
    let (mut random, mut replies) = (Random(last), Vec::new());
    store.apply(create(), &mut replies);
    let (mut next, mut begins) = (1, Vec::new());
    while next <= last && replies.iter().all(|(_, reply)| !matches!(reply, Reply::Failed(_))) {
        begins.push(next);
        let end = next + 1 + random.below(9);
        replies.clear();
        store.apply((next..end).map(|number| (number, append(number).into())), &mut replies);
        for (number, reply) in &replies {
            if is_stored(reply) {
                ACKNOWLEDGED.store(*number, Ordering::SeqCst);
            }
        }
        next = end;
    }
    begins
}

/// The numbers of all messages of a store; each must equal the sent one and link to the one before.
fn messages(store: &Embedded) -> Vec<u64> {
    let mut found = Vec::new();
    for number in 0..CONVERSATIONS {
        let request = ReadAfter { conversation: conversation(number), after: MessageId::MIN, limit: u16::MAX };
        let Some(page) = ReadAfter::answer(store.reader().read(&request.into())).unwrap() else { continue };
        let messages = page.messages;
        let mut prev: Option<&Message> = None;
        for message in &messages {
            let number = message.id.at().0 - NOW.0;
            let Append { messages: sent, .. } = append(number);
            assert_eq!((&message.content, &message.client_id), (&sent[0].draft.content, &sent[0].draft.client_id));
            assert_eq!(message.prev, prev.map(|prev| prev.id));
            assert_eq!(message.sequence, prev.map_or(1, |prev| prev.sequence + 1));
            let index = store.reader().read(&FindMessage { message: message.id }.into());
            assert_eq!(FindMessage::answer(index), Ok(Some(message.conversation)));
            found.push(number);
            prev = Some(message);
        }
    }
    found.sort_unstable();
    found
}

/// Crashes at one call to sync, and checks the store afterwards.
fn crash(sync: u64, torn_seed: u64) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    std::fs::create_dir(&live).unwrap();
    Disk::watch(&live, Plan { crash_at: Some(sync), torn_seed, ..Plan::default() });
    let begins = match Embedded::open(&live, &options()) {
        Ok(mut store) => run(&mut store, 400),
        Err(error) => panic!("{error}"),
    };
    let root = std::fs::metadata(&live).unwrap().ino();
    let Some(crash) = Disk::end().crash else { return false };

    let left = directory.path().join("left");
    crash.disk.restore(root, &left);
    let case = format!("crash at sync {sync}, torn {torn_seed}");
    let mut store = Embedded::open(&left, &options()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = messages(&store);
    let count = found.len() as u64;
    assert_eq!(found, (1..=count).collect::<Vec<_>>(), "{case}: a gap");
    assert!(crash.acknowledged <= count, "{case}: {} acknowledged, {count} there", crash.acknowledged);
    // The batch in flight is stored completely or not at all.
    assert!(count == 0 || begins.contains(&(count + 1)) || count >= 400, "{case}: {count} stored, batches begin {begins:?}");

    // The store continues from there: repeated appends are not stored twice.
    run(&mut store, 400);
    drop(store);
    let store = Embedded::open(&left, &options()).unwrap_or_else(|error| panic!("{case}, later: {error}"));
    assert!(messages(&store).len() >= 400, "{case}");
    true
}

/// Each crash once with complete writes, and then torn, in another way with each seed.
#[test]
fn acknowledged_messages_survive_a_crash_at_any_sync() {
    let _lock = TEST_LOCK.lock().unwrap();
    for torn in std::iter::once(None).chain(fuzz::seeds(1).map(Some)) {
        // The first syncs make the directory, the later ones are mostly batches.
        let syncs = (1..24).chain((24..).step_by(11));
        for (case, sync) in syncs.enumerate() {
            let torn_seed = torn.map_or(0, |seed| (seed + 1) * 1_000 + case as u64);
            if !crash(sync, torn_seed) {
                break;
            }
        }
    }
}

#[test]
fn a_failed_sync_acknowledges_nothing_then_or_later() {
    let _lock = TEST_LOCK.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(directory.path(), &options()).unwrap();
    let mut replies = Vec::new();
    store.apply(create(), &mut replies);
    store.apply([(1, append(1).into())], &mut replies);
    Disk::watch(directory.path(), Plan { fail_from: Some(1), ..Plan::default() });
    replies.clear();
    store.apply([(2, append(2).into()), (3, append(3).into())], &mut replies);
    assert!(replies.iter().all(|(_, reply)| matches!(reply, Reply::Failed(Failure::Unknown))), "{replies:?}");
    Disk::end();
    // The disk works again; the store must not trust it.
    replies.clear();
    store.apply([(4, append(4).into())], &mut replies);
    assert!(matches!(replies[..], [(4, Reply::Failed(Failure::Unavailable))]), "{replies:?}");
    assert_eq!(store.purge(NOW, 100), 0);
    // Reads continue, and do not show unacknowledged messages.
    assert_eq!(messages(&store), [1]);
    drop(store);
    // After reopening, the unknown append is stored or not, and a repetition settles it.
    let mut store = Embedded::open(directory.path(), &options()).unwrap();
    replies.clear();
    store.apply((2..=4).map(|number| (number, append(number).into())), &mut replies);
    assert!(replies.iter().all(|(_, reply)| is_stored(reply)), "{replies:?}");
    assert_eq!(messages(&store), [1, 2, 3, 4]);
}

#[test]
fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    let _lock = TEST_LOCK.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(directory.path(), &options()).unwrap();
    run(&mut store, 50);
    let before = messages(&store);
    FULL.store(true, Ordering::SeqCst);
    let mut replies = Vec::new();
    for number in 100..103 {
        store.apply([(number, append(number).into())], &mut replies);
    }
    FULL.store(false, Ordering::SeqCst);
    assert!(matches!(replies[0].1, Reply::Failed(Failure::Unknown)), "{replies:?}");
    assert!(matches!(replies[1..], [(_, Reply::Failed(Failure::Unavailable)), (_, Reply::Failed(Failure::Unavailable))]));
    assert_eq!(messages(&store), before);
    drop(store);
    let mut store = Embedded::open(directory.path(), &options()).unwrap();
    assert!(messages(&store).starts_with(&before));
    replies.clear();
    store.apply((100..103).map(|number| (number, append(number).into())), &mut replies);
    assert!(replies.iter().all(|(_, reply)| is_stored(reply)), "{replies:?}");
}

#[test]
fn a_failed_sync_refuses_the_start() {
    let _lock = TEST_LOCK.lock().unwrap();
    for first in 1..=6 {
        let directory = tempfile::tempdir().unwrap();
        Disk::watch(directory.path(), Plan { fail_from: Some(first), ..Plan::default() });
        assert!(Embedded::open(directory.path(), &options()).is_err(), "from sync {first}");
        Disk::end();
        // The remains of the failed start do no harm.
        Embedded::open(directory.path(), &options()).unwrap_or_else(|error| panic!("after sync {first}: {error}"));
    }
}

#[test]
fn replies_come_after_one_sync_for_the_batch() {
    let _lock = TEST_LOCK.lock().unwrap();
    for sync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(directory.path(), &Options { sync, ..Options::default() }).unwrap();
        store.apply(create(), &mut Vec::new());
        Disk::watch(directory.path(), Plan::default());
        let (sender, receiver) = std::sync::mpsc::channel();
        // The number of syncs that had returned at each step.
        store.set_trace(Box::new(move |step| sender.send((step, SYNCS.load(Ordering::SeqCst))).unwrap()));
        let mut replies = Vec::new();
        store.apply((1..=64).map(|number| (number, append(number).into())), &mut replies);
        assert!(replies.iter().all(|(_, reply)| is_stored(reply)));
        // Nothing to store, nothing to sync.
        store.apply([(1, append(1).into()), (2, FindMessage { message: MessageId::MIN }.into())], &mut replies);
        let syncs = u64::from(sync);
        let steps = [(Trace::Committed, syncs), (Trace::Replied, syncs), (Trace::Replied, syncs)];
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), steps);
        Disk::end();
    }
}
