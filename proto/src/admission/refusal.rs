//! Why a joiner is not let in, told to machines by a code and to people with a hint.

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::skew::Off;

/// The weight of a refusal that every member would repeat.
const FINAL: u8 = 9;

/// Why a joiner is not let in. Both sides are as they were before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The request does not read, or says what no request says.
    #[error("the request does not read: {0}")]
    Malformed(String),
    /// The terms are not what the issuer signed, or the proof fails.
    #[error("the Join Information was altered, or its secret is wrong")]
    NotProven,
    /// The member that was asked belongs to another Data Center, or to none.
    #[error("wrong Data Center: the Join Information is for {wanted}, the node that answered {}", elsewhere(.found.as_deref(), .ended.as_deref()))]
    WrongDataCenter {
        /// The name in the terms.
        wanted: String,
        /// That of the member's; none where it is standalone.
        found: Option<String>,
        /// How it came to be out of the one in the terms, where it was in it last: `was removed
        /// from North by root on pve-1`. A version before this field says nothing.
        #[serde(default)]
        ended: Option<String>,
    },
    /// The issuer is nobody here, or was removed.
    #[error("the Join Information was issued by {issuer}, which {}", if *.removed { "was removed from the Data Center" } else { "is not known as a member here (yet)" })]
    Issuer {
        /// Its name.
        issuer: String,
        /// Whether it was once a member.
        removed: bool,
    },
    /// The issuer may let nobody in until it is accepted.
    #[error(
        "the Join Information was issued by {issuer}, which came in beyond the uses of its own invitation and lets nobody in until it is accepted"
    )]
    IssuerUnaccepted {
        /// Its name.
        issuer: String,
    },
    /// The member that was asked may let nobody in until it is accepted.
    #[error(
        "{member} came in beyond the uses of its own invitation, and lets nobody in until it is accepted"
    )]
    SeedUnaccepted {
        /// The member that was asked.
        member: String,
    },
    /// Past its time.
    #[error("the Join Information expired {} ago", .ago)]
    Expired {
        /// Since when, as `2h 5m`.
        ago: String,
    },
    /// Called back.
    #[error("the Join Information was revoked")]
    Revoked,
    /// It has admitted, or is just admitting, as many as it may.
    #[error("the Join Information is used up: it admits {uses}, and did")]
    UsedUp {
        /// How many it admits.
        uses: u32,
    },
    /// Only the issuer may confirm, and it does not answer.
    #[error("the Join Information is strict, and its issuer {issuer} cannot be asked now")]
    IssuerSilent {
        /// The issuer's name.
        issuer: String,
    },
    /// Another member has the name.
    #[error("the name {name} is taken by {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// The beginning of the holder's id.
        holder: String,
    },
    /// The name is to be taken over from a member that is there.
    #[error("{name} ({holder}) is not gone: {why}, at {}", .addresses.join(", "))]
    NotGone {
        /// The name.
        name: String,
        /// The beginning of the holder's id.
        holder: String,
        /// What is known of it.
        why: String,
        /// Where it is.
        addresses: Vec<String>,
    },
    /// The name is to be taken over from a member that is away, and may be back before long.
    #[error("{name} ({holder}) may not be gone: {why}")]
    MaybeGone {
        /// The name.
        name: String,
        /// The beginning of the holder's id.
        holder: String,
        /// What is known of it.
        why: String,
    },
    /// The invitation is for other names.
    #[error("the Join Information admits names like {pattern}, not {name}")]
    NamePattern {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
    /// Not a name.
    #[error("{0}")]
    BadName(String),
    /// The joiner's clock is wrong, or the member's.
    #[error("this node's clock is {} that of {member}", Off(*.ahead_ms))]
    ClockOff {
        /// How far the joiner's is ahead, in milliseconds.
        ahead_ms: i64,
        /// The member that was asked.
        member: String,
    },
    /// The clock of the member that was asked is known to be wrong: it writes nothing until it is
    /// right, so it admits nobody either.
    #[error("the clock of {member} itself is {} the median of {peers} other nodes, and it admits nobody until it is right", Off(*.ahead_ms))]
    SeedClockOff {
        /// The member that was asked.
        member: String,
        /// How far its clock is ahead of the others', in milliseconds.
        ahead_ms: i64,
        /// How many others were measured.
        peers: usize,
    },
    /// An agent with the joiner's key is a member already, and is alive.
    #[error(
        "an agent with the same node.key is {name} already, and is alive {place}: a disk or an image was copied"
    )]
    Copy {
        /// The name of that member.
        name: String,
        /// Where it is, as it stands in a sentence.
        place: String,
    },
    /// The joiner's key was put out.
    #[error("this node was removed from the Data Center by {who} on {by}, and its key stays out")]
    Removed {
        /// The member on which it was asked.
        by: String,
        /// Who asked.
        who: String,
    },
    /// The two do not speak one protocol.
    #[error(
        "the versions do not go together: this node speaks protocol {joiner}, {member} speaks {found}"
    )]
    Version {
        /// The joiner's.
        joiner: u16,
        /// The member that was asked.
        member: String,
        /// Its protocol.
        found: u16,
    },
    /// The dial-back failed.
    #[error("{member} cannot reach this node at {}: {cause}", .addresses.join(", "))]
    Unreachable {
        /// The member that tried.
        member: String,
        /// What it tried.
        addresses: Vec<String>,
        /// What came of it.
        cause: String,
    },
    /// The member that was asked could not do it now.
    #[error("{0}")]
    Busy(String),
}

