//! Our own server: a child process with its own data directory and port, which a scenario may kill.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::clock;
use crate::rest::{Request, RestClient};
use crate::socket;

/// From the start to the first success of `/readyz`.
const READY_NS_MAX: u64 = 60_000_000_000;
const POLL: Duration = Duration::from_millis(20);

#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The server's binary.
    #[arg(long)]
    pub server: PathBuf,
    /// Where to create data directories; this chooses the disk.
    #[arg(long, default_value = "./data")]
    pub data: PathBuf,
    /// Keep the data directory.
    #[arg(long)]
    pub keep: bool,
    /// Further settings for the server: KEY=VALUE.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// A data directory of one run, with the command that serves it.
pub struct ServerSetup {
    binary: PathBuf,
    folder: PathBuf,
    keep: bool,
    pub address: SocketAddrV4,
    pub secret: String,
    flags: Vec<String>,
}

impl ServerSetup {
    /// A fresh directory, a free port, and settings whose rate limits never slow the load, although the server still checks
    /// them.
    ///
    /// # Errors
    /// When the directory cannot be created or no port is free.
    pub fn new(args: &ServerArgs, settings: &[&str], seed: u64) -> Result<Self, String> {
        let folder = args.data.join(format!("loadgen-{}-{seed:x}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = probe.map_err(|error| format!("no free port: {error}"))?.port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut flags = Vec::new();
        let own = [format!("listen={address}"), format!("data_dir={}", folder.join("store").display())];
        let unlimited = ["limits.messages_per_minute=1000000000", "limits.messages_burst=1000000000"].map(String::from);
        let given = settings.iter().map(|setting| (*setting).to_owned()).chain(args.set.iter().cloned());
        for setting in own.into_iter().chain(unlimited).chain(given) {
            flags.extend(["--set".to_owned(), setting]);
        }
        let secret = format!("loadgen-{seed:016x}-{:016x}-of-one-run", clock::mono_ns());
        Ok(Self { binary: args.server.clone(), folder, keep: args.keep, address, secret, flags })
    }

    /// The command line, to be printed.
    pub fn command(&self) -> String {
        format!("{} {}", self.binary.display(), self.flags.join(" "))
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Fills the store through the server's own command, with the lines that `write` writes.
    ///
    /// # Errors
    /// When the command cannot be started or fails; the message names its log.
    pub fn import(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        command
            .args(["import", "-"])
            .args(&self.flags)
            .args(["--set", "log.level=warn"])
            .env("TIDINGS_AUTH_SECRET", &self.secret);
        let log = open_log(&self.log()).map_err(|error| format!("cannot write {}: {error}", self.log().display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().map_err(|error| format!("cannot start {}: {error}", self.binary.display()))?;
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| write(&mut stdin));
        let status = child.wait().map_err(|error| error.to_string())?;
        // If the command ended before its input did, its status explains more.
        if !status.success() {
            return Err(format!("the import ended with {status}: see {}", self.log().display()));
        }
        written.map_err(|error| format!("cannot write to the import: {error}"))
    }

    /// Starts the server, on one CPU only if `cpu` names one, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time; the message names its log.
    pub fn start(&self, cpu: Option<usize>) -> Result<Server, String> {
        let mut command = Command::new(&self.binary);
        command.args(&self.flags).env("TIDINGS_AUTH_SECRET", &self.secret);
        let log = open_log(&self.log()).map_err(|error| format!("cannot write {}: {error}", self.log().display()))?;
        let copy = log.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let parent = std::process::id();
        // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid, sched_setaffinity.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid().unsigned_abs() != parent {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                cpu.map_or(Ok(()), |cpu| socket::pin(&[cpu]))
            });
        }
        let child = command.spawn().map_err(|error| format!("cannot start {}: {error}", self.binary.display()))?;
        let mut server = Server { child };
        self.wait_ready(&mut server)?;
        Ok(server)
    }

    fn wait_ready(&self, server: &mut Server) -> Result<(), String> {
        let deadline = clock::mono_ns() + READY_NS_MAX;
        let log = self.log();
        loop {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("the server did not start and ended with {status}: see {}", log.display()));
            }
            let request = Request { method: "GET", path: "/readyz".to_owned(), token: "", body: String::new() };
            if RestClient::new(self.address).call(&request).is_ok_and(|response| response.status == 200) {
                return Ok(());
            }
            if clock::mono_ns() > deadline {
                return Err(format!("the server was not ready in time: see {}", log.display()));
            }
            thread::park_timeout(POLL);
        }
    }

    /// Removes the data, unless asked to keep it.
    pub fn remove(self) {
        if self.keep {
            println!("  data kept in {}", self.folder.display());
        } else if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("loadgen: cannot remove {}: {error}", self.folder.display());
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of a server that was killed.
    ///
    /// # Errors
    /// Those of `wait`.
    pub fn wait(mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
