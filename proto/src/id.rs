//! Newtypes for ids that are bytes, so that an id of one kind cannot be passed as another.
//!
//! All ids print as lower-case hex: in full with `Display`, and as their first eight digits with
//! `short()`. They travel as hex in JSON and as bytes in the binary form.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id of {expected} hex digits was expected, not {found:?}")]
pub struct IdError {
    /// How many hex digits the id has.
    pub expected: usize,
    /// What was given, cut to 80 characters.
    pub found: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// How many bytes the id has.
            pub const LEN: usize = $len;

            /// The first eight hex digits: for people, never for comparing.
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..4])
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError {
                    expected: $len * 2,
                    found: text.chars().take(80).collect(),
                };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| wrong())?;
                Ok(Self(bytes.try_into().map_err(|_| wrong())?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Id;
                impl Visitor<'_> for Id {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} bytes, or as many hex digits twice", $len)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        bytes
                            .try_into()
                            .map($name)
                            .map_err(|_| E::invalid_length(bytes.len(), &self))
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Id)
                } else {
                    deserializer.deserialize_bytes(Id)
                }
            }
        }
    };
}

byte_id!(
    /// A node: the public half of its Ed25519 key (RFC 8032). It never changes while the node
    /// keeps its identity; its name may.
    NodeId,
    32
);

byte_id!(
    /// A Data Center, drawn at random when it is founded. Its name may change, and another Data
    /// Center may have the same name, so two nodes compare this id.
    DataCenterId,
    16
);

byte_id!(
    /// A user of the Data Center, drawn at random when it is added. Its name may change, so grants
    /// name users by this id.
    UserId,
    16
);

byte_id!(
    /// An invitation: the public half of the key that the Join Information carries.
    InviteId,
    32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_text_json_and_bytes() {
        let id = NodeId([7; 32]);
        assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json.len(), 66);
        assert_eq!(serde_json::from_str::<NodeId>(&json).unwrap(), id);
        let bytes = rmp_serde::to_vec_named(&id).unwrap();
        assert_eq!(bytes.len(), 34);
        assert_eq!(rmp_serde::from_slice::<NodeId>(&bytes).unwrap(), id);
    }

    #[test]
    fn a_wrong_length_is_named() {
        let error = "abcd".parse::<DataCenterId>().unwrap_err();
        assert_eq!(error.to_string(), "an id of 32 hex digits was expected, not \"abcd\"");
        assert!(rmp_serde::from_slice::<NodeId>(&[0xc4, 2, 1, 2]).is_err());
    }
}
