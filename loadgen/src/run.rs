//! Options common to all scenarios: bounds, threads, seeds, and where the result goes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::clock;
use crate::random::Random;
use crate::report;
use crate::rest::{PIPELINED_MAX, Request, RestClient};
use crate::socket;
use crate::target::Target;

/// The user that creates conversations: the greatest user id, which no client has.
const ADMIN: u64 = tidings::model::ids::ID_MAX;

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// First user id; the others follow.
    #[arg(long, global = true, default_value_t = 1)]
    pub first_user: u64,
    /// First conversation id; the others follow.
    #[arg(long, global = true, default_value_t = 1)]
    pub first_conversation: u64,
    /// Threads of the load generator (pairs only).
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// CPUs that the load generator may run on: 1 or 1,3 (cost: the server's one CPU).
    #[arg(long, global = true, value_delimiter = ',')]
    pub cpu: Vec<usize>,
    /// Time limit of the run, in seconds.
    #[arg(long, global = true, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Append the result to this file as one line of JSON.
    #[arg(long, global = true)]
    pub json: Option<PathBuf>,
    /// Seed of all random choices; printed, so that a run can be repeated.
    #[arg(long, global = true)]
    pub seed: Option<u64>,
    /// Process id of the server: its CPU time and memory are read from /proc.
    #[arg(long, global = true)]
    pub server_pid: Option<u32>,
}

impl RunArgs {
    pub fn deadline(&self) -> u64 {
        clock::mono_ns() + Duration::from_secs(self.timeout).as_nanos() as u64
    }

    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| Random::new(clock::mono_ns() ^ u64::from(std::process::id())).next_u64() >> 32)
    }

    /// Pins this thread, and the threads it starts, to the CPUs of `--cpu`.
    ///
    /// # Errors
    /// When a CPU does not exist.
    pub fn pin(&self) -> Result<(), String> {
        if self.cpu.is_empty() {
            return Ok(());
        }
        socket::pin(&self.cpu).map_err(|error| format!("cannot run on CPUs {:?}: {error}", self.cpu))
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, value: &impl serde::Serialize) -> Result<(), String> {
        self.json.as_ref().map_or(Ok(()), |path| report::append_json(path, value))
    }
}

#[derive(Deserialize)]
struct Conversation {
    participants: Vec<Participant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Participant {
    user_id: u64,
}

/// Creates conversations under their ids, as an import does. Existing ones stay as they are.
///
/// # Errors
/// When the server does not answer 200 or 201, or has a conversation of other users under such an id.
pub fn put_conversations(
    target: &Target,
    kind: &str,
    conversations: impl Iterator<Item = (u64, std::ops::Range<u64>)>,
) -> Result<(), String> {
    let token = target.token(ADMIN, &["admin"])?;
    let request = |(id, users): (u64, std::ops::Range<u64>)| {
        let named = users.clone().map(|user| user.to_string()).collect::<Vec<_>>().join(",");
        let body = format!("{{\"participants\":[{named}],\"kind\":\"{kind}\"}}");
        (users, Request { method: "PUT", path: format!("/conversations/{id}"), token: &token, body })
    };
    let mut client = RestClient::new(target.address);
    let mut requests = conversations.map(request).peekable();
    while requests.peek().is_some() {
        let (users, batch): (Vec<_>, Vec<_>) = requests.by_ref().take(PIPELINED_MAX).unzip();
        let responses =
            client.pipeline(&batch).map_err(|error| format!("creating conversations at {}: {error}", target.address))?;
        if let Some((request, refused)) = batch.iter().zip(&responses).find(|(_, response)| !matches!(response.status, 200 | 201))
        {
            return Err(format!("PUT {}: {} {}", request.path, refused.status, refused.excerpt()));
        }
        for ((users, request), mut response) in users.into_iter().zip(&batch).zip(responses) {
            let there: Conversation = simd_json::from_slice(&mut response.body)
                .map_err(|error| format!("PUT {}: not a conversation: {error}", request.path))?;
            if there.participants.iter().map(|participant| participant.user_id).ne(users) {
                return Err(format!("{} already exists with other users: choose another --first-conversation", request.path));
            }
        }
    }
    Ok(())
}
