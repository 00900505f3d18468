//! Lines of the log that would repeat for as long as a peer goes on: the rule is
//! `peerage_proto::repeats`.

use std::sync::Mutex;

use peerage_proto::repeats::{Repeated, Repeats};
use tokio::time::Instant;

/// Lines of one kind, told apart by a key.
#[derive(Debug)]
pub struct Lines<K> {
    start: Instant,
    repeats: Mutex<Repeats<K>>,
}

impl<K: Ord> Lines<K> {
    /// Lines of which none was said yet.
    pub fn new() -> Self {
        Self { start: Instant::now(), repeats: Mutex::default() }
    }

    /// The same, of which `keys_max` are told apart.
    pub fn of(keys_max: usize) -> Self {
        Self { start: Instant::now(), repeats: Mutex::new(Repeats::of(keys_max)) }
    }

    /// Counts a line. Returns `Some` if the line is to be written, with what to put behind it.
    pub fn come(&self, key: K) -> Option<Repeated> {
        let now = self.start.elapsed();
        self.repeats.lock().expect("nothing panics while it is held").comes(key, now)
    }
}

impl<K: Ord> Default for Lines<K> {
    fn default() -> Self {
        Self::new()
    }
}
