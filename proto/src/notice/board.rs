//! The board: which states stand, and when a state is told in the log or as an event.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{NoticeKind, Told};
use crate::repeats::Again;
use crate::time::Now;

/// A state in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    message: String,
    hint: String,
    grade: u8,
}

impl State {
    /// A state with its message and with what to do about it. Figures in the message may change
    /// while the state stands: they are shown, but the state is not told again.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), grade: 0 }
    }

    /// The same state with another grade. A state whose grade changes is told again.
    #[must_use]
    pub fn grade(self, grade: u8) -> Self {
        Self { grade, ..self }
    }
}

/// A state that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What there is.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// When it began, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often it has happened since then.
    pub times: u64,
    /// The message as it was told last.
    told: String,
    grade: u8,
    begun: Duration,
    say: Again,
}

/// What is to be told of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The state began, or has another grade. It is told in the log and as an event.
    Begins {
        /// What there is.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// It goes on failing. This is told in the log alone.
    Again {
        /// What there is.
        message: String,
        /// How often it has happened.
        times: u64,
        /// For how long the state has stood.
        lasted: Duration,
    },
    /// The state is over. This is told in the log and as an event.
    Ends {
        /// How often it happened.
        times: u64,
        /// For how long it stood.
        lasted: Duration,
    },
}

/// The states that stand. Of each kind there is one at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Board(BTreeMap<NoticeKind, Notice>);

impl Board {
    /// Records how a kind of state stands now; `None` where it does not stand. Answers what is to
    /// be told.
    pub fn set(&mut self, kind: NoticeKind, state: Option<State>, now: Now) -> Option<Said> {
        let Some(state) = state else {
            let ended = self.0.remove(&kind)?;
            let lasted = now.mono.saturating_sub(ended.begun);
            return Some(Said::Ends { times: ended.times, lasted });
        };
        let State { message, hint, grade } = state;
        let begins = Said::Begins { message: message.clone(), hint: hint.clone() };
        match self.0.get_mut(&kind) {
            Some(notice) if notice.grade == grade => {
                (notice.message, notice.hint) = (message, hint);
                None
            }
            Some(notice) => {
                (notice.told, notice.grade) = (message.clone(), grade);
                (notice.message, notice.hint) = (message, hint);
                Some(begins)
            }
            None => {
                let notice = Notice {
                    told: message.clone(),
                    message,
                    hint,
                    since_ms: now.wall_ms,
                    times: 1,
                    grade,
                    begun: now.mono,
                    say: Again::first(now.mono),
                };
                self.0.insert(kind, notice);
                Some(begins)
            }
        }
    }

    /// Records that something happened again that makes this state stand. Each time is counted, but
    /// only a few are told.
    pub fn again(&mut self, kind: NoticeKind, state: State, now: Now) -> Option<Said> {
        let stood = self.0.contains_key(&kind);
        let said = self.set(kind, Some(state), now);
        let Some(notice) = self.0.get_mut(&kind).filter(|_| stood) else { return said };
        notice.times += 1;
        if said.is_some() || !notice.say.is_due(now.mono) {
            return said;
        }
        notice.say.said(now.mono);
        let (message, times) = (notice.message.clone(), notice.times);
        Some(Said::Again { message, times, lasted: now.mono.saturating_sub(notice.begun) })
    }

    /// Takes away states whose subject is gone. Answers which of them stood.
    pub fn forget(&mut self, kinds: &[NoticeKind]) -> Vec<NoticeKind> {
        kinds.iter().filter(|kind| self.0.remove(kind).is_some()).copied().collect()
    }

    /// The states that stand, the gravest first.
    pub fn standing(&self) -> impl Iterator<Item = (NoticeKind, &Notice)> {
        self.0.iter().map(|(kind, notice)| (*kind, notice))
    }

    /// What the other nodes are told of these states. Each message stays as it was when the state
    /// began, so that a figure that changes is not sent again.
    pub fn told(&self) -> Vec<Told> {
        self.standing().map(|(kind, notice)| Told::new(kind, &notice.told)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: NoticeKind = NoticeKind::Disk;

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), wall_ms: 1000 * seconds }
    }

    fn full(message: &str) -> State {
        State::new(message, "free some space")
    }

    fn begins(message: &str) -> Option<Said> {
        Some(Said::Begins { message: message.into(), hint: "free some space".into() })
    }

    #[test]
    fn a_beginning_and_an_end_are_said_once() {
        let mut board = Board::default();
        assert_eq!(board.set(DISK, Some(full("full")), at(0)), begins("full"));
        assert_eq!(board.set(DISK, Some(full("fuller")), at(5)), None);
        let shown: Vec<_> = board.standing().map(|(_, n)| (&*n.message, n.since_ms)).collect();
        assert_eq!(shown, [("fuller", 0)]);
        assert_eq!(board.told(), [Told::new(DISK, "full")], "a figure that changes is no news");
        let ends = Said::Ends { times: 1, lasted: Duration::from_secs(9) };
        assert_eq!(board.set(DISK, None, at(9)), Some(ends));
        assert_eq!(board.set(DISK, None, at(10)), None);
    }

    #[test]
    fn another_grade_is_told_anew() {
        let mut board = Board::default();
        board.set(DISK, Some(full("nearly full")), at(0));
        assert_eq!(board.set(DISK, Some(full("full").grade(1)), at(5)), begins("full"));
        assert_eq!(board.told(), [Told::new(DISK, "full")]);
    }

    /// A full disk wrote two lines a second into the journal, for as long as it was full.
    #[test]
    fn what_fails_twice_a_second_for_a_day_is_said_a_few_times_and_counted() {
        let mut board = Board::default();
        let day = 24 * 3600;
        let said: Vec<_> =
            (0..2 * day).filter_map(|n| board.again(DISK, full("full"), at(n / 2))).collect();
        assert_eq!(said[0], begins("full").unwrap());
        let counts: Vec<_> = said[1..]
            .iter()
            .map(|said| match said {
                Said::Again { times, lasted, .. } => (*times, lasted.as_secs()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts[..3], [(121, 60), (361, 180), (841, 420)]);
        assert!(counts.len() < 13, "{counts:?}");
        assert_eq!(board.standing().next().unwrap().1.times, 2 * day);
    }

    #[test]
    fn the_gravest_stands_first_and_what_is_forgotten_stands_no_more() {
        let mut board = Board::default();
        for kind in [NoticeKind::Clock, NoticeKind::Peers, NoticeKind::Name] {
            board.set(kind, Some(full("x")), at(0));
        }
        let kinds: Vec<_> = board.standing().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [NoticeKind::Peers, NoticeKind::Clock, NoticeKind::Name]);
        let forgotten = board.forget(&[NoticeKind::Peers, NoticeKind::Disk]);
        assert_eq!(forgotten, [NoticeKind::Peers]);
        assert_eq!(board.set(NoticeKind::Peers, None, at(1)), None);
    }
}
