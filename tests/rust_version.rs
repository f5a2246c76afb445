//! The oldest Rust that the server can be built with is said once, as `rust-version` in Cargo.toml. Whoever changes it, or takes in a
//! dependency that needs a newer one, finds out here, with any compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    rust_version: Option<String>,
}

/// `1.91` and `1.91.0` are the same.
fn parts(version: &str) -> [u32; 3] {
    let mut parts = [0; 3];
    for (part, text) in parts.iter_mut().zip(version.split('.')) {
        *part = text.parse().unwrap_or_else(|_| panic!("no version of Rust: {version:?}"));
    }
    parts
}

/// All packages that the lock file names, those of other systems too.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut json = output.stdout;
    simd_json::from_slice::<Metadata>(&mut json).unwrap().packages
}

#[test]
fn no_dependency_needs_a_newer_rust() {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let packages = packages();
    assert!(packages.len() > 100, "the dependencies were found");
    let newer: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            let needs = package.rust_version.as_deref().filter(|needs| parts(oldest) < parts(needs))?;
            Some(format!("{} {} needs Rust {needs}", package.name, package.version))
        })
        .collect();
    assert!(newer.is_empty(), "Cargo.toml promises Rust {oldest}:\n{}", newer.join("\n"));
}

#[test]
fn every_page_names_the_same_rust() {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    for (page, sentence) in
        [("README.md", format!("Rust {oldest} or newer")), ("deploy/Dockerfile", format!("FROM rust:{oldest}-"))]
    {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        assert!(text.contains(&sentence), "{page} does not say {sentence:?}");
    }
}
