//! The mesh's socket on a simulated network, and the air between all sockets of a world: what gets
//! lost, what comes twice, and the digest of all that was sent.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use peerage::mesh::{Bind, QuicRuntime, Refusals, Underlay};
use peerage::resolver::Resolver;
use peerage_tests::sim::dice::Dice;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::task::AbortHandle;
use turmoil::net::UdpSocket;

/// How many packets wait for an agent before the next is lost.
const WAITING_MAX: usize = 1024;

/// The largest packet.
const PACKET_BYTES_MAX: usize = 65_536;

/// The offset and the prime of FNV-1a with 64 bits, here over words.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0000_0100_0000_01b3);

/// What all packets of a world go through.
#[derive(Debug)]
pub(crate) struct Air {
    state: Mutex<AirState>,
}

#[derive(Debug)]
struct AirState {
    dice: Dice,
    loss_percent: u64,
    twice_percent: u64,
    packets: u64,
    digest: u64,
}

impl Air {
    pub(crate) fn new(dice: Dice) -> Arc<Self> {
        let state = AirState { dice, loss_percent: 0, twice_percent: 0, packets: 0, digest: FNV.0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// How many of 100 packets get lost from now on, and how many of the others come twice.
    pub(crate) fn turn(&self, loss_percent: u64, twice_percent: u64) {
        let mut state = self.lock();
        (state.loss_percent, state.twice_percent) = (loss_percent, twice_percent);
    }

    /// How many packets were sent, and a number that differs where any byte, end or time of any of
    /// them differs.
    pub(crate) fn sent(&self) -> (u64, u64) {
        let state = self.lock();
        (state.packets, state.digest)
    }

    /// Takes note of a packet. Answers with how often it arrives, if nothing else stops it.
    fn carry(&self, to: SocketAddr, bytes: &[u8]) -> usize {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let mut state = self.lock();
        state.packets += 1;
        let ip = match to.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits() as u64,
        };
        let end = ip << 16 | u64::from(to.port());
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        let head = [elapsed.as_nanos() as u64, end, bytes.len() as u64];
        for word in head.into_iter().chain(words) {
            state.digest = (state.digest ^ word).wrapping_mul(FNV.1).rotate_left(23);
        }
        let AirState { loss_percent, twice_percent, .. } = *state;
        if state.dice.chance(loss_percent) {
            0
        } else if state.dice.chance(twice_percent) {
            2
        } else {
            1
        }
    }

    fn lock(&self) -> MutexGuard<'_, AirState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The function that binds sockets on the simulated host on which it is called.
pub(crate) fn bind(air: &Arc<Air>) -> Bind {
    let air = air.clone();
    Arc::new(move |address| {
        let socket = Arc::new(Wire::bind(address, air.clone())?);
        Ok(Underlay {
            socket,
            // A dead host of this world is silent.
            refusals: Refusals::default(),
            runtime: Arc::new(QuicRuntime),
            mtu_discovery: false,
            rng_seed: None,
            names: Resolver::none(),
        })
    })
}

/// A simulated UDP socket, as QUIC wants it.
struct Wire {
    socket: Arc<UdpSocket>,
    arrived: Arc<Mutex<Arrived>>,
    pump: AbortHandle,
    air: Arc<Air>,
}

#[derive(Default)]
struct Arrived {
    packets: VecDeque<(Vec<u8>, SocketAddr)>,
    reader: Option<Waker>,
}

impl Wire {
    fn bind(address: SocketAddr, air: Arc<Air>) -> io::Result<Self> {
        // The simulated network answers at once.
        let binding = pin!(UdpSocket::bind(address));
        let Poll::Ready(socket) = binding.poll(&mut Context::from_waker(Waker::noop())) else {
            return Err(io::Error::other("the simulated network does not bind at once"));
        };
        let socket = Arc::new(socket?);
        let arrived = Arc::<Mutex<Arrived>>::default();
        let pump = tokio::spawn(receive(socket.clone(), arrived.clone())).abort_handle();
        Ok(Self { socket, arrived, pump, air })
    }
}

async fn receive(socket: Arc<UdpSocket>, arrived: Arc<Mutex<Arrived>>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let mut arrived = lock(&arrived);
        if arrived.packets.len() < WAITING_MAX {
            arrived.packets.push_back((buffer[..len].to_vec(), from));
        }
        let reader = arrived.reader.take();
        drop(arrived);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

fn lock(arrived: &Mutex<Arrived>) -> MutexGuard<'_, Arrived> {
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The port is free again once the pump is gone.
        self.pump.abort();
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wire").field(&self.socket).finish()
    }
}

impl AsyncUdpSocket for Wire {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let to = transmit.destination;
        for _ in 0..self.air.carry(to, transmit.contents) {
            // Where nobody is, a packet gets lost.
            let _ = self.socket.try_send_to(transmit.contents, to);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = lock(&self.arrived);
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((packet, addr)) = arrived.packets.pop_front() else { break };
            let len = packet.len().min(buffer.len());
            buffer[..len].copy_from_slice(&packet[..len]);
            *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count == 0 {
            arrived.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
