//! An address at which a node says that it is reached: an IP address or a DNS name, with a port.
//!
//! A name is kept and passed on as a name. Each node looks it up when it dials, so a node whose IP
//! address changes is found again as soon as its name leads to the new one.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How long a DNS name may be, in bytes of its text form (RFC 1035, section 2.3.4).
pub const HOST_NAME_BYTES_MAX: usize = 253;

/// How long one label of a DNS name may be.
const LABEL_BYTES_MAX: usize = 63;

/// Why a text is not the name of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is longer than [`HOST_NAME_BYTES_MAX`].
    #[error("a name has at most {HOST_NAME_BYTES_MAX} bytes, and this one has {0}")]
    TooLong(usize),
    /// There is a dot at the beginning, or there are two in a row.
    #[error("there is nothing before one of its dots")]
    EmptyLabel,
    /// A part between two dots is too long.
    #[error("a part between dots has at most {LABEL_BYTES_MAX} letters, and {0:?} has more")]
    LabelTooLong(String),
    /// A part begins or ends with a hyphen.
    #[error("a part between dots does not begin or end with a hyphen, as {0:?} does")]
    Hyphen(String),
    /// There is a character that may not stand in a name.
    #[error(
        "{0:?} cannot stand in a name: take letters from a to z, digits and hyphens (a name in \
         another script has a form of these, which begins with xn--)"
    )]
    Character(char),
    /// Programs would read the name as an IPv4 address.
    #[error(
        "it ends with a number like an IPv4 address, which has four numbers from 0 to 255 with dots \
         between them"
    )]
    Number,
}

/// The name of a host as DNS and `/etc/hosts` know it (RFC 952, RFC 1123, section 2.1): labels of
/// letters, digits and hyphens with dots between them. It may have an underscore, since real hosts
/// have it although the RFCs do not allow it. The name is kept in lower case and without a dot at
/// its end, and it can never be read as an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// The name as text, of 1 to [`HOST_NAME_BYTES_MAX`] bytes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name means the own host on every host: `localhost` and names that end with
    /// `.localhost` (RFC 6761, section 6.3).
    pub fn is_localhost(&self) -> bool {
        self.0.rsplit('.').next() == Some("localhost")
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(HostNameError::Empty);
        }
        if text.len() > HOST_NAME_BYTES_MAX {
            return Err(HostNameError::TooLong(text.len()));
        }
        let stands = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(wrong) = text.chars().find(|c| !stands(*c)) {
            return Err(HostNameError::Character(wrong));
        }
        for label in text.split('.') {
            if label.is_empty() {
                return Err(HostNameError::EmptyLabel);
            }
            if label.len() > LABEL_BYTES_MAX {
                return Err(HostNameError::LabelTooLong(label.to_owned()));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(HostNameError::Hyphen(label.to_owned()));
            }
        }
        let text = text.to_ascii_lowercase();
        match text.rsplit('.').next().is_some_and(is_number) {
            true => Err(HostNameError::Number),
            false => Ok(Self(text)),
        }
    }
}

