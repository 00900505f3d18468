//! Joining at the start, with nobody at the keyboard: `--join`, `--join-file`, `PEERAGE_JOIN`.

use std::sync::Arc;
use std::time::Duration;

use peerage_proto::roster::NodeName;
use rand::RngExt;
use tracing::{error, info, warn};

use crate::config::JoinSource;
use crate::joining::JoinError;
use crate::node::{Node, NodeError};

/// The waits between attempts.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// Joins, trying again for as long as that may help. A node that belongs to a Data Center already,
/// or that was put out of one, is left as it is: Join Information may stay in the configuration.
pub async fn join(node: Arc<Node>, source: JoinSource, name: Option<NodeName>, replace: bool) {
    let mut wait = RETRY_FIRST;
    while node.membership().is_none() {
        if let Some(notice) = node.notice() {
            info!(notice = notice.message, "not joining by itself");
            return;
        }
        match attempt(&node, &source, name.as_ref().map(NodeName::as_str), replace).await {
            Ok(()) => return,
            Err(Failure::Final(cause)) => {
                error!(cause, "joining was refused; the agent goes on standalone");
                return;
            }
            Err(Failure::Again(cause)) => {
                warn!(cause, again_in_s = wait.as_secs(), "not joined yet");
            }
        }
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

enum Failure {
    Final(String),
    Again(String),
}

async fn attempt(
    node: &Node,
    source: &JoinSource,
    name: Option<&str>,
    replace: bool,
) -> Result<(), Failure> {
    let token = match source {
        JoinSource::Token(token) => token.clone(),
        JoinSource::File(path) => tokio::fs::read_to_string(path)
            .await
            .map_err(|error| Failure::Again(format!("{}: {error}", path.display())))?,
    };
    match node.join(token.trim(), None, name, replace).await {
        Ok(_) | Err(NodeError::AlreadyMember { .. }) => Ok(()),
        Err(error) => {
            let cause = error.to_string();
            Err(if may_pass(&error) { Failure::Again(cause) } else { Failure::Final(cause) })
        }
    }
}

/// Whether the same attempt may succeed later, with nobody's help on this host.
fn may_pass(error: &NodeError) -> bool {
    match error {
        NodeError::Join(JoinError::Refused { refusal, .. }) => refusal.may_pass(),
        NodeError::Join(_) | NodeError::Store(_) => true,
        _ => false,
    }
}
