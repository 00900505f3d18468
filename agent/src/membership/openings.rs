//! How many connections the failure detector may open where there are many members.
//!
//! News spread over whatever connections there are. If each piece of news opened one, a cold start
//! of N nodes would begin with N² handshakes, half a millisecond each; a node that has no
//! connection yet finds one quickly, and hears of all others through it.

use std::time::Duration;

use peerage_proto::liveness::can_wait;
use tokio::time::Instant;

/// Up to how many members this node connects with all of them at once, rather than when needed.
pub(super) const CONNECT_ALL_MAX: usize = 64;

/// How many connections news may open per second, and at once after a calm.
const OPENINGS_PER_SECOND: f64 = 4.0;
const OPENINGS_BURST: f64 = 12.0;

/// An allowance that time refills.
#[derive(Debug)]
pub(super) struct Openings {
    allowance: f64,
    refilled: Instant,
}

impl Openings {
    pub(super) fn new(now: Instant) -> Self {
        Self { allowance: OPENINGS_BURST, refilled: now }
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
        let passed: Duration = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        let rate = OPENINGS_PER_SECOND / f64::from(lateness);
        let refilled = self.allowance + passed.as_secs_f64() * rate;
        self.allowance = refilled.min(OPENINGS_BURST);
        let open = self.allowance >= 1.0;
        self.allowance -= f64::from(u8::from(open));
        open
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
        assert_eq!(opened(&mut openings, 300, start), OPENINGS_BURST as usize);
        let later = start + Duration::from_secs(2);
        assert_eq!(opened(&mut openings, 300, later), 2 * OPENINGS_PER_SECOND as usize);
        let latest = later + Duration::from_secs(8);
        let opened = (0..100).filter(|_| openings.admit(&announce, 300, 8, latest)).count();
        assert_eq!(opened, OPENINGS_PER_SECOND as usize);
    }

    /// What a node says that looks for company.
    fn announcement() -> Vec<u8> {
        let mut core = Liveness::new(NodeId([1; 32]), 1, StdRng::seed_from_u64(1));
        let zero = Now { mono: Duration::ZERO, wall_ms: 0 };
        let _ = core.members(zero, &BTreeSet::from([NodeId([2; 32])]));
        let (_, datagram) = core.expired(zero).send.remove(0);
        assert!(can_wait(&datagram));
        datagram
    }
}
