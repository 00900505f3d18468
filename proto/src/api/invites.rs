//! Invitations into the Data Center, and the Join Information that carries them.

use serde::{Deserialize, Serialize};

use super::{Method, Named, Operation, Span, flag};
use crate::access::Action;

pub use crate::admission::invitation::{Progress, progress};

/// Makes Join Information.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateInvite {
    /// For how long it admits; `None` is a day.
    pub ttl: Option<Span>,
    /// How many nodes it admits; `None` is no bound.
    pub uses: Option<u32>,
    /// The names that it admits, with `*` and `?`; `None` is any.
    pub node_name: Option<String>,
    /// Whether only this node's own confirmation admits, so that `uses` holds in a partition too.
    #[serde(deserialize_with = "flag")]
    pub strict: bool,
    /// Whether the secret is left out of the token and told apart, as a password.
    #[serde(deserialize_with = "flag")]
    pub no_secret: bool,
}

impl Operation for CreateInvite {
    type Output = CreatedInvite;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "invites";
    const ACTION: Action = Action::Write;
}

/// A new invitation. It is the only time that its secret is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedInvite {
    /// The Join Information: the string to paste.
    pub token: String,
    /// What the invitation is called in the list.
    pub id: String,
    /// Until when it admits, as RFC 3339.
    pub expires: String,
    /// The secret, where the token is without it.
    pub password: Option<String>,
    /// The whole command to paste on the joining host.
    pub command: String,
}

/// Lists the invitations, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListInvites {}

impl Operation for ListInvites {
    type Output = Vec<Invite>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "invites";
    const ACTION: Action = Action::Read;
}

/// An invitation, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// What it is called.
    pub id: String,
    /// The name of the node that made it.
    pub issuer: String,
    /// Since when there is one, as RFC 3339; `None` where only its use is known.
    pub created: Option<String>,
    /// Until when it admits, as RFC 3339; `None` where only its use is known.
    pub expires: Option<String>,
    /// How many nodes it admits; `None` is no bound.
    pub uses: Option<u32>,
    /// How many nodes it has admitted.
    pub used: u32,
    /// The names that it admits; `None` is any.
    pub node_name: Option<String>,
    /// `open`, `expired`, `used up`, `revoked`, or a word of a newer version.
    pub state: String,
}

/// Makes an invitation void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeInvite {
    /// Its id, or the beginning of it that only one invitation has.
    pub id: String,
}

impl Operation for RevokeInvite {
    type Output = Invite;
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "invites/{id}";
    const ACTION: Action = Action::Write;
}

/// Reads Join Information without using it, and without asking any other host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspect {
    /// The Join Information.
    pub token: String,
}

impl Operation for Inspect {
    type Output = Inspection;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "inspect";
    const ACTION: Action = Action::Read;
}

/// What Join Information says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The Data Center that it leads into.
    pub datacenter: Named,
    /// Who made it: the name of the node where it is known, else its id.
    pub issuer: String,
    /// Whom the joining node will ask, in this order.
    pub seeds: Vec<Seed>,
    /// Until when it admits, as RFC 3339.
    pub expires: String,
    /// How many nodes it admits; `None` is no bound.
    pub uses: Option<u32>,
    /// The names that it admits; `None` is any.
    pub node_name: Option<String>,
    /// Whether only the issuer's own confirmation admits.
    pub strict: bool,
    /// Whether it carries its secret; if not, joining takes the password too.
    pub secret: bool,
    /// Whether it can be used, as far as can be told without asking another host.
    pub valid: bool,
    /// Why it cannot be used.
    pub message: Option<String>,
    /// Whether this node is a member of that Data Center already: to join by it is to meet its seeds,
    /// whatever became of the invitation.
    #[serde(default)]
    pub already: bool,
}

/// A node that admits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Its id, in full.
    pub id: String,
    /// Where it can be found.
    pub addresses: Vec<String>,
}
