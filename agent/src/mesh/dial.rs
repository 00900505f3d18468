//! Reaching a node: its addresses in a race, and how long to rest after a failure.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig};
use quinn_proto::TransportErrorCode;

use peerage_proto::address::Address;
use peerage_proto::id::NodeId;
use peerage_proto::links::{NAMES_MAX, canonical};
use peerage_proto::roster::ADDRESSES_MAX;
use peerage_proto::time::HowLong;
use peerage_proto::wire::Refusal;

use super::hello::GreetError;
use super::path::Path;
use super::tls::Identity;
use super::ways::{Places, Way};
use super::width::too_narrow;
use crate::resolver::{Resolver, Unresolved};

/// How long all addresses of a node together are tried.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address is tried alone before the next joins in.
pub(super) const STAGGER: Duration = Duration::from_millis(150);

/// The rest after a first failure, and the longest one: a node that comes back is dialled within
/// a few seconds.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where nodes can be reached; asked at every dial, so a roster that changes needs to tell nobody.
pub trait Addresses: Send + Sync + 'static {
    /// The addresses of a node, the best first; none for a node that is not known. A connection
    /// over a worse address moves to a better one when the better one answers.
    fn of(&self, peer: NodeId) -> Places;
}

impl<P: Into<Places>, F: Fn(NodeId) -> P + Send + Sync + 'static> Addresses for F {
    fn of(&self, peer: NodeId) -> Places {
        self(peer).into()
    }
}

/// Why there is no connection with a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// This node is in no Data Center, so it has no peers.
    #[error("this node is in no Data Center")]
    Standalone,
    /// A node has no connection with itself.
    #[error("this is the node itself")]
    Own,
    /// No address of the node is known.
    #[error("no address is known")]
    NoAddress,
    /// The only address is a name that leads nowhere from here.
    #[error("{0} (see /etc/hosts and the DNS of this host)")]
    Unresolved(Unresolved),
    /// Nothing answered as it should.
    #[error("no answer at {} within {after:.1?}", Tried(.tried))]
    Unreachable {
        /// Each address, or name, and what became of it.
        tried: Vec<(String, String)>,
        /// How long they were tried.
        after: Duration,
    },
    /// A host with another key answered, and no other address led to the node. If that host is this
    /// very one, that tells nothing about the node, so it is reported only if there was no other
    /// address.
    #[error("{}", Found { at, found, is_self: *is_self })]
    WrongKey {
        /// Where.
        at: Path,
        /// Who is there.
        found: NodeId,
        /// Whether that is this node itself: many hosts have the same addresses on bridges and
        /// behind NAT.
        is_self: bool,
    },
    /// The node answered at its only address that it has no room for one more caller.
    #[error("it has no room for more callers just now, try again")]
    Full,
    /// The node refused this one.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// This node refused the node that it reached.
    #[error("refused here: {0}")]
    RefusedHere(Refusal),
    /// The node was reached, and did not say hello as it should.
    #[error("reached, but {0}")]
    NoHello(String),
    /// The last dial failed a moment ago; the next may begin after the rest of the backoff.
    #[error("not tried again for {}: {last}", HowLong(*.wait))]
    Resting {
        /// How long from now.
        wait: Duration,
        /// What became of the last dial.
        last: Arc<DialError>,
    },
    /// The connection ended before it could be used.
    #[error("the connection ended: {0}")]
    Lost(String),
    /// It is connected, and nothing large gets through to it.
    #[error("nothing larger than a small packet arrives there")]
    Stalled,
    /// The mesh was shut down.
    #[error("the agent stops")]
    Stopped,
}

impl From<GreetError> for DialError {
    fn from(error: GreetError) -> Self {
        match error {
            GreetError::Standalone => Self::Standalone,
            GreetError::RefusedByPeer(refusal) => Self::Refused(refusal),
            GreetError::RefusedHere(refusal) => Self::RefusedHere(refusal),
            other => Self::NoHello(other.to_string()),
        }
    }
}

struct Found<'a> {
    at: &'a Path,
    found: &'a NodeId,
    is_self: bool,
}

impl std::fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, found, is_self } = self;
        match is_self {
            true => f.write_str("that address is this very host's"),
            false => {
                write!(f, "the host {at:#} is node {}, not the one that was dialled", found.short())
            }
        }
    }
}

struct Tried<'a>(&'a [(String, String)]);

impl std::fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (address, error)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{address} ({error})")?;
        }
        Ok(())
    }
}

/// How a race over the ways to a node is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long all ways together are tried.
    pub(super) timeout: Duration,
    /// How long the last address is tried before detours join in.
    pub(super) detours_after: Duration,
}

/// What is needed to dial.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) endpoint: Endpoint,
    pub(super) transport: Arc<TransportConfig>,
    /// The settings for detours, on which nothing larger than the smallest packets passes.
    pub(super) detour_transport: Arc<TransportConfig>,
    pub(super) identity: Identity,
    /// Resolves names to IP addresses.
    pub(super) names: Resolver,
}

