//! The real UDP socket under the mesh, which also hears which addresses refuse packets.
//!
//! A process that died on a living host leaves a closed port behind, and the host answers what is
//! sent there with an ICMP message (RFC 1122, section 4.1.3.1; RFC 4443, section 3.1). Linux queues
//! these for a socket that asks (`IP_RECVERR`, ip(7)), and then also reports each one as the error
//! of whatever call comes next, though that call has no part in it. So this socket empties the
//! queue, tells [`Refusals`] which address refused, and repeats the call that failed.
//!
//! Anybody can forge such a message, so a refusal is only a reason to check a node, and no proof
//! that it is dead.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::libc::{SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::broadcast;
use tokio::time::{Sleep, sleep};

use peerage_proto::links::canonical;

use super::unsent::Unsent;

/// Refusals that may wait to be looked at; if there are more, the oldest are forgotten.
pub(super) const REFUSALS_MAX: usize = 64;

/// Errors that are read at a time before packets have their turn.
const ERRORS_AT_A_TIME: usize = 64;

/// How many bytes the kernel may use to describe one error of the queue; it needs about a hundred.
const ERROR_BYTES_MAX: usize = 512;

/// How often the socket tries to send a packet before the packet counts as lost. Each try that
/// fails takes away an error of an earlier packet.
const SEND_TRIES_MAX: usize = 4;

/// How many errors in a row, without a packet between them, end the socket.
const RECEIVE_ERRORS_MAX: usize = 1024;

/// How long to wait before a full send buffer is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Which addresses refused what was sent to them. Clones share it.
#[derive(Debug, Clone)]
pub struct Refusals(broadcast::Sender<SocketAddr>);

impl Default for Refusals {
    fn default() -> Self {
        Self(broadcast::channel(REFUSALS_MAX).0)
    }
}

impl Refusals {
    /// The host at `address` says that nobody listens there.
    pub fn tell(&self, address: SocketAddr) {
        // Nobody listens before the mesh starts, and after it ended.
        let _ = self.0.send(canonical(address));
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<SocketAddr> {
        self.0.subscribe()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send>>;

/// A UDP socket for QUIC that tells which addresses refuse packets.
pub(super) struct HearingSocket {
    io: Arc<UdpSocket>,
    state: UdpSocketState,
    refusals: Refusals,
    /// Waits for packets and for errors, while there are none.
    waiting: Mutex<Option<Waiting>>,
    /// Whether the last send found the buffer full.
    full: AtomicBool,
    /// What was logged about packets that the kernel did not take.
    unsent: Unsent,
}

impl HearingSocket {
    /// Takes over a bound socket. Needs tokio's runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn new(socket: std::net::UdpSocket, refusals: Refusals) -> io::Result<Self> {
        // A kernel without this option reports no refusals, so dead peers are then noticed by their
        // silence alone.
        let v4 = setsockopt(&socket, sockopt::Ipv4RecvErr, &true);
        let v6 = match socket.local_addr()? {
            SocketAddr::V4(_) => Ok(()),
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
        };
        if let Err(error) = v4.and(v6) {
            tracing::warn!(%error, "refused ports go unheard");
        }
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            io: Arc::new(UdpSocket::from_std(socket)?),
            refusals,
            waiting: Mutex::new(None),
            full: AtomicBool::new(false),
            unsent: Unsent::default(),
        })
    }

    fn tell_refusals(&self) {
        for _ in 0..ERRORS_AT_A_TIME {
            // When the queue is empty, `try_io` clears the readiness, so that the next wait does
            // not return at once.
            match self.io.try_io(Interest::ERROR, || refused(&self.io)) {
                Ok(Some(address)) => self.refusals.tell(address),
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
}

/// Takes one error from the queue. Answers the address that refused, if the error is a refusal that
/// came from the network.
fn refused(socket: &UdpSocket) -> io::Result<Option<SocketAddr>> {
    let mut said = [0; ERROR_BYTES_MAX];
    // The contents of the refused packet are not needed, only its address.
    let mut packet = [0; 1];
    let mut into = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let error = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut into, Some(&mut said), flags)?;
    let is_refusal = error.cmsgs()?.any(|message| {
        let what = match message {
            ControlMessageOwned::Ipv4RecvErr(what, _)
            | ControlMessageOwned::Ipv6RecvErr(what, _) => what,
            _ => return false,
        };
        let from_network = [SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6].contains(&what.ee_origin);
        from_network && what.ee_errno == nix::libc::ECONNREFUSED as u32
    });
    Ok(error.address.filter(|_| is_refusal).and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
    }))
}

