//! Logs in plain words that the kernel does not take packets to an address, for example because the
//! network is unreachable. It does so once for each address, and seldom again.
//!
//! Such packets count as lost, and QUIC sends their contents anew. It is common that a host cannot
//! reach some addresses, such as IPv6 addresses from a host without IPv6, or all addresses while
//! its cable is out. None of this is a fault of the agent, so it is logged as information, not as a
//! warning.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peerage_proto::links::canonical;
use rustix::io::Errno;
use tokio::time::Instant;

/// After how long the same is logged about an address again.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// About how many addresses something is logged in that time; about further ones nothing is.
const ADDRESSES_MAX: usize = 64;

/// Which addresses something was logged about, and when.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    told: Mutex<HashMap<IpAddr, Instant>>,
}

impl Unsent {
    /// The kernel did not take a packet to this address, for this reason. Logs that, unless it was
    /// logged lately.
    pub(super) fn tell(&self, to: SocketAddr, error: &io::Error) {
        // QUIC probed whether larger packets pass. The probe was too large for the interface, which
        // is all that QUIC had to find out.
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
