//! Checks rules over the source itself: imports between rooms, `unsafe`, and the length of files.
//!
//! Clippy reads one configuration for a whole package; rules that differ from room to room are checked here, by a tokenizer
//! that knows just enough of Rust: comments, strings, `use` trees, paths, and items under `#[cfg(test)]`, which
//! may import anything. It does not see paths that a macro builds.

mod rooms;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rooms::{ROOMS, Room};
use source::Source;

/// Comments and blank lines count; inline tests do not.
const FILE_LINES_MAX: usize = 1_000;

/// A room's file as the rules see it.
struct File<'a> {
    /// From the package's folder, with `/`: `src/shard/mod.rs`.
    path: &'a str,
    text: &'a str,
    /// Names of all crates that some part of the workspace depends on, as code writes them.
    crates: &'a BTreeSet<String>,
    /// Declared under `#[cfg(test)]` by its parent.
    test: bool,
}

/// Every broken rule of one file, as `path: fault and reason`.
fn faults(file: &File<'_>) -> Vec<String> {
    let source = Source::read(file.text);
    let mut faults = Vec::new();
    let mut fault = |problem: String| faults.push(format!("{}: {problem}", file.path));

    let name = file.path.rsplit('/').next().unwrap_or(file.path);
    if file.path.starts_with("src/") && matches!(name, "mod.rs" | "lib.rs" | "main.rs") && !file.text.starts_with("//!") {
        fault("does not open with `//!`: purpose, what flows in and out, what it never imports".into());
    }
    if let Some(word) = source.ticket() {
        fault(format!("a comment names {word:?}: comments say why, they do not point to tickets or requirements"));
    }
    if file.test {
        return faults;
    }
    let lines = source.lines();
    if lines > FILE_LINES_MAX {
        fault(format!("{lines} lines: split it by idea, {FILE_LINES_MAX} is the most"));
    }
    let Some(room) = rooms::of(&source::module_of(file.path)) else {
        fault("belongs to no room: give it a row in `tidy::rooms`".into());
        return faults;
    };
    if source.has_word("unsafe") && !room.is_unsafe {
        fault("`unsafe` stands outside io".into());
    }
    if file.path.starts_with("src/shard/") && file.path != "src/shard/mod.rs" && source.implements("Shard") {
        fault("`impl Shard` stands outside shard/mod.rs, which routes: each part has a type of its own".into());
    }
    for path in source.paths() {
        if let Some(problem) = import_fault(file, room, &source, &path) {
            fault(problem);
        }
    }
    faults.dedup();
    faults
}

/// Why a file of `room` may not import `path`.
fn import_fault(file: &File<'_>, room: &Room, source: &Source, path: &[String]) -> Option<String> {
    let first = path.first()?.as_str();
    if matches!(first, "std" | "core" | "alloc") {
        let banned = room.std_banned.iter().find(|banned| {
            let banned: Vec<_> = banned.split("::").collect();
            // `use std::fs;` names the banned part; `use std::*` and `use std::time::*` hide it.
            let hides =
                path.last().is_some_and(|last| last == "*") && banned[1..].starts_with(&path_tail(path, 1)[..path.len() - 2]);
            hides || path_tail(path, 1).starts_with(&banned[1..])
        });
        return banned.map(|banned| format!("{} has no {banned}: {}", room.name, room.purity()));
    }
    if let Some(target) = source::resolve(&source::module_of(file.path), path) {
        if source::module_of(file.path).starts_with(&target) {
            // A visibility: `pub(in crate::shard)`.
            return None;
        }
        let other = rooms::of(&target)?;
        if other.name == room.name || room.rooms.contains(&other.name) || room.rooms.contains(&"*") {
            return None;
        }
        return Some(format!("{} may not import {} (`{}`)", room.name, other.name, path.join("::")));
    }
    if !file.crates.contains(first) || source.binds(first) || room.crates.contains(&first) || room.crates.contains(&"*") {
        return None;
    }
    Some(format!("{} may not use the crate {first} (`{}`)", room.name, path.join("::")))
}

fn path_tail(path: &[String], from: usize) -> Vec<&str> {
    path.iter().skip(from).map(String::as_str).collect()
}

