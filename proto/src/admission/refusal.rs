//! Why a joiner is not let in, told to machines by a code and to people with a hint.

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::skew::Off;

/// The weight of a refusal that every member would repeat.
const FINAL: u8 = 9;

/// Why a joiner is not let in. Both sides are as they were before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The request cannot be decoded, or has a value that no valid request has.
    #[error("the request does not read: {0}")]
    Malformed(String),
    /// The terms are not what the issuer signed, or the proof fails.
    #[error("the Join Information was altered, or its secret is wrong")]
    NotProven,
    /// The member that was asked belongs to another Data Center, or to none.
    #[error("wrong Data Center: the Join Information is for {wanted}, the node that answered {}", elsewhere(.found.as_deref(), .ended.as_deref()))]
    WrongDataCenter {
        /// The Data Center's name in the terms of the invitation.
        wanted: String,
        /// The name of the member's Data Center; none where the node that answered is standalone.
        found: Option<String>,
        /// How the node that answered came out of the Data Center in the terms, if that was its
        /// last one: `was removed from North by root on pve-1`. A version before this field does
        /// not send it.
        #[serde(default)]
        ended: Option<String>,
    },
    /// The issuer is not known as a member here, or is a member no more.
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
    /// The invitation has expired.
    #[error("the Join Information expired {} ago", .ago)]
    Expired {
        /// How long ago it expired, such as `2 h 5 min`.
        ago: String,
    },
    /// The invitation was revoked.
    #[error("the Join Information was revoked")]
    Revoked,
    /// The invitation has admitted, or is just admitting, as many nodes as it may.
    #[error("the Join Information is used up: it admits {uses}, and did")]
    UsedUp {
        /// How many nodes the invitation admits.
        uses: u32,
    },
    /// The invitation is strict, so that only its issuer may confirm an admission, and the issuer
    /// does not answer.
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
    /// The joiner asks to take the name over from a member that is still there.
    #[error("{name} ({holder}) is not gone: {why}, at {}", .addresses.join(", "))]
    NotGone {
        /// The name.
        name: String,
        /// The beginning of the holder's id.
        holder: String,
        /// What the member that was asked knows of that member.
        why: String,
        /// The addresses at which that member is reached.
        addresses: Vec<String>,
    },
    /// The joiner asks to take the name over from a member that is away and may soon be back.
    #[error("{name} ({holder}) may not be gone: {why}")]
    MaybeGone {
        /// The name.
        name: String,
        /// The beginning of the holder's id.
        holder: String,
        /// What the member that was asked knows of that member.
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
    /// The text is not a valid name of a node.
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
        /// Where that member is, worded as a part of a sentence.
        place: String,
    },
    /// The node with the joiner's key was removed from the Data Center.
    #[error("this node was removed from the Data Center by {who} on {by}, and its key stays out")]
    Removed {
        /// The member on which the removal was asked for.
        by: String,
        /// Who asked for the removal.
        who: String,
    },
    /// The joiner and the member speak different versions of the protocol.
    #[error(
        "the versions do not go together: this node speaks protocol {joiner}, {member} speaks {found}"
    )]
    Version {
        /// The version that the joiner speaks.
        joiner: u16,
        /// The member that was asked.
        member: String,
        /// The version that the member speaks.
        found: u16,
    },
    /// The member could not dial the joiner back.
    #[error("{member} cannot reach this node at {}: {cause}", .addresses.join(", "))]
    Unreachable {
        /// The member that tried.
        member: String,
        /// The addresses that the member tried.
        addresses: Vec<String>,
        /// Why no attempt succeeded.
        cause: String,
    },
    /// The member that was asked cannot admit the joiner now.
    #[error("{0}")]
    Busy(String),
}

impl Refusal {
    /// Whether another member may still admit the joiner: the cause lies with the member that was
    /// asked, or that member judged by its own clock, which may be wrong.
    pub fn is_of_this_member(&self) -> bool {
        self.weight() < FINAL
    }

    /// How much this refusal tells compared with refusals of other members to the same request. If
    /// no member admits the joiner, the operator is shown the refusal with the highest weight. A
    /// refusal that concerns only the asked member weighs less than one that every member would
    /// repeat.
    pub fn weight(&self) -> u8 {
        match self {
            Self::WrongDataCenter { .. } => 0,
            Self::Busy(_) => 1,
            Self::SeedClockOff { .. } | Self::SeedUnaccepted { .. } => 2,
            // Another member may have heard already that the issuer was admitted or accepted.
            Self::Issuer { removed: false, .. } | Self::IssuerUnaccepted { .. } => 3,
            Self::IssuerSilent { .. } => 4,
            Self::ClockOff { .. } => 5,
            // The member's clock is near the joiner's, else it would have refused with `ClockOff`.
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

    /// What the operator can do about it.
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

/// Says which Data Center the node that answered belongs to, if it is not the one in the terms.
fn elsewhere(found: Option<&str>, ended: Option<&str>) -> String {
    match (ended, found) {
        (Some(ended), None) => format!("{ended}, and belongs to none now"),
        (Some(ended), Some(name)) => format!("{ended}, and belongs to {name} now"),
        (None, Some(name)) => format!("belongs to {name}"),
        (None, None) => "belongs to none".to_owned(),
    }
}
