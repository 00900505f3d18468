//! How a node stands, in words that a person can act on.

use std::fmt;
use std::time::Duration;

use crate::id::NodeId;

/// What is believed of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The roster names it, and nothing was heard of it yet: for three seconds at most.
    Unknown,
    /// It answers, itself or through another member.
    Alive,
    /// It did not answer; it has a moment left to object before it is down.
    Suspect,
    /// It does not answer, nor to others.
    Down,
    /// It said goodbye: its agent was stopped.
    Left,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        })
    }
}

/// Why a member stands as it does. Nodes print as their short ids: who knows their names can match
/// on the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The roster named it just now.
    Taught,
    /// It was heard of for the first time.
    Met,
    /// It answered after it was suspected.
    Answered,
    /// It came back after it had been away for `after`.
    Back {
        /// How long it was away.
        after: Duration,
        /// Whether its agent started anew; otherwise the network failed, or the host stood still.
        restarted: bool,
    },
    /// This node asked it and heard nothing, nor did the members that were asked to try.
    NoAnswer {
        /// How long nothing was heard of it, where it ever was.
        silent: Option<Duration>,
    },
    /// Another member says so.
    Told {
        /// The member that told this node; perhaps it was told, too.
        by: NodeId,
        /// How long nothing was heard of it here, where it ever was.
        silent: Option<Duration>,
    },
    /// Its port refused or its connection was reset, and it did not answer on being asked again.
    Refused,
    /// It said goodbye.
    Goodbye,
    /// Nothing was heard of it since this agent started.
    NeverHeard,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taught => f.write_str("newly in the roster"),
            Self::Met => f.write_str("heard of for the first time"),
            Self::Answered => f.write_str("answered"),
            Self::Back { after, restarted: true } => {
                write!(f, "back after {}: its agent started anew", Seconds(*after))
            }
            Self::Back { after, restarted: false } => write!(
                f,
                "back after {}: same boot, so the network failed or the host stood still",
                Seconds(*after)
            ),
            Self::NoAnswer { silent: Some(silent) } => {
                write!(f, "no answer for {}", Seconds(*silent))
            }
            Self::NoAnswer { silent: None } => f.write_str("no answer"),
            Self::Told { by, silent } => {
                write!(f, "found by {}", by.short())?;
                match silent {
                    Some(silent) => write!(f, "; not heard from here for {}", Seconds(*silent)),
                    None => f.write_str("; never heard from here"),
                }
            }
            Self::Refused => f.write_str("its port refused, and it did not answer"),
            Self::Goodbye => f.write_str("said goodbye"),
            Self::NeverHeard => f.write_str("not heard from since this agent started"),
        }
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// How a member stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What is believed of it.
    pub state: State,
    /// Since when, on the clock of [`crate::time::Now::mono`].
    pub since: Duration,
    /// Why.
    pub why: Why,
    /// The boot number under which it was met, where it was.
    pub boot: Option<u64>,
    /// When it was heard from directly, on the clock of [`crate::time::Now::mono`].
    pub heard: Option<Duration>,
    /// The latest round trip of a direct probe.
    pub rtt: Option<Duration>,
    /// The member through which it answered, while it does not answer directly.
    pub through: Option<NodeId>,
}

/// A change of what is believed of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessEvent {
    /// The member.
    pub node: NodeId,
    /// What was believed before. It equals `to` where a node restarted faster than it was missed.
    pub from: State,
    /// What is believed now.
    pub to: State,
    /// Why.
    pub why: Why,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_reads_as_a_sentence() {
        let silent = Duration::from_millis(2_140);
        assert_eq!(Why::NoAnswer { silent: Some(silent) }.to_string(), "no answer for 2.1 s");
        assert_eq!(
            Why::Told { by: NodeId([0xab; 32]), silent: None }.to_string(),
            "found by abababab; never heard from here"
        );
        assert_eq!(
            Why::Back { after: Duration::from_secs(41), restarted: false }.to_string(),
            "back after 41.0 s: same boot, so the network failed or the host stood still"
        );
    }
}
