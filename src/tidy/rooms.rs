//! The import table: each room, and the rooms and crates that it may use.

/// One row. A room is a module of the crate with all modules below it that have no row of their own.
#[derive(Debug)]
pub(super) struct Room {
    /// Path of its module, with `/`; rooms outside the library have a name of their own.
    pub(super) name: &'static str,
    /// Rooms it may use; `*`: all.
    pub(super) rooms: &'static [&'static str],
    /// Crates it may use, besides std; `*`: all.
    pub(super) crates: &'static [&'static str],
    /// Parts of std it may not use.
    pub(super) std_banned: &'static [&'static str],
    /// Whether it may contain `unsafe`: only where system calls are made.
    pub(super) is_unsafe: bool,
}

impl Room {
    /// Why parts of std are banned.
    pub(super) fn purity(&self) -> &'static str {
        if self.std_banned == WORLD { "bytes, time and randomness come in as arguments" } else { "another room's work" }
    }
}

/// Parts of std that only the shell may use.
const WORLD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// An embedded store has files, but neither sockets nor a clock of its own.
const CLOCKS: &[&str] = &["std::time::Instant", "std::time::SystemTime", "std::net::TcpListener", "std::net::TcpStream"];

const fn pure(name: &'static str, rooms: &'static [&'static str], crates: &'static [&'static str]) -> Room {
    Room { name, rooms, crates, std_banned: WORLD, is_unsafe: false }
}

const fn shell(name: &'static str, rooms: &'static [&'static str], crates: &'static [&'static str]) -> Room {
    Room { name, rooms, crates, std_banned: &[], is_unsafe: false }
}

pub(super) const ROOMS: &[Room] = &[
    pure("model", &[], &["bytes", "foldhash", "serde", "smallvec"]),
    pure(
        "protocol",
        &["model"],
        &["base64", "bytes", "httparse", "itoa", "memchr", "serde", "simd_json", "smallvec", "tungstenite"],
    ),
    // The other end of every protocol: no room of the server sees it but in tests.
    pure("client", &["model", "protocol"], &["memchr", "tungstenite"]),
    pure("store", &["model"], &[]),
    pure("store/memory", &["model", "store"], &[]),
    Room {
        name: "store/embedded",
        rooms: &["model", "store"],
        crates: &["bytes", "fjall", "getrandom", "sha2", "tracing", "xxhash_rust"],
        std_banned: CLOCKS,
        is_unsafe: false,
    },
    Room {
        name: "store/scylla",
        rooms: &["model", "store"],
        crates: &["futures_util", "rustls", "scylla", "tokio", "tracing"],
        std_banned: CLOCKS,
        is_unsafe: false,
    },
    // Of the store, only the types of its contract: the shards decide which of them asks it.
    pure("access", &["model", "protocol", "store"], &["base64", "jsonwebtoken", "serde", "simd_json"]),
    pure("session", &["model", "protocol", "access", "store"], &["bytes", "itoa", "memchr", "sha2", "slab", "smallvec"]),
    pure(
        "api",
        &["model", "protocol", "session", "access", "store"],
        &["bytes", "itoa", "memchr", "serde", "sha2", "simd_json", "smallvec"],
    ),
    // The shard routes between its five parts, and decides nothing.
    pure(
        "shard",
        &[
            "model",
            "session",
            "store",
            "shard/boundary",
            "shard/mail",
            "shard/turn",
            "shard/clients",
            "shard/users",
            "shard/conversations",
            "shard/topics",
            "shard/logins",
        ],
        &[],
    ),
    pure("shard/mail", &["model", "session", "access", "store"], &["bytes", "smallvec"]),
    // Of the clients, only the state that moves with a connection.
    pure("shard/boundary", &["model", "session", "store", "shard/mail", "shard/clients"], &[]),
    pure(
        "shard/turn",
        &["model", "session", "access", "store", "shard/boundary", "shard/mail"],
        &["rand_chacha", "slab", "tracing"],
    ),
    // A client's bytes and their meaning: never a session's rights, or another part.
    pure(
        "shard/clients",
        &["model", "protocol", "session", "access", "api", "shard/boundary", "shard/mail", "shard/turn"],
        &["bytes", "rand_chacha", "sha2", "slab", "tracing"],
    ),
    // The only part that drives another: users decide, and clients carry out.
    pure(
        "shard/users",
        &["model", "protocol", "session", "access", "store", "shard/mail", "shard/turn", "shard/clients"],
        &["bytes", "foldhash", "indexmap", "rand_chacha", "slab", "smallvec", "tracing"],
    ),
    // Never sessions or clients: mail and store calls alone.
    pure("shard/conversations", &["model", "protocol", "access", "store", "shard/mail", "shard/turn"], &["bytes", "rand_chacha"]),
    // Shards, never sessions.
    pure("shard/topics", &["model", "shard/mail", "shard/turn"], &["rand_chacha"]),
    pure("shard/logins", &["model", "access", "store", "shard/mail", "shard/turn"], &["rand_chacha", "sha2", "tracing"]),
    // Reads lines as the API reads bodies, and asks the store itself, without a shard.
    pure("import", &["model", "protocol", "session", "access", "store", "api"], &["time"]),
    Room { name: "io", rooms: &["*"], crates: &["*"], std_banned: &[], is_unsafe: true },
    pure(
        "sim",
        &["model", "protocol", "client", "session", "access", "store", "store/memory", "api", "shard"],
        &["bytes", "rand_chacha", "serde", "simd_json", "slab", "smallvec"],
    ),
    shell("log", &[], &["tracing", "tracing_subscriber"]),
    shell("config", &["model", "session", "access", "log"], &["config", "getrandom", "serde", "toml", "tracing"]),
    // The library's root, the binaries and the load generator.
    shell("lib", &["*"], &[]),
    shell("cli", &["*"], &["clap", "tracing", "mimalloc"]),
    shell("bin", &["*"], &["clap", "tracing", "mimalloc"]),
    shell("tidy", &[], &[]),
    // A client: its sockets and clocks are its own, and of this package it names the pure rooms that its feature-free build has.
    Room {
        name: "loadgen",
        rooms: &["model", "protocol", "client"],
        crates: &["clap", "hdrhistogram", "indicatif", "jsonwebtoken", "libc", "memchr", "serde", "simd_json"],
        std_banned: &[],
        is_unsafe: true,
    },
];

/// The room of a module, or of an item in it: the one with the longest path.
pub(super) fn of(module: &[String]) -> Option<&'static Room> {
    let path = module.join("/");
    let within = |room: &&Room| path.strip_prefix(room.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ROOMS.iter().filter(within).max_by_key(|room| room.name.len())
}
