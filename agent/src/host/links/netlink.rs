//! Word from the kernel that this host's addresses changed (rtnetlink(7)).
//!
//! The agent does not read the messages: each only says that it is time to look at the addresses.
//! So no message can be misunderstood, a message lost for lack of room does no harm, and an agent
//! on a host whose addresses stay is never woken.

use std::io;
use std::os::unix::net;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// The multicast groups of addresses that come and go (`linux/rtnetlink.h`).
const IPV4_ADDRESSES: u32 = 0x10;
const IPV6_ADDRESSES: u32 = 0x100;

/// Room for more than one message. A longer one is cut, which does no harm, since nobody reads it.
const MESSAGE_BYTES: usize = 4096;

/// A socket on which the kernel tells of changes. It is no unix socket; all that is asked of tokio
/// is to wait and to call recv(2), which is the same for every socket of datagrams.
pub(super) struct AddressChanges(UnixDatagram);

impl AddressChanges {
    /// Begins to listen. Needs tokio's runtime.
    ///
    /// # Errors
    /// What the kernel says, such as that the family is not allowed.
    pub(super) fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // The family's protocol 0, which nobody has to name, is rtnetlink.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, IPV4_ADDRESSES | IPV6_ADDRESSES))?;
        Ok(Self(UnixDatagram::from_std(net::UnixDatagram::from(socket))?))
    }

    /// Waits until something changed since the last call. A call that is dropped while it waits
    /// loses no change.
    ///
    /// # Errors
    /// What the kernel says; the socket is of no more use then.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut message = [0; MESSAGE_BYTES];
        // A call that is dropped here has taken no message: `recv` waits first, then takes.
        told(self.0.recv(&mut message).await)?;
        loop {
            match told(self.0.try_recv(&mut message)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes ENOBUFS as news: the kernel had no room for all messages, which is one more reason to look.
fn told(received: io::Result<usize>) -> io::Result<()> {
    match received {
        Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(()),
        other => other.map(drop),
    }
}
