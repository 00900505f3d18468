//! Server-sent events, read back into items.

use std::marker::PhantomData;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use peerage_proto::api::{ApiError, ErrorCode};
use serde::de::DeserializeOwned;

use super::client::not_understood;

/// The longest item.
const ITEM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An open stream of items.
#[derive(Debug)]
pub struct Subscription<T> {
    body: Incoming,
    reader: Reader,
    items: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscription<T> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, reader: Reader::default(), items: PhantomData }
    }

    /// The next item; `None` where the agent has ended the stream.
    ///
    /// # Errors
    /// [`ErrorCode::Unreachable`] where the stream broke; another code where an item makes no sense.
    pub async fn next(&mut self) -> Result<Option<T>, ApiError> {
        loop {
            if let Some(data) = self.reader.item()? {
                return serde_json::from_str(&data).map(Some).map_err(|e| not_understood(&e));
            }
            match self.body.frame().await {
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
}

/// Takes bytes, gives the data of one event after the other.
#[derive(Debug, Default)]
struct Reader {
    bytes: Vec<u8>,
    /// How many of the bytes have been read as lines.
    read: usize,
    data: String,
}

impl Reader {
    /// The data of the next whole event, if it is here already.
    fn item(&mut self) -> Result<Option<String>, ApiError> {
        while let Some(length) = self.bytes[self.read..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[self.read..self.read + length]);
            let line = line.trim_end_matches('\r');
            let ends = line.is_empty();
            // Comments, ids and names are of no use here: an item carries its id.
            if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
            self.read += length + 1;
            if ends && !self.data.is_empty() {
                return Ok(Some(std::mem::take(&mut self.data)));
            }
        }
        self.bytes.drain(..self.read);
        self.read = 0;
        if self.bytes.len() + self.data.len() > ITEM_BYTES_MAX {
            return Err(ApiError::new(ErrorCode::Failed, "the agent sent an item without an end"));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ":\n\nid: 1\ndata: {\"a\":1}\n\nid: 2\r\ndata: x\r\ndata:y\r\n\r\ndata: rest";
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
        }
    }

    #[test]
    fn an_item_without_an_end_is_not_kept_for_ever() {
        let mut reader = Reader { bytes: vec![b'x'; ITEM_BYTES_MAX + 1], ..Reader::default() };
        assert!(reader.item().is_err());
    }
}