/// Whether the last label makes the resolvers of C libraries read the whole name as an IPv4
/// address: `inet_aton` accepts decimal, octal and hexadecimal numbers.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x");
    hexadecimal.map_or(label.bytes().all(|b| b.is_ascii_digit()), |digits| {
        digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;

    fn try_from(text: String) -> Result<Self, HostNameError> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host, without a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// The host at this IP address.
    Ip(IpAddr),
    /// The host that this name leads to.
    Name(HostName),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Where a node is reached: an IP address or a DNS name, with a UDP port.
///
/// As text, in JSON and in the roster's records, it is `192.0.2.7:4747`, `[2001:db8::7]:4747` or
/// `pve-1.example.org:4747`. In the binary form an IP address is spelt as serde spells a
/// [`SocketAddr`]: Join Information was signed over that spelling before there were names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address.
    Ip(SocketAddr),
    /// A name, which a node looks up when it dials.
    Name {
        /// The name.
        host: HostName,
        /// The UDP port.
        port: u16,
    },
}

impl Address {
    /// The IP address with its port; `None` for a name.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }

    /// The name; `None` for an IP address.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Ip(_) => None,
            Self::Name { host, .. } => Some(host),
        }
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }

    /// Whether the address can only mean the own host.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().to_canonical().is_loopback(),
            Self::Name { host, .. } => host.is_localhost(),
        }
    }

    /// The address as it is compared and shown: an IPv4-mapped address as IPv4, and without the
    /// flow label and the scope, which mean something on one host only.
    pub fn canonical(self) -> Self {
        match self {
            Self::Ip(address) => Self::Ip((address.ip().to_canonical(), address.port()).into()),
            name @ Self::Name { .. } => name,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no port, or it is not a number of a port.
    #[error("ADDRESS:PORT or NAME:PORT was expected")]
    NoPort,
    /// The part before the port is neither an IP address nor a name.
    #[error(transparent)]
    Host(#[from] HostNameError),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Ip(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let port = port.parse().map_err(|_| AddressError::NoPort)?;
        Ok(Self::Name { host: host.parse()?, port })
    }
}

/// The binary form. The first two variants are those of a [`SocketAddr`].
#[derive(Serialize, Deserialize)]
#[serde(rename = "SocketAddr")]
enum Binary {
    V4(SocketAddrV4),
    V6(SocketAddrV6),
    Name(HostName, u16),
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let binary = match self {
            Self::Ip(SocketAddr::V4(address)) => Binary::V4(*address),
            Self::Ip(SocketAddr::V6(address)) => Binary::V6(*address),
            Self::Name { host, port } => Binary::Name(host.clone(), *port),
        };
        binary.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return text.parse().map_err(serde::de::Error::custom);
        }
        Ok(match Binary::deserialize(deserializer)? {
            Binary::V4(address) => Self::Ip(address.into()),
            Binary::V6(address) => Self::Ip(address.into()),
            Binary::Name(host, port) => Self::Name { host, port },
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    /// The name of a host.
    pub(crate) fn host_name() -> impl Strategy<Value = HostName> {
        let label = "[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?";
        (prop::collection::vec(label, 0..4), "[a-z]([a-z0-9_-]{0,20}[a-z0-9_])?").prop_map(
            |(mut labels, last)| {
                labels.push(last);
                labels.join(".").parse().expect("labels of what may stand in a name")
            },
        )
    }

    /// An address of any kind, as text forms have it: without a flow label or a scope.
    pub(crate) fn address() -> impl Strategy<Value = Address> {
        prop_oneof![
            any::<SocketAddr>().prop_map(|a| Address::Ip((a.ip(), a.port()).into())),
            (host_name(), any::<u16>()).prop_map(|(host, port)| Address::Name { host, port }),
        ]
    }

    fn name(text: &str) -> Result<HostName, HostNameError> {
        text.parse()
    }

    #[test]
    fn a_name_is_one_whatever_its_case_and_with_a_dot_at_its_end() {
        for text in ["pve-1.example.org", "PVE-1.Example.ORG", "pve-1.example.org."] {
            assert_eq!(name(text).unwrap().as_str(), "pve-1.example.org", "{text}");
        }
        let longest = [&"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &"d".repeat(61)]
            .map(String::as_str)
            .join(".");
        for text in ["a", "4747.de", "1a", "my_host", "_udp.lan", "xn--bcher-kva.example", &longest]
        {
            assert_eq!(name(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let refused = |text: &str| name(text).unwrap_err();
        for text in ["", "."] {
            assert_eq!(refused(text), HostNameError::Empty);
        }
        for text in ["pve_1..lan", ".lan", "lan.."] {
            assert_eq!(refused(text), HostNameError::EmptyLabel, "{text}");
        }
        for text in ["10.0.0.300", "10.0.0", "4747", "lan.0x7f", "0x7f000001", "a.007"] {
            assert_eq!(refused(text), HostNameError::Number, "{text}");
        }
        for text in ["-a.lan", "a-.lan", "a.-"] {
            assert!(matches!(refused(text), HostNameError::Hyphen(_)), "{text}");
        }
        for (text, wrong) in [("10.0.0.0/8", '/'), ("büro.lan", 'ü'), ("a b", ' '), ("a:1", ':')]
        {
            assert_eq!(refused(text), HostNameError::Character(wrong), "{text}");
        }
        assert!(matches!(refused(&"a".repeat(64)), HostNameError::LabelTooLong(_)));
        let long = vec!["a".repeat(50); 5].join(".");
        assert_eq!(refused(&long), HostNameError::TooLong(254));
    }

    #[test]
    fn localhost_and_what_is_under_it_is_the_host_itself() {
        for (text, is) in [("localhost:1", true), ("a.LOCALHOST:1", true), ("localhost.a:1", false)]
        {
            assert_eq!(text.parse::<Address>().unwrap().is_loopback(), is, "{text}");
        }
        for (text, is) in
            [("127.9.9.9:1", true), ("[::ffff:127.0.0.1]:1", true), ("10.0.0.1:1", false)]
        {
            assert_eq!(text.parse::<Address>().unwrap().is_loopback(), is, "{text}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        for text in ["pve-1", "192.0.2.7", "pve-1:", "pve-1:99999", "pve-1:x"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::NoPort), "{text}");
        }
        assert_eq!("192.0.2.300:1".parse::<Address>(), Err(HostNameError::Number.into()));
    }

    proptest! {
        #[test]
        fn an_address_reads_back_from_each_of_its_forms(address in address()) {
            prop_assert_eq!(&address.to_string().parse::<Address>().unwrap(), &address);
            let json = serde_json::to_string(&address).unwrap();
            prop_assert_eq!(&json, &format!("{:?}", address.to_string()));
            prop_assert_eq!(&serde_json::from_str::<Address>(&json).unwrap(), &address);
            let bytes = codec::encode(&address);
            prop_assert_eq!(&codec::decode::<Address>(&bytes, bytes.len()).unwrap(), &address);
        }

        /// Otherwise the signatures of Join Information that was made before there were names would
        /// be invalid.
        #[test]
        fn an_ip_address_has_the_binary_form_that_it_always_had(address: SocketAddr) {
            prop_assert_eq!(codec::encode(&Address::Ip(address)), codec::encode(&address));
        }

        #[test]
        fn no_name_reads_as_an_ip_address(text in "[a-fx0-9.]{1,20}") {
            if let Ok(name) = text.parse::<HostName>() {
                prop_assert!(name.as_str().parse::<IpAddr>().is_err());
                prop_assert_eq!(name.as_str().parse::<HostName>(), Ok(name.clone()));
            }
        }

        #[test]
        fn arbitrary_text_does_no_harm(text in "\\PC*") {
            let _ = text.parse::<Address>();
        }
    }
}