impl Refusal {
    /// Whether another member may still admit: only the one that was asked stands in the way, or it
    /// judged by its own clock, which may be the wrong one.
    pub fn is_of_this_member(&self) -> bool {
        self.weight() < FINAL
    }

    /// How much it tells, beside those of other members to the same request: where none admits, the
    /// operator is shown the weightiest. One that is of the one member weighs less than any other.
    pub fn weight(&self) -> u8 {
        match self {
            Self::WrongDataCenter { .. } => 0,
            Self::Busy(_) => 1,
            Self::SeedClockOff { .. } | Self::SeedUnaccepted { .. } => 2,
            // Another may have heard of its admission, or of its acceptance.
            Self::Issuer { removed: false, .. } | Self::IssuerUnaccepted { .. } => 3,
            Self::IssuerSilent { .. } => 4,
            Self::ClockOff { .. } => 5,
            // By a clock that is near the joiner's.
            Self::Expired { .. } => 6,
            Self::MaybeGone { .. } => 7,
            Self::Issuer { removed: true, .. } => 8,
            _ => FINAL,
        }
    }

    /// Whether the same request may be granted later, with nobody's help on the joiner's host.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Busy(_)
                | Self::IssuerSilent { .. }
                | Self::Issuer { removed: false, .. }
                | Self::IssuerUnaccepted { .. }
                | Self::SeedUnaccepted { .. }
                | Self::ClockOff { .. }
                | Self::SeedClockOff { .. }
                | Self::Unreachable { .. }
                | Self::MaybeGone { .. }
        )
    }

    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::NotProven => "not_proven",
            Self::WrongDataCenter { .. } => "wrong_datacenter",
            Self::Issuer { .. } => "issuer",
            Self::IssuerUnaccepted { .. } => "issuer_unaccepted",
            Self::SeedUnaccepted { .. } => "seed_unaccepted",
            Self::Expired { .. } => "expired",
            Self::Revoked => "revoked",
            Self::UsedUp { .. } => "used_up",
            Self::IssuerSilent { .. } => "issuer_silent",
            Self::NameTaken { .. } => "name_taken",
            Self::NotGone { .. } => "not_gone",
            Self::MaybeGone { .. } => "maybe_gone",
            Self::NamePattern { .. } => "name_pattern",
            Self::BadName(_) => "bad_name",
            Self::ClockOff { .. } => "clock_off",
            Self::SeedClockOff { .. } => "seed_clock_off",
            Self::Copy { .. } => "copy",
            Self::Removed { .. } => "removed",
            Self::Version { .. } => "version",
            Self::Unreachable { .. } => "unreachable",
            Self::Busy(_) => "busy",
        }
    }

    /// The way out.
    pub fn hint(&self) -> String {
        match self {
            Self::Malformed(_) | Self::Version { .. } => {
                "upgrade the older of the two nodes, then paste the same string again".into()
            }
            Self::NotProven => "copy the whole string again from `peerage invite`".into(),
            Self::WrongDataCenter { .. } => {
                "make the Join Information on a node of the Data Center that you mean: `peerage invite`"
                    .into()
            }
            Self::Issuer { removed: false, .. } => {
                "wait a moment and paste the same string again, or make one on another node: \
                 `peerage invite`"
                    .into()
            }
            Self::Issuer { .. } | Self::Expired { .. } | Self::Revoked | Self::UsedUp { .. } => {
                "make a new one on any member: `peerage invite`".into()
            }
            Self::IssuerUnaccepted { issuer: name } | Self::SeedUnaccepted { member: name } => {
                format!(
                    "if {name} is to stay, `peerage members accept {name}` on another member, and \
                     paste the same string again; or make a new one on another member: `peerage \
                     invite`"
                )
            }
            Self::IssuerSilent { issuer } => {
                format!("bring {issuer} back, or make one without --strict on another node")
            }
            Self::MaybeGone { name, .. } => {
                format!(
                    "if it is gone for good, `peerage remove {name}` on a member, and paste the \
                     same string again; or join under another name"
                )
            }
            Self::NotGone { .. } => {
                "only one that is gone can be replaced: let it `peerage leave`, or `peerage remove` it \
                 on another member, and paste the same string again; or join under another name"
                    .into()
            }
            Self::NameTaken { .. } => {
                "choose another: `peerage join --name NAME ...`; if this host is the same one, \
                 installed anew, and the old is down: `peerage join --replace ...`; the same \
                 string still holds"
                    .into()
            }
            Self::NamePattern { .. } | Self::BadName(_) => {
                "choose another: `peerage join --name NAME ...`; the same string still holds".into()
            }
            Self::ClockOff { member, .. } => format!(
                "set the one that is wrong, this node's or that of {member} (timedatectl set-ntp \
                 true), then paste the same string again"
            ),
            Self::SeedClockOff { member, .. } => format!(
                "set the clock of {member} (timedatectl set-ntp true) and paste the same string \
                 again, or make one on another node: `peerage invite`"
            ),
            Self::Copy { .. } => {
                "if this host is the copy, give it an identity of its own: `peerage reset \
                 --identity`, then paste the same string again; if it is the one to stay, stop the \
                 other for good, do the same here, and take the name over by `peerage join \
                 --replace`"
                    .into()
            }
            Self::Removed { .. } => {
                "to join again, give this host a new identity: `peerage reset --identity`; then use \
                 new Join Information"
                    .into()
            }
            Self::Unreachable { member, addresses, .. } => {
                let is_name = |a: &&String| matches!(a.parse(), Ok(Address::Name { .. }));
                let names: Vec<_> = addresses.iter().filter(is_name).map(String::as_str).collect();
                let resolve = match names.is_empty() {
                    true => String::new(),
                    false => format!(
                        "see that {member}, too, finds this host by its name (DNS, or /etc/hosts \
                         there): {}; ",
                        names.join(", ")
                    ),
                };
                let ports: std::collections::BTreeSet<_> = addresses
                    .iter()
                    .filter_map(|a| a.rsplit_once(':').map(|(_, port)| port))
                    .collect();
                let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
                format!(
                    "{resolve}open UDP port {ports} on this host (nft add rule inet filter input udp dport \
                     {{ {ports} }} accept), or say where it is reached: --advertise ADDR:PORT; then \
                     paste the same string again"
                )
            }
            Self::Busy(_) => "paste the same string again".into(),
        }
    }
}

/// Where a node belongs that does not belong where it was looked for.
fn elsewhere(found: Option<&str>, ended: Option<&str>) -> String {
    match (ended, found) {
        (Some(ended), None) => format!("{ended}, and belongs to none now"),
        (Some(ended), Some(name)) => format!("{ended}, and belongs to {name} now"),
        (None, Some(name)) => format!("belongs to {name}"),
        (None, None) => "belongs to none".to_owned(),
    }
}
