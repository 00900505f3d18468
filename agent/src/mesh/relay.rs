//! Sends this node's packets over detours, and carries packets between two other nodes.
//!
//! A node carries packets only between two peers that it is connected with directly, so over one
//! hop. It does so at a bounded rate for each sender, and with a lower priority than its own
//! messages. A full queue or a slow peer loses packets, as a network would, and QUIC between the
//! two ends adapts.
//!
//! The tasks hold the pool only while they work for it, so that a mesh ends, with its socket, once
//! nobody holds it any more.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use peerage_proto::allowance::{Allowance, Bucket};
use peerage_proto::id::NodeId;
use peerage_proto::wire::Detour;

use super::detour::Packet;
use super::pool::Pool;
use super::router::Message;

/// Messages about detours that wait to be looked at.
pub(super) const INBOX_MAX: usize = 512;

/// How many packets one peer may have carried.
const CARRIED: Allowance = Allowance { per_second: 2000.0, burst: 500.0 };

/// How often allowances that are full again are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Hands the packets that QUIC sends over detours to the members in between, until the mesh ends.
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
    let mut allowances = Allowances::new(Instant::now());
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
                // Only members and detours that are known count, so that made-up ids cannot fill
                // the table of detours.
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
    // The target is dialled, so that there may be a connection the next time. If this node cannot
    // reach it either, that costs one dial, and then the backoff.
    if pool.addresses.of(to).is_known() {
        pool.seek(to);
    }
}

/// How much each peer may have carried now.
struct Allowances {
    start: Instant,
    /// At most one for each peer; those that are full again are forgotten.
    left: HashMap<NodeId, Bucket>,
    forgotten: Option<Instant>,
}

impl Allowances {
    fn new(start: Instant) -> Self {
        Self { start, left: HashMap::new(), forgotten: None }
    }

    fn spend(&mut self, peer: NodeId, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.start);
        if self.forgotten.is_none_or(|then| now > then + FORGET_EVERY) {
            self.left.retain(|_, bucket| {
                bucket.refill(CARRIED, time);
                bucket.share(CARRIED) < 1.0
            });
            self.forgotten = Some(now);
        }
        let bucket = self.left.entry(peer).or_insert(Bucket::full(CARRIED, time));
        bucket.refill(CARRIED, time);
        bucket.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_for_one_is_bounded_and_does_not_cost_another() {
        let start = Instant::now();
        let mut allowances = Allowances::new(start);
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let burst = (0..10_000).filter(|_| allowances.spend(a, start)).count();
        assert_eq!(burst, CARRIED.burst as usize);
        assert!(allowances.spend(b, start));
        let second = start + Duration::from_millis(100);
        let more = (0..10_000).filter(|_| allowances.spend(a, second)).count();
        assert_eq!(more, (CARRIED.per_second / 10.0) as usize);
        // A peer that sends no more packets is forgotten.
        assert!(allowances.spend(b, start + FORGET_EVERY * 2));
        assert_eq!(allowances.left.len(), 1);
    }
}