impl AsyncUdpSocket for HearingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, pause: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        for _ in 1..SEND_TRIES_MAX {
            match self.state.try_send((&*self.io).into(), transmit) {
                Err(error) if !full(&error) => {}
                result => {
                    self.full.store(result.is_err(), Ordering::Relaxed);
                    return result;
                }
            }
        }
        // If the last try fails too, the packet counts as lost.
        let result = match self.state.try_send((&*self.io).into(), transmit) {
            Err(error) if !full(&error) => {
                self.unsent.tell(transmit.destination, &error);
                Ok(())
            }
            result => result,
        };
        self.full.store(result.is_err(), Ordering::Relaxed);
        result
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut errors = 0;
        loop {
            let ready = waiting.get_or_insert_with(|| {
                let io = self.io.clone();
                Box::pin(async move { io.ready(Interest::READABLE | Interest::ERROR).await })
            });
            let ready = ready!(ready.as_mut().poll(cx));
            *waiting = None;
            if ready?.is_error() {
                self.tell_refusals();
            }
            let receive = || self.state.recv((&*self.io).into(), bufs, meta);
            match self.io.try_io(Interest::READABLE, receive) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The error belongs to a packet that was sent before, so receiving is tried again,
                // unless errors never end.
                Err(error) => {
                    errors += 1;
                    if errors == RECEIVE_ERRORS_MAX {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// One packet at a time. Each connection keeps a buffer of this many packets for good. The ten
    /// that quinn takes would be 13 KB more for each connection, and what is sent here is seldom
    /// longer than a packet.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for HearingSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HearingSocket").field("io", &self.io).finish_non_exhaustive()
    }
}

/// Waits for room in the send buffer. tokio cannot do that: it reports a socket that once had an
/// error as writable for ever, so the waiting task would spin. A full buffer is rare, so this waits
/// for [`FULL_PAUSE`] instead.
struct Room {
    socket: Arc<HearingSocket>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pause.is_none() && self.socket.full.swap(false, Ordering::Relaxed) {
            self.pause = Some(Box::pin(sleep(FULL_PAUSE)));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const BOUND: Duration = Duration::from_secs(5);

    fn socket(address: impl Into<SocketAddr>) -> Option<(Arc<HearingSocket>, Refusals)> {
        let refusals = Refusals::default();
        let socket = std::net::UdpSocket::bind(address.into()).ok()?;
        Some((Arc::new(HearingSocket::new(socket, refusals.clone()).unwrap()), refusals))
    }

    fn send(socket: &HearingSocket, destination: SocketAddr, contents: &[u8]) {
        let transmit =
            Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        socket.try_send(&transmit).unwrap();
    }

    async fn receive(socket: &HearingSocket) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let mut meta = [RecvMeta::default()];
        let count =
            poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta));
        assert_eq!(tokio::time::timeout(BOUND, count).await.expect("in time").unwrap(), 1);
        buffer[..meta[0].len].to_vec()
    }

    /// A port at which nobody listens.
    fn closed(ip: impl Into<std::net::IpAddr>) -> SocketAddr {
        std::net::UdpSocket::bind(SocketAddr::new(ip.into(), 0)).unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_closed_port_is_told_and_no_packet_pays_for_it() {
        let mut cases =
            vec![(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), closed(Ipv4Addr::LOCALHOST))];
        if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            let wildcard = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
            let port = closed(Ipv4Addr::LOCALHOST).port();
            cases.push((wildcard, (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into()));
            cases.push((wildcard, closed(Ipv6Addr::LOCALHOST)));
        }
        for (bind, dead) in cases {
            let (socket, refusals) = socket(bind).unwrap();
            let mut told = refusals.listen();
            let mut alive = dead;
            let other = std::net::UdpSocket::bind(SocketAddr::new(dead.ip(), 0)).unwrap();
            other.set_read_timeout(Some(BOUND)).unwrap();
            alive.set_port(other.local_addr().unwrap().port());
            let mut here = dead;
            here.set_port(socket.local_addr().unwrap().port());

            // Each packet to the dead port leaves an error for the next call on the socket.
            for n in 0..20u8 {
                send(&socket, dead, b"to the dead");
                send(&socket, alive, &[n]);
                other.send_to(&[n], here).unwrap();
                assert_eq!(receive(&socket).await, [n]);
            }

            let mut buffer = [0; 16];
            for n in 0..20u8 {
                assert_eq!(other.recv(&mut buffer).unwrap(), 1);
                assert_eq!(buffer[0], n, "nothing was lost on the way to {alive}");
            }
            let first = tokio::time::timeout(BOUND, told.recv()).await.expect("it is told");
            assert_eq!(first.unwrap(), canonical(dead));
        }
    }

    /// The kernel does not take a packet to a broadcast address from a socket that did not ask for
    /// it. The test uses this as an example of all packets that the kernel does not take.
    #[tokio::test]
    async fn a_packet_that_the_kernel_does_not_take_is_lost_and_told_once_in_plain_words() {
        let (socket, _) = socket((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Lines(lines.clone());
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_ansi(false));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..5 {
                send(&socket, (Ipv4Addr::BROADCAST, 9).into(), b"to all");
            }
        });
        let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains("nothing out to 255.255.255.255"), "{lines}");
        assert!(!lines.contains("sendmsg") && !lines.contains("Os {"), "{lines}");
    }

    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_refusal_alone_wakes_the_reader() {
        let (socket, refusals) = socket((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut told = refusals.listen();
        let reader = {
            let socket = socket.clone();
            tokio::spawn(async move { receive(&socket).await })
        };
        tokio::task::yield_now().await;
        let dead = closed(Ipv4Addr::LOCALHOST);
        send(&socket, dead, b"is anybody there?");
        let told = tokio::time::timeout(BOUND, told.recv()).await.expect("it is told");
        assert_eq!(told.unwrap(), dead);
        assert!(!reader.is_finished(), "there is nothing to read");
        reader.abort();
    }
}
