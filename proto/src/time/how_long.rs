//! A length of time in words.

use std::fmt;
use std::time::Duration;

/// The units above the second, the largest first, in seconds, with the word for one and for more. A
/// year is 365 days.
const UNITS: [(u64, &str, &str); 5] = [
    (365 * 86_400, "year", "years"),
    (86_400, "day", "days"),
    (3_600, "h", "h"),
    (60, "min", "min"),
    (1, "s", "s"),
];

/// From this count of the largest unit on, the next smaller unit is left out.
const COARSE_FROM: u64 = 10;

/// A length of time as a person reads it, only as exact as a person needs it: `40 ms`, `2.1 s`, `41
/// s`, `1 min 30 s`, `12 min`, `3 h 5 min`, `1 day 2 h`, `56 years`. Every message tells lengths of
/// time in this form. The rest is cut and never rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HowLong(pub Duration);

impl HowLong {
    /// So many milliseconds.
    pub const fn ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }
}

impl fmt::Display for HowLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, tenths) = (self.0.as_secs(), self.0.subsec_millis() / 100);
        match (seconds, self.0.as_millis()) {
            (_, 0) => return f.write_str("0 s"),
            (_, ms @ 1..100) => return write!(f, "{ms} ms"),
            (0..10, _) if tenths > 0 => return write!(f, "{seconds}.{tenths} s"),
            _ => {}
        }
        let largest = UNITS.iter().position(|(unit, ..)| seconds >= *unit);
        let largest = largest.unwrap_or(UNITS.len() - 1);
        let count = count(seconds, largest);
        write_unit(f, count, largest)?;
        // Beside years a few days are of no interest, and a month has no one length.
        let next = Some(largest + 1).filter(|next| *next < UNITS.len() && largest > 0);
        let rest = seconds % UNITS[largest].0;
        match next.map(|next| (next, self::count(rest, next))) {
            Some((next, more)) if count < COARSE_FROM && more > 0 => {
                f.write_str(" ")?;
                write_unit(f, more, next)
            }
            _ => Ok(()),
        }
    }
}

fn count(seconds: u64, unit: usize) -> u64 {
    seconds / UNITS[unit].0
}

fn write_unit(f: &mut fmt::Formatter<'_>, count: u64, unit: usize) -> fmt::Result {
    let (_, one, more) = UNITS[unit];
    write!(f, "{count} {}", if count == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_told_in_the_unit_that_a_person_reads() {
        for (ms, words) in [
            (0, "0 s"),
            (7, "7 ms"),
            (99, "99 ms"),
            (100, "0.1 s"),
            (2_149, "2.1 s"),
            (5_000, "5 s"),
            (5_040, "5 s"),
            (9_990, "9.9 s"),
            (41_200, "41 s"),
            (60_000, "1 min"),
            (61_500, "1 min 1 s"),
            (599_000, "9 min 59 s"),
            (725_000, "12 min"),
            (7_200_000, "2 h"),
            (11_100_000, "3 h 5 min"),
            (86_400_000, "1 day"),
            (90_000_000 + 3_600_000, "1 day 2 h"),
            (40 * 86_400_000, "40 days"),
            (365 * 86_400_000, "1 year"),
            (1_795_721_663_500, "56 years"),
        ] {
            assert_eq!(HowLong::ms(ms).to_string(), words, "{ms} ms");
        }
        assert_eq!(HowLong(Duration::from_nanos(900)).to_string(), "0 s");
    }

    #[test]
    fn the_longest_there_is_is_told_too() {
        assert!(HowLong(Duration::MAX).to_string().ends_with(" years"));
    }
}
