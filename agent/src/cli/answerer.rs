//! Which process answers on the agent's socket, and what a command says of an agent that hangs or
//! is not understood.

use std::time::Duration;

use peerage_proto::api::{ApiError, ErrorCode};
use tokio::net::UnixStream;

/// What to do about an agent that hangs.
pub(super) const HANGING_HINT: &str = "it may be stopped (`kill -CONT`), or wait for its disk; its unit starts \
     it anew after a minute, `systemctl restart peerage` at once";

/// The agent that answers on the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answerer {
    /// The process that listens, where the kernel tells.
    pid: Option<i32>,
    /// Whether the agent was asked to change something.
    writes: bool,
}

impl Answerer {
    pub(super) fn of(stream: &UnixStream, writes: bool) -> Self {
        let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
        Self { pid: pid.filter(|pid| *pid > 0), writes }
    }

    /// What a command says if nothing came from the agent for so long.
    pub(super) fn hangs(&self, silence: Duration) -> ApiError {
        let pid = self.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let seconds = silence.as_secs();
        let message =
            format!("the agent{pid} does not answer: nothing came from it for {seconds} s");
        let hint = match (self.pid, self.writes) {
            (None, false) => HANGING_HINT.to_owned(),
            (Some(pid), false) => format!("`ps -o stat,wchan -p {pid}` tells why: {HANGING_HINT}"),
            (_, true) => {
                format!(
                    "what was asked for may be done all the same: look before you ask again; {HANGING_HINT}"
                )
            }
        };
        ApiError::new(ErrorCode::Unreachable, message).hint(hint)
    }
}

/// What a command says of an answer that makes no sense.
pub(super) fn not_understood(error: &serde_json::Error) -> ApiError {
    ApiError::new(ErrorCode::Failed, format!("the agent's answer is not understood: {error}"))
        .hint("is it of another version? `peerage status` and `peerage --version` tell")
}
