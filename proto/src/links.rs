//! Links: the addresses at which a node is reached, and the order in which the others try them.
//!
//! An operator gives links with priorities, of which 1 is the best. Among links with the same
//! priority, the one that was named first is tried first. A link is an IP address or a DNS name,
//! which other nodes look up when they dial. This module refuses an address that other hosts cannot
//! dial. It turns an IPv4-mapped IPv6 address (`::ffff:192.0.2.7`) into the IPv4 address, so that
//! the two never count as different places.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::{Address, Host, HostName, HostNameError};
use crate::backoff::Backoff;

/// How many addresses of a node are kept.
pub const ADDRESSES_MAX: usize = 16;

/// How many of these addresses may be names. Every other node has to look each of them up.
pub const NAMES_MAX: usize = 4;

/// How long a link's name may be.
pub const LINK_NAME_BYTES_MAX: usize = 63;

/// For how long the next change of a host's own addresses is held back after one was told: at
/// first, and at most.
pub const HOLD_MIN: Duration = Duration::from_secs(2);
/// See [`HOLD_MIN`].
pub const HOLD_MAX: Duration = Duration::from_secs(300);
const HOLD: Backoff = Backoff::new(HOLD_MIN, HOLD_MAX);

/// After this time without a change the hold is [`HOLD_MIN`] again. It must be longer than
/// [`HOLD_MAX`]: otherwise the hold would be reset each time, even for an interface that comes and
/// goes for ever.
const CALM_AFTER: Duration = Duration::from_secs(900);

/// Why links are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The text is neither an address nor a name.
    #[error(
        "an address or a DNS name was expected, such as 192.0.2.7, [2001:db8::7]:4747 or \
         pve-1.example.org:4747, not {0:?}"
    )]
    NoAddress(String),
    /// The text is no IP address, and no valid DNS name either.
    #[error("{text:?} is neither an IP address nor a DNS name: {why}")]
    NoName {
        /// What was given.
        text: String,
        /// Why it is not a valid name.
        why: HostNameError,
    },
    /// The text has no valid port where a port should be.
    #[error("{0:?} does not end with a port: that is a number from 1 to 65535")]
    NoPort(String),
    /// The address stands for no host, or for many.
    #[error("{0:?} is no address of a host: nobody can be found there")]
    Nowhere(String),
    /// No network routes the address. peerage itself makes up addresses of this range for paths
    /// through other members.
    #[error(
        "{0:?} is of 240.0.0.0/4, which is reserved and routed nowhere (RFC 1112, section 4): give \
         an address that other hosts can reach"
    )]
    Reserved(String),
    /// The address means another host on each cable.
    #[error(
        "{0:?} holds on one cable only, and other hosts cannot tell on which: give an address of \
         the network instead"
    )]
    LinkLocal(String),
    /// The number is not a priority.
    #[error(
        "a priority is a number from {best} (the best) to {last}, not {0}",
        best = Priority::BEST,
        last = Priority::LAST
    )]
    Priority(String),
    /// The text is not a name of a link.
    #[error("{0:?} cannot name a link: take 1 to 63 characters, none of them control characters")]
    Name(String),
    /// The same place is given twice.
    #[error("{0} is given twice")]
    Twice(Place),
    /// No link is given.
    #[error("no link is given")]
    None,
    /// More than [`ADDRESSES_MAX`] links are given.
    #[error("{0} links are given; a node has at most {ADDRESSES_MAX}")]
    TooMany(usize),
    /// More than [`NAMES_MAX`] of the links are names, which every other node would have to look
    /// up.
    #[error("{0} of the links are names; a node has at most {NAMES_MAX} of these")]
    TooManyNames(usize),
}

/// An address or a name with a port of its own, or with the port that the agent listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    /// The host; an IP address is never an IPv4-mapped IPv6 address.
    pub host: Host,
    /// The port; `None` is the one that the agent listens on.
    pub port: Option<u16>,
}

