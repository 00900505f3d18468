//! A span of time as people write it: `90s`, `15m`, `24h`, `7d`, `1h30m`, `500ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The longest span: ten thousand days. With this bound, adding a span to the present time cannot
/// overflow.
const SPAN_MAX: Duration = Duration::from_secs(10_000 * 24 * 3600);

/// The units, the largest first, in milliseconds. A number alone counts seconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A span of time, of at most ten thousand days, in whole milliseconds. It travels as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// Why a text is not a span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// The text is not in the form of a span.
    #[error("a span of time such as 90s, 15m, 24h, 7d or 1h30m was expected, not {0:?}")]
    Malformed(String),
    /// The span is longer than ten thousand days.
    #[error("{0:?} is longer than 10000d")]
    TooLong(String),
}

impl Span {
    /// A span of whole seconds, at most ten thousand days.
    pub fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds).min(SPAN_MAX))
    }

    /// The span as a [`Duration`].
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        // The text that the error quotes is cut, since it may come from anywhere.
        let quoted = || text.chars().take(40).collect::<String>();
        let malformed = || SpanError::Malformed(quoted());
        let mut total_ms: u64 = 0;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(malformed());
        }
        while !rest.is_empty() {
            let (number, after) = split_at_first(rest, |c| !c.is_ascii_digit());
            let (unit, after) = split_at_first(after, |c| !c.is_ascii_alphabetic());
            let number: u64 = number.parse().map_err(|_| malformed())?;
            let unit_ms = match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, ms)) => *ms,
                None if unit.is_empty() && after.is_empty() && total_ms == 0 => 1000,
                None => return Err(malformed()),
            };
            total_ms = total_ms.saturating_add(number.saturating_mul(unit_ms));
            rest = after.trim_start();
        }
        match Duration::from_millis(total_ms) {
            span if span <= SPAN_MAX => Ok(Self(span)),
            _ => Err(SpanError::TooLong(quoted())),
        }
    }
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).expect("a span is far below 2^64 ms");
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit_ms) in UNITS {
            if rest >= unit_ms {
                write!(f, "{}{name}", rest / unit_ms)?;
                rest %= unit_ms;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a text, or a number of seconds.
impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span of time such as \"24h\", or a number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                seconds.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_back_from_its_text() {
        for (text, seconds) in [("90s", 90), ("24h", 86_400), ("1h30m", 5_400), ("7d", 604_800)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.duration(), Duration::from_secs(seconds));
            assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
        assert_eq!("45".parse(), Ok(Span::seconds(45)));
        assert_eq!("500ms".parse::<Span>().unwrap().duration(), Duration::from_millis(500));
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "1m30s");
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in ["", " ", "h", "1x", "-1s", "1.5h", "1h30", "30 1h", "1 h"] {
            assert!(matches!(text.parse::<Span>(), Err(SpanError::Malformed(_))), "{text:?}");
        }
        for text in ["10001d", "18446744073709551615d", "18446744073709551615h1h"] {
            assert!(matches!(text.parse::<Span>(), Err(SpanError::TooLong(_))), "{text:?}");
        }
    }

    #[test]
    fn json_may_count_seconds() {
        assert_eq!(serde_json::from_str::<Span>("60").unwrap(), Span::seconds(60));
        assert_eq!(serde_json::from_str::<Span>("\"1m\"").unwrap(), Span::seconds(60));
        assert!(serde_json::from_str::<Span>("-1").is_err());
    }
}
