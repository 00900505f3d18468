//! Values as they are typed and sent: taken as they are or refused, never altered.
//!
//! JSON has numbers of any length, but this program keeps numbers of 64 bits: a number that does
//! not fit would be rounded, and `1.10` would print as `1.1`. So each number is checked as it was
//! written. A number from a program (HTTP, a file) must keep its decimal value: `7e10` may print as
//! `70000000000.0`. A number from a person (the command line) must print back letter by letter. If
//! it does not and it is the whole value, it is taken as a text, which is mostly meant with `1.10`
//! and `007`.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

/// How much of what was written an error shows.
const SHOWN_CHARS: usize = 60;

/// A number that would be altered if it were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// Its place in the JSON, such as `set.size` or `[2].fields.x`; empty where it is the whole
    /// text.
    pub place: String,
    /// The number as it was written.
    pub written: String,
    /// The number as it would print; `None` where it is too large to be kept at all.
    pub becomes: Option<String>,
}

impl Altered {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        format!("write it in quotes to keep it as it is: \"{}\"", cut(&self.written))
    }
}

impl fmt::Display for Altered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the number {}", cut(&self.written))?;
        if !self.place.is_empty() {
            write!(f, " at {}", cut(&self.place))?;
        }
        match &self.becomes {
            Some(becomes) => write!(f, " would become {becomes}"),
            None => write!(f, " is larger than any that can be kept"),
        }
    }
}

impl std::error::Error for Altered {}

/// Why a text on the command line is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypedError {
    /// The text begins like JSON but is not valid JSON.
    #[error("it opens as JSON and is none: {0}; a text that opens so is written in double quotes")]
    NotJson(String),
    /// An object in its JSON has a name twice.
    #[error("{0}: one of the two values would be lost")]
    Twice(String),
    /// A number in its JSON would be altered.
    #[error("{0}; {hint}", hint = .0.hint())]
    Altered(Altered),
}

/// Why the JSON that a program sent is refused.
#[derive(Debug, thiserror::Error)]
pub enum SentError {
    /// It is not valid JSON, or not the JSON that is expected.
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
    /// An object in it has a name twice.
    #[error("{0}: one of the two values would be lost")]
    Twice(String),
    /// A number in it would be altered.
    #[error(transparent)]
    Altered(#[from] Altered),
}

/// Reads JSON that a program sent or that a file holds.
///
/// # Errors
/// [`SentError`].
pub fn sent<T: DeserializeOwned>(json: &str) -> Result<T, SentError> {
    let read = serde_json::from_str(json);
    // serde_json refuses a number that is too large. `IgnoredAny` accepts it, so that such a number
    // is named in the error.
    let whole = read.is_ok() || serde_json::from_str::<IgnoredAny>(json).is_ok();
    match altered(json).filter(|_| whole) {
        Some(altered) => Err(altered.into()),
        None => {
            let read = read?;
            let unique = serde_json::from_str::<Unique>(json).map(|_| read);
            unique.map_err(|error| SentError::Twice(error.to_string()))
        }
    }
}

/// JSON in which no object has a name twice: one of the two values would be lost silently.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Unique>()?;
            if names.contains(&name) {
                let words = format!("the name {:?} stands twice in one object", cut(&name));
                return Err(A::Error::custom(words));
            }
            names.insert(name);
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
        while list.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
}

/// The value that a text on the command line means. It is JSON if the text can be read as JSON and
/// would print back the same, else the text itself.
///
/// # Errors
/// [`TypedError`], where it is JSON with a fault, or with a number that would be altered.
pub fn typed(text: &str) -> Result<Value, TypedError> {
    let as_text = || Value::String(text.to_owned());
    let not_json = |error: &serde_json::Error| TypedError::NotJson(error.to_string());
    let value = serde_json::from_str::<Value>(text);
    // A text with a number that is too large counts as JSON, too: `IgnoredAny` accepts it.
    match (serde_json::from_str::<IgnoredAny>(text), &value) {
        (Ok(_), _) => {}
        (Err(_), Err(error)) if opens_as_json(text) => return Err(not_json(error)),
        (Err(_), _) => return Ok(as_text()),
    }
    match text.trim_start().chars().next() {
        Some('"') => value.map_err(|error| not_json(&error)),
        Some('{' | '[') => match first(text, prints_back) {
            Some(altered) => Err(TypedError::Altered(altered)),
            None => {
                let value = value.map_err(|error| not_json(&error))?;
                let unique = serde_json::from_str::<Unique>(text).map(|_| value);
                unique.map_err(|error| TypedError::Twice(error.to_string()))
            }
        },
        _ => {
            let prints_back = |value: &Value| prints_back(text, &value.to_string());
            Ok(value.ok().filter(prints_back).unwrap_or_else(as_text))
        }
    }
}

