//! Tells of what happens to the members, as events that others follow.

use crate::feed::{Feed, Happening};
use crate::host::clock::Clock;

/// Where a membership tells what happens.
#[derive(Clone)]
pub struct Chronicle {
    happenings: Feed<Happening>,
    clock: Clock,
}

impl Chronicle {
    /// A chronicle that dates what happens by a clock.
    pub(super) fn new(happenings: Feed<Happening>, clock: Clock) -> Self {
        Self { happenings, clock }
    }

    /// Tells of what happened now.
    pub(super) fn tell(&self, happening: Happening) {
        self.happenings.tell(happening, self.clock.now().wall_ms);
    }

    /// Tells of something about a member, as this node saw it.
    pub fn tell_of(&self, member: &str, kind: &'static str, message: String) {
        self.tell(Happening::here(kind, member, message));
    }
}
