//! Finds out whether this node itself is cut off when most others fall silent at once.
//!
//! To a node whose own cable is out all other nodes look dead. It must not advise to remove them,
//! and it must not remove them unless the operator insists: after the partition heals it would be
//! the only member left. It can know how many members it reaches, whether the others fell silent
//! together, and what its own network cards report.

use std::fmt;
use std::time::Duration;

use crate::liveness::{Standing, State, Why};

/// Members that were found to be down within this time count as having fallen silent at once: a
/// node that hears nobody finds one member after the other to be down.
const AT_ONCE: Duration = Duration::from_secs(60);

/// With this many silent members or more, it is more likely that this node is cut off than that
/// they all died.
const SILENT_MIN: usize = 2;

/// A network card of this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    /// The host's name for the card.
    pub name: String,
    /// Whether the card is switched on and its cable is connected.
    pub is_up: bool,
}

/// What this host can tell about its own network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// Nothing is known: the agent is reached on the host itself only, or the host cannot be asked.
    #[default]
    Unknown,
    /// The host has these cards, at least one, each with an address.
    Cards(Vec<Card>),
    /// The host has no address any more at which others could reach it.
    Gone,
}

impl Network {
    /// The cards that are down.
    fn down(&self) -> Vec<String> {
        match self {
            Self::Cards(cards) => {
                cards.iter().filter(|card| !card.is_up).map(|card| card.name.clone()).collect()
            }
            Self::Unknown | Self::Gone => Vec::new(),
        }
    }

    /// Whether nothing can leave this host.
    fn is_dead(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Cards(cards) => cards.iter().all(|card| !card.is_up),
            Self::Gone => true,
        }
    }
}

/// How many of the members a node reaches, itself counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// How many members there are.
    pub members: usize,
    /// How many of them answer.
    pub reached: usize,
}

impl Reach {
    /// Whether the node reaches less than half of the members: then the larger group may be
    /// elsewhere.
    pub fn is_minority(&self) -> bool {
        self.reached * 2 < self.members
    }
}

/// What a node can tell of its own place among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// How many members it reaches.
    pub reach: Reach,
    /// Why this node itself may be cut off; `None` where nothing suggests it.
    pub isolation: Option<Isolation>,
}

/// The signs that this node may be cut off. Prints as a sentence about this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// How many members it reaches, itself counted.
    pub reach: Reach,
    /// Whether it has not heard any of the silent members since its agent started.
    pub since_the_start: bool,
    /// The cards that are down.
    pub down: Vec<String>,
    /// Whether the host has no address any more.
    pub is_gone: bool,
    /// Whether nothing can leave this host.
    pub is_certain: bool,
}

impl Sight {
    /// What a node can tell when the other members stand like this.
    pub fn of<'a>(others: impl IntoIterator<Item = &'a Standing>, network: &Network) -> Self {
        let others: Vec<&Standing> = others.into_iter().collect();
        let count = |states: &[State]| others.iter().filter(|o| states.contains(&o.state)).count();
        let reach = Reach { members: others.len() + 1, reached: count(&[State::Alive]) + 1 };
        // A member that said goodbye is silent because it left or its agent was stopped, not
        // because of the network.
        let expected = others.len() - count(&[State::Left]);
        // Members that were never heard since this agent started all seem to have fallen silent at
        // the start. Where this node reaches some other member, they may have been gone for long,
        // so they do not count.
        let never = |o: &Standing| o.why == Why::NeverHeard || o.heard.is_none();
        let counts = |o: &&Standing| o.state == State::Down && (reach.reached == 1 || !never(o));
        let mut silent: Vec<&Standing> = others.iter().copied().filter(counts).collect();
        silent.sort_by_key(|o| o.since);
        let is_certain = network.is_dead()
            && reach.reached == 1
            && count(&[State::Suspect, State::Down, State::Unknown]) > 0;
        let together = |first: &Standing| {
            let later = silent.iter().filter(|o| o.since >= first.since);
            later.filter(|o| o.since - first.since <= AT_ONCE).count()
        };
        let at_once = silent.iter().map(|first| together(first)).max().unwrap_or(0);
        let is_likely = at_once >= SILENT_MIN && at_once * 2 > expected;
        let isolation = (is_certain || is_likely).then(|| Isolation {
            reach,
            since_the_start: reach.reached == 1
                && !silent.is_empty()
                && silent.iter().all(|o| never(o)),
            down: network.down(),
            is_gone: *network == Network::Gone,
            is_certain,
        });
        Self { reach, isolation }
    }

    /// Whether this node may advise to remove a member that looks dead to it.
    pub fn tells_who_is_gone(&self) -> bool {
        !self.reach.is_minority() && self.isolation.is_none()
    }

    /// Whether the operator has to insist (`--force`) to remove a member on this node.
    pub fn needs_force_to_remove(&self) -> bool {
        let is_certain = self.isolation.as_ref().is_some_and(|isolation| isolation.is_certain);
        self.reach.is_minority() || is_certain
    }
}

impl Isolation {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        let look = match (self.is_gone, self.down.is_empty()) {
            (true, _) => "look at this host's network first (`ip address`): the others may be up",
            (_, false) => "look at this host's cable first (`ip link`): the others may be up",
            _ => "look at this host's network first: the others may be up",
        };
        format!("{look}; {MEET}")
    }
}