/// Whether a text begins in a way that only JSON does. `[::1]:80`, `{{name}}` and `[a-z]` are
/// texts.
fn opens_as_json(text: &str) -> bool {
    let text = text.trim_start();
    let second = text.get(1..).and_then(|rest| rest.trim_start().chars().next());
    matches!((text.chars().next(), second), (Some('{'), Some('"')) | (Some('['), Some('"' | '{')))
}

/// The first number in a JSON text whose decimal value would be altered. A text that is not JSON is
/// read as far as it goes.
pub fn altered(json: &str) -> Option<Altered> {
    first(json, |written, printed| decimal(written) == decimal(printed))
}

fn prints_back(written: &str, printed: &str) -> bool {
    written == printed
}

/// One level of nesting around the current position of a scan.
enum Step {
    /// In an object, after this name, and whether the next text is a name.
    Member { name: String, name_next: bool },
    /// In a list, at this element.
    Element(usize),
}

/// The first number that would be altered. `kept` compares the number as written with the number as
/// it would print.
fn first(json: &str, kept: fn(&str, &str) -> bool) -> Option<Altered> {
    let bytes = json.as_bytes();
    let mut steps: Vec<Step> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
                if let Some(Step::Member { name, name_next: true }) = steps.last_mut() {
                    let text = json.get(start..at).unwrap_or_default();
                    *name = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
                }
            }
            b'{' => steps.push(Step::Member { name: String::new(), name_next: true }),
            b'[' => steps.push(Step::Element(0)),
            b'}' | b']' => drop(steps.pop()),
            b':' => {
                if let Some(Step::Member { name_next, .. }) = steps.last_mut() {
                    *name_next = false;
                }
            }
            b',' => match steps.last_mut() {
                Some(Step::Member { name_next, .. }) => *name_next = true,
                Some(Step::Element(index)) => *index += 1,
                None => {}
            },
            b'-' | b'0'..=b'9' => {
                let more = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                at += bytes[at..].iter().take_while(more).count();
                if let Some(becomes) = judged(&json[start..at], kept) {
                    let written = json[start..at].to_owned();
                    return Some(Altered { place: place(&steps), written, becomes });
                }
            }
            _ => {}
        }
    }
    None
}

/// What a number would become if it is altered. A text that is no number gives `None` here, and the
/// JSON reader refuses it.
fn judged(written: &str, kept: fn(&str, &str) -> bool) -> Option<Option<String>> {
    match serde_json::from_str::<Number>(written) {
        Ok(number) => {
            let printed = number.to_string();
            (!kept(written, &printed)).then_some(Some(printed))
        }
        // It is a valid JSON number, but too large for 64 bits.
        Err(_) => serde_json::from_str::<IgnoredAny>(written).is_ok().then_some(None),
    }
}

/// The place in words: `set.size`, `[2].fields.x`.
fn place(steps: &[Step]) -> String {
    let mut place = String::new();
    for step in steps {
        match step {
            Step::Member { name, .. } if place.is_empty() => place.push_str(name),
            Step::Member { name, .. } => place.push_str(&format!(".{name}")),
            Step::Element(index) => place.push_str(&format!("[{index}]")),
        }
    }
    place
}

