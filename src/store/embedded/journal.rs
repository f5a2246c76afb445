//! A look at the engine's journal before the engine reads it.
//!
//! fjall ends the replay at the first entry that it cannot parse, wherever that is, and cuts the journal off there: one
//! flipped bit would silently take every acknowledged batch behind it. And a batch of which only some pages reached
//! the disk, as a power failure leaves it, has a wrong checksum, on which fjall refuses to open. Here the two are told
//! apart: a torn tail, which nobody was ever promised, is cut off; anything else refuses the start.
//!
//! Grammar (fjall 3, format version 3, little-endian): a journal is batches and then zeros;
//!
//! ```text
//! batch  = start item* end
//! start  = 1:u8 items:u32 seqno:u64
//! item   = 2:u8 type:u8 compression:u8 keyspace:u64 key:u16 value:u32 stored:u32 key-bytes stored-bytes
//!        | 4:u8 keyspace:u64
//! end    = 3:u8 xxh3-of-the-items:u64 "FJL" 3:u8
//! ```
//!
//! The tests hold the grammar to the version of the crate that is in use.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Damage of a journal that no crash explains.
#[derive(Debug)]
pub struct Damage {
    pub journal: PathBuf,
    /// Where the first batch begins that cannot be read, in bytes.
    pub offset: usize,
}

#[derive(Debug)]
pub enum Fault {
    Io(PathBuf, io::Error),
    Damage(Damage),
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: &[u8] = b"FJL\x03";
/// How much of a journal is looked at at once when its zeros are counted.
const CHUNK_BYTES: usize = 1 << 20;
/// The least that a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// The reason that no batch begins at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// It goes on beyond the written part.
    Short,
    Invalid,
}

/// Checks all journals of an engine's directory; cuts a torn tail off the last one. Answers whether a batch is in them.
///
/// `unsynced`: the last run did not sync, so that a power failure may have torn any of its batches, also one that has
/// whole ones behind it.
pub fn check(directory: &Path, unsynced: bool) -> Result<bool, Fault> {
    let mut journals = list(directory).map_err(|error| Fault::Io(directory.into(), error))?;
    journals.sort_unstable();
    let last = journals.last().map(|(number, _)| *number);
    let (mut seqno, mut has_batches) = (0, false);
    for (number, journal) in journals {
        let data = read_written(&journal).map_err(|error| Fault::Io(journal.clone(), error))?;
        let end = valid_bytes(&data, &mut seqno);
        has_batches |= end > 0;
        if end == data.len() {
            continue;
        }
        if Some(number) != last || !is_torn(&data, end, unsynced) {
            return Err(Fault::Damage(Damage { journal, offset: end }));
        }
        tracing::warn!(journal = %journal.display(), offset = end, bytes = data.len() - end, "cut a torn tail off the journal");
        cut(&journal, end).map_err(|error| Fault::Io(journal, error))?;
    }
    Ok(has_batches)
}

fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = name.and_then(|name| name.parse().ok()) {
            journals.push((number, path));
        }
    }
    Ok(journals)
}

fn cut(journal: &Path, length: usize) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(journal)?;
    file.set_len(length as u64)?;
    file.sync_all()
}

/// A journal up to its last byte that is not zero: journals are made long and full of zeros, so that a commit does not
/// change their length.
fn read_written(journal: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(journal)?;
    let (zeros, mut chunk) = (vec![0; CHUNK_BYTES], Vec::new());
    let (mut position, mut written) = (0, 0);
    while file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)? > 0 {
        position += chunk.len() as u64;
        if chunk != zeros[..chunk.len()] {
            written = position;
        }
        chunk.clear();
    }
    file.rewind()?;
    let mut data = Vec::new();
    file.take(written).read_to_end(&mut data)?;
    data.truncate(data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(data)
}

/// Where the first batch begins that is not whole. `seqno` is that of the batch before, and never goes back.
fn valid_bytes(data: &[u8], seqno: &mut u64) -> usize {
    let mut at = 0;
    while at < data.len() {
        match batch(data, at) {
            Ok((next_seqno, next)) if *seqno <= next_seqno => {
                *seqno = next_seqno;
                at = next;
            }
            _ => break,
        }
    }
    at
}

