//! The names of documents and of their fields.
//!
//! Names may be of any script. They are in Unicode's composed form (NFC, UAX #15), so that two
//! texts that look the same are one name: an `é` typed as one character and one typed as `e` with
//! an accent are the same. A name from a person or a program is composed when it comes in
//! ([`Path::setting`], [`Field::named`]); a name from another node must be composed already, or it
//! is refused. Invisible characters are refused, too: two names that look the same must not be two
//! documents. This includes the joiners of some scripts (ZWJ and ZWNJ): a word without them still
//! reads, and a name is no prose.

mod characters;

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use characters::{is_invisible, is_mark};

/// How long a path may be, in bytes.
pub const PATH_BYTES_MAX: usize = 512;

/// How long the name of a field may be, in bytes.
pub const FIELD_BYTES_MAX: usize = 128;

/// The first character of the paths that peerage keeps for itself (members, invitations). No
/// setting can be written there.
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
    /// A character that shows nothing.
    #[error(
        "{what} {text:?} holds the invisible character U+{:04X}: write it without that",
        u32::from(*.found)
    )]
    Invisible {
        /// A path or a field name.
        what: &'static str,
        /// The whole text.
        text: String,
        /// The character.
        found: char,
    },
    /// A mark, such as an accent, on nothing.
    #[error("{what} {text:?} has the mark U+{:04X} where there is no letter to bear it", u32::from(*.found))]
    Mark {
        /// A path or a field name.
        what: &'static str,
        /// The whole text.
        text: String,
        /// The mark.
        found: char,
    },
    /// A letter and an accent as two characters, where Unicode has one character for both. Only
    /// another node can give such a name: a name from a person or a program is composed first.
    #[error("{0} {1:?} is not in the composed form of Unicode (NFC)")]
    NotComposed(&'static str, String),
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
    /// The path of a setting: any path but the reserved ones. The text is composed first, and the
    /// bound holds for the composed text.
    ///
    /// # Errors
    /// [`NameError`], with what to write instead.
    pub fn setting(text: &str) -> Result<Self, NameError> {
        let path = composed(text).parse::<Self>()?;
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

    /// Whether the path begins with this text, letter by letter: `g1` and `gateway/lan` begin with
    /// `g`, and only paths below `storage` begin with `storage/`. Every path begins with the empty
    /// text.
    pub fn begins_with(&self, prefix: &str) -> bool {
        self.0.starts_with(&*composed(prefix))
    }

    /// Whether this path is `other` or lies below it, part by part: `web/a` lies below `web`, and
    /// `webmail` does not.
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        let rest = self.as_str().strip_prefix(other.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
    /// The field that a person or a program names. The text is composed first, and the bound holds
    /// for the composed text.
    ///
    /// # Errors
    /// [`NameError`], with what to write instead.
    pub fn named(text: &str) -> Result<Self, NameError> {
        composed(text).parse()
    }

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

/// A text in Unicode's composed form (NFC), as all names of documents and fields are.
pub fn composed(text: &str) -> Cow<'_, str> {
    match is_composed(text) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.nfc().collect()),
    }
}

