//! The UDP socket under the mesh, real or simulated, and the QUIC endpoint on it.
//!
//! One socket serves as server and client, so one port is all that a firewall must let in. The
//! endpoint's stateless-reset key and connection ids derive from the node's key: a node that was
//! killed and started again recognises the connections of its former life and resets them at the
//! first packet, so its peers need not wait for a timeout.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, MtuDiscoveryConfig, Runtime, ServerConfig,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use peerage_proto::identity::Keypair;

use super::door::Open;
use super::gauge::Gauged;
use super::socket::{HearingSocket, Refusals};
use super::timer::QuicRuntime;
use super::tls::Identity;
use crate::resolver::Resolver;

/// How long a connection may be silent before both sides forget it. Nothing keeps it alive: what
/// is not used costs nothing, and comes back in one handshake.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// What the kernel is asked to buffer in each direction: a burst of all peers at once.
const SOCKET_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// Sessions that a peer may have open with us at once. quinn keeps room for each of these and of the
/// streams below, used or not: 17 to 34 bytes.
pub(super) const SESSIONS_PER_PEER_MAX: u32 = 32;

/// Messages of a peer that may be under way to us at once, its push stream included.
pub(super) const STREAMS_IN_PER_PEER_MAX: u32 = 64;

/// Datagrams that wait in each direction of a connection.
const DATAGRAM_BUFFER_BYTES: usize = 64 * 1024;

/// What a peer may send on one stream before we read it.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// What a peer may send on all streams before we read it.
pub(super) const RECEIVE_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// How many streams a caller may open, and how many bytes it may send, before it has shown that it
/// is a member: enough for a hello, or for a request to join and for the message that the joiner is
/// ready.
const UNPROVEN_STREAMS_MAX: u32 = 1;
const UNPROVEN_WINDOW_BYTES: u32 = 16 * 1024;

/// How many bytes we keep that a peer has not acknowledged.
const SEND_WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// The guess before the first measurement: hosts of one Data Center are near each other, and a
/// first packet that is lost is sent again after three times this.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Handshakes that wait to be looked at.
const INCOMING_MAX: usize = 1024;

/// How many bytes may arrive for one handshake that waits, and for all of them.
const INCOMING_BYTES: u64 = 64 * 1024;
const INCOMING_BYTES_ALL: u64 = 4 * 1024 * 1024;

/// Binds a socket to an address: [`Underlay::bind`], or what a simulation has for it.
pub type Bind = Arc<dyn Fn(SocketAddr) -> io::Result<Underlay> + Send + Sync>;

/// What the mesh stands on. [`Underlay::bind`] makes a real one; a simulation fills in its own.
#[derive(Clone)]
pub struct Underlay {
    /// Sends and receives UDP packets.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Where the socket tells which address refused a packet.
    pub refusals: Refusals,
    /// Time and tasks for QUIC.
    pub runtime: Arc<dyn Runtime>,
    /// Whether to probe for larger packets than 1200 bytes. Needs a socket that does not fragment.
    pub mtu_discovery: bool,
    /// Seeds QUIC's own randomness, for a run that replays; the operating system's if `None`.
    pub rng_seed: Option<[u8; 32]>,
    /// Resolves the names among addresses to IP addresses.
    pub names: Resolver,
}

impl Underlay {
    /// Binds a real socket. An IPv6 wildcard also takes IPv4; where the host has no IPv6, an IPv6
    /// wildcard becomes the IPv4 one. Needs tokio's runtime.
    ///
    /// # Errors
    /// What the kernel says, such as `AddrInUse`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match bound(address) {
            Err(error) if address.ip().is_unspecified() && no_ipv6(&error) && address.is_ipv6() => {
                tracing::info!("this host has no IPv6: listening on IPv4 only");
                bound(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port()).into())?
            }
            other => other?,
        };
        let refusals = Refusals::default();
        Ok(Self {
            socket: Arc::new(HearingSocket::new(socket, refusals.clone())?),
            refusals,
            runtime: Arc::new(QuicRuntime),
            mtu_discovery: true,
            rng_seed: None,
            names: Resolver::system(),
        })
    }

    /// Where the socket is bound, with the port that the kernel chose.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl fmt::Debug for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Underlay").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// The settings of connections that other hosts begin.
