//! With whom a node exchanges vitals, and how often, so that neither grows without bound.
//!
//! chitchat puts an entry for every node that it knows of into every message. So messages grow with
//! the number of nodes, and chitchat does not survive a message that is longer than 64 KB.
//! Exchanges become rarer as messages grow, which keeps the bytes per second the same. Where a Data
//! Center has more members than one message can name, each member exchanges vitals with a part of
//! them, its circle; of the others it only knows whether they are alive.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_proto::id::NodeId;

/// How large a circle may be. A restarted node has a second entry for a while, so a message has
/// room for more than twice as many entries.
pub const CIRCLE_MAX: usize = 384;

/// The pause between two exchanges that a node begins, as long as messages are short. Facts change
/// every 15 s.
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// Up to how many entries a message counts as short: about 6.6 KB.
const ENTRIES_SHORT: usize = 96;

/// The longest pause, whatever chitchat has heard of.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// The pause between two exchanges where a message has so many entries. In each pause a node begins
/// one exchange and takes part in one that another node began, and sends one message of all entries
/// in each: so at most 6.6 KB leave a node per second, however many entries there are.
pub fn pause(entries: usize) -> Duration {
    let times = entries as f64 / ENTRIES_SHORT as f64;
    PAUSE_MIN.mul_f64(times.max(1.0)).min(PAUSE_MAX)
}

/// How many leading bits of their ids the members of one circle share, among so many members, where
/// the number of bits was `now`. A number of members that goes up and down around a bound does not
/// change the result each time.
pub(super) fn shared_bits(members: usize, now: u32) -> u32 {
    let wanted = |members: usize| members.div_ceil(CIRCLE_MAX).next_power_of_two().ilog2();
    // Ids are keys, so they spread evenly: a circle is as large as its share, give or take a few.
    let grown = wanted(members);
    let shrunk = wanted(members + members / 4);
    if grown > now || shrunk < now { grown } else { now }
}

/// How many leading bits a node's id must share with this node's for its messages to be taken in,
/// where the ids of the circle share `shared_bits`. It is one bit less: while the number of members
/// is near a bound, some nodes have a circle twice as large as others, depending on the number that
/// they saw before.
pub(super) fn acquainted_bits(shared_bits: u32) -> u32 {
    shared_bits.saturating_sub(1)
}

/// The members of the circle of `me`, without `me` itself.
pub(super) fn circle(me: NodeId, members: &BTreeSet<NodeId>, shared_bits: u32) -> BTreeSet<NodeId> {
    let start = |node: &NodeId| {
        let bytes = node.as_bytes()[..8].try_into().expect("an id has 32 bytes");
        u64::from_be_bytes(bytes).checked_shr(64 - shared_bits).unwrap_or(0)
    };
    let inside = |node: &&NodeId| **node != me && start(node) == start(&me);
    members.iter().filter(inside).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_a_node_per_second_does_not_grow_with_what_a_message_names() {
        let bytes_per_second = |entries: usize| {
            let messages = 2.0 / pause(entries).as_secs_f64();
            messages * entries as f64 * 69.0
        };
        for entries in 1..=2 * CIRCLE_MAX {
            assert!(bytes_per_second(entries) <= 6_700.0, "{entries}");
        }
        assert_eq!(pause(1), PAUSE_MIN);
    }

    #[test]
    fn all_share_one_circle_up_to_the_bound_and_parts_of_it_are_alike_beyond() {
        let members: BTreeSet<NodeId> = (0..1_500_u32)
            .map(|n| {
                let mut id = [0; 32];
                id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_769).to_be_bytes());
                NodeId(id)
            })
            .collect();
        assert_eq!(shared_bits(CIRCLE_MAX, 0), 0);
        let bits = shared_bits(members.len(), 0);
        assert_eq!(bits, 2);
        let mut covered = 0;
        for me in &members {
            let circle = circle(*me, &members, bits);
            assert!(circle.len() < 450, "{}", circle.len());
            for other in circle.iter().take(2) {
                assert!(super::circle(*other, &members, bits).contains(me));
            }
            covered += circle.len() + 1;
        }
        assert!(covered / members.len() > 300);
        assert_eq!(circle(NodeId([9; 32]), &members, 0).len(), members.len());
    }

    #[test]
    fn one_member_more_or_less_does_not_move_the_circle_to_and_fro() {
        let over = shared_bits(CIRCLE_MAX + 1, 0);
        assert_eq!(over, 1);
        assert_eq!(shared_bits(CIRCLE_MAX, over), 1);
        assert_eq!(shared_bits(CIRCLE_MAX * 3 / 4, over), 0);
        assert_eq!(shared_bits(0, 3), 0);
    }
}
