//! How fast liveness is judged, and why: all durations and bounds of the detector.
//!
//! SWIM (Das, Gupta, Motivala: "SWIM: Scalable Weakly-consistent Infection-style Process Group
//! Membership Protocol", 2002) probes one random member per period, asks others to try when it does
//! not answer, and suspects before it declares; the time for suspicion grows with log N, as news
//! spread in log N rounds. A node that falls silent is asked after 0.2 s in the mean, by a random
//! probe or by the member that watches it. It is suspected 0.3 s later and declared down after 0.9
//! s of suspicion, and all know of it 0.1 s after that.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::Config;

use super::codec::DATAGRAM_MAX;

/// One member is probed per period.
pub(super) const PROBE_PERIOD: Duration = Duration::from_millis(600);

/// A member that did not answer its probe by then, directly or through others, is suspect, and the
/// next member is probed at once.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(300);

/// The longest round trip that is believed. Waits grow with the round trip, and a member that
/// answers late, for whatever reason, must not delay the judgement on others.
pub(super) const RTT_MAX: Duration = Duration::from_millis(600);

/// The round trip that is assumed where none was measured and a member is judged on evidence: a
/// member that is far away must have the time to object.
pub(super) const RTT_UNMEASURED: Duration = Duration::from_millis(100);

/// After this time without an answer, other members are asked to try.
pub(super) const PROBE_DIRECT: Duration = Duration::from_millis(130);

/// A probe that is not answered is sent again after this time.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How often a probe is sent again at most. With 10 % of datagrams lost, two in ten probes would
/// fail on the direct way if they were sent once; sent five times, not one in a thousand fails.
pub(super) const ASK_AGAIN_MAX: u8 = 4;

/// Each member asks the next member by id this often, besides its probes.
pub(super) const WATCH_PERIOD: Duration = Duration::from_millis(600);

/// How often the watched member is asked each time, and how long each answer may take: together as
/// long as a probe waits before other members are asked to try.
pub(super) const WATCH_ASKS: u8 = 2;
pub(super) const ASK_WATCHED: Duration = Duration::from_millis(65);

/// A suspect is told so, and asked to object, this often: Lifeguard's "buddy system" (section
/// IV-C), but from the suspecting member and until it answers.
pub(super) const INSIST: Duration = Duration::from_millis(70);

/// A member whose port refused is asked in private for the first of these times, and then has the
/// second to object: 0.3 s in all. The first refused packet shows the death about 0.2 s after it,
/// so all know of it in half a second; an agent that is started again at once is back before.
///
/// For silence alone this would be too short, but a busy host does not refuse, it is late. A member
/// that lives and is accused gets five direct questions and six through others in this time.
pub(super) const EVIDENCE_PROBE: Duration = Duration::from_millis(100);
pub(super) const EVIDENCE_SUSPICION: Duration = Duration::from_millis(200);

/// How often a member is asked in private.
pub(super) const ASK_OUT_OF_TURN: Duration = Duration::from_millis(35);

/// After an answer in spite of evidence, further evidence is not listened to for this long. A
/// firewall that refuses between two hosts costs a few questions each time, and shows nowhere.
pub(super) const EVIDENCE_REST: Duration = Duration::from_secs(10);

/// How often a verdict is put off when the suspect was heard from since it was suspected: its
/// objection is on the way.
pub(super) const REPRIEVES_MAX: u8 = 3;

/// How many times the time of a suspicion another member's verdict may take: that member may have
/// put it off.
pub(super) const VERDICT_BY_OTHERS: u32 = 3;

/// How far apart the members that wait for a verdict look into it, per member: few look at the same
/// time, and the others hear the result.
pub(super) const LOOKERS_APART: Duration = Duration::from_millis(50);

/// News are passed on to three members at once, and then this often until they were passed on often
/// enough.
pub(super) const GOSSIP: Duration = Duration::from_millis(50);

/// A member that the roster names and that is not met within this time is down, where members are
/// few.
pub(super) const UNKNOWN_PATIENCE: Duration = Duration::from_secs(3);

/// How many members are met in that time, and how much longer each further one may take: after a
/// power cut all start at once, and a news datagram names about twenty.
const MET_IN_TIME: usize = 64;
const MET_LATER: Duration = Duration::from_millis(30);

/// How long a member may be unknown where the roster names so many.
pub(super) fn unknown_patience(members: usize) -> Duration {
    let later = u32::try_from(members.saturating_sub(MET_IN_TIME)).unwrap_or(u32::MAX);
    UNKNOWN_PATIENCE + MET_LATER.saturating_mul(later)
}

/// How late a host is assumed to be when it starts among so many members, as the multiplier's
/// excess over 1: perhaps all of them start, and each has a handshake with many others.
pub(super) fn health_at_start(members: usize) -> u32 {
    u32::try_from(members.saturating_sub(MET_IN_TIME) / MEMBERS_PER_HEALTH).unwrap_or(u32::MAX)
}

const MEMBERS_PER_HEALTH: usize = 16;

/// Members not met yet are asked this often.
pub(super) const SEEK_UNKNOWN: Duration = Duration::from_millis(100);

/// Members that are away are asked this often, in turn, so that any partition heals by itself.
pub(super) const SEEK_AWAY: Duration = Duration::from_secs(1);

/// How often they are asked when no member went away lately.
pub(super) const SEEK_LONG_AWAY: Duration = Duration::from_secs(5);

/// After this time without a change members that are away count as long away.
pub(super) const LONG_AWAY: Duration = Duration::from_secs(60);

/// How many members that are away are asked each time.
pub(super) const SEEK_FANOUT: usize = 3;

/// How many members are asked to try, and how many are told news at once.
pub(super) const FANOUT: usize = 3;

/// How many members that were asked to try are named.
pub(super) const HELPERS_NAMED_MAX: usize = 6;

/// The suspicion: 0.9 s up to 32 nodes, 1.2 s at 100, 1.8 s at 1,000.
const SUSPICION_MIN: Duration = Duration::from_millis(900);
const SUSPICION_PER_LOG10: Duration = Duration::from_millis(600);

/// How often each member passes a piece of news on, per log10 of the number of nodes. With six the
/// chance that one of 32 misses it is one in a hundred, with eight one in ten thousand.
const TRANSMISSIONS_PER_LOG10: f64 = 8.0;
const TRANSMISSIONS_MIN: u8 = 6;

/// foca's configuration for a Data Center of `nodes`, this one included.
pub(super) fn config(nodes: usize) -> Config {
    let log10 = (nodes as f64 + 1.0).log10();
    // Saturates for any number of nodes.
    let transmissions = ((TRANSMISSIONS_PER_LOG10 * log10) as u8).max(TRANSMISSIONS_MIN);
    Config {
        probe_period: PROBE_TIMEOUT,
        probe_rtt: PROBE_DIRECT,
        num_indirect_probes: NonZeroUsize::new(FANOUT).expect("three"),
        max_transmissions: NonZeroU8::new(transmissions).expect("six at least"),
        suspect_to_down_after: SUSPICION_PER_LOG10.mul_f64(log10).max(SUSPICION_MIN),
        // Only the roster forgets a member.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(DATAGRAM_MAX - 1).expect("a thousand"),
        notify_down_members: true,
        // Gossip and announcements have alarms of our own: they rest while there is nothing to
        // say, and they go on while foca believes that it is alone.
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: None,
    }
}
