//! Values as people read them: ages, sizes, ids and values of fields, and `-` for the unknown.

use peerage_proto::api::settings::Fields;
use peerage_proto::api::values;
use serde_json::Value;

/// What stands for the unknown.
pub(super) const UNKNOWN: &str = "-";

/// How many characters of an id or digest are shown to people.
const SHORT_CHARS: usize = 8;

/// The beginning of an id or digest, enough to tell a few apart.
pub(super) fn short(id: &str) -> &str {
    id.char_indices().nth(SHORT_CHARS).map_or(id, |(end, _)| &id[..end])
}

/// A text that is safe to print: control characters in a name or message from elsewhere are spelt
/// out, so that they cannot move the cursor or hide the text beside them. Line breaks stay.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // These characters change the direction of the text that follows, so that it reads as
        // something else.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (c.is_control() && c != '\n' && c != '\t') {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// As [`printable`], in one line: breaks in it are shown as spaces.
pub(super) fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

/// The text, or `-`.
pub(super) fn or_unknown(text: Option<&str>) -> &str {
    text.filter(|text| !text.is_empty()).unwrap_or(UNKNOWN)
}

/// An age in its largest unit, for a cell of a table: `0.4s`, `12s`, `5m`, `3h`, `2d`, `3y`. In
/// sentences `HowLong` is used instead.
pub(super) fn age(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7_200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.0}h", s / 3_600.0),
        s if s < 63_072_000.0 => format!("{:.0}d", s / 86_400.0),
        s => format!("{:.0}y", s / 31_536_000.0),
    }
}

/// A size in its largest unit.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        b if b < 1_000 => format!("{b} B"),
        b if b < 1_000_000 => format!("{:.1} kB", b as f64 / 1e3),
        b => format!("{:.1} MB", b as f64 / 1e6),
    }
}

/// A count with its noun: `1 node`, `2 nodes`.
pub(super) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A value as `set` would take it: a string without quotes, unless it would be read as something
/// else then.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) if reads_back(text) => printable(text),
        other => other.to_string(),
    }
}

fn reads_back(text: &str) -> bool {
    let read = values::typed(text);
    !text.is_empty() && !text.contains('\n') && read.is_ok_and(|read| read.as_str() == Some(text))
}

/// A value for scripts: a string without quotes.
pub(super) fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a change did: `set a=1 b=2, unset c`, or `removed`.
pub(super) fn change(set: &Fields, unset: &[String], removed: bool) -> String {
    if removed {
        return "removed".to_owned();
    }
    let mut parts = Vec::new();
    if !set.is_empty() {
        let set = set.iter().map(|(field, v)| format!("{}={}", printable(field), value(v)));
        parts.push(format!("set {}", set.collect::<Vec<_>>().join(" ")));
    }
    if !unset.is_empty() {
        parts.push(format!("unset {}", printable(&unset.join(" "))));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let told = [0.04, 9.94, 12.4, 119.0, 300.0, 10_800.0, 864_000.0, 1_795_721_663.0].map(age);
        assert_eq!(told, ["0.0s", "9.9s", "12s", "119s", "5m", "3h", "10d", "57y"]);
        assert_eq!(age(-1.0), "0.0s");
    }

    #[test]
    fn a_shown_value_can_be_set_again() {
        for shown in [
            json!("text"),
            json!("1"),
            json!(1),
            json!("true"),
            json!(""),
            json!([1]),
            json!("1.10"),
            json!(1.1),
            json!("7e10"),
            json!(7e10),
            json!("{\"a"),
            json!("[::]:1"),
            json!("-0"),
        ] {
            assert_eq!(values::typed(&value(&shown)).unwrap(), shown);
        }
        assert_eq!(value(&json!("1.10")), "1.10", "it needs no quotes");
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\r"), "a\\u{1b}[2Jb\\r");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(one_line("a\nb"), "a b");
        assert_eq!(value(&json!("\x1b[0m")), "\\u{1b}[0m");
        assert_eq!(value(&json!(["\x1b"])), "[\"\\u001b\"]");
    }

    #[test]
    fn an_id_is_shortened_between_characters() {
        assert_eq!(short("0123456789"), "01234567");
        assert_eq!(short("ééééééééé"), "éééééééé");
        assert_eq!(short("ab"), "ab");
    }
}
