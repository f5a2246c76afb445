//! The import table: each room, and what its code may name.

/// One row. A room is a module of the crate with everything below it that has no row of its own.
#[derive(Debug)]
pub(super) struct Room {
    /// Path of its module, with `/`; rooms outside the library have a name of their own.
    pub(super) name: &'static str,
    /// Rooms it may name; `*`: all.
    pub(super) rooms: &'static [&'static str],
    /// Crates it may name, beside std; `*`: all.
    pub(super) crates: &'static [&'static str],
    /// Parts of std it may not name.
    pub(super) std_banned: &'static [&'static str],
    /// Whether `unsafe` may stand in it: only where system calls are made.
    pub(super) is_unsafe: bool,
}

impl Room {
    /// Why parts of std are banned.
    pub(super) fn purity(&self) -> &'static str {
        if self.std_banned == WORLD { "bytes, time and randomness come in as arguments" } else { "another room's work" }
    }
}

/// What only the shell may touch.
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
    // Of the store, only the words of its contract: who may ask it is the shard's business.
    pure(
        "session",
        &["model", "protocol", "store"],
        &["base64", "bytes", "itoa", "jsonwebtoken", "memchr", "serde", "sha2", "simd_json", "slab", "smallvec"],
    ),
    pure(
        "api",
        &["model", "protocol", "session", "store"],
        &["bytes", "itoa", "memchr", "serde", "sha2", "simd_json", "smallvec"],
    ),
    pure(
        "shard",
        &["model", "protocol", "session", "store", "api"],
        &["bytes", "foldhash", "indexmap", "rand_chacha", "sha2", "slab", "smallvec", "tracing"],
    ),
    // Reads lines as the API reads bodies, and asks the store itself: no shard is there meanwhile.
    pure("import", &["model", "protocol", "session", "store", "api"], &["time"]),
    Room { name: "io", rooms: &["*"], crates: &["*"], std_banned: &[], is_unsafe: true },
    pure(
        "sim",
        &["model", "protocol", "session", "store", "store/memory", "api", "shard"],
        &["bytes", "rand_chacha", "serde", "simd_json", "slab", "smallvec"],
    ),
    shell("log", &[], &["tracing", "tracing_subscriber"]),
    shell("config", &["model", "session", "log"], &["config", "getrandom", "serde", "toml", "tracing"]),
    // The library's root, the binaries and the load generator.
    shell("lib", &["*"], &[]),
    shell("cli", &["*"], &["clap", "tracing", "mimalloc"]),
    shell("bin", &["*"], &["clap", "tracing", "mimalloc"]),
    shell("tidy", &[], &[]),
    // A client: its sockets and clocks are its own, and of the server it knows the protocols only.
    Room {
        name: "loadgen",
        rooms: &["protocol", "model"],
        crates: &[
            "bytes",
            "clap",
            "hdrhistogram",
            "httparse",
            "indicatif",
            "jsonwebtoken",
            "libc",
            "memchr",
            "serde",
            "simd_json",
        ],
        std_banned: &[],
        is_unsafe: true,
    },
];

/// The room that a module, or an item in it, belongs to: the one with the longest path.
pub(super) fn of(module: &[String]) -> Option<&'static Room> {
    let path = module.join("/");
    let within = |room: &&Room| path.strip_prefix(room.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ROOMS.iter().filter(within).max_by_key(|room| room.name.len())
}
