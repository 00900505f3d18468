//! Joining at the start of the agent, with nobody at the keyboard: `--join`, `--join-file`,
//! `PEERAGE_JOIN`.
//!
//! Whoever sets up the host may write the file late. So the agent waits while the file is missing,
//! empty, half written or no Join Information, and waits for other Join Information in place of one
//! that was refused. What keeps the node from joining is a notice until it has joined.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peerage_proto::backoff::Backoff;
use peerage_proto::invitation::JoinInformation;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::roster::NodeName;
use peerage_proto::text;
use tokio::io::AsyncReadExt;
use tracing::info;

use crate::admission::join::JoinError;
use crate::host::config::JoinSource;
use crate::node::{Node, NodeError};

/// The waits between attempts to join.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// The waits between looks at a file that is of no use yet; a look costs next to nothing.
const LOOK: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));

/// The longest file that is read as Join Information.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What keeps a node from joining. An obstacle is told anew where another was told before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// The file cannot be read: mostly there is none yet.
    Unread,
    /// The file is empty.
    Empty,
    /// The file holds no Join Information, or a part of it.
    NoJoinInformation,
    /// The seeds did not answer, or not now.
    NotYet,
    /// The Join Information was refused for good.
    Refused,
}

impl Obstacle {
    /// The state that is shown until the node has joined.
    fn state(self, message: String, source: &JoinSource) -> State {
        let hint = match (self, source) {
            (Self::NotYet, _) => {
                "it is tried again; `peerage join` says at once what is in the way".to_owned()
            }
            (_, JoinSource::File(path)) => format!(
                "put right what is in the way, or put other Join Information (`peerage invite` on a \
                 member) into {}: it is read again every few seconds",
                path.display()
            ),
            (_, JoinSource::Token(_)) => {
                "once what is in the way is put right: `peerage join`, with this Join \
                 Information or new one (`peerage invite` on a member); it says what to do"
                    .to_owned()
            }
        };
        State::new(message, hint).grade(self as u8)
    }
}

/// Joins, and tries again for as long as that may help. A node that belongs to a Data Center
/// already, or that was put out of one, is left as it is: Join Information may stay in the
/// configuration.
pub async fn join(node: Arc<Node>, source: JoinSource, name: Option<NodeName>, replace: bool) {
    let name = name.as_ref().map(NodeName::as_str);
    let (mut retries, mut looks) = (0, 0);
    let mut refused = None;
    while node.membership().is_none() {
        if let Some(notice) = node.notice() {
            info!(notice = notice.message, "not joining by itself");
            return node.notices().forget(&[NoticeKind::Joins]);
        }
        let (obstacle, why) = match token(&source).await {
            Err(unread) => unread,
            Ok(token) if refused.as_ref() == Some(&token) => {
                pause(LOOK, &mut looks).await;
                continue;
            }
            Ok(token) => match node.join(&token, None, name, replace).await {
                Ok(_) | Err(NodeError::AlreadyMember { .. }) => return,
                Err(failure) if may_pass(&failure) => (Obstacle::NotYet, failure.to_string()),
                Err(failure) => {
                    (refused, retries, looks) = (Some(token), 0, 0);
                    (Obstacle::Refused, format!("{}{failure}", of(&source)))
                }
            },
        };
        let message = match obstacle {
            Obstacle::Refused => format!("joining was refused: {why}"),
            _ => format!("not joined yet: {why}"),
        };
        let state = obstacle.state(message, &source);
        match obstacle {
            Obstacle::NotYet => node.notices().again(NoticeKind::Joins, state),
            _ => node.notices().set(NoticeKind::Joins, Some(state)),
        }
        match (obstacle, &source) {
            (Obstacle::NotYet, _) => pause(RETRY, &mut retries).await,
            (_, JoinSource::File(_)) => pause(LOOK, &mut looks).await,
            // A token in the configuration cannot be replaced while the agent runs.
            (_, JoinSource::Token(_)) => return,
        }
    }
    // Somebody else told the node to join meanwhile.
    node.notices().set(NoticeKind::Joins, None);
}

/// Waits for the next time, after so many waits `before`, and counts this one.
async fn pause(waits: Backoff, before: &mut u32) {
    tokio::time::sleep(waits.drawn(*before, rand::random())).await;
    *before = before.saturating_add(1);
}

/// The words that name the file from which the Join Information came; they stand before the fault.
fn of(source: &JoinSource) -> String {
    match source {
        JoinSource::File(path) => format!("the file {}: ", path.display()),
        JoinSource::Token(_) => String::new(),
    }
}

/// The Join Information, or why there is none yet.
async fn token(source: &JoinSource) -> Result<String, (Obstacle, String)> {
    let path = match source {
        JoinSource::Token(token) => return Ok(token.clone()),
        JoinSource::File(path) => path,
    };
    let (obstacle, why) = match read(path).await {
        Err(why) => (Obstacle::Unread, why),
        Ok(text) if text::one_word(&text).is_empty() => (Obstacle::Empty, "it is empty".to_owned()),
        Ok(text) => match JoinInformation::parse(&text) {
            Ok(_) => return Ok(text),
            Err(error) => (Obstacle::NoJoinInformation, error.to_string()),
        },
    };
    Err((obstacle, format!("{}{why}", of(source))))
}

async fn read(path: &Path) -> Result<String, String> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).await;
    read.map_err(|error| error.to_string())?;
    text::decoded(bytes).map_err(|error| error.to_string())
}

/// Whether the same attempt may succeed later, without anybody's help on this host.
fn may_pass(error: &NodeError) -> bool {
    match error {
        NodeError::Join(JoinError::Refused { refusal, .. }) => refusal.may_pass(),
        // A host may be given its name while it starts.
        NodeError::Join(_) | NodeError::Store(_) | NodeError::Nameless(_) => true,
        _ => false,
    }
}
