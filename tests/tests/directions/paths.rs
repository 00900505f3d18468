//! Paths of modules and items, read from a source text.

use std::iter::{self, Peekable};
use std::str::Chars;

/// The path of a module or an item.
pub(super) type Name = Vec<String>;

/// A path that is imported, and the name that it is given by `as`.
pub(super) type Leaf = (Name, Option<String>);

/// What was not read yet.
type Text<'t> = Peekable<Chars<'t>>;

/// Whether a line declares the module that a file is.
pub(super) fn declares(line: &str, file: &str) -> bool {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(line) => line.trim_start_matches(|c| c != ' ').trim_start(),
        None => line,
    };
    line.strip_prefix("mod ").is_some_and(|line| line.strip_suffix(';') == Some(file))
}

/// The path from the crate on that a path in a module means; none where it is of another crate.
pub(super) fn absolute(path: &[String], module: &[String]) -> Option<Name> {
    let mut path = path.iter();
    let mut absolute = match path.next()?.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        _ => return None,
    };
    for name in path {
        match name.as_str() {
            "super" => drop(absolute.pop()),
            "self" => {}
            name => absolute.push(name.to_owned()),
        }
    }
    Some(absolute)
}

/// All paths of a text that begin at the crate or beside the module.
pub(super) fn paths(text: &str) -> Vec<Name> {
    let mut leaves = Vec::new();
    for head in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(head) {
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                leaves_of(&mut text[at..].chars().peekable(), &[], &mut leaves);
            }
        }
    }
    leaves.into_iter().map(|(path, _)| path).collect()
}

/// All that a text imports.
pub(super) fn imports(text: &str) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    for (at, head) in text.match_indices("use ") {
        leaves_of(&mut text[at + head.len()..].chars().peekable(), &[], &mut leaves);
    }
    leaves
}

/// Takes a path, or a tree of paths in braces, and notes each with the name that it is given by `as`.
fn leaves_of(text: &mut Text<'_>, before: &[String], leaves: &mut Vec<Leaf>) {
    let mut path = before.to_vec();
    loop {
        skip_spaces(text);
        if text.next_if_eq(&'{').is_some() {
            loop {
                skip_spaces(text);
                if text.next_if_eq(&'}').is_some() || text.peek().is_none() {
                    return;
                }
                leaves_of(text, &path, leaves);
                skip_spaces(text);
                if text.next_if_eq(&',').is_none() {
                    text.next_if_eq(&'}');
                    return;
                }
            }
        }
        let name = word(text);
        if name.is_empty() {
            break;
        }
        path.push(name);
        if text.next_if_eq(&':').is_none() || text.next_if_eq(&':').is_none() {
            break;
        }
    }
    let mut ahead = text.clone();
    skip_spaces(&mut ahead);
    let alias = (word(&mut ahead) == "as").then(|| {
        skip_spaces(&mut ahead);
        let alias = word(&mut ahead);
        *text = ahead;
        alias
    });
    leaves.push((path, alias));
}

fn word(text: &mut Text<'_>) -> String {
    iter::from_fn(|| text.next_if(|c| c.is_alphanumeric() || *c == '_')).collect()
}

fn skip_spaces(text: &mut Text<'_>) {
    while text.next_if(|c| c.is_whitespace()).is_some() {}
}

/// The text without what only tests compile. The sources are formatted, so an item ends with its first
/// line, or with the first bracket that closes as far to the right as the item begins.
pub(super) fn without_tests(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let ends = |line: &str| {
            let closes = line.get(indent..).is_some_and(|rest| rest.starts_with(['}', ']', ')']));
            closes && !line.ends_with('{')
        };
        let first = lines.by_ref().find(|line| !line.trim_start().starts_with("#["));
        if first.is_some_and(|first| !first.ends_with([';', ',', '}'])) {
            lines.by_ref().find(|line| ends(line));
        }
    }
    kept.join("\n")
}
