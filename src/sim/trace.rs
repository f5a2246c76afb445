//! The events of a run as a running hash and, on request, in print: the same seed gives the same hash and the same print.

use std::fmt::{self, Write};

use crate::model::Mono;

/// FNV-1a, 64 bits: stable over platforms and versions.
struct Fnv(u64);

impl Fnv {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
        }
    }
}

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text.as_bytes());
        Ok(())
    }
}

/// Lifetime: one run.
pub(super) struct Trace {
    hash: Fnv,
    print: bool,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self { hash: Fnv(0xCBF2_9CE4_8422_2325), print }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.0
    }

    #[expect(clippy::print_stdout, reason = "printing is what a trace was asked for")]
    pub(super) fn note(&mut self, now: Mono, what: fmt::Arguments<'_>) {
        self.hash.take(&now.0.to_le_bytes());
        // Writing to the hash cannot fail.
        let _written = self.hash.write_fmt(what);
        if self.print {
            println!("{:>14.6} ms  {what}", now.0 as f64 / 1e6);
        }
    }

    /// Bytes that crossed a socket: hashed as they are, printed as text.
    pub(super) fn bytes(&mut self, now: Mono, what: fmt::Arguments<'_>, bytes: &[u8]) {
        self.hash.take(bytes);
        if self.print {
            self.note(now, format_args!("{what} {} bytes {:?}", bytes.len(), String::from_utf8_lossy(bytes)));
        } else {
            self.note(now, format_args!("{what} {}", bytes.len()));
        }
    }
}
