//! The directions in which modules may know each other, read from the sources.
//!
//! A rule names what a module of a crate may use of that same crate, and what of the rules it may
//! use. What a rule does not name is an error, so that a new module has to be given its place here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use peerage_tests::binary;

/// Modules of `proto`, each with all that it may use of `proto`. Who may use a module may use what
/// that one may use, so only the next step is written.
const PROTO: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("time", &[]),
    ("text", &[]),
    ("values", &[]),
    ("codec", &[]),
    ("address", &["codec"]),
    ("identity", &["id", "time", "codec"]),
    ("replica", &["identity"]),
    ("invitation", &["identity", "text", "address"]),
    // How many an invitation admits is judged by what its issuer signed.
    ("roster", &["replica", "links", "invitation"]),
    ("settings", &["replica"]),
    // Which identity asks, and what it asks for: it judges callers, not changes.
    ("access", &["replica"]),
    // A member whose own clock is wrong says by how much.
    ("admission", &["roster", "settings", "access", "skew", "text"]),
    ("wire", &["admission"]),
    ("api", &["admission", "notice", "values"]),
    ("liveness", &["id", "time", "codec"]),
    ("departure", &["roster"]),
    // It judges by what the failure detector believes.
    ("isolation", &["liveness"]),
    ("links", &["id", "time", "codec", "address"]),
    // How often a line is said again, who may come in, and what gets through: judged by times alone.
    ("repeats", &[]),
    ("bulk", &[]),
    ("door", &[]),
    ("notice", &["time", "repeats"]),
    ("vitals", &["id", "time", "codec", "notice"]),
    ("skew", &["id", "time", "codec"]),
];

/// Modules of `agent`, each with all that it may use of `agent`.
const AGENT: &[(&str, &[&str])] = &[
    // It starts the program anew, and knows nothing of it.
    ("again", &[]),
    ("clock", &[]),
    ("shutdown", &[]),
    ("signals", &[]),
    ("log", &[]),
    ("config", &[]),
    ("machine", &[]),
    ("happening", &[]),
    // It tells what it is told, and looks at the disk and at the process itself.
    ("notices", &["clock", "events", "happening", "store"]),
    ("receipts", &[]),
    ("store", &[]),
    ("repeats", &[]),
    ("resolver", &[]),
    ("mesh", &["repeats", "resolver"]),
    ("replica", TASKS),
    ("sync", TASKS),
    ("liveness", TASKS),
    ("vitals", TASKS),
    ("admission", TASKS),
    ("membership", TASKS),
    ("events", TASKS),
    ("gate", TASKS),
    ("evidence", TASKS),
    // A record, which no task owns.
    ("past", &[]),
    ("links", TASKS),
    // It writes beside the journal what the membership shows.
    ("label", &["membership", "node", "store"]),
    ("joining", TASKS),
    ("node", TASKS),
    ("seed", TASKS),
    ("timekeeping", TASKS),
    ("twins", TASKS),
    ("supervision", TASKS),
    // It takes the configuration's own form of where the Join Information is.
    ("unattended", &["config", "api", "joining", "node"]),
    ("api", TASKS),
    ("http", &["api"]),
    ("web", &["api"]),
    ("cli", &[]),
    ("demo", &["cli"]),
];

/// The tasks, and what they share: they get handles of each other.
const TASKS: &[&str] = &[
    "clock",
    "shutdown",
    "store",
    "mesh",
    "repeats",
    "resolver",
    "replica",
    "sync",
    "liveness",
    "vitals",
    "admission",
    "membership",
    "events",
    "gate",
    "evidence",
    "past",
    "joining",
    "node",
    "seed",
    "links",
    "notices",
    "happening",
    "receipts",
    "machine",
    "timekeeping",
    "twins",
];

/// Modules of `agent` that may use only so much of the rules; the others may use all.
const RULES: &[(&str, &[&str])] =
    &[("cli", &["api"]), ("demo", &["api"]), ("http", &["api", "access"]), ("web", &["api"])];

/// The modules that put everything together, or test it so, and may see everything.
const ROOTS: [&str; 4] = ["main", "lib", "daemon", "tests"];

