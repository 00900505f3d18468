//! Detours: made-up addresses that lead through another member.
//!
//! Two nodes that cannot reach each other still talk QUIC end to end. Beside real addresses, the
//! socket under the endpoint knows a made-up address for each pair (peer, member in between). It
//! hands the packets that QUIC sends to such an address to the member in between. It hands the
//! packets that this member has carried to QUIC, as if they came from the address. So the member in
//! between can read nothing, and all that works over a connection works over a detour.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use peerage_proto::id::NodeId;
use peerage_proto::links::canonical;
use peerage_proto::wire::DETOUR_PACKET_BYTES_MAX;

use super::endpoint::IDLE_TIMEOUT;
use super::path::Path;

/// Detours that are known at once. One that was not used for [`IDLE_TIMEOUT`] makes room.
const DETOURS_MAX: usize = 4096;

/// Packets that wait to be handed to members in between, and to QUIC. More are dropped, as by any
/// network that is too slow.
const PACKETS_MAX: usize = 512;

/// The made-up addresses are of 240.0.0.0/8, which is reserved and routed nowhere (RFC 1112,
/// section 4), and which no link may have ([`peerage_proto::links::is_reserved`]). QUIC wants some
/// port.
const PREFIX: u8 = 240;
const PORT: u16 = 1;

/// One way through another member.
pub(super) struct Detour {
    pub(super) peer: NodeId,
    pub(super) through: NodeId,
    /// The made-up address, as QUIC knows it.
    pub(super) address: SocketAddr,
    /// Notified when the member in between says that it cannot carry packets to the peer.
    pub(super) refused: Notify,
    used: Mutex<Instant>,
}

impl Detour {
    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle_since(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detour({} through {})", self.peer.short(), self.through.short())
    }
}

/// A packet that is to be carried.
pub(super) struct Packet {
    pub(super) detour: Arc<Detour>,
    pub(super) bytes: Bytes,
}

/// The detours of a node.
pub(super) struct Detours {
    /// Whether QUIC wants IPv4 addresses in the form that sockets of both families use.
    mapped: bool,
    table: Mutex<Table>,
    inbound: mpsc::Sender<(SocketAddr, Bytes)>,
}

#[derive(Default)]
struct Table {
    /// Both maps hold the same detours; at most [`DETOURS_MAX`].
    by_number: HashMap<u32, Arc<Detour>>,
    by_ends: HashMap<(NodeId, NodeId), u32>,
    next: u32,
}

impl Detours {
    /// The detour to a peer through another; `None` where there are too many.
    pub(super) fn to(&self, peer: NodeId, through: NodeId) -> Option<Arc<Detour>> {
        let mut table = self.lock();
        if let Some(known) = table.of(peer, through) {
            known.touch();
            return Some(known);
        }
        if table.by_ends.len() >= DETOURS_MAX && !table.make_room() {
            return None;
        }
        let number = table.free_number();
        let [_, a, b, c] = number.to_be_bytes();
        let v4 = Ipv4Addr::new(PREFIX, a, b, c);
        let address = if self.mapped {
            (v4.to_ipv6_mapped(), PORT).into()
        } else {
            SocketAddrV4::new(v4, PORT).into()
        };
        let (refused, used) = (Notify::new(), Mutex::new(Instant::now()));
        let detour = Arc::new(Detour { peer, through, address, refused, used });
        table.by_number.insert(number, detour.clone());
        table.by_ends.insert((peer, through), number);
        Some(detour)
    }

    /// The detour that an address stands for, if it is a made-up one.
    pub(super) fn at(&self, address: SocketAddr) -> Option<Arc<Detour>> {
        let number = number(address)?;
        self.lock().by_number.get(&number).cloned()
    }

    /// The path that an address stands for, as QUIC gives it.
    pub(super) fn path(&self, address: SocketAddr) -> Path {
        match self.at(address) {
            Some(detour) => Path::Through(detour.through),
            None => Path::Direct(canonical(address)),
        }
    }

    /// Whether the detour to `peer` through the member `through` is known already.
    pub(super) fn knows(&self, peer: NodeId, through: NodeId) -> bool {
        self.lock().by_ends.contains_key(&(peer, through))
    }

