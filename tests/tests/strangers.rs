//! Hosts without an invitation keep nobody out, take little memory, and leave few lines in the log.
//!
//! The bounds are ten times those that the bench shows (`--rows strangers`), and twice in memory.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use peerage_tests::patience::{LATER, until};
use peerage_tests::process::rss_bytes;
use peerage_tests::strangers::{Attack, MANY_SOURCES, STRANGERS_AT, UnderWay};
use peerage_tests::{Agent, Fleet};
use serde_json::json;

/// How long a node with an invitation may take to join, and how long a member may take to be back
/// after a restart.
const JOIN_WITHIN: Duration = Duration::from_secs(20);
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// By how much an agent may grow.
const MORE_BYTES: f64 = 60e6;

/// Lines that strangers may leave in the log of an agent, whatever they do.
const LINES_MAX: usize = 20;

/// How many connections the strangers have made at least before the joiner comes. With many
/// addresses there are as many connections as addresses, so that all places have been taken.
const CONNECTIONS: u64 = 150;

/// How large a packet of a handshake is at most.
const PACKET_BYTES: usize = 1200;

/// When the agent has sent nothing for so long, it has given the handshake up.
const HANDSHAKE_OVER: Duration = Duration::from_secs(6);

/// A node joins and a member comes back while strangers attack. Once, with 128 silent connections
/// or six handshakes a second, nobody could join; 128 others made the agent grow from 11 to 1,118
/// MB; and the log had 500 lines a second.
fn hold_out(attack: Attack, sources: usize) {
    let mut fleet = Fleet::found(2);
    let before = rss_bytes(fleet[0].pid());
    let lines = fleet[0].log().lines().count();
    // The strangers attack all seeds that the Join Information names.
    let strangers = [0, 1].map(|index| UnderWay::begin(attack, sources, &fleet[index]));
    let enough = CONNECTIONS.max(sources as u64);
    for strangers in &strangers {
        until("it is under way", LATER, || strangers.connections(), |begun| *begun >= enough);
    }

    let newcomer = Agent::start("pve-3");
    let begun = Instant::now();
    newcomer.join(&fleet[0].invite(json!({}))).unwrap();
    let joined = begun.elapsed();
    assert!(joined < JOIN_WITHIN, "{attack:?}: {joined:?}");
    fleet.push(newcomer);

    fleet[1].kill();
    let begun = Instant::now();
    fleet[1].restart();
    let alive = || fleet[0].state_of("pve-2");
    until("the member is back", BACK_WITHIN, alive, |state| state == "alive");
    fleet.all_see_all();
    println!("{attack:?}: joined in {joined:?}, back in {:?}", begun.elapsed());

    let more = rss_bytes(fleet[0].pid()) - before;
    assert!(more < MORE_BYTES, "{attack:?}: the agent grew by {:.1} MB", more / 1e6);
    drop(strangers);
    let log = fleet[0].log();
    let of_them = log.lines().skip(lines).filter(|line| !line.contains("pve-"));
    assert!(of_them.clone().count() <= LINES_MAX, "{attack:?}: {:#?}", of_them.collect::<Vec<_>>());
}

#[test]
fn silent_strangers_keep_nobody_out() {
    hold_out(Attack::Silence, 1);
}

/// Strangers once held every place for joiners, each address no more than one, and a node with an
/// invitation found none.
#[test]
fn silent_strangers_of_many_addresses_keep_nobody_out() {
    hold_out(Attack::Silence, MANY_SOURCES);
}

#[test]
fn strangers_that_fill_their_windows_take_little_memory() {
    hold_out(Attack::Windows, 1);
}

#[test]
fn strangers_of_many_addresses_that_fill_their_windows_take_little_memory() {
    hold_out(Attack::Windows, MANY_SOURCES);
}

#[test]
fn strangers_that_begin_handshakes_keep_nobody_out() {
    hold_out(Attack::Handshakes, 1);
}

#[test]
fn strangers_of_many_addresses_that_begin_handshakes_keep_nobody_out() {
    hold_out(Attack::Handshakes, MANY_SOURCES);
}

#[test]
fn strangers_with_made_up_invitations_keep_nobody_out_and_leave_few_lines() {
    hold_out(Attack::Requests, 1);
}

#[test]
fn strangers_of_many_addresses_with_made_up_invitations_keep_nobody_out() {
    hold_out(Attack::Requests, MANY_SOURCES);
}

/// A stranger that claims another's address makes the agent send to that address: at most three
/// times what the stranger sent itself (RFC 9000, section 8.1).
#[test]
fn an_unproven_address_is_sent_little() {
    let agent = Agent::start("pve-1");
    agent.create("north");
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, agent.port().unwrap()));
    // The test stands between the two: the agent's answers do not reach the stranger.
    let near = UdpSocket::bind((STRANGERS_AT, 0)).unwrap();
    let far = UdpSocket::bind((STRANGERS_AT, 0)).unwrap();
    let strangers = UnderWay::begin_at(Attack::Handshakes, 1, &agent, near.local_addr().unwrap());
    let mut packet = [0; 65536];
    let (sent, _) = near.recv_from(&mut packet).unwrap();
    drop(strangers);
    far.send_to(&packet[..sent], to).unwrap();

    far.set_read_timeout(Some(HANDSHAKE_OVER)).unwrap();
    let mut answered = Vec::new();
    while let Ok((bytes, _)) = far.recv_from(&mut packet) {
        answered.push(bytes);
    }
    let all: usize = answered.iter().sum();
    println!("{sent} bytes had {all} sent, in {} packets", answered.len());
    // quinn checks the bound before each packet, so the last one may go beyond it.
    let most = 3 * sent + PACKET_BYTES;
    assert!(!answered.is_empty() && all <= most, "{sent} bytes had {answered:?} sent");
}
