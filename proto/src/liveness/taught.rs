//! The detector is taught the members that the roster names, and forgets those that it names no
//! more.

use std::collections::BTreeSet;
use std::time::Duration;

use foca::{Member, Timer};

use super::settling::Cause;
use super::timers::Alarm;
use super::{Entry, INCARNATION_LEFT, Liveness, Outputs, Standing, State, Why, pace};
use crate::id::NodeId;
use crate::time::Now;

impl Liveness {
    /// The roster names these members; this node may be among them or not.
    pub fn members(&mut self, now: Now, members: &BTreeSet<NodeId>) -> Outputs {
        self.wake(now);
        if self.gone {
            return self.outputs();
        }
        let gone: Vec<NodeId> =
            self.members.keys().filter(|node| !members.contains(node)).copied().collect();
        for node in gone {
            self.forget(node);
        }
        if self.members.is_empty() {
            self.outside.timers.presume_late(pace::health_at_start(members.len()));
        }
        let patience = pace::unknown_patience(members.len());
        for node in members {
            if *node != self.me && !self.members.contains_key(node) {
                self.teach(*node, patience);
            }
        }
        self.foca
            .set_config(pace::config(self.members.len() + 1))
            .expect("only what foca lets change differs");
        self.settle(Cause::Silence);
        self.outputs()
    }

    fn teach(&mut self, node: NodeId, patience: Duration) {
        let standing = Standing {
            state: State::Unknown,
            since: self.outside.now,
            why: Why::Taught,
            boot: None,
            heard: None,
            rtt: None,
            through: None,
        };
        let entry = Entry {
            standing,
            life: None,
            incarnation: 0,
            doubt: None,
            trusted_until: Duration::ZERO,
            missed_us: false,
            reprieves: 0,
            sought: Duration::ZERO,
        };
        self.members.insert(node, entry);
        self.away.insert((Duration::ZERO, node));
        self.unknown += 1;
        let deadline = self.outside.now + patience;
        self.outside.timers.set(deadline, Alarm::GiveUp(node));
        self.seek_at(self.outside.now);
    }

    fn forget(&mut self, node: NodeId) {
        let Some(entry) = self.members.remove(&node) else { return };
        self.away.remove(&(entry.sought, node));
        self.unknown -= usize::from(entry.standing.state == State::Unknown);
        if let Some(life) = entry.life {
            self.apply(Member::new(life, INCARNATION_LEFT, foca::State::Down), false);
            let _ = self.foca.handle_timer(Timer::RemoveDown(life), &mut self.outside);
        }
        self.outside.forget(node);
    }
}