impl Place {
    /// The address of the place, if the agent listens on this port.
    pub fn with_port(&self, port: u16) -> Address {
        let port = self.port.unwrap_or(port);
        match &self.host {
            Host::Ip(ip) => Address::Ip((*ip, port).into()),
            Host::Name(host) => Address::Name { host: host.clone(), port },
        }
    }

    /// Reads a name, with a port or without.
    fn named(text: &str) -> Result<Self, LinkError> {
        let is_ipv6 = text.contains(['[', ']']) || text.matches(':').count() > 1;
        if text.is_empty() || is_ipv6 {
            return Err(LinkError::NoAddress(cut(text)));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let no_name = |why| LinkError::NoName { text: cut(text), why };
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(host.parse::<HostName>().map_err(no_name)?),
        };
        let port = port.map(str::parse).transpose();
        let port = port.map_err(|_| LinkError::NoPort(cut(text)))?;
        match port {
            Some(0) => Err(LinkError::Nowhere(cut(text))),
            port => Ok(Self { host, port }),
        }
    }
}

impl FromStr for Place {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let (ip, port) = match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (_, Ok(address)) => (address.ip(), Some(address.port())),
            // The name of an interface follows the address, which only link-local addresses need.
            _ if text.contains('%') => return Err(LinkError::LinkLocal(cut(text))),
            _ => return Self::named(text),
        };
        let ip = ip.to_canonical();
        if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            return Err(LinkError::LinkLocal(cut(text)));
        }
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || broadcast || port == Some(0) {
            return Err(LinkError::Nowhere(cut(text)));
        }
        if is_reserved(ip) {
            return Err(LinkError::Reserved(cut(text)));
        }
        Ok(Self { host: Host::Ip(ip), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => self.with_port(port).fmt(f),
            None => self.host.fmt(f),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = LinkError;

    fn try_from(text: String) -> Result<Self, LinkError> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

/// How much a link is preferred: 1 is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Priority(u8);

impl Priority {
    /// The best priority. It is also the default.
    pub const BEST: u8 = 1;
    /// The last priority: such a link is used when no other works.
    pub const LAST: u8 = u8::MAX;

    /// The priority of the link at this position of an order, counted from 0.
    pub fn of_place(index: usize) -> Self {
        Self(u8::try_from(index.saturating_add(1)).unwrap_or(Self::LAST))
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(Self::BEST)
    }
}

impl TryFrom<u64> for Priority {
    type Error = LinkError;

    fn try_from(number: u64) -> Result<Self, LinkError> {
        let fits = u8::try_from(number).ok().filter(|n| *n >= Self::BEST);
        fits.map(Self).ok_or_else(|| LinkError::Priority(number.to_string()))
    }
}

impl FromStr for Priority {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Priority(format!("{:?}", cut(text)));
        text.parse::<u64>().map_err(|_| wrong())?.try_into()
    }
}

impl From<Priority> for u64 {
    fn from(priority: Priority) -> Self {
        priority.0.into()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link as an operator gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Where the node is reached.
    pub address: Place,
    /// How much it is preferred.
    #[serde(default)]
    pub priority: Priority,
    /// The operator's name for the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Prints as `ADDRESS@PRIORITY`, followed by the name.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.address, self.priority)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

/// Checks all links of a node together, and puts the best first. Links with the same priority keep
/// the order in which they were given.
///
/// # Errors
/// [`LinkError`].
pub fn in_order(mut links: Vec<Link>) -> Result<Vec<Link>, LinkError> {
    if links.is_empty() {
        return Err(LinkError::None);
    }
    if links.len() > ADDRESSES_MAX {
        return Err(LinkError::TooMany(links.len()));
    }
    for (index, link) in links.iter().enumerate() {
        if links[..index].iter().any(|earlier| earlier.address == link.address) {
            return Err(LinkError::Twice(link.address.clone()));
        }
        let fits = |name: &String| {
            (1..=LINK_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if let Some(name) = link.name.as_ref().filter(|name| !fits(name)) {
            return Err(LinkError::Name(cut(name)));
        }
    }
    let names = links.iter().filter(|link| matches!(link.address.host, Host::Name(_))).count();
    if names > NAMES_MAX {
        return Err(LinkError::TooManyNames(names));
    }
    links.sort_by_key(|link| link.priority);
    Ok(links)
}

/// Whether an address is of 240.0.0.0/4, where no host is. peerage makes up such addresses to give
/// QUIC an address for a path through another member.
pub fn is_reserved(ip: IpAddr) -> bool {
    matches!(ip.to_canonical(), IpAddr::V4(ip) if ip.octets()[0] >= 240)
}

/// The address as it is compared and shown: an IPv4-mapped address as IPv4, and without the flow
/// label and the scope, which mean something on one host only.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

/// Whether a host can be found at an IP address that its name leads to. This is not so for an
/// address that stands for no host, for many hosts or for another host on each cable, nor for a
/// reserved one.
pub fn leads_to_a_host(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_multicast() || link_local || is_reserved(ip))
}

/// The best `count` addresses in their order. If all of them are IP addresses of one family, the
/// last one is replaced by the best address of the other family, so that a host that has only the
/// other family can reach the node, too. A name may lead to either family.
pub fn best_of(addresses: &[Address], count: usize) -> Vec<Address> {
    let is_ipv6 = |address: &Address| address.ip().map(|ip| ip.is_ipv6());
    let mut best: Vec<Address> = addresses.iter().take(count).cloned().collect();
    let Some(family) = best.last().and_then(is_ipv6) else { return best };
    let one_family = best.iter().all(|address| is_ipv6(address) == Some(family));
    let other = addresses.iter().find(|address| is_ipv6(address) == Some(!family));
    if let (true, true, Some(other)) = (one_family, count > 1, other) {
        best.pop();
        best.push(other.clone());
    }
    best
}

/// The addresses, with those whose IP address is in `first` moved to the front, in the order of
/// `first`. The others keep their order.
pub fn promoted(addresses: &[Address], first: &[IpAddr]) -> Vec<Address> {
    let place = |address: &Address| {
        let ip = address.ip()?.ip();
        first.iter().position(|first| *first == ip)
    };
    let mut ordered = addresses.to_vec();
    ordered.sort_by_key(|address| place(address).unwrap_or(first.len()));
    ordered
}

/// Decides how often changes of a host's own addresses are told. The first change is told at once,
/// and each further one is held back longer, so that an interface that comes and goes does not
/// cause one write after another.
#[derive(Debug, Clone, Default)]
pub struct Steadiness {
    last: Option<Duration>,
    /// How many changes were told in a row before the last one, without a calm between them.
    before: u32,
}

impl Steadiness {
    /// How long from `now` (monotonic) a change has to wait; zero where it may be told at once.
    pub fn wait(&self, now: Duration) -> Duration {
        let held = |last: Duration| (last + HOLD.wait(self.before)).saturating_sub(now);
        self.last.map_or(Duration::ZERO, held)
    }

    /// Notes that a change is told at `now`.
    pub fn told(&mut self, now: Duration) {
        let calm = self.last.is_none_or(|last| now.saturating_sub(last) > CALM_AFTER);
        self.before = if calm { 0 } else { self.before.saturating_add(1) };
        self.last = Some(now);
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_to_work_goes_first_and_nothing_is_lost() {
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let at = |n: u8| Address::Ip((ip(n), 4747).into());
        let all = [at(1), at(2), at(3), at(4)];
        let first = [ip(9), ip(3), ip(1), ip(3)];
        assert_eq!(promoted(&all, &first), [at(3), at(1), at(2), at(4)]);
        assert_eq!(promoted(&all, &[]), all);
    }

    fn link(text: &str, priority: u64) -> Link {
        let priority = priority.try_into().unwrap();
        Link { address: text.parse().unwrap(), priority, name: None }
    }

    #[test]
    fn a_place_may_leave_the_port_out_and_reads_back() {
        for (text, ip, port) in [
            ("192.0.2.7", "192.0.2.7", None),
            ("192.0.2.7:99", "192.0.2.7", Some(99)),
            ("2001:db8::7", "2001:db8::7", None),
            ("[2001:db8::7]", "2001:db8::7", None),
            ("[2001:db8::7]:99", "2001:db8::7", Some(99)),
            ("::ffff:192.0.2.7", "192.0.2.7", None),
            ("[::ffff:192.0.2.7]:99", "192.0.2.7", Some(99)),
            ("169.254.1.2", "169.254.1.2", None),
        ] {
            let place: Place = text.parse().unwrap();
            let host = Host::Ip(ip.parse().unwrap());
            assert_eq!(place, Place { host, port }, "{text}");
            assert_eq!(place.to_string().parse(), Ok(place), "{text}");
        }
        let place: Place = "2001:db8::7".parse().unwrap();
        assert_eq!(place.with_port(5).to_string(), "[2001:db8::7]:5");
    }

    #[test]
    fn a_place_may_be_a_name_and_reads_back() {
        for (text, name, port) in [
            ("pve-1", "pve-1", None),
            ("PVE-1.Example.org:99", "pve-1.example.org", Some(99)),
            ("my_host.lan.", "my_host.lan", None),
            ("localhost:1", "localhost", Some(1)),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place, Place { host: Host::Name(name.parse().unwrap()), port }, "{text}");
            assert_eq!(place.to_string().parse(), Ok(place), "{text}");
        }
        let place: Place = "pve-1.lan".parse().unwrap();
        assert_eq!(place.with_port(5).to_string(), "pve-1.lan:5");
    }

    #[test]
    fn what_no_other_host_can_dial_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Place>().unwrap_err();
        for text in ["", "[192.0.2.7", "2001:db8::g", "[2001:db8::7]:x", "a:b:c", "::1:4747]"] {
            assert!(matches!(refused(text), LinkError::NoAddress(_)), "{text}");
        }
        for text in ["192.0.2.7:", "192.0.2.7:99999", "pve-1:", "pve-1:x", "pve-1:65536"] {
            assert!(matches!(refused(text), LinkError::NoPort(_)), "{text}");
        }
        for (text, why) in [
            ("10.0.0.300", "four numbers from 0 to 255"),
            ("10.0.0.300:4747", "four numbers from 0 to 255"),
            ("4747", "four numbers from 0 to 255"),
            ("10.0.0.0/8", "'/' cannot stand in a name"),
            ("pve_1..lan", "nothing before one of its dots"),
            ("büro.lan", "begins with xn--"),
            (":4747", "it is empty"),
        ] {
            let error = refused(text);
            assert!(matches!(error, LinkError::NoName { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains(why) && error.to_string().contains(text), "{error}");
        }
        for text in [
            "0.0.0.0",
            "[::]:1",
            "192.0.2.7:0",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "pve-1.lan:0",
        ] {
            assert!(matches!(refused(text), LinkError::Nowhere(_)), "{text}");
        }
        for text in ["240.0.0.1", "[::ffff:240.1.2.3]:99", "255.255.255.254:4747"] {
            assert!(matches!(refused(text), LinkError::Reserved(_)), "{text}");
        }
        for text in ["fe80::1", "fe80::1%eth0", "[fe80::1%2]:4747"] {
            assert!(matches!(refused(text), LinkError::LinkLocal(_)), "{text}");
        }
    }

    #[test]
    fn a_priority_has_bounds() {
        assert_eq!(Priority::default(), 1.try_into().unwrap());
        assert!(Priority::try_from(255).is_ok());
        for wrong in ["0", "256", "-1", "best", ""] {
            let error = wrong.parse::<Priority>().unwrap_err().to_string();
            assert!(error.contains("from 1 (the best) to 255"), "{error}");
        }
    }

    #[test]
    fn the_best_priority_goes_first_and_equal_ones_stay_as_given() {
        let given = vec![link("192.0.2.4", 2), link("192.0.2.9", 1), link("192.0.2.1", 2)];
        let places =
            |links: Vec<Link>| links.iter().map(|l| l.address.to_string()).collect::<Vec<_>>();
        let ordered = in_order(given).unwrap();
        assert_eq!(places(ordered.clone()), ["192.0.2.9", "192.0.2.4", "192.0.2.1"]);
        assert_eq!(in_order(ordered.clone()), Ok(ordered));
    }

    #[test]
    fn links_that_make_no_sense_together_are_refused() {
        let twice = vec![link("192.0.2.4", 1), link("::ffff:192.0.2.4", 2)];
        assert_eq!(in_order(twice), Err(LinkError::Twice("192.0.2.4".parse().unwrap())));
        assert_eq!(in_order(vec![]), Err(LinkError::None));
        let many = (1..=17).map(|n| link(&format!("192.0.2.{n}"), 1)).collect();
        assert_eq!(in_order(many), Err(LinkError::TooMany(17)));
        let names = (1..=5).map(|n| link(&format!("pve-{n}.lan"), 1)).collect();
        assert_eq!(in_order(names), Err(LinkError::TooManyNames(5)));
        for name in ["", "a\nb", &"a".repeat(64)] {
            let named = Link { name: Some(name.to_owned()), ..link("192.0.2.4", 1) };
            assert!(matches!(in_order(vec![named]), Err(LinkError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn a_link_reads_back_from_what_is_kept_of_it() {
        let link = Link { name: Some("storage".into()), ..link("[2001:db8::7]:99", 3) };
        let text = serde_json::to_string(&link).unwrap();
        assert_eq!(serde_json::from_str::<Link>(&text).unwrap(), link);
        assert_eq!(link.to_string(), "[2001:db8::7]:99@3 (storage)");
        assert!(serde_json::from_str::<Link>(r#"{"address":"fe80::1"}"#).is_err());
    }

    #[test]
    fn the_few_best_addresses_leave_no_family_out() {
        let read =
            |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Address>>();
        let all = read(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "[2001:db8::1]:1"]);
        assert_eq!(best_of(&all, 2), read(&["10.0.0.1:1", "[2001:db8::1]:1"]));
        assert_eq!(best_of(&all, 9), all);
        assert_eq!(best_of(&all[..3], 2), all[..2]);
        assert_eq!(best_of(&all, 1), all[..1]);
        assert_eq!(best_of(&[], 3), []);
        // A name may lead to either family, so the last address is not replaced.
        let named = read(&["10.0.0.1:1", "pve-1.lan:1", "[2001:db8::1]:1"]);
        assert_eq!(best_of(&named, 2), named[..2]);
    }

    #[test]
    fn what_a_name_leads_to_must_be_one_host_everywhere() {
        for (ip, leads) in [
            ("192.0.2.7", true),
            ("2001:db8::7", true),
            ("127.0.0.1", true),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("240.0.0.1", false),
            ("169.254.1.1", false),
            ("fe80::1", false),
            ("::ffff:169.254.1.1", false),
        ] {
            assert_eq!(leads_to_a_host(ip.parse().unwrap()), leads, "{ip}");
        }
    }

    #[test]
    fn an_address_in_ipv6_clothes_is_the_address() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:7".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.1:7".parse().unwrap());
        let scoped: SocketAddr = "[2001:db8::1%3]:7".parse().unwrap();
        assert_eq!(canonical(scoped), "[2001:db8::1]:7".parse().unwrap());
    }

    #[test]
    fn an_interface_that_comes_and_goes_is_told_of_ever_more_rarely() {
        let mut steadiness = Steadiness::default();
        let (mut now, mut told) = (Duration::ZERO, Vec::new());
        // A change every second, for an hour.
        while now < Duration::from_secs(3600) {
            if steadiness.wait(now).is_zero() {
                steadiness.told(now);
                told.push(now.as_secs());
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(told[..4], [0, 2, 6, 14]);
        assert!(told.len() < 22, "{}", told.len());
        // When the interface has been steady for long, the next change is told at once again, and
        // the change after that is held back only shortly.
        now += CALM_AFTER;
        assert_eq!(steadiness.wait(now), Duration::ZERO);
        steadiness.told(now);
        assert_eq!(steadiness.wait(now), HOLD_MIN);
    }
}
