//! Whether it is this node that is cut off, where most others fall silent at once.
//!
//! To a node whose own cable is out all others look dead. It must not advise to put them out, nor do
//! so without being told twice: after the heal it would be alone with the whole Data Center. What it
//! can know is how many it reaches, whether they fell silent together, and what its own network cards
//! say.

use std::fmt;
use std::time::Duration;

use crate::liveness::{Standing, State, Why};

/// How far apart others may have been found to be down that fell silent at once: a node that hears
/// nobody finds it out of one after the other.
const AT_ONCE: Duration = Duration::from_secs(60);

/// From how many silent others on it is less likely that they all died than that this node is cut off.
const SILENT_MIN: usize = 2;

/// A network card of this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    /// What the host calls it.
    pub name: String,
    /// Whether it is switched on and its cable leads somewhere.
    pub is_up: bool,
}

/// What this host's network says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// Nothing: its agent is reached on the host itself only, or it cannot be asked.
    #[default]
    Unknown,
    /// It has these cards, at least one, with an address each.
    Cards(Vec<Card>),
    /// It has no address any more at which others could reach it.
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
    /// How many there are.
    pub members: usize,
    /// How many of them answer.
    pub reached: usize,
}

impl Reach {
    /// Whether the node reaches less than half of them: then there may be more elsewhere.
    pub fn is_minority(&self) -> bool {
        self.reached * 2 < self.members
    }
}

/// What a node can tell of its own place among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// How many it reaches.
    pub reach: Reach,
    /// Why it may itself be the one that is cut off.
    pub isolation: Option<Isolation>,
}

/// A node that may be cut off. Prints as a sentence about this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// How many it reaches, itself counted.
    pub reach: Reach,
    /// Whether it has heard of none of the silent ones since its agent started.
    pub since_the_start: bool,
    /// The cards that are down.
    pub down: Vec<String>,
    /// Whether the host has no address any more.
    pub is_gone: bool,
    /// Whether nothing can leave this host.
    pub is_certain: bool,
}

impl Sight {
    /// What a node can tell that sees all other members stand so.
    pub fn of<'a>(others: impl IntoIterator<Item = &'a Standing>, network: &Network) -> Self {
        let others: Vec<&Standing> = others.into_iter().collect();
        let count = |states: &[State]| others.iter().filter(|o| states.contains(&o.state)).count();
        let reach = Reach { members: others.len() + 1, reached: count(&[State::Alive]) + 1 };
        // Who said goodbye is silent for a reason that has nothing to do with the network.
        let expected = others.len() - count(&[State::Left]);
        // Those that were never heard since the start all seem to have fallen silent then: where some
        // other is reached, they may have been gone for long.
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

    /// Whether a member that looks dead from here may be advised to be removed.
    pub fn tells_who_is_gone(&self) -> bool {
        !self.reach.is_minority() && self.isolation.is_none()
    }

    /// Whether a removal here has to be insisted on.
    pub fn needs_force_to_remove(&self) -> bool {
        let is_certain = self.isolation.as_ref().is_some_and(|isolation| isolation.is_certain);
        self.reach.is_minority() || is_certain
    }
}

impl Isolation {
    /// What to do.
    pub fn hint(&self) -> String {
        let look = match (self.is_gone, self.down.is_empty()) {
            (true, _) => "look at this host's network first (`ip address`): the others may be up",
            (_, false) => "look at this host's cable first (`ip link`): the others may be up",
            _ => "look at this host's network first: the others may be up",
        };
        format!("{look}; {MEET}")
    }
}

/// What helps where addresses changed on both sides, so that neither finds the other.
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
        // A second card that works may be the one that carries it all.
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
        // It is the last that is left, as far as can be told from here.
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
        // In the first seconds nothing is known of anybody yet.
        assert_eq!(said(&[never(State::Unknown), never(State::Unknown)], &up()), None);
    }

    proptest! {
        /// Of any two sides that hear nobody of the other, at most one removes without force, but
        /// for two halves.
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
