//! Server-sent events, read back into items.

use std::marker::PhantomData;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use peerage_proto::api::events::{HEARTBEAT, Told};
use peerage_proto::api::{ApiError, ErrorCode};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::answerer::{Answerer, not_understood};

/// The longest item.
const ITEM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// For how long a stream may be silent. The agent says every few seconds that it is alive.
const SILENCE_MAX: Duration = HEARTBEAT.saturating_mul(3);

/// An open stream of items.
#[derive(Debug)]
pub struct Subscription<T> {
    body: Incoming,
    /// The agent that tells the stream.
    agent: Answerer,
    reader: Reader,
    items: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscription<T> {
    pub(super) fn new(body: Incoming, agent: Answerer) -> Self {
        Self { body, agent, reader: Reader::default(), items: PhantomData }
    }

    /// The next item or gap; `None` where the agent has ended the stream.
    ///
    /// # Errors
    /// [`ErrorCode::Unreachable`] where the stream broke or its agent hangs; another code where an
    /// item makes no sense.
    pub async fn next(&mut self) -> Result<Option<Told<T>>, ApiError> {
        loop {
            if let Some(data) = self.reader.item()? {
                return serde_json::from_str(&data).map(Some).map_err(|e| not_understood(&e));
            }
            let Ok(frame) = timeout(SILENCE_MAX, self.body.frame()).await else {
                return Err(self.agent.hangs(SILENCE_MAX));
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.reader.bytes.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    let message = format!("the stream broke off: {error}");
                    return Err(ApiError::new(ErrorCode::Unreachable, message));
                }
            }
        }
    }

    /// The place to which the stream has come; another stream can go on from it.
    pub fn place(&self) -> Option<&str> {
        self.reader.id.as_deref()
    }
}

/// Takes bytes, gives the data of one event after the other.
#[derive(Debug, Default)]
struct Reader {
    bytes: Vec<u8>,
    /// How many of the bytes have been read as lines.
    read: usize,
    /// Up to this offset there is no end of a line in the bytes that are not read yet. A long line
    /// comes in many pieces, and each piece is searched once.
    searched: usize,
    data: String,
    /// The id of the event that is being read.
    next_id: Option<String>,
    /// The id of the last event that was read to its end.
    id: Option<String>,
}

impl Reader {
    /// The data of the next whole event, if it is here already.
    fn item(&mut self) -> Result<Option<String>, ApiError> {
        while let Some(length) = self.line_bytes() {
            let line = String::from_utf8_lossy(&self.bytes[self.read..self.read + length]);
            let line = line.trim_end_matches('\r');
            let ends = line.is_empty();
            let value = |rest: &str| rest.strip_prefix(' ').unwrap_or(rest).to_owned();
            // Comments and names are of no use here.
            if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(&value(data));
            } else if let Some(id) = line.strip_prefix("id:") {
                self.next_id = Some(value(id));
            }
            self.read += length + 1;
            self.searched = self.read;
            if ends {
                self.id = self.next_id.take().or(self.id.take());
                if !self.data.is_empty() {
                    return Ok(Some(std::mem::take(&mut self.data)));
                }
            }
        }
        self.bytes.drain(..self.read);
        (self.read, self.searched) = (0, self.bytes.len());
        if self.bytes.len() + self.data.len() > ITEM_BYTES_MAX {
            return Err(ApiError::new(ErrorCode::Failed, "the agent sent an item without an end"));
        }
        Ok(None)
    }

    /// How long the next line is, if its end is here already.
    fn line_bytes(&self) -> Option<usize> {
        let from = self.searched.max(self.read);
        let found = self.bytes[from..].iter().position(|byte| *byte == b'\n')?;
        Some(from + found - self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ":\n\nid: 1\ndata: {\"a\":1}\n\nid: 2\r\ndata: x\r\ndata:y\r\n\r\nid: 3\n\nid: 4\ndata: rest";
        for size in 1..text.len() {
            let mut reader = Reader::default();
            let mut items = Vec::new();
            for part in text.as_bytes().chunks(size) {
                reader.bytes.extend_from_slice(part);
                while let Some(item) = reader.item().unwrap() {
                    items.push(item);
                }
            }
            assert_eq!(items, ["{\"a\":1}", "x\ny"], "in parts of {size}");
            assert_eq!(reader.id.as_deref(), Some("3"), "a place is told without an item, too");
        }
    }

    #[test]
    fn an_item_without_an_end_is_not_kept_for_ever() {
        let mut reader = Reader { bytes: vec![b'x'; ITEM_BYTES_MAX + 1], ..Reader::default() };
        assert!(reader.item().is_err());
    }
}
