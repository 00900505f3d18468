//! Joining at the start, with nobody at the keyboard: `--join`, `--join-file`, `PEERAGE_JOIN`.
//!
//! A file is written by whoever sets the host up, at some time: one that is missing, empty, half
//! written or no Join Information is waited for, and so is other Join Information in place of what
//! was refused.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peerage_proto::admission::invitation::JoinInformation;
use peerage_proto::roster::NodeName;
use peerage_proto::text;
use rand::RngExt;
use tokio::io::AsyncReadExt;
use tracing::{error, info, warn};

use crate::config::JoinSource;
use crate::joining::JoinError;
use crate::node::{Node, NodeError};

/// The waits between attempts.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// The longest wait for a file, which costs nothing to look at.
const LOOK_LAST: Duration = Duration::from_secs(5);

/// The longest file that is read as Join Information.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Joins, trying again for as long as that may help. A node that belongs to a Data Center already,
/// or that was put out of one, is left as it is: Join Information may stay in the configuration.
pub async fn join(node: Arc<Node>, source: JoinSource, name: Option<NodeName>, replace: bool) {
    let name = name.as_ref().map(NodeName::as_str);
    let mut wait = RETRY_FIRST;
    // What is not tried again, and what has been said of the file.
    let (mut refused, mut said) = (None, None);
    while node.membership().is_none() {
        if let Some(notice) = node.notice() {
            info!(notice = notice.message, "not joining by itself");
            return;
        }
        let longest = match token(&source).await {
            Err(unread) => {
                if said.as_ref() != Some(&unread) {
                    warn!("not joined yet: {unread}; it is waited for");
                    said = Some(unread);
                }
                LOOK_LAST
            }
            Ok(token) if refused.as_ref() == Some(&token) => LOOK_LAST,
            Ok(token) => match node.join(&token, None, name, replace).await {
                Ok(_) | Err(NodeError::AlreadyMember { .. }) => return,
                Err(failure) if may_pass(&failure) => {
                    let cause = failure.to_string();
                    warn!(cause, again_in_s = wait.as_secs(), "not joined yet");
                    RETRY_LAST
                }
                Err(failure) => {
                    let cause = failure.to_string();
                    let JoinSource::File(path) = &source else {
                        error!(cause, "joining was refused; the agent goes on standalone");
                        return;
                    };
                    error!(
                        cause,
                        "joining was refused; other Join Information in {} is tried",
                        path.display()
                    );
                    (refused, wait) = (Some(token), RETRY_FIRST);
                    LOOK_LAST
                }
            },
        };
        wait = wait.min(longest);
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        wait *= 2;
    }
}

/// The Join Information, or in words why there is none yet.
async fn token(source: &JoinSource) -> Result<String, String> {
    match source {
        JoinSource::Token(token) => Ok(token.clone()),
        JoinSource::File(path) => {
            let why = match read(path).await {
                Ok(text) => match JoinInformation::parse(&text) {
                    Ok(_) => return Ok(text),
                    Err(_) if text::one_word(&text).is_empty() => "it is empty".to_owned(),
                    Err(error) => error.to_string(),
                },
                Err(why) => why,
            };
            Err(format!("the file {}: {why}", path.display()))
        }
    }
}

async fn read(path: &Path) -> Result<String, String> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).await;
    read.map_err(|error| error.to_string())?;
    text::decoded(bytes).map_err(|error| error.to_string())
}

/// Whether the same attempt may succeed later, with nobody's help on this host.
fn may_pass(error: &NodeError) -> bool {
    match error {
        NodeError::Join(JoinError::Refused { refusal, .. }) => refusal.may_pass(),
        NodeError::Join(_) | NodeError::Store(_) => true,
        _ => false,
    }
}
