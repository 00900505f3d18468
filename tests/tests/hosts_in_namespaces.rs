//! The lab itself: that hosts reach each other, and do not where something is in the way.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use peerage_tests::netlab::{Families, Trouble};
use peerage_tests::patience::{SOON, until};
use peerage_tests::{Lab, Layout};

/// How long a packet is waited for. Nothing but this machine is between two hosts.
const ARRIVES: Duration = Duration::from_millis(300);

/// How many packets are sent to measure which share of them is lost.
const PACKETS: usize = 2_000;

#[test]
fn hosts_reach_each_other_on_every_network_and_in_both_families() {
    let Some(lab) = Lab::built(Layout::of(3).networks(2)) else { return };
    assert_eq!(lab.addresses(2).len(), 4);
    for to in lab.addresses(2) {
        assert!(passes(&lab, 0, to), "{to}");
    }
    let Some(lab) = Lab::built(Layout::of(2).families(Families::V6)) else { return };
    assert!(lab.addresses(1).iter().all(IpAddr::is_ipv6));
    assert!(passes(&lab, 0, lab.addresses(1)[0]));
}

/// Hosts of a large lab are told where their neighbours are, and told anew when one moves.
#[test]
fn hosts_of_a_large_lab_reach_each_other_also_where_one_has_moved() {
    let Some(mut lab) = Lab::built(Layout::of(48)) else { return };
    for host in 0..lab.hosts() {
        for to in lab.addresses((host + 5) % 48) {
            assert!(passes(&lab, host, to), "{to}");
        }
    }
    lab.renumber(40, 500);
    for to in lab.addresses(40) {
        assert!(passes(&lab, 7, to), "{to}");
        assert!(passes(&lab, 40, lab.addresses(7)[0]));
    }
}

#[test]
fn sides_of_a_partition_are_apart_until_it_heals() {
    let Some(mut lab) = Lab::built(Layout::of(4)) else { return };
    lab.partition(&[&[0, 1], &[2], &[3]]);
    let reached = |lab: &Lab, from, to: usize| {
        lab.addresses(to).into_iter().filter(|to| passes(lab, from, *to)).count()
    };
    assert_eq!(reached(&lab, 0, 1), 2);
    assert_eq!(reached(&lab, 0, 2), 0);
    assert_eq!(reached(&lab, 3, 2), 0);
    lab.heal();
    for to in lab.addresses(2) {
        passes_again(&lab, 3, to);
    }
}

#[test]
fn one_way_and_one_pair_fail_alone() {
    let Some(mut lab) = Lab::built(Layout::of(3)) else { return };
    lab.trouble(Trouble::OneWay { from: 0, to: 1 });
    for (to, back) in lab.addresses(1).into_iter().zip(lab.addresses(0)) {
        assert!(!passes(&lab, 0, to), "{to}");
        assert!(passes(&lab, 1, back), "{back}");
    }
    lab.heal();
    lab.trouble(Trouble::Apart(0, 1));
    assert!(!passes(&lab, 0, lab.addresses(1)[0]));
    assert!(!passes(&lab, 1, lab.addresses(0)[0]));
    assert!(passes(&lab, 0, lab.addresses(2)[0]));
    assert!(passes(&lab, 2, lab.addresses(1)[0]));
}

#[test]
fn a_share_of_the_packets_is_lost() {
    let Some(mut lab) = Lab::built(Layout::of(3)) else { return };
    let arrive = |lab: &Lab, to| arrivals(lab, 0, lab.addresses(to)[0], PACKETS).unwrap();
    assert_eq!(arrive(&lab, 1), PACKETS);
    lab.trouble(Trouble::LossAt(1, 25));
    let share = arrive(&lab, 1) * 100 / PACKETS;
    assert!((70..80).contains(&share), "{share} % arrived");
    assert_eq!(arrive(&lab, 2), PACKETS, "the loss is at one host");
    lab.heal();
    lab.trouble(Trouble::Loss(10));
    let share = arrive(&lab, 2) * 100 / PACKETS;
    assert!((86..94).contains(&share), "{share} % arrived");
}

#[test]
fn a_cable_is_pulled_and_put_back_and_addresses_change() {
    let Some(mut lab) = Lab::built(Layout::of(2).networks(2)) else { return };
    let [first, .., second] = lab.addresses(1)[..] else { panic!("it has four") };
    lab.cut_link(1, 0);
    assert!(!passes(&lab, 0, first));
    assert!(passes(&lab, 0, second));
    lab.restore_link(1, 0);
    passes_again(&lab, 0, first);

    lab.renumber(1, 300);

    assert!(!passes(&lab, 0, first));
    for to in lab.addresses(1) {
        assert!(passes(&lab, 0, to), "{to}");
    }
}

/// Waits until packets of a host arrive again. A host that was told that a neighbour is not there
/// asks for it only once a second.
#[track_caller]
fn passes_again(lab: &Lab, from: usize, to: IpAddr) {
    until(&format!("a packet arrives at {to}"), SOON, || passes(lab, from, to), |passes| *passes);
}

/// Whether a packet of a host arrives at an address of another one.
fn passes(lab: &Lab, from: usize, to: IpAddr) -> bool {
    arrivals(lab, from, to, 1).is_ok_and(|arrived| arrived == 1)
}

/// How many of so many packets of a host arrive at an address, whoever has it.
fn arrivals(lab: &Lab, from: usize, to: IpAddr, packets: usize) -> io::Result<usize> {
    let anywhere = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let owner = (0..lab.hosts()).find(|host| lab.addresses(*host).contains(&to));
    // Without an owner packets end nowhere, and any inbox stays empty.
    let inbox = lab.host(owner.unwrap_or(from)).within(|| UdpSocket::bind(anywhere))?;
    inbox.set_read_timeout(Some(ARRIVES))?;
    let outbox = lab.host(from).within(|| UdpSocket::bind(anywhere))?;
    let port = inbox.local_addr()?.port();
    let mut arrived = 0;
    for sent in 1..=packets {
        outbox.send_to(b"packet", (to, port))?;
        // Few are on the way at a time, so that none is lost for want of room.
        if sent % 50 == 0 || sent == packets {
            while arrived < sent && inbox.recv(&mut [0; 16]).is_ok() {
                arrived += 1;
            }
            inbox.set_read_timeout(Some(ARRIVES / 30))?;
        }
    }
    Ok(arrived)
}
