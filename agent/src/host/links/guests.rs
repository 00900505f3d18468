//! Which interfaces are bridges of this host's guests (rtnetlink(7), RTM_GETLINK).
//!
//! A bridge that carries no cable of the host, only the ends of guests' cables or nothing, leads to
//! no other host, whatever it is called; many hosts have the same addresses there. The kernel tells
//! of each interface what kind it is and which bridge it belongs to. An interface that the kernel
//! does not describe counts as no bridge, and its address keeps its usual rank.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// The kernel answers at once; this bound is for a kernel that never answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// More than the kernel puts into one answer (`NLMSG_GOODSIZE` is a page, or 8 KiB).
const ANSWER_BYTES: usize = 64 * 1024;

/// How many answers are read: some thousand interfaces.
const ANSWERS_MAX: usize = 1024;

/// Messages (`linux/netlink.h`, `linux/rtnetlink.h`).
const HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const REQUEST_DUMP: u16 = 0x301;

/// What an answer says of an interface (`linux/if_link.h`).
const INTERFACE_LEN: usize = 16;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// The mask of an attribute's type: the two highest bits are flags and not part of the type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// The kinds of interfaces that end in a guest: a container's cable, a virtual machine's.
const OF_GUESTS: [&[u8]; 2] = [b"veth", b"tun"];

/// An interface as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    index: u32,
    /// The bridge or bond that it belongs to.
    master: Option<u32>,
    /// What it is; none for a card.
    kind: Option<Vec<u8>>,
}

/// The numbers of the bridges that carry guests of this host and nothing else.
///
/// # Errors
/// What the kernel says.
pub(super) fn guest_bridges() -> io::Result<BTreeSet<u32>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    let mut request = Vec::with_capacity(HEADER_LEN + INTERFACE_LEN);
    request.extend(((HEADER_LEN + INTERFACE_LEN) as u32).to_ne_bytes());
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    // The rest is zero: our number of the request, the kernel's number of this socket, and the
    // choice of interfaces, which is all of them.
    request.resize(HEADER_LEN + INTERFACE_LEN, 0);
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = vec![0; ANSWER_BYTES];
    let mut found = Vec::new();
    for _ in 0..ANSWERS_MAX {
        let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
        if read(&answer[..length.min(ANSWER_BYTES)], &mut found)? {
            break;
        }
    }
    Ok(of_guests(&found))
}

fn of_guests(found: &[Interface]) -> BTreeSet<u32> {
    let is_bridge = |interface: &&Interface| interface.kind.as_deref() == Some(b"bridge");
    let ends_in_a_guest =
        |port: &Interface| port.kind.as_deref().is_some_and(|kind| OF_GUESTS.contains(&kind));
    let inner = |bridge: &&Interface| {
        found.iter().filter(|port| port.master == Some(bridge.index)).all(ends_in_a_guest)
    };
    found.iter().filter(is_bridge).filter(inner).map(|bridge| bridge.index).collect()
}

/// Reads one answer; tells whether it was the last.
fn read(mut answer: &[u8], found: &mut Vec<Interface>) -> io::Result<bool> {
    while let Some((header, _)) = answer.split_first_chunk::<HEADER_LEN>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(message) = answer.get(HEADER_LEN..length) else { break };
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(io::Error::other("the kernel lists no interfaces")),
            RTM_NEWLINK => found.extend(interface(message)),
            _ => {}
        }
        answer = answer.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

fn interface(message: &[u8]) -> Option<Interface> {
    let (fixed, attributes) = message.split_first_chunk::<INTERFACE_LEN>()?;
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    // Texts end with a zero.
    let text = |bytes: &[u8]| bytes.split(|byte| *byte == 0).next().map(<[u8]>::to_vec);
    Some(Interface {
        index: number(&fixed[4..8])?,
        master: attribute(attributes, IFLA_MASTER).and_then(number),
        kind: attribute(info, IFLA_INFO_KIND).and_then(text),
    })
}

/// The content of the first attribute of the wanted type in a row of attributes. Each attribute is
/// its length, its type and its content.
fn attribute(mut row: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (header, _) = row.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let content = row.get(header.len()..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE == wanted {
            return Some(content);
        }
        row = row.get(aligned(length)..)?;
    }
}

/// The offset at which the next attribute or message begins.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interface(index: u32, master: u32, kind: &str) -> Interface {
        let kind = (!kind.is_empty()).then(|| kind.into());
        Interface { index, master: (master > 0).then_some(master), kind }
    }

    #[test]
    fn a_bridge_is_of_guests_unless_a_cable_of_the_host_is_in_it() {
        let found = [
            interface(2, 10, ""),
            interface(3, 11, "veth"),
            interface(4, 11, "tun"),
            interface(5, 12, "bond"),
            interface(6, 12, "veth"),
            interface(7, 13, "vlan"),
            interface(8, 14, "vxlan"),
            interface(10, 0, "bridge"),
            interface(11, 0, "bridge"),
            interface(12, 0, "bridge"),
            interface(13, 0, "bridge"),
            interface(14, 0, "bridge"),
            interface(15, 0, "bridge"),
            interface(16, 0, "veth"),
        ];
        assert_eq!(of_guests(&found), BTreeSet::from([11, 15]));
    }

    #[test]
    fn this_host_can_be_asked() {
        guest_bridges().expect("the kernel answers");
    }

    proptest! {
        #[test]
        fn arbitrary_answers_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = read(&bytes, &mut Vec::new());
            let mut framed = (bytes.len() as u32 + 16).to_ne_bytes().to_vec();
            framed.extend(RTM_NEWLINK.to_ne_bytes());
            framed.extend([0; 10]);
            framed.extend(&bytes);
            let _ = read(&framed, &mut Vec::new());
            let _ = attribute(&bytes, IFLA_MASTER);
        }
    }
}