/// The result of trying one way.
enum Step {
    Connected(Connection),
    /// The name leads to these addresses.
    Led(Vec<SocketAddr>),
}

/// What became of a way that was begun.
enum Fate {
    Open,
    /// The name led to addresses, which are ways of their own.
    Led,
    Failed(DialError),
}

/// The ways to a node, as they are tried one after the other.
struct Race {
    /// The ways that were not begun yet.
    waiting: VecDeque<Way>,
    /// How many more names may be looked up.
    names_left: usize,
    begun: Vec<(Way, Fate)>,
}

impl Race {
    fn over(ways: &[Way]) -> Self {
        Self { waiting: ways.iter().cloned().collect(), names_left: NAMES_MAX, begun: Vec::new() }
    }

    /// Begins the next way. Each address is tried once, whatever led to it, and only the first few
    /// names are looked up.
    fn begin(&mut self) -> Option<(usize, Way)> {
        while let Some(way) = self.waiting.pop_front() {
            let is_new = match &way {
                Way::Direct(address, _) => !self.has_begun(*address),
                Way::Named(..) => self.names_left > 0,
                Way::Detour(_) => true,
            };
            if is_new {
                self.names_left -= usize::from(matches!(way, Way::Named(..)));
                self.begun.push((way.clone(), Fate::Open));
                return Some((self.begun.len() - 1, way));
            }
        }
        None
    }

    fn has_begun(&self, address: SocketAddr) -> bool {
        self.begun.iter().any(|(way, _)| match way {
            Way::Direct(other, _) => canonical(*other) == canonical(address),
            Way::Named(..) | Way::Detour(_) => false,
        })
    }

    /// A name led to the addresses `to`: they come next.
    fn led(&mut self, index: usize, to: Vec<SocketAddr>) {
        let (way, fate) = &mut self.begun[index];
        *fate = Fate::Led;
        if let Way::Named(name, _) = way {
            for address in to.into_iter().rev() {
                self.waiting.push_front(Way::Direct(address, Some(name.clone())));
            }
        }
    }

    fn failed(&mut self, index: usize, error: DialError) {
        self.begun[index].1 = Fate::Failed(error);
    }

    /// The node was not reached. The addresses to which names led may be old, so the names are
    /// looked up anew.
    fn doubt(&self, names: &Resolver) {
        let led = self.begun.iter().filter(|(_, fate)| matches!(fate, Fate::Led));
        for (way, _) in led {
            if let Way::Named(name, _) = way {
                names.doubt(name);
            }
        }
    }

    /// Why the node was not reached.
    fn failure(self, after: Duration) -> DialError {
        let (mut tried, mut wrong, mut only) = (Vec::new(), None, None);
        for (way, fate) in self.begun.into_iter().chain(self.waiting.into_iter().map(unbegun)) {
            // The addresses of detours are made up, and of no use to an operator.
            let Some(shown) = way.shown() else { continue };
            match fate {
                Fate::Led => {}
                Fate::Open => tried.push((shown, silent(&way))),
                Fate::Failed(error) => {
                    tried.push((shown, error.to_string()));
                    match &error {
                        DialError::WrongKey { is_self: false, .. } => wrong = Some(error),
                        _ => only = Some(error),
                    }
                }
            }
        }
        match (wrong, only) {
            (Some(wrong), _) => wrong,
            // There was only one address, so this error tells everything.
            (
                None,
                Some(
                    only
                    @ (DialError::WrongKey { .. } | DialError::Unresolved(_) | DialError::Full),
                ),
            ) if tried.len() == 1 => only,
            _ => DialError::Unreachable { tried, after },
        }
    }
}

fn unbegun(way: Way) -> (Way, Fate) {
    (way, Fate::Open)
}

/// What is told about a way of which no result is known.
fn silent(way: &Way) -> String {
    match way {
        Way::Direct(address, _) => too_narrow(*address).unwrap_or_else(|| "silent".to_owned()),
        Way::Named(..) | Way::Detour(_) => "not looked up yet".to_owned(),
    }
}

impl Dialler {
    /// A connection with a node whose key was checked, by the first of its addresses that answers.
    /// Each gets a head start of [`STAGGER`]; a failed one passes its turn on at once.
    pub(super) async fn race(
        &self,
        peer: NodeId,
        alpn: &[u8],
        addresses: &[Address],
    ) -> Result<Connection, DialError> {
        let ways = Way::to_each(&addresses[..addresses.len().min(ADDRESSES_MAX)]);
        let pace = Pace { timeout: DIAL_TIMEOUT, detours_after: STAGGER };
        self.race_over(peer, alpn, &ways, pace).await
    }