#[derive(Debug, Clone)]
pub(super) struct Accepting {
    server: ServerConfig,
    mtu_discovery: bool,
}

impl Accepting {
    /// The settings of one connection. They hold `open`, so that the connection counts as open
    /// until QUIC has forgotten it and drops its settings.
    pub(super) fn one(&self, open: Arc<Open>) -> Arc<ServerConfig> {
        let mut transport = unproven(transport(self.mtu_discovery));
        transport.congestion_controller_factory(Arc::new(Gauged::holding(open)));
        let mut server = self.server.clone();
        server.transport_config(Arc::new(transport));
        Arc::new(server)
    }
}

/// The endpoint of this node, the transport settings that its dials use, and those of connections
/// that others begin.
pub(super) fn endpoint(
    underlay: Underlay,
    keypair: &Keypair,
    identity: &Identity,
) -> io::Result<(Endpoint, Arc<TransportConfig>, Accepting)> {
    let mtu_discovery = underlay.mtu_discovery;
    let crypto = identity.server().map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_ALL);

    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &derived(keypair, b"peerage reset 1"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.rng_seed(underlay.rng_seed);
    let key = derived(keypair, b"peerage connection ids 1");
    let key = u64::from_be_bytes(key[..8].try_into().expect("eight of 32 bytes"));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    let accepting = Accepting { server: server.clone(), mtu_discovery };
    let endpoint = Endpoint::new_with_abstract_socket(
        config,
        Some(server),
        underlay.socket,
        underlay.runtime,
    )?;
    Ok((endpoint, Arc::new(transport(mtu_discovery)), accepting))
}

/// The settings of connections that other hosts began, until the caller has shown who it is.
fn unproven(mut config: TransportConfig) -> TransportConfig {
    config
        .max_concurrent_bidi_streams(UNPROVEN_STREAMS_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .receive_window(VarInt::from_u32(UNPROVEN_WINDOW_BYTES));
    config
}

/// How connections behave; without `mtu_discovery` they send packets of 1200 bytes at most.
pub(super) fn transport(mtu_discovery: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("two minutes are in range")))
        .keep_alive_interval(None)
        .max_concurrent_bidi_streams(SESSIONS_PER_PEER_MAX.into())
        .max_concurrent_uni_streams(STREAMS_IN_PER_PEER_MAX.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(Arc::new(Gauged::default()))
        .mtu_discovery_config(mtu_discovery.then(MtuDiscoveryConfig::default));
    config
}

/// A secret of 32 bytes for one purpose that is the same at every start of this node.
fn derived(keypair: &Keypair, purpose: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &keypair.seed());
    hmac::sign(&key, purpose).as_ref().try_into().expect("SHA-256 makes 32 bytes")
}

fn bound(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // The kernel caps what it grants; a small buffer costs retransmissions, not correctness.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[tokio::test]
    async fn the_wildcard_takes_both_families_and_tells_its_port() {
        let underlay = Underlay::bind((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = underlay.local_address().unwrap().port();
        assert_ne!(port, 0);
        let error = Underlay::bind((Ipv6Addr::UNSPECIFIED, port).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let error = Underlay::bind((Ipv4Addr::LOCALHOST, port).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_the_lack_of_ipv6_makes_an_ipv6_wildcard_fall_back() {
        use rustix::io::Errno;
        let lacks = |errno: Errno| no_ipv6(&io::Error::from(errno));
        assert!(lacks(Errno::AFNOSUPPORT) && lacks(Errno::ADDRNOTAVAIL));
        assert!(!lacks(Errno::ADDRINUSE) && !lacks(Errno::ACCESS) && !lacks(Errno::MFILE));
    }

    #[test]
    fn derived_secrets_are_stable_and_differ_by_purpose_and_key() {
        let (mine, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        assert_eq!(derived(&mine, b"a"), derived(&mine, b"a"));
        assert_ne!(derived(&mine, b"a"), derived(&mine, b"b"));
        assert_ne!(derived(&mine, b"a"), derived(&other, b"a"));
    }
}
