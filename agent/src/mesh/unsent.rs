//! What is said of packets that the kernel does not take: that a network is unreachable is told to
//! people, in their words, once for each address and seldom again.
//!
//! Such packets count as lost, and QUIC sends their contents anew. That some addresses cannot be
//! reached from a host is common, such as IPv6 ones where it has none, or all while its cable is
//! out: none of it is a fault of the agent, so it is information, and no warning.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peerage_proto::links::canonical;
use rustix::io::Errno;
use tokio::time::Instant;

/// After how long the same is said of an address again.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Of how many addresses something is said in that time; of more nothing is.
const ADDRESSES_MAX: usize = 64;

/// Which addresses were spoken of, and when.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    told: Mutex<HashMap<IpAddr, Instant>>,
}

impl Unsent {
    /// A packet to this address was not taken, for this reason.
    pub(super) fn tell(&self, to: SocketAddr, error: &io::Error) {
        // A probe for larger packets that is too large for the interface has told what it was to.
        if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) {
            return;
        }
        let ip = canonical(to).ip();
        if self.is_news(ip, Instant::now()) {
            tracing::info!("{}", in_words(ip, error));
        }
    }

    fn is_news(&self, ip: IpAddr, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&ip).is_some_and(|at| now.saturating_duration_since(*at) < AGAIN_AFTER) {
            return false;
        }
        if told.len() >= ADDRESSES_MAX {
            told.retain(|_, at| now.saturating_duration_since(*at) < AGAIN_AFTER);
        }
        let room = told.len() < ADDRESSES_MAX;
        if room {
            told.insert(ip, now);
        }
        room
    }
}

fn in_words(ip: IpAddr, error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => {
            format!("the network is unreachable to {ip}: this host has no route there now")
        }
        Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => {
            format!("{ip} is unreachable: no host answers there, or a router turned it away")
        }
        Some(Errno::PERM | Errno::ACCESS) => {
            format!("this host's firewall lets nothing out to {ip}")
        }
        _ => format!("nothing can be sent to {ip}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn it_is_told_in_plain_words() {
        let of = |errno: Errno| in_words([192, 0, 2, 7].into(), &errno.into());
        let said = "the network is unreachable to 192.0.2.7: this host has no route there now";
        assert_eq!(of(Errno::NETUNREACH), said);
        assert!(of(Errno::PERM).contains("firewall"));
        for errno in [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::PERM, Errno::NOBUFS] {
            assert!(!of(errno).contains("Os {") && of(errno).contains("192.0.2.7"));
        }
    }

    #[test]
    fn of_each_address_it_is_told_once_and_after_an_hour_again() {
        let (unsent, start) = (Unsent::default(), Instant::now());
        let ip = |n: u32| IpAddr::from(Ipv4Addr::from_bits(n));
        assert!(unsent.is_news(ip(1), start));
        assert!(!unsent.is_news(ip(1), start + AGAIN_AFTER / 2));
        assert!(unsent.is_news(ip(2), start + AGAIN_AFTER / 2));
        assert!(unsent.is_news(ip(1), start + AGAIN_AFTER));
        // A host that loses all its networks says no more than there is room for.
        let more = (10..500).filter(|n| unsent.is_news(ip(*n), start + AGAIN_AFTER)).count();
        assert!(more <= ADDRESSES_MAX, "{more}");
    }
}
