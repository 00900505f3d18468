//! Carrying: what this node sends over detours, and what it carries for two others.
//!
//! A node carries only between peers that it is connected with directly, one hop, at a bounded
//! rate for each that asks, and never at the cost of its own messages: a full queue or a slow peer
//! loses packets, as a network would, and QUIC between the two adapts.
//!
//! The tasks hold the pool only while they work for it: a mesh that nobody holds any more ends, and
//! its socket with it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use peerage_proto::id::NodeId;
use peerage_proto::wire::Detour;

use super::detour::Packet;
use super::pool::Pool;
use super::router::Message;

/// Messages about detours that wait to be looked at.
pub(super) const INBOX_MAX: usize = 512;

/// What one peer may have carried: so many packets in a second, and so many at once.
const CARRIED_PER_SECOND: f64 = 2000.0;
const CARRIED_BURST: f64 = 500.0;

/// How often allowances that are full again are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Hands what QUIC sends over detours to those in between, until the mesh ends.
pub(super) async fn send_packets(pool: Weak<Pool>, mut packets: mpsc::Receiver<Packet>) {
    while let Some(Packet { detour, bytes }) = packets.recv().await {
        let Some(pool) = pool.upgrade() else { return };
        let (peer, through) = (detour.peer, detour.through);
        match pool.peer(through).filter(|between| between.path().is_direct()) {
            Some(between) => {
                between.send_detour(Detour::Carry { to: peer, packet: &bytes }.encode());
                pool.expect_answer(&between);
            }
            None => pool.refused_detour(peer, through),
        }
    }
}

/// Serves messages about detours, until the mesh ends.
pub(super) async fn relay(pool: Weak<Pool>, mut messages: mpsc::Receiver<Message>) {
    let mut allowances = Allowances::default();
    while let Some(Message { from, bytes }) = messages.recv().await {
        let Some(pool) = pool.upgrade() else { return };
        match Detour::decode(&bytes) {
            Ok(Detour::Carry { to, packet }) => {
                if allowances.spend(from, Instant::now()) {
                    carry(&pool, from, to, packet);
                } else {
                    pool.counters.carried_dropped.add(1);
                }
            }
            Ok(Detour::Carried { from: peer, packet }) => {
                // One who is no member cannot fill the table of detours.
                let known = pool.detours.knows(peer, from) || pool.addresses.of(peer).is_known();
                if known && peer != pool.own {
                    let packet = bytes.slice_ref(packet);
                    if !pool.detours.inject(peer, from, packet) {
                        pool.counters.carried_dropped.add(1);
                    }
                }
            }
            Ok(Detour::Cannot { to }) => pool.refused_detour(to, from),
            Err(error) => {
                tracing::debug!(peer = %from.short(), %error, "a message about a detour");
            }
        }
    }
}

/// Carries a packet from one direct peer to another, or says that it cannot.
fn carry(pool: &Arc<Pool>, from: NodeId, to: NodeId, packet: &[u8]) {
    let Some(asker) = pool.peer(from).filter(|asker| asker.path().is_direct()) else { return };
    if let Some(target) = pool.peer(to).filter(|target| target.may_carry()) {
        if target.send_detour(Detour::Carried { from, packet }.encode()) {
            pool.counters.carried.add(1);
            pool.expect_answer(&target);
        }
        return;
    }
    asker.send_detour(Detour::Cannot { to }.encode());
    // The next time there may be a connection; where the node is out of reach from here, too, that
    // is one dial, and then the backoff.
    if pool.addresses.of(to).is_known() {
        pool.seek(to);
    }
}

/// How much each peer may have carried now.
#[derive(Default)]
struct Allowances {
    /// Bounded by the peers; full ones are forgotten.
    left: HashMap<NodeId, (f64, Instant)>,
    forgotten: Option<Instant>,
}

impl Allowances {
    fn spend(&mut self, peer: NodeId, now: Instant) -> bool {
        let refilled = |(left, then): &(f64, Instant)| {
            let passed = now.saturating_duration_since(*then).as_secs_f64();
            (left + passed * CARRIED_PER_SECOND).min(CARRIED_BURST)
        };
        if self.forgotten.is_none_or(|then| now > then + FORGET_EVERY) {
            self.left.retain(|_, allowance| refilled(allowance) < CARRIED_BURST);
            self.forgotten = Some(now);
        }
        let left = self.left.get(&peer).map_or(CARRIED_BURST, refilled);
        let enough = left >= 1.0;
        self.left.insert(peer, (if enough { left - 1.0 } else { left }, now));
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_for_one_is_bounded_and_does_not_cost_another() {
        let (mut allowances, start) = (Allowances::default(), Instant::now());
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let burst = (0..10_000).filter(|_| allowances.spend(a, start)).count();
        assert_eq!(burst, CARRIED_BURST as usize);
        assert!(allowances.spend(b, start));
        let second = start + Duration::from_millis(100);
        let more = (0..10_000).filter(|_| allowances.spend(a, second)).count();
        assert_eq!(more, (CARRIED_PER_SECOND / 10.0) as usize);
        // Who asks no more costs nothing.
        assert!(allowances.spend(b, start + FORGET_EVERY * 2));
        assert_eq!(allowances.left.len(), 1);
    }
}
