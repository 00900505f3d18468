//! What happened in a world, in order: for people when a promise broke, as one number for comparing.

use std::fmt;

/// The offset and the prime of FNV-1a with 64 bits.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0000_0100_0000_01b3);

/// The events of one world.
#[derive(Debug, Clone)]
pub struct EventLog {
    lines: Vec<String>,
    digest: u64,
}

impl EventLog {
    /// The log in which nothing happened.
    pub fn new() -> Self {
        Self { lines: Vec::new(), digest: FNV.0 }
    }

    /// Notes an event.
    pub fn note(&mut self, time_ms: u64, event: fmt::Arguments<'_>) {
        let line = format!("{time_ms:>6} ms  {event}");
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(FNV.1);
        }
        self.lines.push(line);
    }

    /// A number that differs where any byte of any event differs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// How many events were noted.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The last `lines` events, one on each line.
    pub fn tail(&self, lines: usize) -> String {
        self.lines[self.lines.len().saturating_sub(lines)..].join("\n")
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}
