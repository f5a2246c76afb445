//! A look at the engine's journal before the engine reads it.
//!
//! fjall ends the replay at the first entry that it cannot parse, wherever that is, and cuts the journal off there: one
//! flipped bit would silently take every acknowledged batch behind it. And a batch of which only some pages reached
//! the disk, as a power failure leaves it, has a wrong checksum, on which fjall refuses to open. Here the two are told
//! apart: a torn tail, which nobody was ever promised, is cut off; anything else refuses the start.
//!
//! Grammar (fjall 3, format version 3, little-endian): a journal is batches and then zeros;
//!
//!     batch  = start item* end
//!     start  = 1:u8 items:u32 seqno:u64
//!     item   = 2:u8 type:u8 compression:u8 keyspace:u64 key:u16 value:u32 stored:u32 key-bytes stored-bytes
//!            | 4:u8 keyspace:u64
//!     end    = 3:u8 xxh3-of-the-items:u64 "FJL" 3:u8
//!
//! The tests hold the grammar to the version of the crate that is in use.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// What is wrong with a journal that no crash explains.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) journal: PathBuf,
    /// Where the first batch begins that cannot be read, in bytes.
    pub(super) offset: usize,
}

#[derive(Debug)]
pub(super) enum Fault {
    Io(PathBuf, io::Error),
    Damage(Damage),
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: &[u8] = b"FJL\x03";
/// The least that a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// Why there is no batch at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// It goes on beyond what was written.
    Short,
    Invalid,
}

/// Checks all journals of an engine's directory; cuts a torn tail off the last one.
///
/// `unsynced`: the last run did not sync, so that a power failure may have torn any of its batches, also one that has
/// whole ones behind it.
pub(super) fn check(directory: &Path, unsynced: bool) -> Result<(), Fault> {
    let mut journals = list(directory).map_err(|error| Fault::Io(directory.into(), error))?;
    journals.sort_unstable();
    let last = journals.last().map(|(number, _)| *number);
    let mut seqno = 0;
    for (number, journal) in journals {
        let data = std::fs::read(&journal).map_err(|error| Fault::Io(journal.clone(), error))?;
        let written = written_bytes(&data);
        let end = valid_bytes(&data[..written], &mut seqno);
        if end == written {
            continue;
        }
        if Some(number) != last || !is_torn(&data[..written], end, unsynced) {
            return Err(Fault::Damage(Damage { journal, offset: end }));
        }
        tracing::warn!(journal = %journal.display(), offset = end, bytes = written - end, "cut a torn tail off the journal");
        cut(&journal, end).map_err(|error| Fault::Io(journal, error))?;
    }
    Ok(())
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

/// Journals are made long and full of zeros, so that a commit does not change their length.
fn written_bytes(data: &[u8]) -> usize {
    data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
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

/// Whether a crash explains that there is no batch at `at`: only the last commit can have been under way.
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
