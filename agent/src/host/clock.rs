//! The present, measured for the rules: nowhere else does the agent read the wall clock for them.

use std::time::{SystemTime, UNIX_EPOCH};

use peerage_proto::time::Now;
use tokio::time::Instant;

/// Measures time since its own making, on tokio's clock, so that a simulation can hold it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall: Wall,
}

/// Where the time of day comes from.
#[derive(Debug, Clone, Copy)]
enum Wall {
    /// The host's clock, which may be set while the agent runs.
    Host,
    /// What the time of day was, in milliseconds since 1970, when the clock was made.
    Since(u64),
}

impl Clock {
    /// A clock that starts now, on a host that knows the time of day.
    pub fn start() -> Self {
        Self { start: Instant::now(), wall: Wall::Host }
    }

    /// A clock that starts now, when the time of day is `wall_ms`, in milliseconds since 1970. From
    /// here on both its times go as tokio's clock goes: what a simulated host has.
    pub fn start_at(wall_ms: u64) -> Self {
        Self { start: Instant::now(), wall: Wall::Since(wall_ms) }
    }

    /// The zero of this clock's monotonic time.
    pub fn zero(&self) -> Instant {
        self.start
    }

    /// The present.
    pub fn now(&self) -> Now {
        let mono = self.start.elapsed();
        let wall_ms = match self.wall {
            Wall::Host => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                wall.as_millis() as u64
            }
            Wall::Since(start_ms) => start_ms.saturating_add(mono.as_millis() as u64),
        };
        Now { mono, wall_ms }
    }
}

/// The last millisecond of the year 9999, the last year that RFC 3339 can write.
const RFC3339_MS_MAX: u64 = 253_402_300_799_999;

/// A time for people and programs: RFC 3339 in UTC, to the millisecond. Every number is accepted,
/// since another node may have sent it; one past the year 9999 is shown as the end of that year.
pub fn rfc3339(wall_ms: u64) -> String {
    let time = UNIX_EPOCH + std::time::Duration::from_millis(wall_ms.min(RFC3339_MS_MAX));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_handed_the_time_of_day_goes_on_from_it() {
        let clock = Clock::start_at(1_000);
        tokio::time::advance(std::time::Duration::from_millis(234)).await;
        let now = clock.now();
        assert_eq!((now.wall_ms, now.mono.as_millis()), (1_234, 234));
    }

    /// A host with a wrong clock signed a change with such a time, and the change brought down
    /// every program that showed it.
    #[test]
    fn any_number_of_milliseconds_is_shown() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        for wall_ms in [RFC3339_MS_MAX, (1 << 48) - 1, u64::MAX] {
            assert_eq!(rfc3339(wall_ms), "9999-12-31T23:59:59.999Z");
        }
    }
}
