//! The names of documents and of their fields.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How long a path may be, in bytes.
pub const PATH_BYTES_MAX: usize = 512;

/// How long the name of a field may be, in bytes.
pub const FIELD_BYTES_MAX: usize = 128;

/// What opens the paths that peerage keeps for itself (members, invitations). No setting can be
/// written there.
const RESERVED: char = '@';

/// Why a text names no document or no field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Longer than its bound.
    #[error("{what} is {found} bytes long; {bound} is the most")]
    TooLong {
        /// A path or a field name.
        what: &'static str,
        /// Its bytes.
        found: usize,
        /// The bound.
        bound: usize,
    },
    /// A character that names do not have.
    #[error(
        "{what} {text:?} holds {found:?}; letters, digits and . _ - : + = , ~ @ are allowed{}",
        if *.what == "the path" { ", with / between the parts" } else { "" }
    )]
    Character {
        /// A path or a field name.
        what: &'static str,
        /// The whole text.
        text: String,
        /// The character.
        found: char,
    },
    /// Two slashes in a row, one at an end, or a part `.` or `..`.
    #[error("the path {0:?} has an empty part, or one that is only dots; write it as storage/nas1")]
    Part(String),
    /// The space that peerage keeps for itself.
    #[error("paths that open with @ are kept for the Data Center's own records")]
    Reserved,
}

/// The path of a document, as `storage/nas1`: one or more parts, with slashes between.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(Box<str>);

impl Path {
    /// The path of a setting: any but the reserved ones.
    ///
    /// # Errors
    /// [`NameError`], with what to write instead.
    pub fn setting(text: &str) -> Result<Self, NameError> {
        let path = text.parse::<Self>()?;
        if path.is_reserved() { Err(NameError::Reserved) } else { Ok(path) }
    }

    /// Whether this is one of the Data Center's own records.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path lies at or below a prefix of whole parts; every path is below the empty
    /// prefix.
    pub fn is_below(&self, prefix: &str) -> bool {
        let prefix = prefix.trim_end_matches('/');
        match self.0.strip_prefix(prefix) {
            Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

impl FromStr for Path {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, "the path", PATH_BYTES_MAX, |c| c == '/')?;
        if text.split('/').any(|part| part.bytes().all(|b| b == b'.')) {
            return Err(NameError::Part(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Path {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0.into()
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a field of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Field(Box<str>);

impl Field {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Field {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, "the field name", FIELD_BYTES_MAX, |_| false)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Field {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Field> for String {
    fn from(field: Field) -> Self {
        field.0.into()
    }
}

impl Borrow<str> for Field {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(
    text: &str,
    what: &'static str,
    bound: usize,
    also: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > bound {
        return Err(NameError::TooLong { what, found: text.len(), bound });
    }
    let allowed = |c: char| c.is_alphanumeric() || "._-:+=,~@".contains(c) || also(c);
    match text.chars().find(|c| !allowed(*c)) {
        Some(found) => Err(NameError::Character { what, text: text.to_owned(), found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_parts() {
        for good in ["storage/nas1", "users/root@pam", "options", "網路/br0", "a.b/..c"] {
            assert!(Path::setting(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a//b", "a/", "/a", "..", "a/../b", "a b", "a?b", "a%2f", "@member/x"]
        {
            assert!(Path::setting(bad).is_err(), "{bad}");
        }
        assert!(Path::setting(&"a".repeat(513)).is_err());
    }

    #[test]
    fn below_means_whole_parts() {
        let path = Path::setting("storage/nas1").unwrap();
        for above in ["", "storage", "storage/", "storage/nas1"] {
            assert!(path.is_below(above), "{above}");
        }
        for beside in ["stor", "storage/nas", "storage/nas1/x"] {
            assert!(!path.is_below(beside), "{beside}");
        }
    }

    #[test]
    fn a_field_has_no_slash() {
        assert!("server".parse::<Field>().is_ok());
        assert!("a/b".parse::<Field>().is_err());
    }
}