fn is_composed(text: &str) -> bool {
    text.is_ascii()
        || match is_nfc_quick(text.chars()) {
            IsNormalized::Yes => true,
            IsNormalized::No => false,
            IsNormalized::Maybe => text.nfc().eq(text.chars()),
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
    // Whether a mark may come next: after a letter, a digit or another mark.
    let mut bears = false;
    for found in text.chars() {
        let wrong = |error: fn(&'static str, String, char) -> NameError| {
            Err(error(what, text.to_owned(), found))
        };
        if is_invisible(found) {
            return wrong(|what, text, found| NameError::Invisible { what, text, found });
        }
        let is_letter = found.is_alphanumeric();
        if !is_letter && is_mark(found) {
            if !bears {
                return wrong(|what, text, found| NameError::Mark { what, text, found });
            }
            continue;
        }
        if !(is_letter || "._-:+=,~@".contains(found) || also(found)) {
            return wrong(|what, text, found| NameError::Character { what, text, found });
        }
        bears = is_letter;
    }
    if is_composed(text) { Ok(()) } else { Err(NameError::NotComposed(what, text.to_owned())) }
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
    fn what_lies_at_or_below_a_path_has_all_its_parts() {
        let path = |text: &str| text.parse::<Path>().unwrap();
        for (text, is) in [("web", true), ("web/a", true), ("webmail", false), ("we", false)] {
            assert_eq!(path(text).is_at_or_below(&path("web")), is, "{text}");
        }
    }

    #[test]
    fn a_path_begins_with_its_first_letters_and_not_with_whole_parts_only() {
        let path = Path::setting("storage/caf\u{e9}1").unwrap();
        for start in ["", "s", "stor", "storage", "storage/", "storage/cafe\u{301}", path.as_str()]
        {
            assert!(path.begins_with(start), "{start}");
        }
        for other in ["t", "orage", "storage/nas", "/storage", "storage/caf\u{e9}1/x"] {
            assert!(!path.begins_with(other), "{other}");
        }
    }

    #[test]
    fn names_are_of_any_script_with_its_marks() {
        for good in [
            "ห้องเซิร์ฟเวอร์/ตู้1",
            "सर्वर/दिल्ली",
            "cafe\u{301}/nai\u{308}f",
            "q\u{307}\u{323}",
            "한글/서버",
        ] {
            let path = Path::setting(good).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(path.as_str(), &*composed(good));
            let field = good.split('/').next().unwrap();
            assert_eq!(Field::named(field).unwrap().as_str(), &*composed(field));
        }
    }

    #[test]
    fn what_reads_as_one_name_is_one_name() {
        assert_eq!(Path::setting("caf\u{e9}"), Path::setting("cafe\u{301}"));
        assert_eq!(Field::named("\u{212b}"), Field::named("A\u{30a}"));
        // Two marks in either order.
        assert_eq!(Field::named("q\u{323}\u{307}"), Field::named("q\u{307}\u{323}"));
    }

    /// A node takes a name from another node as it is, or refuses it. If each node composed it in
    /// its own way, two nodes would hold two documents.
    #[test]
    fn a_name_from_elsewhere_that_is_not_composed_is_refused() {
        for apart in ["cafe\u{301}", "q\u{307}\u{323}", "\u{1100}\u{1161}"] {
            let error = apart.parse::<Path>().unwrap_err();
            assert!(matches!(error, NameError::NotComposed(..)), "{error}");
            assert!(serde_json::from_value::<Path>(apart.into()).is_err());
            assert!(serde_json::from_value::<Field>(apart.into()).is_err());
        }
    }

    #[test]
    fn what_shows_nothing_is_refused_by_its_number() {
        for invisible in [
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{17b5}',
            '\u{180e}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{e0041}',
            '\u{e0100}',
        ] {
            let error = Path::setting(&format!("a{invisible}b")).unwrap_err().to_string();
            let number = format!("U+{:04X}", u32::from(invisible));
            assert!(error.contains("invisible") && error.contains(&number), "{error}");
            assert!(Field::named(&format!("a{invisible}b")).is_err());
        }
    }

    #[test]
    fn controls_private_characters_and_those_that_are_none_are_refused() {
        for bad in [
            '\0',
            '\n',
            '\u{7f}',
            '\u{85}',
            '\u{2028}',
            '\u{e000}',
            '\u{f8ff}',
            '\u{fdd0}',
            '\u{ffff}',
            '\u{10ffff}',
        ] {
            assert!(Path::setting(&format!("a{bad}b")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mark_needs_a_letter_to_bear_it() {
        for bad in ["\u{301}a", "a/\u{301}b", "a.\u{e48}"] {
            assert!(matches!(Path::setting(bad), Err(NameError::Mark { .. })), "{bad:?}");
        }
    }

    /// Composing makes U+FB2C longer, for it becomes a letter with two marks: the bound counts
    /// these.
    #[test]
    fn the_bound_holds_for_the_composed_name() {
        let apart = "e\u{301}".repeat(200);
        assert_eq!((apart.len(), composed(&apart).len()), (600, 400));
        assert!(Path::setting(&apart).is_ok());
        let grows = "\u{fb2c}".repeat(100);
        assert_eq!((grows.len(), composed(&grows).len()), (300, 600));
        assert!(matches!(Path::setting(&grows), Err(NameError::TooLong { found: 600, .. })));
        assert!(matches!(Field::named(&"e\u{301}".repeat(65)), Err(NameError::TooLong { .. })));
    }

    #[test]
    fn a_field_has_no_slash() {
        assert!("server".parse::<Field>().is_ok());
        assert!("a/b".parse::<Field>().is_err());
    }
}
