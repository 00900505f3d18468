//! One write among many replicas on one simulated network: how far a push gets, how soon, and how
//! soon the rest is repaired where nodes compare what they hold, one with one other at a time.
//!
//! The replicas, the frames and the choice of whom to tell are the real ones. A session takes no
//! time here: other tests prove what it does.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::replica::sync::{PushFrame, chunks, targets, verified};
use peerage_proto::replica::{Actor, Edit, Limits, Replica, SignedChange};
use peerage_proto::time::Now;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How long a frame takes, at least and at most: it waits for a disk, too.
const HOP: std::ops::Range<Duration> = Duration::from_millis(1)..Duration::from_millis(5);

/// How often an agent tells another what it holds, and how long it lets a push come first.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
const PUSH_TIME: Duration = Duration::from_secs(1);

/// What became of a write.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// How many nodes the push reached, its writer included.
    pub pushed_to: usize,
    /// When the last of them had it.
    pub pushed_within: Duration,
    /// How many frames were sent.
    pub frames: u64,
    /// When all had it.
    pub all_within: Duration,
}

/// Writes once on one of `nodes` nodes. The network loses the share `loss` of the frames.
pub fn spread(nodes: usize, loss: f64, seed: u64) -> Spread {
    let mut rng = StdRng::seed_from_u64(seed);
    let keys: Vec<Keypair> = (0..nodes).map(|_| Keypair::from_seed(rng.random())).collect();
    let ids: Vec<NodeId> = keys.iter().map(Keypair::node_id).collect();
    let index: BTreeMap<NodeId, usize> = ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
    let replica = |key| Replica::new(DataCenterId([1; 16]), key, Limits::default());
    let mut replicas: Vec<Replica> = keys.into_iter().map(replica).collect();

    let set = [("f".parse().expect("a field"), 1.into())].into();
    let edit = Edit { set, ..Edit::default() };
    let actor = Actor { who: "root".into(), via: "simulation".into() };
    let path = "x/y".parse().expect("a path");
    let written = replicas[0].write(&path, edit, actor, 1, at(Duration::ZERO));
    let (_, outputs) = written.expect("the write is in bounds");
    replicas[0].committed(&outputs.commit);

    let mut spread =
        Spread { pushed_to: 1, pushed_within: HOP.start, frames: 0, all_within: Duration::ZERO };
    let mut queue: BTreeMap<(Duration, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut send =
        |from: usize, now: Duration, changes: &[SignedChange], queue: &mut BTreeMap<_, _>| {
            let others: Vec<NodeId> = ids.iter().filter(|id| **id != ids[from]).copied().collect();
            let (told, relay) = targets(&others, &mut rng);
            for changes in chunks(changes) {
                let frame = PushFrame::Changes { changes, relay, receipt: false }.encode();
                for node in &told {
                    spread.frames += 1;
                    if !rng.random_bool(loss) {
                        let arrives = now + rng.random_range(HOP);
                        queue.insert((arrives, spread.frames), (index[node], frame.clone()));
                    }
                }
            }
        };
    send(0, Duration::ZERO, &outputs.send, &mut queue);
    while let Some(((now, _), (to, frame))) = queue.pop_first() {
        let frame = PushFrame::decode(&frame).expect("it was encoded here");
        let PushFrame::Changes { changes, relay, .. } = frame else { continue };
        for change in verified(changes).expect("it was signed here") {
            let outputs = replicas[to].merge(change, relay, at(now));
            replicas[to].committed(&outputs.commit);
            if !outputs.notify.is_empty() {
                spread.pushed_to += 1;
                spread.pushed_within = now;
            }
            send(to, now, &outputs.send, &mut queue);
        }
    }
    spread.all_within = spread.pushed_within;
    let mut have: Vec<bool> = replicas.iter().map(|r| r.document(&path).is_some()).collect();
    while have.iter().any(|have| !have) {
        // In this time each node tells one other node what it holds; a session ends a difference.
        spread.all_within += COMPARE_EVERY;
        for node in 0..nodes {
            let other = rng.random_range(0..nodes);
            let either = have[node] || have[other];
            (have[node], have[other]) = (either, either);
        }
    }
    if spread.pushed_to < nodes {
        spread.all_within += PUSH_TIME;
    }
    spread
}

fn at(mono: Duration) -> Now {
    Now { mono, wall_ms: 1_700_000_000_000 + mono.as_millis() as u64 }
}
