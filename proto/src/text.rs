//! Text as people and their tools hand it over: with a byte order mark before it, with line ends of
//! another system, with comments between the lines, with invisible characters.
//!
//! None of these is part of the meaning. A text that is one word (Join Information, a password) is
//! read without them. A text that has lines (a configuration, a list of documents) keeps its lines,
//! so that an error still names the right line.

/// The byte order mark, which some editors put before a text.
const MARK: char = '\u{feff}';

/// The character that begins a comment line.
const COMMENT: char = '#';

/// Why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not text in UTF-8")]
pub struct NotText;

/// The text in the bytes of a file: UTF-8, or UTF-16 where a byte order mark says so, without the
/// mark.
///
/// # Errors
/// [`NotText`].
pub fn decoded(bytes: Vec<u8>) -> Result<String, NotText> {
    let wide = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        odd.is_empty().then(|| String::from_utf16(&units).ok()).flatten().ok_or(NotText)
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        _ => {
            let mut text = String::from_utf8(bytes).map_err(|_| NotText)?;
            if text.starts_with(MARK) {
                text.drain(..MARK.len_utf8());
            }
            Ok(text)
        }
    }
}

/// The text without the byte order mark that may stand before it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Whether a line says nothing: it is blank, or a comment.
pub fn says_nothing(line: &str) -> bool {
    let line = line.trim_start_matches(is_blank);
    line.is_empty() || line.starts_with(COMMENT)
}

/// The text with its comment lines made empty. The lines keep their numbers.
pub fn without_comments(text: &str) -> String {
    let line = |line: &str| if says_nothing(line) { String::new() } else { line.to_owned() };
    without_mark(text).lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The one word that a text holds, however it was broken into lines: without comments, blanks, line
/// ends and invisible characters.
pub fn one_word(text: &str) -> String {
    let lines = text.lines().filter(|line| !says_nothing(line));
    lines.flat_map(str::chars).filter(|c| !is_blank(*c)).collect()
}

/// Whether a character is blank or invisible. Chat windows and web pages insert invisible ones.
fn is_blank(c: char) -> bool {
    let unseen = ['\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', MARK];
    c.is_whitespace() || unseen.contains(&c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_line_ends_and_comments_are_no_part_of_a_word() {
        let text = "\u{feff}# for pve-7\r\nabc-\u{200b}de\r\n  # the rest\r\n f\u{a0}g\u{ad}\r\n";
        assert_eq!(one_word(text), "abc-defg");
        assert_eq!(one_word(" \r\n\u{feff}\n# nothing\n"), "");
    }

    #[test]
    fn lines_keep_their_numbers() {
        assert_eq!(without_comments("\u{feff}a\r\n # b\r\n#c\n\nd#e"), "a\n\n\n\nd#e");
    }

    #[test]
    fn a_file_of_another_system_is_text() {
        let wide = |text: &str, unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("{MARK}{text}").encode_utf16().flat_map(unit).collect()
        };
        assert_eq!(decoded(wide("é\r\n", u16::to_le_bytes)).unwrap(), "é\r\n");
        assert_eq!(decoded(wide("é\r\n", u16::to_be_bytes)).unwrap(), "é\r\n");
        assert_eq!(decoded("\u{feff}é".into()).unwrap(), "é");
        for no_text in [&b"\xff"[..], b"\xff\xfea", b"\xff\xfe\x00\xd8", b"\x80"] {
            assert_eq!(decoded(no_text.to_vec()), Err(NotText));
        }
    }

    proptest! {
        #[test]
        fn a_plain_word_is_itself_however_it_is_broken(word in "[A-Za-z0-9_-]{1,60}", every in 1..20usize) {
            let parts: Vec<&str> =
                word.as_bytes().chunks(every).map(|part| std::str::from_utf8(part).unwrap()).collect();
            prop_assert_eq!(one_word(&parts.join("\r\n ")), word);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decoded(bytes).map(|text| (one_word(&text), without_comments(&text)));
        }
    }
}
