//! Reads the records of a journal file in order, past damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::HEADER_LEN;
use super::record::{HEAD_AND_KEY_MAX, Head, Value};
use super::replay::Replay;

/// How much is read at once: large enough that the disk streams, small against the agent's memory.
const WINDOW_BYTES: usize = 256 * 1024;

/// Where a value lies in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    pub(super) at: u64,
    pub(super) len: usize,
}

/// What a scan came across.
#[derive(Debug)]
pub(super) struct Scanned<V> {
    pub(super) replay: Replay<V>,
    pub(super) records: u64,
}

/// Reads the first `len` bytes of the file and replays them, holding values as `keep` says.
pub(super) fn scan<V>(
    file: &File,
    len: u64,
    mut keep: impl FnMut(Value, Located) -> V,
) -> io::Result<Scanned<V>> {
    let start = HEADER_LEN as u64;
    let mut scanned = Scanned { replay: Replay::new(start), records: 0 };
    let mut window = Window { file, len, at: start, bytes: Vec::new() };
    let mut at = start;
    while at < len {
        let Some(head) = Head::parse(window.bytes(at, HEAD_AND_KEY_MAX)?, at) else {
            scanned.replay.gap();
            at = next_head(&mut window, at + 1)?;
            continue;
        };
        let value_at = at + head.len as u64;
        let located = Located { at: value_at, len: head.value_len };
        let bytes = window.bytes(value_at, head.value_len)?;
        let value = head.matches(bytes).then(|| keep(Value::from(bytes), located));
        let end = len.min(value_at + head.value_len as u64);
        // The head's own checksum holds, so its length is right, and the next record lies behind
        // the value whether that is whole or not.
        scanned.records += 1;
        scanned.replay.record(at, end, head, value);
        at = end;
    }
    Ok(scanned)
}

/// Where the next head begins at or after `at`, or the end.
fn next_head(window: &mut Window<'_>, mut at: u64) -> io::Result<u64> {
    while at < window.len {
        if Head::parse(window.bytes(at, HEAD_AND_KEY_MAX)?, at).is_some() {
            break;
        }
        at += 1;
    }
    Ok(at)
}

/// A part of the file in memory.
struct Window<'a> {
    file: &'a File,
    len: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `wanted` bytes from `at` on, or fewer where the file ends.
    fn bytes(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let end = self.at + self.bytes.len() as u64;
        if at < self.at || at + wanted as u64 > end {
            self.bytes.resize(wanted.max(WINDOW_BYTES).min(left), 0);
            self.at = at;
            self.file.read_exact_at(&mut self.bytes, at)?;
        }
        let from = usize::try_from(at - self.at).expect("the window holds it");
        Ok(&self.bytes[from..from + wanted])
    }
}
