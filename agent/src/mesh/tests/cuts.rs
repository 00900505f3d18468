//! A network that can be cut while meshes run on it: single addresses, and single directions.

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use peerage_proto::links::canonical;

use crate::mesh::Underlay;

/// What is cut now. Packets that would pass a cut vanish. Nodes are told apart by their ports.
#[derive(Debug, Default, Clone)]
pub(super) struct Cuts {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashSet<SocketAddr>,
    /// From port, to port.
    directions: HashSet<(u16, u16)>,
    /// The largest packet that passes from port to port.
    widths: HashMap<(u16, u16), usize>,
}

impl Cuts {
    /// The same underlay, on a network that can be cut.
    pub(super) fn under(&self, underlay: Underlay) -> Underlay {
        let socket = Arc::new(CutSocket { socket: underlay.socket, cuts: self.clone() });
        Underlay { socket, ..underlay }
    }

    /// Nothing reaches the address or leaves from it.
    pub(super) fn cut_address(&self, address: SocketAddr) {
        self.state.lock().unwrap().addresses.insert(address);
    }

    /// Nothing from one node reaches the other.
    pub(super) fn cut_one_way(&self, from: SocketAddr, to: SocketAddr) {
        self.state.lock().unwrap().directions.insert((from.port(), to.port()));
    }

    /// Nothing larger than so many bytes of UDP passes from one node to the other.
    pub(super) fn narrow_one_way(&self, from: SocketAddr, to: SocketAddr, bytes: usize) {
        self.state.lock().unwrap().widths.insert((from.port(), to.port()), bytes);
    }

    /// Nothing passes between the two.
    pub(super) fn cut_between(&self, a: SocketAddr, b: SocketAddr) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Nothing is cut any more.
    pub(super) fn heal(&self) {
        *self.state.lock().unwrap() = State::default();
    }

    fn swallow(&self, from_port: u16, transmit: &Transmit<'_>) -> bool {
        let to = canonical(transmit.destination);
        let from = transmit.src_ip.map(|ip| SocketAddr::new(ip, from_port));
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        let state = self.state.lock().unwrap();
        state.addresses.contains(&to)
            || from.is_some_and(|from| state.addresses.contains(&from))
            || state.directions.contains(&(from_port, to.port()))
            || state.widths.get(&(from_port, to.port())).is_some_and(|width| size > *width)
    }
}

#[derive(Debug)]
struct CutSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    cuts: Cuts,
}

impl AsyncUdpSocket for CutSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let port = self.socket.local_addr()?.port();
        if self.cuts.swallow(port, transmit) { Ok(()) } else { self.socket.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