    /// Hands QUIC a packet from `peer` that `through` has carried. Answers `false` where it was
    /// dropped.
    pub(super) fn inject(&self, peer: NodeId, through: NodeId, packet: Bytes) -> bool {
        let Some(detour) = self.to(peer, through) else { return false };
        self.inbound.try_send((detour.address, packet)).is_ok()
    }

    /// The member in between cannot carry packets to the peer. A dial over this detour fails at
    /// once, without a timeout.
    pub(super) fn refuse(&self, peer: NodeId, through: NodeId) {
        if let Some(detour) = self.lock().of(peer, through) {
            detour.refused.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn of(&self, peer: NodeId, through: NodeId) -> Option<Arc<Detour>> {
        let number = self.by_ends.get(&(peer, through))?;
        self.by_number.get(number).cloned()
    }

    /// Forgets the detour that was unused for the longest time, if no connection can be on it.
    fn make_room(&mut self) -> bool {
        let oldest = self.by_number.iter().min_by_key(|(_, detour)| detour.idle_since());
        let Some((number, detour)) = oldest else { return true };
        if detour.idle_since().elapsed() < IDLE_TIMEOUT {
            return false;
        }
        let (number, ends) = (*number, (detour.peer, detour.through));
        self.by_number.remove(&number);
        self.by_ends.remove(&ends);
        true
    }

    /// Numbers have 24 bits; far more than [`DETOURS_MAX`].
    fn free_number(&mut self) -> u32 {
        loop {
            self.next = (self.next + 1) % (1 << 24);
            if !self.by_number.contains_key(&self.next) {
                return self.next;
            }
        }
    }
}

fn number(address: SocketAddr) -> Option<u32> {
    match canonical(address) {
        SocketAddr::V4(v4) if v4.ip().octets()[0] == PREFIX => {
            let [_, a, b, c] = v4.ip().octets();
            Some(u32::from_be_bytes([0, a, b, c]))
        }
        _ => None,
    }
}

/// The socket that knows detours. QUIC calls it while QUIC holds locks, so it only puts packets
/// into queues.
pub(super) struct DetourSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    pub(super) detours: Arc<Detours>,
    outbound: mpsc::Sender<Packet>,
    injected: Mutex<mpsc::Receiver<(SocketAddr, Bytes)>>,
}

impl DetourSocket {
    /// A socket that knows detours beside what `socket` reaches, and the queue of packets that
    /// members in between are to carry.
    pub(super) fn over(
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> io::Result<(Arc<Self>, mpsc::Receiver<Packet>)> {
        let (outbound, packets) = mpsc::channel(PACKETS_MAX);
        let (inbound, injected) = mpsc::channel(PACKETS_MAX);
        let mapped = socket.local_addr()?.is_ipv6();
        let detours = Arc::new(Detours { mapped, table: Mutex::default(), inbound });
        Ok((Arc::new(Self { socket, detours, outbound, injected: Mutex::new(injected) }), packets))
    }
}

impl fmt::Debug for DetourSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetourSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for DetourSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if number(transmit.destination).is_none() {
            return self.socket.try_send(transmit);
        }
        let Some(detour) = self.detours.at(transmit.destination) else { return Ok(()) };
        detour.touch();
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for packet in transmit.contents.chunks(size) {
            // QUIC probes now and then whether larger packets pass. They are dropped here, so that
            // QUIC learns that they do not.
            if packet.len() <= DETOUR_PACKET_BYTES_MAX {
                let bytes = Bytes::copy_from_slice(packet);
                // A full queue loses packets, as a network would.
                let _ = self.outbound.try_send(Packet { detour: detour.clone(), bytes });
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        while count < bufs.len().min(meta.len())
            && let Poll::Ready(Some((addr, packet))) = injected.poll_recv(cx)
        {
            let len = packet.len();
            if let Some(room) = bufs[count].get_mut(..len) {
                room.copy_from_slice(&packet);
                meta[count] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                count += 1;
            }
        }
        drop(injected);
        if count > 0 { Poll::Ready(Ok(count)) } else { self.socket.poll_recv(cx, bufs, meta) }
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
