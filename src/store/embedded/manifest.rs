//! A look at the engine's lists of tables, and at the tables' own, before the engine reads them.
//!
//! Each tree of fjall has a file `v<number>` that lists its tables, and a file `current` that says which number counts and
//! what the list's checksum is. The engine does not compare the two: one flipped bit in a count of tables would leave out
//! the tables behind it, and the engine deletes the files of tables that are not in the list.
//!
//! Each table ends with a list of its sections, which does have a checksum that is compared, but after room was made for as
//! many sections as it says: with a flipped bit, more than there is memory for.
//!
//! Grammar (lsm-tree 3, sfa 1, little-endian):
//!
//! ```text
//! current = number:u64 xxh3-of-the-list:u128 0:u8
//! table   = section* sections trailer
//! sections = "TOC!" count:u32 (position:u64 length:u64 name-length:u16 name-bytes)*
//! trailer = "SFA!" 1:u8 0:u8 xxh3-of-the-sections:u128 position-of-the-sections:u64 length:u64
//! ```
//!
//! The tests hold this to the version of the crate that is in use.

use std::fs::{File, read_dir};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

#[derive(Debug)]
pub(super) enum Fault {
    Io(PathBuf, io::Error),
    /// This file is not as it was written, or is gone, and no crash explains it.
    Damage(PathBuf),
}

const CURRENT_FILE: &str = "current";
const TABLES_DIRECTORY: &str = "tables";
const TRAILER_BYTES: u64 = 38;
/// Where the trailer says where the sections are listed.
const POSITION_AT: u64 = 22;
const SECTIONS_MAGIC: &[u8] = b"TOC!";
/// A section without a name.
const SECTION_BYTES_MIN: u64 = 18;

/// Checks all trees below the engine's directory of them.
pub(super) fn check(trees: &Path) -> Result<(), Fault> {
    for entry in entries(trees)? {
        let tree = entry.map_err(|error| Fault::Io(trees.into(), error))?.path();
        if tree.is_dir() {
            check_tree(&tree)?;
        }
    }
    Ok(())
}

fn check_tree(tree: &Path) -> Result<(), Fault> {
    let path = tree.join(CURRENT_FILE);
    let Some(current) = read(&path)? else {
        // Interrupted when it was made: then it has no tables, and the engine makes it anew.
        return if entries(&tree.join(TABLES_DIRECTORY))?.next().is_none() { Ok(()) } else { Err(Fault::Damage(path)) };
    };
    let Some((number, checksum)) = parse(&current) else { return Err(Fault::Damage(path)) };
    let list = tree.join(format!("v{number}"));
    if read(&list)?.is_none_or(|data| xxh3_128(&data) != checksum) {
        return Err(Fault::Damage(list));
    }
    let tables = tree.join(TABLES_DIRECTORY);
    for entry in entries(&tables)? {
        let table = entry.map_err(|error| Fault::Io(tables.clone(), error))?.path();
        match has_room_for_sections(&table) {
            Ok(true) => {}
            Ok(false) => return Err(Fault::Damage(table)),
            Err(error) => return Err(Fault::Io(table, error)),
        }
    }
    Ok(())
}

/// False when a table says that it has more sections than fit into it. The rest is for the engine to check, which knows
/// whether the table counts.
fn has_room_for_sections(table: &Path) -> io::Result<bool> {
    let file = File::open(table)?;
    let length = file.metadata()?.len();
    let Some(trailer) = length.checked_sub(TRAILER_BYTES) else { return Ok(true) };
    let mut position = [0; 8];
    file.read_exact_at(&mut position, trailer + POSITION_AT)?;
    let position = u64::from_le_bytes(position);
    let mut sections = [0; 8];
    if position.checked_add(sections.len() as u64).is_none_or(|end| trailer < end) {
        return Ok(true);
    }
    file.read_exact_at(&mut sections, position)?;
    let [magic @ .., a, b, c, d] = &sections;
    let count = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
    Ok(magic != SECTIONS_MAGIC || count * SECTION_BYTES_MIN <= trailer - position)
}

fn parse(current: &[u8]) -> Option<(u64, u128)> {
    let (number, rest) = current.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    (rest == [0]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
}

/// `None` when the file does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Fault> {
    match std::fs::read(path) {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::Io(path.into(), error)),
    }
}

/// Nothing when the directory does not exist.
fn entries(directory: &Path) -> Result<impl Iterator<Item = io::Result<std::fs::DirEntry>>, Fault> {
    match read_dir(directory) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(Fault::Io(directory.into(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fjall::{Database, KeyspaceCreateOptions};

    /// A tree with a table, and the name of the list that counts.
    fn tree() -> (tempfile::TempDir, PathBuf, String) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::builder(directory.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        rows.insert("a", "b").unwrap();
        rows.rotate_memtable_and_wait().unwrap();
        drop((rows, database));
        let trees = directory.path().join("keyspaces");
        check(&trees).unwrap();
        let tree = trees.join("1");
        let (number, _) = parse(&std::fs::read(tree.join(CURRENT_FILE)).unwrap()).unwrap();
        (directory, tree, format!("v{number}"))
    }

    fn damaged(tree: &Path) -> Option<String> {
        match check(tree.parent().unwrap()) {
            Ok(()) => None,
            Err(Fault::Damage(path)) => Some(path.file_name().unwrap().to_str().unwrap().to_owned()),
            Err(Fault::Io(path, error)) => panic!("{}: {error}", path.display()),
        }
    }

    /// Found by flipping random bits: of a store's 60 messages, 14 were left, and the files of the others were deleted.
    #[test]
    fn every_flipped_bit_is_found() {
        let (_directory, tree, list) = tree();
        for name in [&list, CURRENT_FILE] {
            let data = std::fs::read(tree.join(name)).unwrap();
            for bit in 0..data.len() * 8 {
                let mut flipped = data.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(tree.join(name), flipped).unwrap();
                assert!(damaged(&tree).is_some(), "bit {bit} of {name}");
            }
            std::fs::write(tree.join(name), data).unwrap();
            assert_eq!(damaged(&tree), None);
        }
    }

    /// Found by flipping random bits: the process ended for want of 40 GiB.
    #[test]
    fn a_table_has_no_more_sections_than_fit() {
        let (_directory, tree, _) = tree();
        let table = tree.join(TABLES_DIRECTORY).join("0");
        let data = std::fs::read(&table).unwrap();
        let at = data.windows(4).rposition(|window| window == SECTIONS_MAGIC).unwrap() + SECTIONS_MAGIC.len();
        // One more or less may fit, and is found by the checksum.
        for bit in 8..32 {
            let mut flipped = data.clone();
            flipped[at + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&table, flipped).unwrap();
            assert_eq!(damaged(&tree).as_deref(), Some("0"), "bit {bit}");
        }
        std::fs::write(&table, &data[..20]).unwrap();
        assert_eq!(damaged(&tree), None);
    }

    #[test]
    fn missing_files_are_damage_unless_there_was_nothing() {
        let (_directory, tree, list) = tree();
        std::fs::remove_file(tree.join(&list)).unwrap();
        assert_eq!(damaged(&tree), Some(list));
        std::fs::remove_file(tree.join(CURRENT_FILE)).unwrap();
        assert_eq!(damaged(&tree).as_deref(), Some(CURRENT_FILE));
        std::fs::remove_dir_all(tree.join(TABLES_DIRECTORY)).unwrap();
        assert_eq!(damaged(&tree), None);
        assert!(check(Path::new("/nowhere")).is_ok());
    }
}