    /// The same over all ways to a node: the better ones first, detours last. A name takes its turn
    /// to be looked up, and the addresses to which it leads come next.
    pub(super) async fn race_over(
        &self,
        peer: NodeId,
        alpn: &[u8],
        ways: &[Way],
        pace: Pace,
    ) -> Result<Connection, DialError> {
        if ways.is_empty() {
            return Err(DialError::NoAddress);
        }
        let started = tokio::time::Instant::now();
        let mut race = Race::over(ways);
        let mut after_a_detour = false;
        let mut attempts = FuturesUnordered::new();
        attempts.extend(race.begin().map(|next| self.attempt(peer, alpn, next)));
        let ended = tokio::time::timeout(pace.timeout, async {
            loop {
                let is_detour = matches!(race.waiting.front(), Some(Way::Detour(_)));
                let stagger =
                    if is_detour && !after_a_detour { pace.detours_after } else { STAGGER };
                let next = tokio::select! {
                    biased;
                    Some((index, result)) = attempts.next() => {
                        match result {
                            Ok(Step::Connected(connection)) => return Some(connection),
                            Ok(Step::Led(to)) => race.led(index, to),
                            Err(error) => race.failed(index, error),
                        }
                        race.begin()
                    }
                    () = tokio::time::sleep(stagger), if !race.waiting.is_empty() => race.begin(),
                    else => return None,
                };
                after_a_detour |= matches!(next, Some((_, Way::Detour(_))));
                attempts.extend(next.map(|next| self.attempt(peer, alpn, next)));
            }
        })
        .await;
        match ended {
            Ok(Some(reached)) => Ok(reached),
            Ok(None) | Err(_) => {
                race.doubt(&self.names);
                Err(race.failure(started.elapsed()))
            }
        }
    }

    async fn attempt(
        &self,
        peer: NodeId,
        alpn: &[u8],
        (index, way): (usize, Way),
    ) -> (usize, Result<Step, DialError>) {
        let result = match &way {
            Way::Direct(address, _) => {
                let at = Path::Direct(canonical(*address));
                self.handshake(peer, alpn, *address, at, &self.transport).await
            }
            Way::Named(name, port) => {
                let found = self.names.resolve(name).await;
                let led = found.map(|ips| ips.into_iter().map(|ip| (ip, *port).into()).collect());
                return (index, led.map(Step::Led).map_err(DialError::Unresolved));
            }
            Way::Detour(detour) => {
                let at = Path::Through(detour.through);
                tokio::select! {
                    biased;
                    () = detour.refused.notified() => {
                        Err(DialError::Lost("the member in between does not reach it".to_owned()))
                    }
                    result =
                        self.handshake(peer, alpn, detour.address, at, &self.detour_transport) =>
                    {
                        result
                    }
                }
            }
        };
        (index, result.map(Step::Connected))
    }

    async fn handshake(
        &self,
        peer: NodeId,
        alpn: &[u8],
        address: SocketAddr,
        at: Path,
        transport: &Arc<TransportConfig>,
    ) -> Result<Connection, DialError> {
        let unreachable = |error: String| DialError::Lost(error);
        let (crypto, wrong) =
            self.identity.client(peer, alpn).map_err(|e| unreachable(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport.clone());
        let connecting = self
            .endpoint
            // The server name is not sent: keys identify nodes, and SNI is off.
            .connect_with(config, address, "peerage")
            .map_err(|e| unreachable(e.to_string()))?;
        connecting.await.map_err(|error| match wrong.get() {
            Some(wrong) => {
                let is_self = self.identity.is_of(wrong.found);
                DialError::WrongKey { at, found: wrong.found, is_self }
            }
            None if is_full(&error) => DialError::Full,
            None => unreachable(error.to_string()),
        })
    }
}

/// Whether a node answered that it lets no more handshakes begin just now (RFC 9000, section 5.2.2).
fn is_full(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionClosed(close)
        if close.error_code == TransportErrorCode::CONNECTION_REFUSED)
}

#[cfg(test)]
mod tests {
    use quinn::ConnectionClose;

    use super::*;

    /// A joiner was told that the seed could not be reached, where it only had no room for callers.
    #[test]
    fn a_node_without_room_for_callers_is_told_apart_from_one_that_is_out_of_reach() {
        let closed = |error_code| {
            let close =
                ConnectionClose { error_code, frame_type: None, reason: Default::default() };
            ConnectionError::ConnectionClosed(close)
        };
        assert!(is_full(&closed(TransportErrorCode::CONNECTION_REFUSED)));
        assert!(!is_full(&closed(TransportErrorCode::PROTOCOL_VIOLATION)));
        assert!(!is_full(&ConnectionError::TimedOut));
        let failure = |addresses: &[&str]| {
            let way = |address: &&str| Way::Direct(address.parse().unwrap(), None);
            let mut race = Race::over(&addresses.iter().map(way).collect::<Vec<_>>());
            while let Some((index, _)) = race.begin() {
                race.failed(index, DialError::Full);
            }
            race.failure(Duration::from_secs(1))
        };
        assert!(matches!(failure(&["10.0.0.1:1"]), DialError::Full));
        let of_two = failure(&["10.0.0.1:1", "10.0.0.2:1"]);
        assert!(of_two.to_string().contains("no room for more callers"), "{of_two}");
    }
}