#[test]
fn the_rules_know_each_other_in_one_direction() {
    let wrong = broken(&sources("proto/src"), &closed(PROTO), None);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_agents_modules_know_each_other_as_designed() {
    let wrong = broken(&sources("agent/src"), &table(AGENT), Some(&table(RULES)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_use_against_the_direction_is_found_however_it_is_written() {
    let allowed = closed(PROTO);
    for text in [
        "use crate::roster::Roster;",
        "use crate::{id::NodeId, roster::{Member, Roster}};",
        "use crate::{\n    id::NodeId,\n    roster,\n};",
        "pub(crate) use crate::roster;",
        "fn f() -> crate::roster::Roster { todo!() }",
        "use super::roster;",
    ] {
        let wrong = broken(&[("id".into(), text.into())], &allowed, None);
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        assert!(wrong[0].contains("id uses roster"), "{wrong:?}");
        let right = broken(&[("admission".into(), text.into())], &allowed, None);
        assert!(right.is_empty(), "{right:?}");
    }
    for text in ["// use crate::roster::Roster;", "/// [`crate::roster`]", "//! crate::roster"] {
        assert!(broken(&[("id".into(), text.into())], &allowed, None).is_empty(), "{text}");
    }
}

#[test]
fn an_agents_module_that_reaches_too_far_is_found() {
    let (allowed, rules) = (table(AGENT), table(RULES));
    for (module, text, found) in [
        ("store", "use crate::mesh::Pool;", "store uses mesh"),
        ("mesh", "use crate::store::Store;", "mesh uses store"),
        ("http", "use crate::replica::Handle;", "http uses replica"),
        ("cli", "use crate::config::Config;", "cli uses config"),
        ("cli", "use peerage_proto::roster::Roster;", "cli uses the rules of roster"),
        ("cli", "use peerage_proto::{api::Exit, roster};", "cli uses the rules of roster"),
        ("replica", "crate::daemon::run();", "replica uses daemon"),
        ("helpers", "", "helpers has no place"),
    ] {
        let wrong = broken(&[(module.into(), text.into())], &allowed, Some(&rules));
        assert!(wrong.iter().any(|line| line.contains(found)), "{module}, {text}: {wrong:?}");
    }
}

/// What each module may use.
type Table = BTreeMap<String, BTreeSet<String>>;

fn table(rules: &[(&str, &[&str])]) -> Table {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    rules.iter().map(|(module, uses)| (module.to_string(), owned(uses))).collect()
}

/// With all that is used by what is used.
fn closed(rules: &[(&str, &[&str])]) -> Table {
    let mut table = table(rules);
    loop {
        let mut grown = table.clone();
        for uses in grown.values_mut() {
            let further = uses.iter().flat_map(|used| table[used].clone()).collect::<Vec<_>>();
            uses.extend(further);
        }
        if grown == table {
            return table;
        }
        table = grown;
    }
}

/// What goes against the tables, in words. `sources` are the names of top modules with their texts.
fn broken(sources: &[(String, String)], allowed: &Table, rules: Option<&Table>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (module, text) in sources {
        if ROOTS.contains(&module.as_str()) {
            continue;
        }
        let Some(may) = allowed.get(module) else {
            wrong.push(format!("{module} has no place in the directions yet: give it one"));
            continue;
        };
        let text = code(text);
        let known = |name: &String| allowed.contains_key(name) || ROOTS.contains(&name.as_str());
        let mut used = heads(&text, "crate::");
        // One step up from a top module is the crate.
        used.extend(heads(&text, "super::").into_iter().filter(known));
        for name in used.into_iter().filter(|name| name != module && known(name)) {
            // A file below its module says `super::` for its siblings, of the same name or not.
            if !may.contains(&name) {
                wrong.push(format!("{module} uses {name}, against the direction"));
            }
        }
        if let Some(may) = rules.and_then(|rules| rules.get(module)) {
            for name in heads(&text, "peerage_proto::") {
                if name.starts_with(|c: char| c.is_lowercase()) && !may.contains(&name) {
                    wrong
                        .push(format!("{module} uses the rules of {name}, which it need not know"));
                }
            }
        }
    }
    wrong
}

/// The text without comments.
fn code(text: &str) -> String {
    let without = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

/// The first name of every path that begins so: one, or those of a group in braces.
fn heads(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut heads = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            heads.insert(name(rest));
            continue;
        };
        let (mut depth, mut at_start) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if at_start && !c.is_whitespace() => {
                    heads.insert(name(&group[at..]));
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    heads
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Every source file below a folder, under the name of the top module that it belongs to.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = binary::workspace().join(folder);
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(!found.is_empty(), "no sources in {}", root.display());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let top = path.strip_prefix(root).unwrap().components().next().unwrap();
            let top = Path::new(&top).file_stem().unwrap().to_str().unwrap().to_owned();
            let mut text = fs::read_to_string(&path).unwrap();
            if path.parent() != Some(root) {
                // Below a module `super` is the module, unless it is said twice.
                text = text.replace("super::super::", "crate::").replace("super::", "self::");
            }
            found.push((top, text));
        }
    }
}