/// The decimal value of a JSON number, in a form that is the same for equal numbers: its sign, its
/// digits without zeros at either end, and the power of ten of the last digit.
fn decimal(number: &str) -> (bool, String, i64) {
    let (negative, rest) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    // A number with an exponent beyond 64 bits cannot be kept, so any large value will do.
    let beyond = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
    let exponent = exponent.strip_prefix('+').unwrap_or(exponent).parse().unwrap_or(beyond);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - kept.len()).unwrap_or(i64::MAX / 4);
    let places = i64::try_from(fraction.len()).unwrap_or(i64::MAX / 4);
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() {
        return (false, String::new(), 0);
    }
    let power = exponent.clamp(i64::MIN / 2, i64::MAX / 2) - places + zeros;
    (negative, kept.to_owned(), power)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Of two values with the same name only the last was kept, silently.
    #[test]
    fn a_name_that_stands_twice_is_refused_wherever_it_is() {
        for twice in [r#"{"a":1,"a":2}"#, r#"[{"b":{"a":1,"c":[],"\u0061":1}}]"#] {
            let error = sent::<Value>(twice).unwrap_err().to_string();
            assert!(error.contains("the name \"a\" stands twice"), "{error}");
            assert!(matches!(typed(twice), Err(TypedError::Twice(_))), "{twice}");
        }
        for once in [r#"{"a":{"a":1},"b":{"a":2.5,"c":null,"d":[true,-1,"a","a"]}}"#, "[]"] {
            assert!(sent::<Value>(once).is_ok() && typed(once).is_ok(), "{once}");
        }
    }

    #[test]
    fn a_typed_number_is_one_where_it_prints_back_as_it_was_typed() {
        for number in ["0", "-1", "1.5", "1.0", "18446744073709551615", "-9223372036854775808"] {
            assert!(typed(number).unwrap().is_number(), "{number}");
        }
        for text in [
            "1.10",
            "7e10",
            "1e3",
            "1E3",
            "123456789012345678901234567890",
            "-0",
            "1e400",
            "-1e400",
            "1e-400",
            "0x10",
            "NaN",
            "Infinity",
            "1_000",
            "+1",
            "007",
            "1.",
            ".5",
            " 1",
            "1 ",
            "--1",
            "0.10000000000000000001",
            "18446744073709551616",
            "10.0.0.5",
            "1,5",
            "- 1",
        ] {
            assert_eq!(typed(text).unwrap(), json!(text));
        }
    }

    #[test]
    fn other_json_is_taken_and_text_stays_text() {
        assert_eq!(typed("true").unwrap(), json!(true));
        assert_eq!(typed("null").unwrap(), json!(null));
        assert_eq!(typed("\"1.10\"").unwrap(), json!("1.10"));
        assert_eq!(typed("[1, \"x\"]").unwrap(), json!([1, "x"]));
        assert_eq!(typed("{\"a\": {}}").unwrap(), json!({"a": {}}));
        for text in [
            "", "True", " true", "a b", "[::1]:80", "{{name}}", "[a-z]", "{", "[", "\"open", "[1,2",
        ] {
            assert_eq!(typed(text).unwrap(), json!(text));
        }
    }

    #[test]
    fn what_opens_as_json_and_is_none_is_an_error_about_the_place() {
        for (text, words) in [
            ("{\"a\":1,}", "trailing comma at line 1 column 8"),
            ("[\"a\" \"b\"]", "expected `,` or `]` at line 1 column 6"),
            ("[{\"a\":1}", "EOF while parsing a list at line 1 column 8"),
            ("{ \"a\": }", "expected value at line 1 column 8"),
            ("[ { \"a\" }]", "expected `:` at line 1 column 9"),
        ] {
            let error = typed(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("double quotes"), "{text}: {error}");
        }
    }

    #[test]
    fn a_number_within_typed_json_is_refused_by_name_where_it_would_be_altered() {
        for (text, words) in [
            ("{\"vers\":[4,1.10]}", "the number 1.10 at vers[1] would become 1.1;"),
            ("[7e10]", "the number 7e10 at [0] would become 70000000000.0;"),
            ("[-0]", "the number -0 at [0] would become -0.0;"),
            ("{\"a\":{\"b\":1e400}}", "the number 1e400 at a.b is larger than any"),
        ] {
            let error = typed(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("in quotes"), "{text}: {error}");
        }
        assert!(typed("{\"a\":\"1.10 7e10\",\"1.10\":[\"\\\"1.10\"]}").is_ok(), "these are texts");
    }

    #[test]
    fn a_sent_number_may_print_otherwise_where_its_value_stays() {
        let same = r#"{"a":[1.10,7e10,-0,0.0e999,1E+2,100e-2,12345678901234567,9007199254740993]}"#;
        assert_eq!(altered(same), None);
        for (json, place, becomes) in [
            (r#"{"set":{"size":123456789012345678901234567890}}"#, "set.size", true),
            (r#"[{"fields":{"x":0.10000000000000000001}}]"#, "[0].fields.x", true),
            (r#"{"a":[0,[1],{"b,":1},1e400]}"#, "a[3]", false),
            (r#"{"a":1e-400}"#, "a", true),
            ("18446744073709551616", "", true),
            (r#"{"é\"":3.14159265358979323846}"#, "é\"", true),
        ] {
            let found = altered(json).unwrap_or_else(|| panic!("{json}"));
            assert_eq!((found.place.as_str(), found.becomes.is_some()), (place, becomes), "{json}");
        }
    }

    #[test]
    fn what_is_sent_is_read_or_refused_by_name() {
        assert_eq!(sent::<Value>("{\"a\":1.10}").unwrap(), json!({"a": 1.1}));
        assert!(matches!(sent::<Value>("{\"a\":1e400}"), Err(SentError::Altered(_))));
        assert!(matches!(sent::<Value>("{\"a\":1e400"), Err(SentError::Malformed(_))));
        assert!(matches!(sent::<Vec<u8>>("{}"), Err(SentError::Malformed(_))));
    }

    #[test]
    fn an_error_shows_a_bounded_part_of_what_was_written() {
        let long = "9".repeat(100_000);
        let error = altered(&long).unwrap();
        assert!(error.to_string().len() + error.hint().len() < 400, "{error}");
    }

    /// Texts that look like numbers, as people and programs write them.
    fn number() -> impl Strategy<Value = String> {
        let sign = prop_oneof![Just(""), Just("-"), Just("+")];
        let exponent = prop_oneof![
            3 => Just(String::new()),
            1 => (prop_oneof![Just("e"), Just("E"), Just("e+"), Just("e-")], 0..500u32)
                .prop_map(|(e, n)| format!("{e}{n}")),
        ];
        (sign, "[0-9]{1,25}", prop_oneof![Just(String::new()), "\\.[0-9]{0,25}"], exponent)
            .prop_map(|(sign, whole, fraction, exponent)| {
                format!("{sign}{whole}{fraction}{exponent}")
            })
    }

    /// A decimal number written out in full, by moving the decimal point one place at a time.
    fn written_out(number: &str) -> String {
        let (sign, rest) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let exponent: i32 = exponent.trim_start_matches('+').parse().unwrap();
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (mut whole, mut fraction) = (whole.to_owned(), fraction.to_owned());
        for _ in 0..exponent.max(0) {
            whole.push(if fraction.is_empty() { '0' } else { fraction.remove(0) });
        }
        for _ in exponent.min(0)..0 {
            fraction.insert(0, whole.pop().unwrap_or('0'));
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let sign = if whole.is_empty() && fraction.is_empty() { "" } else { sign };
        format!("{sign}{whole}.{fraction}")
    }

    proptest! {
        #[test]
        fn what_was_typed_alone_prints_as_it_was_typed(text in number()) {
            let value = typed(&text).unwrap();
            let printed = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            prop_assert_eq!(printed, text);
        }

        #[test]
        fn what_is_taken_has_the_decimal_value_that_was_sent(text in number()) {
            if let (Ok(Value::Number(number)), None) = (serde_json::from_str(&text), altered(&text)) {
                prop_assert_eq!(written_out(&number.to_string()), written_out(&text));
            }
        }

        #[test]
        fn what_is_refused_has_not(text in number()) {
            if let Some(Altered { becomes: Some(becomes), .. }) = altered(&text) {
                prop_assert_ne!(written_out(&becomes), written_out(&text));
            }
        }

        #[test]
        fn every_number_that_can_be_kept_goes_through_json_unaltered(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let text = json!(number).to_string();
            prop_assert_eq!(altered(&text), None);
            prop_assert_eq!(typed(&text).unwrap(), json!(number));
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read.as_f64().unwrap().to_bits(), bits);
            for whole in [json!(bits), json!(bits.cast_signed())] {
                prop_assert_eq!(typed(&whole.to_string()).unwrap(), whole);
            }
        }

        #[test]
        fn arbitrary_text_does_no_harm(text in "\\PC*", json in "[\\[\\]{}:,\"\\\\0-9e.é -]{0,40}") {
            for text in [text, json] {
                let _ = (typed(&text), altered(&text));
            }
        }
    }
}
