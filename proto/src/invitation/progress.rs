//! How much of a string a text holds: where the string comes line by line, this tells when all of
//! it is there.

use data_encoding::BASE64URL_NOPAD;

use super::form::{Form, OPENING_LEN};
use super::secret::SECRET_LEN;
use super::{CHECK_LEN, PREFIX, TOKEN_CHARS_MAX, checked};
use crate::identity::SIGNATURE_LEN;
use crate::text;

/// How much of a string there is, where it comes line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All of it, by its length and its checksum.
    Whole,
    /// A beginning.
    More,
    /// Neither: no further line makes it Join Information of this version.
    Wrong,
}

/// How much of a string of this version a text holds.
pub fn progress(text: &str) -> Progress {
    let text = text::one_word(text);
    let Some(encoded) = text.strip_prefix(PREFIX) else {
        return if PREFIX.starts_with(&text) { Progress::More } else { Progress::Wrong };
    };
    let foreign = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_';
    if text.len() > TOKEN_CHARS_MAX || encoded.bytes().any(foreign) {
        return Progress::Wrong;
    }
    // Four characters are three bytes, of which two tell the length of what follows.
    let Some(Ok(opening)) = encoded.get(..4).map(|four| BASE64URL_NOPAD.decode(four.as_bytes()))
    else {
        return Progress::More;
    };
    let lengths = match Form::of([opening[0], opening[1]]) {
        Some(Form::Short { content }) => content..=content,
        Some(Form::Long { terms }) => {
            let bare = terms + SIGNATURE_LEN;
            bare..=bare + SECRET_LEN
        }
        None => return Progress::Wrong,
    };
    let chars = |content: &usize| BASE64URL_NOPAD.encode_len(OPENING_LEN + content + CHECK_LEN);
    let is_whole =
        || BASE64URL_NOPAD.decode(encoded.as_bytes()).is_ok_and(|b| checked(&b).is_some());
    match encoded.len() {
        length if length < chars(lengths.start()) => Progress::More,
        length if length == chars(lengths.start()) && is_whole() => Progress::Whole,
        length if length < chars(lengths.end()) => Progress::More,
        length if length == chars(lengths.end()) && is_whole() => Progress::Whole,
        _ => Progress::Wrong,
    }
}
