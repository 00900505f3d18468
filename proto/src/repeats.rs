//! Log lines that would repeat: each is written at once, and then as a count at growing intervals.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::backoff::Backoff;

/// After which time a line that keeps coming is written again: for the first time, and at most.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(6 * 3600));

/// How many different lines are told apart. All further lines share one count.
pub const KEYS_MAX: usize = 256;

/// Remembers when each line was written; a key tells the lines apart. It takes bounded room,
/// whatever lines come.
#[derive(Debug)]
pub struct Repeats<K> {
    said: BTreeMap<K, Count>,
    keys_max: usize,
    /// The count that all lines share which came while `said` was full.
    beyond: Option<Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    /// How often the line came since it was written last.
    unsaid: u64,
    again: Again,
}

/// When a line or a state that goes on is to be told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    at: Duration,
    /// How often it was said again.
    times: u32,
}

impl Again {
    /// For something that is told for the first time now.
    pub fn first(now: Duration) -> Self {
        Self { at: now + AGAIN.wait(0), times: 0 }
    }

    /// Whether it is to be told again.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.at
    }

    /// Records that it is told now.
    pub fn said(&mut self, now: Duration) {
        self.times = self.times.saturating_add(1);
        self.at = now + self.after();
    }

    /// How long it rests between the time when it was said last and the next.
    fn after(&self) -> Duration {
        AGAIN.wait(self.times)
    }
}

/// The answer that a line is to be written, with how often it came without being written. It prints
/// as the text to append to the line: nothing the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated {
    /// How often the line came since it was written last.
    pub unsaid: u64,
    /// Whether lines of other keys are counted, too.
    pub mixed: bool,
}

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.unsaid, self.mixed) {
            (0, _) => Ok(()),
            (unsaid, false) => write!(f, " (and {unsaid} times more since this was said last)"),
            (unsaid, true) => write!(f, " (and {unsaid} more like it since the last such line)"),
        }
    }
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self::of(KEYS_MAX)
    }
}

impl<K> Repeats<K> {
    /// Tells `keys_max` different lines apart. It should be fewer than [`KEYS_MAX`] where strangers
    /// can cause ever new lines.
    pub fn of(keys_max: usize) -> Self {
        Self { said: BTreeMap::new(), keys_max, beyond: None }
    }
}

impl<K: Ord> Repeats<K> {
    /// Records that the line with this key comes now, by a clock that never goes back. Answers
    /// whether it is to be written.
    pub fn comes(&mut self, key: K, now: Duration) -> Option<Repeated> {
        if !self.said.contains_key(&key) && self.said.len() >= self.keys_max {
            self.said.retain(|_, count| !count.is_over(now));
        }
        if let Some(count) = self.said.get_mut(&key) {
            return count.comes(now).map(|unsaid| Repeated { unsaid, mixed: false });
        }
        if self.said.len() < self.keys_max {
            self.said.insert(key, Count::said(now));
            return Some(Repeated { unsaid: 0, mixed: false });
        }
        let unsaid = match &mut self.beyond {
            Some(count) => count.comes(now)?,
            none => {
                *none = Some(Count::said(now));
                0
            }
        };
        Some(Repeated { unsaid, mixed: true })
    }
}

impl Count {
    fn said(now: Duration) -> Self {
        Self { unsaid: 0, again: Again::first(now) }
    }

    /// Whether the line has not come for so long that it would be written as for the first time.
    fn is_over(&self, now: Duration) -> bool {
        now >= self.again.at + self.again.after()
    }

    fn comes(&mut self, now: Duration) -> Option<u64> {
        if !self.again.is_due(now) {
            self.unsaid += 1;
            return None;
        }
        let unsaid = std::mem::take(&mut self.unsaid);
        match self.is_over(now) {
            true => self.again = Again::first(now),
            false => self.again.said(now),
        }
        Some(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_line_is_said_at_once_and_then_counted_at_growing_intervals() {
        let mut repeats = Repeats::default();
        let said: Vec<(u64, u64)> = (0..24 * 3600)
            .filter_map(|second| Some((second, repeats.comes("refused", at(second))?.unsaid)))
            .collect();
        assert_eq!(said[..4], [(0, 0), (60, 59), (180, 119), (420, 239)]);
        let gaps: Vec<u64> = said.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.iter().all(|gap| *gap <= 6 * 3600) && said.len() < 15, "{said:?}");
    }

    #[test]
    fn lines_are_told_apart_and_one_that_was_over_is_said_anew() {
        let mut repeats = Repeats::default();
        assert!(repeats.comes("a", at(0)).is_some() && repeats.comes("b", at(1)).is_some());
        assert!(repeats.comes("a", at(2)).is_none());
        assert_eq!(repeats.comes("a", at(70)).unwrap().unsaid, 1);
        // The next count was due after 120 seconds, and the line did not come for 120 seconds more.
        assert_eq!(repeats.comes("a", at(400)).unwrap().unsaid, 0);
        assert!(repeats.comes("a", at(420)).is_none());
        assert!(repeats.comes("a", at(460)).is_some(), "it begins anew after 60 seconds");
    }

    /// 200 addresses that asked to be let in caused 200 lines.
    #[test]
    fn where_others_can_make_up_lines_few_are_told_apart() {
        let mut repeats = Repeats::of(8);
        let said = (0..10_000u64).filter_map(|n| repeats.comes(n % 200, at(n / 1000))).count();
        assert_eq!(said, 9);
    }

    #[test]
    fn a_thousand_strangers_share_one_count_and_make_room_when_they_are_gone() {
        let mut repeats = Repeats::default();
        let said = (0..10_000u64).filter_map(|n| repeats.comes(n, at(n / 1000))).count();
        assert_eq!(said, KEYS_MAX + 1);
        let next = repeats.comes(20_000, at(70)).unwrap();
        assert_eq!(next, Repeated { unsaid: 10_000 - KEYS_MAX as u64 - 1, mixed: true });
        assert!(next.to_string().contains("9743 more like it"), "{next}");
        assert_eq!(repeats.comes(30_000, at(200)).unwrap().to_string(), "");
        assert!(repeats.said.len() <= KEYS_MAX);
    }
}
