//! The states of this node that need a person, in one place: a full disk, a clock that is off, a
//! host that reaches nobody.
//!
//! The code that finds such a state sets it here, as often as it likes, and clears it when it is
//! over. All else follows from that: the state shows in `status`, is told as an event when it
//! begins and when it ends, travels to all other nodes as a vital, and stands in the log once, and
//! after that, where it goes on failing, as a count at growing intervals. The rule is
//! `peerage_proto::notice`.

mod descriptors;
mod disk;

use std::sync::Arc;

use peerage_proto::notice::{Board, NoticeKind, Said, State};
use peerage_proto::time::HowLong;
use serde_json::json;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::feed::Feed;
use crate::feed::Happening;
use crate::host::clock::Clock;

pub use descriptors::watch_descriptors;
pub use disk::watch_disk;

/// The states that stand, and the way to set them. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    board: watch::Sender<Board>,
    happenings: Feed<Happening>,
    clock: Clock,
    name: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Notices {
    /// No state stands yet. `name` returns the name that this node has at that moment.
    pub fn new(
        happenings: Feed<Happening>,
        clock: Clock,
        name: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self { board: watch::Sender::default(), happenings, clock, name: Arc::new(name) }
    }

    /// Sets a kind of state, or clears it with `None`. To be called whenever the state may have
    /// changed; a state that has not changed is not told again.
    pub fn set(&self, kind: NoticeKind, state: Option<State>) {
        let now = self.clock.now();
        self.take(kind, |board| board.set(kind, state, now));
    }

    /// As [`Notices::set`], for a state that is told as an event of another kind: here it only
    /// shows.
    pub fn show(&self, kind: NoticeKind, state: Option<State>) {
        let now = self.clock.now();
        self.board.send_modify(|board| drop(board.set(kind, state, now)));
    }

    /// Says that something happened, perhaps once more, that makes this state stand. Each time is
    /// counted.
    pub fn again(&self, kind: NoticeKind, state: State) {
        let now = self.clock.now();
        self.take(kind, |board| board.again(kind, state, now));
    }

    /// Takes away states that ended together with what they were about. The event tells readers
    /// that the state stands no more, and not that it was mended.
    pub fn forget(&self, kinds: &[NoticeKind]) {
        let mut stood = Vec::new();
        self.board.send_if_modified(|board| {
            stood = board.forget(kinds);
            !stood.is_empty()
        });
        for kind in stood {
            self.tell(kind, "this ended with what it was about".to_owned(), "ends");
        }
    }

    /// The states that stand, as a value to read or to wait on.
    pub fn board(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    fn take(&self, kind: NoticeKind, change: impl FnOnce(&mut Board) -> Option<Said>) {
        let mut said = None;
        self.board.send_if_modified(|board| {
            let before = board.clone();
            said = change(board);
            *board != before
        });
        match said {
            None => {}
            Some(Said::Begins { message, hint }) => {
                let words = format!("{message}; {hint}");
                if kind.is_grave() {
                    error!("{words}")
                } else {
                    warn!("{words}")
                }
                self.tell(kind, words, "begins");
            }
            Some(Said::Again { message, times, lasted }) => {
                warn!("{message} ({times} times in {})", HowLong(lasted));
            }
            Some(Said::Ends { times, lasted }) => {
                let lasted = HowLong(lasted);
                let times = if times > 1 { format!(", {times} times") } else { String::new() };
                info!("{} (it lasted {lasted}{times})", kind.over());
                self.tell(kind, kind.over().to_owned(), "ends");
            }
        }
    }

    fn tell(&self, kind: NoticeKind, message: String, notice: &str) {
        let happening = Happening::here(kind.word(), &(self.name)(), message);
        let happening = Happening { data: json!({ "notice": notice }), ..happening };
        self.happenings.tell(happening, self.clock.now().wall_ms);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::feed::Next;

    /// Notices of a node `pve-1`, and the feed of its happenings.
    pub(crate) fn notices() -> (Notices, Feed<Happening>) {
        let happenings = Feed::new(1, Happening::bytes);
        (Notices::new(happenings.clone(), Clock::start(), || "pve-1".into()), happenings)
    }

    /// What was told so far, as `kind message`.
    pub(crate) async fn told(happenings: &Feed<Happening>) -> Vec<String> {
        let mut following = happenings.follow(None, false).unwrap();
        let mut told = Vec::new();
        while let Some(Next::Thing(numbered)) = following.next.recv().await {
            told.push(format!("{} {}", numbered.thing.kind, numbered.thing.message));
        }
        told
    }

    #[tokio::test]
    async fn a_state_is_told_when_it_begins_and_when_it_ends_and_shows_in_between() {
        let (notices, happenings) = notices();
        let full = || State::new("the disk is full", "free some space");
        notices.again(NoticeKind::Disk, full());
        notices.again(NoticeKind::Disk, full());
        let shown = notices.board().borrow().clone();
        let shown: Vec<_> = shown.standing().map(|(k, n)| (k, n.times)).collect();
        assert_eq!(shown, [(NoticeKind::Disk, 2)]);
        notices.set(NoticeKind::Disk, None);
        notices.set(NoticeKind::Disk, None);
        assert_eq!(notices.board().borrow().standing().count(), 0);
        let expected =
            ["disk the disk is full; free some space", "disk the disk takes what is written again"];
        assert_eq!(told(&happenings).await, expected);
    }
}
