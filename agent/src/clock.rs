//! The present, measured for the rules: the only place of the agent that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use peerage_proto::time::Now;
use tokio::time::Instant;

/// Measures time since its own making, on tokio's clock, so that a simulation can hold it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The zero of this clock's monotonic time.
    pub fn zero(&self) -> Instant {
        self.start
    }

    /// The present.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.start.elapsed(), wall_ms: wall.as_millis() as u64 }
    }
}

/// The last millisecond of the year 9999, behind which RFC 3339 has no words.
const RFC3339_MS_MAX: u64 = 253_402_300_799_999;

/// A time for people and programs: RFC 3339 in UTC, to the millisecond. Any number reads, for it
/// may be another node's; those past the year 9999 as its end.
pub fn rfc3339(wall_ms: u64) -> String {
    let time = UNIX_EPOCH + std::time::Duration::from_millis(wall_ms.min(RFC3339_MS_MAX));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change that a host with a wild clock had signed brought down whoever showed it.
    #[test]
    fn any_number_of_milliseconds_is_shown() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        for wall_ms in [RFC3339_MS_MAX, (1 << 48) - 1, u64::MAX] {
            assert_eq!(rfc3339(wall_ms), "9999-12-31T23:59:59.999Z");
        }
    }
}
