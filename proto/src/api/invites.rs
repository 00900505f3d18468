//! Invitations into the Data Center, and the Join Information that carries them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::{Item, LOOKING_MAX, Listed, Method, Named, Operation, Span, Whole, flag};
use crate::access::{Area, Resource, Right, Verb};

pub use crate::invitation::{Progress, progress};

/// How many nodes an invitation admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    /// This many.
    AtMost(NonZeroU32),
    /// Any number, as long as the invitation is valid.
    Any,
}

/// One use: a token is seen in a shell's history and in the list of processes, and must be
/// worthless once it was used.
impl Default for Uses {
    fn default() -> Self {
        Self::AtMost(NonZeroU32::MIN)
    }
}

impl Uses {
    /// The number; `None` is no bound.
    pub fn at_most(self) -> Option<u32> {
        match self {
            Self::AtMost(number) => Some(number.get()),
            Self::Any => None,
        }
    }

    /// Whether a token is still good once it was used.
    pub fn outlives_one(self) -> bool {
        self != Self::default()
    }
}

/// The text is neither `any` nor a number of nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a number of nodes from 1 on, or \"any\", was expected, not {0:?}")]
pub struct UsesError(String);

impl FromStr for Uses {
    type Err = UsesError;

    fn from_str(text: &str) -> Result<Self, UsesError> {
        match text {
            "any" => Ok(Self::Any),
            number => match number.parse() {
                Ok(number) => Ok(Self::AtMost(number)),
                Err(_) => Err(UsesError(text.chars().take(40).collect())),
            },
        }
    }
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(number) => write!(f, "{number}"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// A number, or `"any"`.
impl Serialize for Uses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AtMost(number) => serializer.serialize_u32(number.get()),
            Self::Any => serializer.serialize_str("any"),
        }
    }
}

/// Reads a number, a text, and `null` for the default.
impl<'de> Deserialize<'de> for Uses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Uses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of nodes from 1 on, or \"any\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Uses, E> {
                let fits = u32::try_from(number).ok().and_then(NonZeroU32::new);
                fits.map(Uses::AtMost)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Uses, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Uses, E> {
                Ok(Uses::default())
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// Makes Join Information.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateInvite {
    /// For how long the invitation admits nodes; `None` is a day.
    pub ttl: Option<Span>,
    /// How many nodes it admits; the default is one.
    pub uses: Uses,
    /// A pattern with `*` and `?` that the names of the admitted nodes must match; `None` is any
    /// name.
    pub node_name: Option<String>,
    /// Whether only this node's own confirmation admits, so that `uses` holds in a partition too.
    #[serde(deserialize_with = "flag")]
    pub strict: bool,
    /// Whether the secret is left out of the token and told separately, as a password.
    #[serde(deserialize_with = "flag")]
    pub no_secret: bool,
}

impl Operation for CreateInvite {
    type Answer = Whole<CreatedInvite>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "invites";
    const VERB: Verb = Verb::modify(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Root
    }
}

/// A new invitation. Its secret is told only in this answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedInvite {
    /// The Join Information: the string to paste.
    pub token: String,
    /// The invitation's id, as it stands in the list.
    pub id: String,
    /// Until when it admits, as RFC 3339.
    pub expires: String,
    /// The secret, where the token does not contain it.
    pub password: Option<String>,
    /// The command to paste on the joining host. It contains the token if the token is for one use.
    /// A token for more uses is not in it, since other users see the arguments of a command: the
    /// command then asks for the token.
    pub command: String,
    /// How many nodes it admits; `None` is no bound.
    #[serde(default)]
    pub uses: Option<u32>,
    /// What may keep a host from joining by this token: addresses that had no room in it, or that
    /// it can be used on this host alone.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Lists the invitations, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListInvites {}

impl Operation for ListInvites {
    type Answer = Listed<Invite>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "invites";
    const VERB: Verb = Verb::audit(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Root
    }
}

/// An invitation, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The invitation's id.
    pub id: String,
    /// The name of the node that made it.
    pub issuer: String,
    /// When it was made, as RFC 3339; `None` where this node knows only of its uses.
    pub created: Option<String>,
    /// Until when it admits, as RFC 3339; `None` where this node knows only of its uses.
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

impl Item for Invite {
    fn right(&self) -> Option<Right<'_>> {
        // A caller that may list the invitations may see each of them.
        None
    }
}

/// Makes an invitation void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeInvite {
    /// Its id, or a beginning of its id that no other invitation has.
    pub id: String,
}

impl Operation for RevokeInvite {
    type Answer = Whole<Invite>;
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "invites/{id}";
    const VERB: Verb = Verb::modify(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Root
    }
}

/// Reads Join Information without using it, and without asking any other host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspect {
    /// The Join Information.
    pub token: String,
}

impl Operation for Inspect {
    type Answer = Whole<Inspection>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "inspect";
    const VERB: Verb = Verb::audit(Area::DataCenter);

    fn resource(&self) -> Resource<'_> {
        Resource::Root
    }

    /// The method is POST, so that the token does not stand in a URL, which logs keep. The
    /// operation only looks, so its answer takes no longer than that of a GET.
    fn patience(&self) -> Duration {
        LOOKING_MAX
    }
}

/// What Join Information says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The Data Center that it leads into.
    pub datacenter: Named,
    /// The name of the node that made it, or the id of that node where the name is not known.
    pub issuer: String,
    /// The members that the joining node will ask, in this order.
    pub seeds: Vec<Seed>,
    /// Until when it admits, as RFC 3339.
    pub expires: String,
    /// How many nodes it admits; `None` is no bound.
    pub uses: Option<u32>,
    /// The names that it admits; `None` is any.
    pub node_name: Option<String>,
    /// Whether only the issuer's own confirmation admits.
    pub strict: bool,
    /// Whether it contains its secret; if not, joining takes the password, too.
    pub secret: bool,
    /// Whether it can be used, as far as this node can tell without asking another host.
    pub valid: bool,
    /// Why it cannot be used.
    pub message: Option<String>,
    /// Whether this node is a member of that Data Center already. Then a join only connects with
    /// the seeds (as `meet` does), and the invitation need not be valid any more.
    #[serde(default)]
    pub already: bool,
}

/// A member that a joining node can ask for admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Its id, in full.
    pub id: String,
    /// Where it can be found.
    pub addresses: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn uses_are_a_number_or_any_and_one_where_nobody_says() {
        let read = |body| serde_json::from_value::<CreateInvite>(body).map(|i| i.uses.at_most());
        for (body, uses) in [
            (json!({}), Some(1)),
            (json!({"uses": null}), Some(1)),
            (json!({"uses": 4_294_967_295_u32}), Some(u32::MAX)),
            (json!({"uses": "7"}), Some(7)),
            (json!({"uses": "any"}), None),
        ] {
            assert_eq!(read(body.clone()).unwrap(), uses, "{body}");
        }
        for wrong in [json!(0), json!("0"), json!("all"), json!(-1), json!(4_294_967_296_u64)] {
            let error = read(json!({ "uses": wrong })).unwrap_err().to_string();
            assert!(error.contains("a number of nodes from 1 on, or \"any\""), "{error}");
        }
        for uses in [Uses::Any, Uses::default()] {
            assert_eq!(uses.to_string().parse(), Ok(uses));
            assert_eq!(serde_json::from_value::<Uses>(json!(uses)).unwrap(), uses);
        }
    }
}