/// All `.rs` files below the workspace's sources, sorted.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// Names under `[dependencies]`, `[dev-dependencies]` and `[build-dependencies]`, with `_` for `-`.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            names.insert(name.split('.').next().unwrap_or(name).trim().replace('-', "_"));
        }
    }
    names
}

/// Rooms whose files may not import each other in a circle.
const ACYCLIC: [&str; 4] = ["shard", "io", "store", "sim"];

/// The files that each file imports, by module path. A file below another may use its parent's items: `impl` blocks of
/// one type may be in several files.
fn imports(files: &[(Vec<String>, Source)]) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let modules: BTreeSet<&Vec<String>> = files.iter().map(|(module, _)| module).collect();
    let file_of = |path: &[String]| (1..=path.len()).rev().map(|end| path[..end].to_vec()).find(|path| modules.contains(path));
    let mut graph = BTreeMap::new();
    for (module, source) in files {
        let found = source.paths().into_iter().filter_map(|path| {
            let in_child = || [module.as_slice(), &path].concat();
            file_of(&source::resolve(module, &path).unwrap_or_else(in_child))
        });
        let others = found.filter(|other| !module.starts_with(other)).collect();
        graph.insert(module.clone(), others);
    }
    graph
}

/// A cycle of imports, if one exists: each file imports the next, and the last the first.
fn cycle(graph: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Option<Vec<String>> {
    // Remove files that import none of the rest, again and again; the remaining ones are on a cycle, or above one.
    let mut left = graph.clone();
    loop {
        let before = left.len();
        let names: BTreeSet<Vec<String>> = left.keys().cloned().collect();
        left.retain(|_, others| others.iter().any(|other| names.contains(other)));
        if left.len() == before {
            break;
        }
    }
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next = left[way.last()?].iter().find(|other| left.contains_key(*other))?.clone();
        if let Some(at) = way.iter().position(|module| *module == next) {
            return Some(way[at..].iter().map(|module| module.join("/")).collect());
        }
        way.push(next);
    }
}

#[test]
fn all_files_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "loadgen/src"] {
        files(&root.join(folder), &mut paths);
    }
    let mut crates = BTreeSet::from(["tidings".to_owned()]);
    for manifest in ["Cargo.toml", "loadgen/Cargo.toml"] {
        crates.extend(dependencies(&fs::read_to_string(root.join(manifest)).unwrap()));
    }
    assert!(paths.len() > 20 && crates.contains("glommio"), "the sources were found");

    let texts: Vec<(String, String)> = paths
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    let tests: BTreeSet<Vec<String>> = texts.iter().flat_map(|(path, text)| Source::read(text).test_modules(path)).collect();
    let mut all = Vec::new();
    for (path, text) in &texts {
        let module = source::module_of(path);
        let test = tests.iter().any(|test| module.starts_with(test));
        all.extend(faults(&File { path, text, crates: &crates, test }));
    }
    for room in ACYCLIC {
        let inside: Vec<(Vec<String>, Source)> = texts
            .iter()
            .map(|(path, text)| (source::module_of(path), Source::read(text)))
            .filter(|(module, _)| module[0] == room && !tests.iter().any(|test| module.starts_with(test)))
            .collect();
        if let Some(cycle) = cycle(&imports(&inside)) {
            all.push(format!("src/{room}: these files import each other in a cycle: {}", cycle.join(" -> ")));
        }
    }
    assert!(all.is_empty(), "{} rules broken:\n{}", all.len(), all.join("\n"));
}

