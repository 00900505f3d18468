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

/// A time for people and programs: RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(wall_ms: u64) -> String {
    let time = UNIX_EPOCH + std::time::Duration::from_millis(wall_ms);
    humantime::format_rfc3339_millis(time).to_string()
}
