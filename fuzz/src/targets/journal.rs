use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tidings::store::embedded::journal::{Fault, check};
use xxhash_rust::xxh3::xxh3_64;

use super::split;

/// The journal of the embedded store, as a crash or a bad disk may have left it: whole batches, then anything. No whole batch is cut
/// off, whatever stands behind it; what passes the check is a beginning of the journal, and passes again unchanged.
pub fn journal(data: &[u8]) {
    let (first, bytes) = split(data);
    let (unsynced, count) = (first & 1 != 0, usize::from(first >> 1 & 3));
    let (written, batches) = batches(bytes, count);

    let directory = directory();
    let journal = directory.path().join("0.jnl");
    fs::write(&journal, &written).expect("the journal is written");
    match check(directory.path(), unsynced) {
        Ok(has_batches) => {
            let left = fs::read(&journal).expect("the journal is read");
            assert!(batches <= left.len() && written.starts_with(&left), "no whole batch is cut off");
            assert!(has_batches || batches == 0);
            assert_eq!(check(directory.path(), unsynced).ok(), Some(has_batches));
            assert_eq!(fs::read(&journal).expect("the journal is read"), left, "what passes is not changed again");
        }
        Err(Fault::Damage(damage)) => {
            assert!(batches <= damage.offset && damage.offset < written.len(), "whole batches are no damage");
            assert_eq!(fs::read(&journal).expect("the journal is read"), written, "what is refused is not changed");
        }
        Err(Fault::Io(path, error)) => panic!("{}: {error}", path.display()),
    }
}

/// In memory where that exists: the check syncs what it cuts.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    directory.expect("a directory for the journal")
}

/// `count` batches with right checksums, which no fuzzer finds by chance, made of the first bytes; then the rest as it is. With the
/// length of the batches.
fn batches(mut bytes: &[u8], count: usize) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    for number in 0..count {
        let length = bytes.len().min(usize::from(bytes.first().copied().unwrap_or(0)));
        let (value, rest) = bytes.split_at(length);
        bytes = rest;
        let mut item = vec![2, 0, 0];
        item.extend_from_slice(&1u64.to_le_bytes());
        item.extend_from_slice(&1u16.to_le_bytes());
        item.extend_from_slice(&(length as u32).to_le_bytes());
        item.extend_from_slice(&(length as u32).to_le_bytes());
        item.push(b'k');
        item.extend_from_slice(value);
        out.push(1);
        out.extend_from_slice(&1u32.to_le_bytes());
        out.extend_from_slice(&(number as u64).to_le_bytes());
        out.extend_from_slice(&item);
        out.push(3);
        out.extend_from_slice(&xxh3_64(&item).to_le_bytes());
        out.extend_from_slice(b"FJL\x03");
    }
    let end = out.len();
    out.extend_from_slice(bytes);
    (out, end)
}
