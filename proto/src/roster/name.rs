//! The names of nodes and of Data Centers: what may be one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How long a node's name may be.
pub const NODE_NAME_BYTES_MAX: usize = 63;

/// How long a Data Center's name may be, in characters.
pub const DATACENTER_NAME_CHARS_MAX: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the name of a node.
    #[error(
        "{0:?} cannot name a node: take 1 to 63 letters, digits, '-', '_' or '.', the first a \
         letter or digit, without a '.' at the end or two in a row"
    )]
    Node(String),
    /// A name by which every host calls itself.
    #[error(
        "{0:?} cannot name a node: every host calls itself so; take a name that is this one's alone"
    )]
    OfEveryHost(String),
    /// An address, or what programs read as one.
    #[error("{0:?} cannot name a node: it reads as an address; take a name with a letter in it")]
    Address(String),
    /// Not the name of a Data Center.
    #[error(
        "{0:?} cannot name a Data Center: take 1 to 64 characters, none of them control characters"
    )]
    DataCenter(String),
}

/// The names by which every host calls itself, compared up to the first dot and without case: so
/// `localhost.localdomain` is one, too.
const OF_EVERY_HOST: [&str; 5] =
    ["localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"];

/// A node's name: unique in its Data Center, and changeable. It shows as it was given; `Web1` and
/// `web1` are one name ([`one_name`]), as they are to DNS (RFC 4343). It may be a name of several
/// labels (`web1.example.org`), and may have underscores, which hosts use though RFC 1123 does not
/// allow them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.parse::<IpAddr>().is_ok() || is_number(text) {
            return Err(NameError::Address(cut(text)));
        }
        let fits = text.len() <= NODE_NAME_BYTES_MAX
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !text.ends_with('.')
            && !text.contains("..");
        if !fits {
            return Err(NameError::Node(cut(text)));
        }
        let label = text.split('.').next().unwrap_or_default();
        if OF_EVERY_HOST.iter().any(|name| one_name(name, label)) {
            return Err(NameError::OfEveryHost(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether a text is only numbers and dots: `ping 10` asks 0.0.0.10, and a browser reads the host
/// of a URL in the same way.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Whether two texts are one name: letters count without their case.
pub fn one_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the name of a Data Center; blanks around it are cut.
///
/// # Errors
/// [`NameError::DataCenter`].
pub fn datacenter_name(text: &str) -> Result<String, NameError> {
    let name = text.trim();
    let fits = !name.is_empty()
        && name.chars().count() <= DATACENTER_NAME_CHARS_MAX
        && !name.chars().any(char::is_control);
    if fits { Ok(name.to_owned()) } else { Err(NameError::DataCenter(cut(text))) }
}

/// As much of a text as an error shows.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