#[test]
fn the_table_is_consistent() {
    let names: BTreeSet<_> = ROOMS.iter().map(|room| room.name).collect();
    assert_eq!(names.len(), ROOMS.len());
    for room in ROOMS {
        for import in room.rooms {
            assert!(*import == "*" || names.contains(import), "{} imports {import}, which is no room", room.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the rules find exactly the faults with these words in them.
    fn check(path: &str, text: &str, expect: &[&str]) {
        let crates = ["bytes", "config", "glommio", "libc", "serde", "tidings"].map(String::from).into();
        let found = faults(&File { path, text, crates: &crates, test: false });
        assert_eq!(found.len(), expect.len(), "{path} {:?}: {found:?}", text.trim());
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.contains(expect), "{found:?} does not say {expect:?}");
        }
    }

    #[test]
    fn imports_between_rooms() {
        check("src/protocol/stomp.rs", "use crate::model::Limits;", &[]);
        check("src/protocol/stomp.rs", "use crate::session::Policy;", &["protocol may not import session"]);
        check("src/protocol/stomp/decode.rs", "use super::Frame; use super::super::json;", &[]);
        check("src/protocol/stomp/decode.rs", "use super::super::super::shard::Shard;", &["protocol may not import shard"]);
        check("src/model/ids.rs", "fn f() { crate::shard::Shard::new() }", &["model may not import shard"]);
        check("src/model/ids.rs", "pub(in crate::model) struct A;", &[]);
        check("src/session/mod.rs", "//! S\nuse crate::{model::{Limits, ids::{self}}, shard};", &["may not import shard"]);
        check("src/session/mod.rs", "//! S\nuse super::io;", &["may not import io"]);
        check("src/session/auth.rs", "use crate::store::FamilyId;", &[]);
        check("src/session/auth.rs", "use crate::store::{FamilyId, embedded::Embedded};", &["may not import store/embedded"]);
        check("src/api/mod.rs", "//! A\nuse crate::shard::Mail;", &["api may not import shard"]);
        check("src/shard/mod.rs", "//! S\nuse crate::io::clock;", &["shard may not import io"]);
        check("src/shard/users/connect.rs", "use crate::shard::clients::Clients;", &[]);
        check("src/shard/users/connect.rs", "pub(in crate::shard) struct A;", &[]);
        check("src/shard/conversations/a.rs", "use crate::shard::users::Users;", &["may not import shard/users"]);
        check("src/shard/turn/mod.rs", "//! T\nuse crate::shard::Shard;", &["shard/turn may not import shard"]);
        check("src/io/node.rs", "use crate::shard::Shard; use glommio::Latency;", &[]);
        check("loadgen/src/main.rs", "//! L\nuse tidings::protocol::stomp; use tidings::model::UserId;", &[]);
        check("loadgen/src/main.rs", "//! L\nuse tidings::session::Policy;", &["loadgen may not import session"]);
        check("src/elsewhere/mod.rs", "//! E", &["belongs to no room"]);
    }

    #[test]
    fn cycles_of_imports_are_found() {
        let check = |files: &[(&str, &str)], expect: Option<&[&str]>| {
            let files = files.iter().map(|(path, text)| (source::module_of(path), Source::read(text)));
            let found = cycle(&imports(&files.collect::<Vec<_>>()));
            assert_eq!(found, expect.map(|modules| modules.iter().map(ToString::to_string).collect()));
        };
        let top = ("src/io/mod.rs", "mod a; mod b; use a::A; use b::B;");
        check(&[top, ("src/io/a.rs", "use super::b::B;"), ("src/io/b.rs", "use crate::io::Top;")], None);
        let cycle = [top, ("src/io/a.rs", "use super::b::B;"), ("src/io/b.rs", "fn f(a: crate::io::a::A) {}")];
        check(&cycle, Some(&["io/a", "io/b"]));
        check(&[top, ("src/io/a.rs", "use super::b::B;"), ("src/io/b.rs", "#[cfg(test)] use super::a::A;")], None);
    }

    #[test]
    fn crates() {
        check("src/protocol/http.rs", "use bytes::Bytes;", &[]);
        check("src/shard/mod.rs", "//! S\nuse glommio::Latency;", &["shard may not use the crate glommio"]);
        check("src/session/mod.rs", "//! S\nfn f() { libc::getpid(); }", &["session may not use the crate libc"]);
        check("src/session/mod.rs", "//! S\nfn f() { ::libc::getpid(); }", &["session may not use the crate libc"]);
        check("src/model/mod.rs", "//! M\n#[derive(serde::Serialize)] struct A; fn f(config: u8) { let bytes = config; }", &[]);
        check("src/cli/mod.rs", "//! C\nuse tidings::config::{self, KEYS}; fn f() { config::load(); }", &[]);
    }

    #[test]
    fn the_world_outside() {
        for path in ["std::fs::read", "std::time::Instant::now", "std::time::SystemTime", "std::net::TcpStream", "std::env::var"]
        {
            check("src/shard/users.rs", &format!("fn f() {{ {path}() }}"), &["shard/users has no std::"]);
            check("src/io/clock.rs", &format!("fn f() {{ {path}() }}"), &[]);
        }
        check("src/sim/mod.rs", "//! S\nuse std::{fs, time::{Duration, Instant}};", &["std::fs", "std::time::Instant"]);
        check("src/sim/mod.rs", "//! S\nuse std::time::*;", &["std::time::Instant"]);
        check("src/model/time.rs", "use std::time::Duration; use std::net::IpAddr; use std::fmt::*;", &[]);
        check("src/store/embedded/mod.rs", "//! E\nuse std::fs;", &[]);
        check("src/store/mod.rs", "//! S\nuse std::fs;", &["store has no std::fs"]);
    }

    #[test]
    fn comments_and_strings_are_not_read() {
        check(
            "src/model/a.rs",
            "// use crate::io;\n/* crate::io /* nested */ crate::io */ const A: &str = \"crate::io::x unsafe\";",
            &[],
        );
        check(
            "src/model/a.rs",
            "const A: &str = r#\"crate::io \" unsafe\"#; const B: char = '\"'; const C: &[u8] = b\"\\\"crate::io\";",
            &[],
        );
        check("src/model/a.rs", "fn f<'a>(a: &'a str) -> char { '\\'' } use crate::io;", &["may not import io"]);
        check("src/model/a.rs", "#[cfg(test)]\nmod tests { use crate::io; fn f() { unsafe { \"}\" } } }", &[]);
        check(
            "src/model/a.rs",
            "#[cfg(test)]\n#[allow(dead_code)]\nuse crate::io;\nuse crate::shard;",
            &["may not import shard"],
        );
        check(
            "src/model/a.rs",
            "#[cfg(test)]\nfn f() { crate::io::f() }\nfn g() { crate::shard::f() }",
            &["may not import shard"],
        );
    }

    #[test]
    fn the_other_rules() {
        check("src/shard/a.rs", "fn f() { unsafe { g() } }", &["`unsafe` stands outside io"]);
        check("src/io/a.rs", "fn f() { unsafe { g() } }", &[]);
        check("src/shard/users/a.rs", "impl Shard { fn f() {} }", &["`impl Shard` stands outside"]);
        check("src/shard/mod.rs", "//! S\nimpl Shard { fn f() {} }", &[]);
        check("src/model/mod.rs", "pub mod a;", &["does not open with `//!`"]);
        for ticket in ["see #12", "issue 3", "Issue #3", "PR 7", "(R12)", "as D5 asks", "TICKET-9"] {
            check("src/model/a.rs", &format!("/// {ticket}\nfn f() {{}}"), &["a comment names"]);
        }
        for prose in ["the issue", "RFC 6455 section 5", "&#39; and #[test]", "id 5", "R128", "a ticket of the shard", "ED25519"]
        {
            check("src/model/a.rs", &format!("// {prose}\nfn f() {{ g(\"#12\") }}"), &[]);
        }
        let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"\n".repeat(500) + "}\n";
        check("src/model/a.rs", &("\n".repeat(FILE_LINES_MAX - 1) + &tests), &[]);
        check("src/model/a.rs", &("\n".repeat(FILE_LINES_MAX) + &tests), &["lines: split it by idea"]);
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_found() {
        let source = Source::read("#[cfg(test)]\nmod tests;\nmod code;\n#[cfg(test)]\npub(crate) mod fuzz;");
        let expect = [vec!["protocol", "stomp", "tests"], vec!["protocol", "stomp", "fuzz"]];
        assert_eq!(source.test_modules("src/protocol/stomp/mod.rs"), expect);
        assert_eq!(source.test_modules("src/protocol/stomp.rs"), expect);
    }

    #[test]
    fn manifests() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nb-c = \"1\"\nd.workspace = true\n[profile.dev]\ne = 1\n[dev-dependencies]\nf = { g = 1 }";
        assert_eq!(dependencies(manifest), ["b_c", "d", "f"].map(String::from).into());
    }
}
