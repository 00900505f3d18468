//! How a node stands, in words that a person can act on.

use std::fmt;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::HowLong;

/// What is believed of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The roster names it, and it was not heard of yet. This lasts three seconds, or longer among
    /// hundreds of members.
    Unknown,
    /// It answers, itself or through another member.
    Alive,
    /// It did not answer; it has a moment left to object before it is down.
    Suspect,
    /// It answers neither this node nor others.
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

/// What was tried in vain since a member was last heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// How often it was asked directly.
    pub probes: u32,
    /// Over how long a time.
    pub over: Duration,
    /// Members that were asked to try, at most six.
    pub through: Vec<NodeId>,
}

/// How a member that was away comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Its agent started anew, with its host or without.
    Restarted,
    /// The same run of its agent, which took this node for lost meanwhile: it was up, and the
    /// network failed.
    CutOff,
    /// The same run of its agent: the network failed, or the host stood still.
    SameBoot,
}

/// Why a member stands as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The roster named it just now.
    Taught,
    /// It was heard of for the first time.
    Met,
    /// It answered after it was suspected.
    Answered,
    /// It came back after it had been away for `after`.
    Back {
        /// How long it was away; zero where it was back before it was missed.
        after: Duration,
        /// How.
        how: Return,
    },
    /// This node asked it and heard nothing, nor did the members that were asked to try.
    NoAnswer {
        /// What was tried.
        tried: Tried,
    },
    /// Another member says that it is suspect or down.
    Told {
        /// The member that told this node; perhaps it was told, too.
        by: NodeId,
        /// How long this node has heard nothing from it; none where it never did.
        silent: Option<Duration>,
    },
    /// Its host answered that nobody listens at its port, and it did not answer.
    Refused {
        /// What was tried.
        tried: Tried,
    },
    /// It said goodbye.
    Goodbye,
    /// Nothing was heard of it since this agent started.
    NeverHeard,
}

impl Why {
    /// The reason in words; `name` gives the name of each node in it.
    pub fn in_words(&self, name: impl Fn(&NodeId) -> String) -> String {
        match self {
            Self::Taught => "newly in the roster".into(),
            Self::Met => "heard of for the first time".into(),
            Self::Answered => "answered".into(),
            Self::Back { after, how } => {
                let how = match how {
                    Return::Restarted => "its agent started anew",
                    Return::CutOff => {
                        "same boot, so the network failed, not the host: it had missed this node, too"
                    }
                    Return::SameBoot => "same boot, so the network failed or the host stood still",
                };
                if after.is_zero() {
                    format!("back before it was missed: {how}")
                } else {
                    format!("back after {}: {how}", HowLong(*after))
                }
            }
            Self::NoAnswer { tried } => tried.in_words(name),
            Self::Told { by, silent: Some(silent) } => {
                format!("found by {}; not heard from here for {}", name(by), HowLong(*silent))
            }
            Self::Told { by, silent: None } => {
                format!("found by {}; never heard from here", name(by))
            }
            Self::Refused { tried } => format!("its port refused, and {}", tried.in_words(name)),
            Self::Goodbye => "said goodbye".into(),
            Self::NeverHeard => "not heard from since this agent started".into(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words(|node| node.short()))
    }
}

impl Tried {
    fn in_words(&self, name: impl Fn(&NodeId) -> String) -> String {
        let mut words = match self.probes {
            0 => "no answer".to_owned(),
            1 => format!("no answer to a probe over {}", HowLong(self.over)),
            probes => format!("no answer to {probes} probes over {}", HowLong(self.over)),
        };
        if !self.through.is_empty() {
            let through: Vec<String> = self.through.iter().map(name).collect();
            words += &format!(", nor through {}", through.join(", "));
        }
        words
    }
}

/// How a member stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is believed of it.
    pub state: State,
    /// Since when, on the clock of [`crate::time::Now::mono`].
    pub since: Duration,
    /// Why.
    pub why: Why,
    /// The boot number of its latest known life; none where it was not met yet.
    pub boot: Option<u64>,
    /// When it was heard from directly, on the clock of [`crate::time::Now::mono`].
    pub heard: Option<Duration>,
    /// The round trip of direct probes: quick to grow and slow to shrink, at most 0.6 s.
    pub rtt: Option<Duration>,
    /// The member through which it answered, while it does not answer directly.
    pub through: Option<NodeId>,
}

/// A change of what is believed of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let name = |node: &NodeId| format!("pve-{}", node.as_bytes()[0]);
        let node = |n| NodeId([n; 32]);
        let over = Duration::from_millis(2_140);
        let tried = Tried { probes: 3, over, through: vec![node(1), node(4), node(5)] };
        for (why, words) in [
            (
                Why::NoAnswer { tried: tried.clone() },
                "no answer to 3 probes over 2.1 s, nor through pve-1, pve-4, pve-5",
            ),
            (
                Why::Refused { tried: Tried { through: vec![], ..tried } },
                "its port refused, and no answer to 3 probes over 2.1 s",
            ),
            (Why::NoAnswer { tried: Tried::default() }, "no answer"),
            (
                Why::Told { by: node(2), silent: Some(over) },
                "found by pve-2; not heard from here for 2.1 s",
            ),
            (
                Why::Back { after: Duration::from_millis(41_200), how: Return::CutOff },
                "back after 41 s: same boot, so the network failed, not the host: it had missed \
                 this node, too",
            ),
            (
                Why::Back { after: Duration::ZERO, how: Return::Restarted },
                "back before it was missed: its agent started anew",
            ),
        ] {
            assert_eq!(why.in_words(name), words);
        }
        let told = Why::Told { by: node(0xab), silent: None };
        assert_eq!(told.to_string(), "found by abababab; never heard from here");
    }
}
