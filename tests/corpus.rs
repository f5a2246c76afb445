//! What fuzzing has found worth keeping, replayed: every file of `fuzz/corpus/<target>` through its target. The inputs of failures
//! that were mended are among them.

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "the package of the fuzzer exports them")]
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

/// Few and small, so that replaying them costs nothing.
const FILES_MAX: usize = 100;
const FILE_BYTES_MAX: u64 = 1024;

#[test]
fn what_was_kept_still_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!((1..=FILES_MAX).contains(&files.len()), "{name} has {} files", files.len());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            assert!(bytes.len() as u64 <= FILE_BYTES_MAX, "{} is too long", file.display());
            // The test's own output is shown when it fails: the last file is the one at fault.
            println!("{}", file.display());
            target(&bytes);
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders: Vec<String> =
        fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut names: Vec<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    folders.sort();
    names.sort();
    assert_eq!(folders, names);
}
