//! How many connections the failure detector may open where there are many members.
//!
//! News spread over whatever connections there are. If each piece of news opened one, a cold start
//! of N nodes would begin with N² handshakes, half a millisecond each; a node that has no
//! connection yet finds one quickly, and hears of all others through it.

use std::time::Duration;

use peerage_proto::allowance::{Allowance, Bucket};
use peerage_proto::liveness::can_wait;
use tokio::time::Instant;

/// Up to how many members this node connects with all of them at once, rather than when needed.
pub(super) const CONNECT_ALL_MAX: usize = 64;

/// How many connections news may open.
const OPENINGS: Allowance = Allowance { per_second: 4.0, burst: 12.0 };

/// The connections that news may still open.
#[derive(Debug)]
pub(super) struct Openings {
    start: Instant,
    left: Bucket,
}

impl Openings {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, left: Bucket::full(OPENINGS, Duration::ZERO) }
    }

    /// Whether this datagram may open a connection in a Data Center of so many other members, at a
    /// host that is late by this factor.
    pub(super) fn admit(
        &mut self,
        datagram: &[u8],
        members: usize,
        lateness: u32,
        now: Instant,
    ) -> bool {
        if members < CONNECT_ALL_MAX || !can_wait(datagram) {
            return true;
        }
        let per_second = OPENINGS.per_second / f64::from(lateness);
        let time = now.saturating_duration_since(self.start);
        self.left.refill(Allowance { per_second, ..OPENINGS }, time);
        self.left.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use peerage_proto::id::NodeId;
    use peerage_proto::liveness::Liveness;
    use peerage_proto::time::Now;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn news_open_a_few_connections_per_second_among_many_and_any_among_few() {
        let start = Instant::now();
        let announce = announcement();
        let opened = |openings: &mut Openings, members, now| {
            (0..1_000).filter(|_| openings.admit(&announce, members, 1, now)).count()
        };
        let mut openings = Openings::new(start);
        assert_eq!(opened(&mut openings, CONNECT_ALL_MAX - 1, start), 1_000);
        assert_eq!(opened(&mut openings, 300, start), OPENINGS.burst as usize);
        let later = start + Duration::from_secs(2);
        assert_eq!(opened(&mut openings, 300, later), 2 * OPENINGS.per_second as usize);
        let latest = later + Duration::from_secs(8);
        let opened = (0..100).filter(|_| openings.admit(&announce, 300, 8, latest)).count();
        assert_eq!(opened, OPENINGS.per_second as usize);
    }

    /// A datagram of a node that looks for other members.
    fn announcement() -> Vec<u8> {
        let mut core = Liveness::new(NodeId([1; 32]), 1, StdRng::seed_from_u64(1));
        let zero = Now { mono: Duration::ZERO, wall_ms: 0 };
        let _ = core.members(zero, &BTreeSet::from([NodeId([2; 32])]));
        let (_, datagram) = core.expired(zero).send.remove(0);
        assert!(can_wait(&datagram));
        datagram
    }
}
