//! The binary form of all data that is signed, stored and sent: MessagePack maps with named fields.
//!
//! Named fields let different versions live together: a reader skips names that it does not know,
//! and fills missing fields by `#[serde(default)]`. Data that must keep even unknown fields (a
//! change that an older node passes on to a newer one) is kept as the bytes that were received.
//!
//! This module bounds the depth of decoding; the caller, which read the bytes, bounds their length.
//! A collection is never allocated larger than the bytes that are there to fill it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep maps and arrays may nest in decoded data. A JSON value in a document may nest
/// [`JSON_DEPTH_MAX`] levels; the rest is for the structures around it.
const DEPTH_MAX: usize = JSON_DEPTH_MAX + 16;

/// How deep a JSON value in a document may nest.
pub const JSON_DEPTH_MAX: usize = 32;

/// Why bytes cannot be decoded. The cause is the sender, or the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are more bytes than the bound allows.
    #[error("{found} bytes, more than the {bound} that are allowed")]
    TooLong {
        /// How many bytes there are.
        found: usize,
        /// How many bytes are allowed.
        bound: usize,
    },
    /// Bytes are left over after the value.
    #[error("{0} bytes are left over after the value")]
    LeftOver(usize),
    /// The bytes are not the form of such a value.
    #[error("not well-formed: {0}")]
    Malformed(String),
}

/// Encodes a value. It cannot fail for the types of this crate: each has a binary form.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("the types of this crate all have a binary form")
}

/// Decodes a value that takes up all of `bytes`, of which there are at most `bound`.
///
/// # Errors
/// [`DecodeError`], for bytes of any content and length; never a panic.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], bound: usize) -> Result<T, DecodeError> {
    if bytes.len() > bound {
        return Err(DecodeError::TooLong { found: bytes.len(), bound });
    }
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(DEPTH_MAX);
    let value =
        T::deserialize(&mut deserializer).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    match rest.len() {
        0 => Ok(value),
        left => Err(DecodeError::LeftOver(left)),
    }
}

/// How deep a JSON value nests; a scalar is 0.
pub fn json_depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(json_depth).max().unwrap_or(0),
        serde_json::Value::Object(map) => 1 + map.values().map(json_depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        let error = decode::<Value>(&[0xc0; 9], 8).unwrap_err();
        assert_eq!(error, DecodeError::TooLong { found: 9, bound: 8 });
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = [0x91; 100_000];
        assert!(decode::<Value>(&deep, deep.len()).is_err());
    }

    #[test]
    fn a_length_that_is_not_there_allocates_nothing() {
        // An array and a string that claim 4 GiB of content.
        assert!(decode::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff], 16).is_err());
        assert!(decode::<String>(&[0xdb, 0xff, 0xff, 0xff, 0xff], 16).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = decode::<Value>(&bytes, 4096);
        }
    }

    #[test]
    fn json_goes_there_and_back() {
        let value = json!({"a": [1, -1, 1.5, null, true], "b": {"c": "d"}, "big": u64::MAX});
        assert_eq!(decode::<Value>(&encode(&value), 1024).unwrap(), value);
        assert_eq!(json_depth(&value), 2);
    }
}