/// What helps where the addresses on both sides changed, so that neither side finds the other.
pub const MEET: &str = "if addresses changed, get fresh Join Information on one of them (`peerage \
                        invite`), then here `peerage meet TOKEN`";

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reach: Reach { members, reached }, down, .. } = self;
        match reached {
            0 | 1 => f.write_str("this node reaches nobody")?,
            _ => write!(f, "this node reaches {} of {} other members", reached - 1, members - 1)?,
        }
        if self.since_the_start {
            f.write_str(" since its agent started")?;
        }
        match &down[..] {
            _ if self.is_gone => f.write_str("; this host has no address but its loopback"),
            [] => Ok(()),
            [card] => write!(f, "; {card} is down"),
            cards => write!(f, "; {} are down", cards.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::liveness::Tried;

    fn stands(state: State, since_s: u64) -> Standing {
        Standing {
            state,
            since: Duration::from_secs(since_s),
            why: Why::NoAnswer { tried: Tried::default() },
            boot: None,
            heard: Some(Duration::ZERO),
            rtt: None,
            through: None,
        }
    }

    fn network(cards: &[(&str, bool)]) -> Network {
        let card = |(name, is_up): &(&str, bool)| Card { name: (*name).into(), is_up: *is_up };
        Network::Cards(cards.iter().map(card).collect())
    }

    fn up() -> Network {
        network(&[("eth0", true)])
    }

    fn said(others: &[Standing], network: &Network) -> Option<String> {
        Sight::of(others, network).isolation.map(|isolation| isolation.to_string())
    }

    #[test]
    fn where_all_fall_silent_at_once_the_first_words_are_about_this_host() {
        let all = [stands(State::Down, 10), stands(State::Down, 14), stands(State::Down, 13)];
        assert_eq!(said(&all, &up()).unwrap(), "this node reaches nobody");
        let pulled = network(&[("eth0", false)]);
        assert_eq!(said(&all, &pulled).unwrap(), "this node reaches nobody; eth0 is down");
        let both = network(&[("eth0", false), ("eth1", false)]);
        assert_eq!(said(&all, &both).unwrap(), "this node reaches nobody; eth0, eth1 are down");
        let gone = "this node reaches nobody; this host has no address but its loopback";
        assert_eq!(said(&all, &Network::Gone).unwrap(), gone);
        let sight = Sight::of(&all, &up());
        assert!(!sight.tells_who_is_gone() && sight.needs_force_to_remove());
        let most = [&all[..], &[stands(State::Alive, 1)]].concat();
        assert_eq!(said(&most, &up()).unwrap(), "this node reaches 1 of 4 other members");
    }

    #[test]
    fn a_card_that_is_down_is_known_before_the_others_are_missed() {
        let pulled = network(&[("eth0", false)]);
        let soon = [stands(State::Suspect, 10)];
        assert_eq!(said(&soon, &pulled).unwrap(), "this node reaches nobody; eth0 is down");
        assert_eq!(said(&soon, &up()), None);
        // A second card that works may carry all of the traffic.
        assert_eq!(said(&soon, &network(&[("eth0", false), ("eth1", true)])), None);
        assert_eq!(said(&[stands(State::Alive, 1)], &pulled), None, "it is reached all the same");
        assert!(Sight::of(&soon, &pulled).needs_force_to_remove(), "one of two");
    }

    #[test]
    fn one_that_dies_alone_and_those_that_die_one_by_one_are_just_dead() {
        assert_eq!(said(&[stands(State::Down, 1)], &up()), None, "one of two");
        let one_of_three = [stands(State::Down, 1), stands(State::Alive, 0)];
        assert_eq!(said(&one_of_three, &up()), None);
        assert!(Sight::of(&one_of_three, &up()).tells_who_is_gone());
        let over_days = [stands(State::Down, 10), stands(State::Down, 90_000)];
        assert_eq!(said(&over_days, &up()), None);
        // As far as this node can tell, it is the last member that is left.
        assert!(Sight::of(&over_days, &up()).needs_force_to_remove());
    }

    #[test]
    fn agents_that_were_stopped_do_not_make_a_node_look_cut_off() {
        let stopped = [stands(State::Left, 1), stands(State::Left, 1), stands(State::Down, 2)];
        assert_eq!(said(&stopped, &up()), None);
        let silent = [stands(State::Left, 1), stands(State::Down, 1), stands(State::Down, 2)];
        assert!(said(&silent, &up()).is_some());
    }

    #[test]
    fn who_heard_of_nobody_since_its_start_is_told_how_to_meet_them() {
        let never = |state| Standing { why: Why::NeverHeard, heard: None, ..stands(state, 3) };
        let all = [never(State::Down), never(State::Down)];
        let isolation = Sight::of(&all, &up()).isolation.expect("it is alone");
        assert_eq!(isolation.to_string(), "this node reaches nobody since its agent started");
        assert!(isolation.hint().contains("peerage meet TOKEN"), "{}", isolation.hint());
        // In the first seconds the node knows nothing about any member yet.
        assert_eq!(said(&[never(State::Unknown), never(State::Unknown)], &up()), None);
    }

    proptest! {
        /// If two sides of different size cannot hear each other, the smaller one never removes
        /// members without force.
        #[test]
        fn a_side_that_is_the_smaller_always_needs_force(here in 1usize..20, there in 1usize..20) {
            prop_assume!(here < there);
            let alive = (1..here).map(|_| stands(State::Alive, 0));
            let others: Vec<_> = alive.chain((0..there).map(|_| stands(State::Down, 5))).collect();
            let sight = Sight::of(&others, &up());
            prop_assert!(sight.needs_force_to_remove() && !sight.tells_who_is_gone());
            prop_assert_eq!(sight.reach, Reach { members: here + there, reached: here });
        }
    }
}