/// Whether a crash explains that no batch begins at `at`: only the last commit can have been under way.
fn is_torn(data: &[u8], at: usize, unsynced: bool) -> bool {
    let tail = &data[at..];
    let has_hole = holes(data, at);
    if !unsynced && (1..tail.len()).any(|skip| tail[skip] == START && batch(data, at + skip).is_ok()) {
        return false;
    }
    match batch(data, at) {
        // Whole, but with a sequence number that has been: no crash does that.
        Ok(_) => false,
        Err(_) if has_hole => true,
        Err(Broken::Short) => !tail.ends_with(MAGIC),
        Err(Broken::Invalid) => false,
    }
}

/// Whether a sector from `at` on was never written.
fn holes(data: &[u8], at: usize) -> bool {
    let first = at.next_multiple_of(SECTOR_BYTES);
    let rest = data.get(first..).unwrap_or_default();
    let begins_with_hole = data[at..first.min(data.len())].iter().all(|byte| *byte == 0) && first <= data.len();
    (first > at && begins_with_hole) || rest.chunks_exact(SECTOR_BYTES).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// The sequence number of the batch at `at`, and where it ends.
fn batch(data: &[u8], at: usize) -> Result<(u64, usize), Broken> {
    let mut fields = Fields { data, at };
    if fields.u8()? != START {
        return Err(Broken::Invalid);
    }
    let (items, seqno) = (fields.u32()?, fields.u64()?);
    let first = fields.at;
    for _ in 0..items {
        fields.skip_item()?;
    }
    let checksum = xxh3_64(&data[first..fields.at]);
    if fields.u8()? != END || fields.u64()? != checksum || fields.bytes(MAGIC.len())? != MAGIC {
        return Err(Broken::Invalid);
    }
    Ok((seqno, fields.at))
}

struct Fields<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let rest = self.data.get(self.at..).ok_or(Broken::Short)?;
        let bytes = rest.get(..length).ok_or(Broken::Short)?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.bytes(N)?.try_into().map_err(|_| Broken::Short)
    }

    fn u8(&mut self) -> Result<u8, Broken> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Broken> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Broken> {
        self.array().map(u64::from_le_bytes)
    }

    fn skip_item(&mut self) -> Result<(), Broken> {
        match self.u8()? {
            ITEM => {
                let ([_type, _compression], _keyspace) = (self.array()?, self.u64()?);
                let key = u16::from_le_bytes(self.array()?);
                let (_value, stored) = (self.u32()?, self.u32()?);
                self.bytes(usize::from(key))?;
                self.bytes(stored as usize).map(|_| ())
            }
            CLEAR => self.u64().map(|_| ()),
            _ => Err(Broken::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
    use tempfile::TempDir;

    use super::*;

    const BATCHES: u8 = 4;

    /// A journal of batches of two rows, each of which has a whole sector for itself wherever it lies.
    struct Journal {
        directory: TempDir,
        data: Vec<u8>,
        /// Where each batch ends.
        ends: Vec<usize>,
    }

    fn engine(directory: &Path) -> Result<(Database, Keyspace), fjall::Error> {
        let database = Database::builder(directory).manual_journal_persist(true).worker_threads(1).open()?;
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default)?;
        Ok((database, rows))
    }

    /// How many of the batches the engine has whole, when it opens.
    fn batches_of(directory: &Path) -> Result<u8, fjall::Error> {
        let (_database, rows) = engine(directory)?;
        let mut count = 0;
        for batch in 1..=BATCHES {
            count += u8::from(rows.get([batch, 0])?.is_some() && rows.get([batch, 1])?.is_some());
        }
        Ok(count)
    }

    impl Journal {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let (database, rows) = engine(directory.path()).unwrap();
            for number in 1..=BATCHES {
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                batch.insert(&rows, [number, 0], vec![number; 1_200]);
                batch.insert(&rows, [number, 1], vec![number; 1_100]);
                batch.commit().unwrap();
            }
            drop((database, rows));
            let data = read_written(&directory.path().join("0.jnl")).unwrap();
            let (mut ends, mut at) = (Vec::new(), 0);
            while at < data.len() {
                at = batch(&data, at).expect("the grammar is that of the engine").1;
                ends.push(at);
            }
            assert_eq!(ends.len(), usize::from(BATCHES));
            Self { directory, data, ends }
        }

        /// Where the last batch begins.
        fn last(&self) -> usize {
            self.ends[self.ends.len() - 2]
        }

        /// Checks the journal as changed by `change`; the length of what is left, if it passes.
        fn check(&self, unsynced: bool, change: impl FnOnce(&mut Vec<u8>)) -> Result<usize, usize> {
            let mut data = self.data.clone();
            change(&mut data);
            let journal = self.directory.path().join("0.jnl");
            let file = File::create(&journal).unwrap();
            (&file).write_all(&data).unwrap();
            file.set_len(self.data.len() as u64 + 10_000).unwrap();
            match check(self.directory.path(), unsynced) {
                Ok(_) => Ok(read_written(&journal).unwrap().len()),
                Err(Fault::Damage(damage)) => Err(damage.offset),
                Err(Fault::Io(path, error)) => panic!("{path:?} {error}"),
            }
        }
    }

    #[test]
    fn a_whole_journal_passes_unchanged() {
        let journal = Journal::new();
        assert_eq!(journal.check(false, |_| {}), Ok(journal.data.len()));
        assert_eq!(journal.check(true, |_| {}), Ok(journal.data.len()));
        assert_eq!(batches_of(journal.directory.path()).unwrap(), BATCHES);
        assert_eq!(journal.check(false, Vec::clear), Ok(0));
    }

    #[test]
    fn a_flipped_bit_refuses_the_start() {
        let journal = Journal::new();
        for (at, bit) in (0..journal.data.len()).step_by(3).zip((0..8).cycle()) {
            let begin = journal.ends.iter().copied().filter(|end| *end <= at).max().unwrap_or(0);
            let is_sequence = (5..13).contains(&(at - begin));
            let outcome = journal.check(false, |data| data[at] ^= 1 << bit);
            match outcome {
                Err(offset) => assert!(offset == begin || is_sequence, "byte {at}, bit {bit}: {offset}"),
                // A sequence number that is still between its neighbours, or at the end, changes nothing.
                Ok(length) => assert!(is_sequence && length == journal.data.len(), "byte {at}, bit {bit}: {length} left"),
            }
        }
    }

    #[test]
    fn a_tail_that_was_cut_off_is_dropped() {
        let journal = Journal::new();
        for length in journal.last()..journal.data.len() {
            assert_eq!(journal.check(false, |data| data.truncate(length)), Ok(journal.last()), "{length} bytes");
        }
        assert_eq!(batches_of(journal.directory.path()).unwrap(), BATCHES - 1);
    }

    #[test]
    fn a_tail_with_sectors_missing_is_dropped() {
        let journal = Journal::new();
        let (first, end) = (journal.last() / SECTOR_BYTES, journal.data.len().div_ceil(SECTOR_BYTES));
        for missing in 1..1u32 << (end - first) {
            let outcome = journal.check(false, |data| {
                for sector in (first..end).filter(|sector| missing & (1 << (sector - first)) != 0) {
                    let from = (sector * SECTOR_BYTES).max(journal.last());
                    let to = ((sector + 1) * SECTOR_BYTES).min(data.len());
                    data[from..to].fill(0);
                }
            });
            assert_eq!(outcome, Ok(journal.last()), "{missing:b}");
        }
    }

    #[test]
    fn a_hole_with_batches_behind_it_is_damage_unless_nothing_was_synced() {
        let journal = Journal::new();
        let sector = journal.ends[1].next_multiple_of(SECTOR_BYTES);
        let hole = |data: &mut Vec<u8>| data[sector..sector + SECTOR_BYTES].fill(0);
        assert_eq!(journal.check(false, hole), Err(journal.ends[1]));
        assert_eq!(journal.check(true, hole), Ok(journal.ends[1]));
        // Only the journal written last may be torn.
        assert!(journal.check(false, |data| data.truncate(journal.last() + 9)).is_ok());
        File::create(journal.directory.path().join("1.jnl")).unwrap();
        assert_eq!(journal.check(true, |data| data.truncate(journal.last() + 9)), Err(journal.last()));
    }

    /// What the check is for. When the engine does better by itself, this fails, and the check may go.
    #[test]
    fn without_the_check_the_engine_loses_batches_or_refuses_to_open() {
        let journal = Journal::new();
        let path = journal.directory.path().join("0.jnl");
        // A bit of a tag in the second batch: the engine opens with one batch, and says nothing.
        let mut flipped = journal.data.clone();
        flipped[journal.ends[0]] ^= 0x10;
        std::fs::write(&path, &flipped).unwrap();
        assert_eq!(batches_of(journal.directory.path()).unwrap(), 1);
        // A sector of the last batch that a power failure left unwritten: the engine refuses to open.
        let mut torn = journal.data.clone();
        let sector = journal.last().next_multiple_of(SECTOR_BYTES);
        torn[sector..sector + SECTOR_BYTES].fill(0);
        std::fs::write(&path, &torn).unwrap();
        assert!(batches_of(journal.directory.path()).is_err());
    }
}
