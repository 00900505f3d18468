//! The directions in which modules may know each other, read from the sources.
//!
//! The tables hold the graph as it is: a use that they do not name is an error, and so is an entry
//! that the sources do not have. A new module, or a new use between two modules, is decided here.

#[path = "directions/files.rs"]
mod files;
#[path = "directions/paths.rs"]
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use peerage_tests::binary;

/// The modules of `proto`, each with the modules of `proto` that it uses.
const PROTO: &[(&str, &[&str])] = &[
    ("access", &["id", "replica"]),
    ("address", &["codec"]),
    (
        "admission",
        &["address", "codec", "id", "identity", "invitation", "replica", "roster", "skew", "time"],
    ),
    ("allowance", &[]),
    ("api", &["access", "invitation", "notice", "replica", "text", "time", "values"]),
    ("backoff", &[]),
    ("bulk", &["backoff"]),
    ("codec", &[]),
    ("departure", &["id", "identity", "replica", "roster", "time"]),
    ("door", &["allowance"]),
    ("id", &[]),
    ("identity", &["id"]),
    ("invitation", &["address", "codec", "id", "identity", "text"]),
    ("isolation", &["liveness"]),
    ("links", &["address", "backoff"]),
    ("liveness", &["id", "time"]),
    ("notice", &["repeats", "time"]),
    ("repeats", &["backoff"]),
    ("replica", &["codec", "id", "identity", "time"]),
    ("roster", &["address", "id", "identity", "invitation", "links", "replica", "time"]),
    ("skew", &["id", "time"]),
    ("text", &[]),
    ("time", &[]),
    ("values", &[]),
    ("vitals", &["id", "notice"]),
    ("wire", &["address", "codec", "id", "replica", "roster"]),
];

/// The rooms of `agent`, each with the rooms that it uses.
const AGENT: &[(&str, &[&str])] = &[
    ("admission", &["host", "mesh", "repeats", "replica", "resolver", "store"]),
    ("api", &["admission", "feed", "host", "membership", "mesh", "node", "replica"]),
    ("cli", &[]),
    ("demo", &["cli"]),
    ("door", &["admission", "host", "membership", "mesh", "node", "repeats", "replica"]),
    ("feed", &[]),
    ("host", &["resolver", "store"]),
    ("http", &["api"]),
    ("membership", &["admission", "feed", "host", "mesh", "notices", "replica"]),
    ("mesh", &["repeats", "resolver"]),
    ("node", &["admission", "feed", "host", "membership", "mesh", "notices", "replica", "store"]),
    ("notices", &["feed", "host", "store"]),
    ("repeats", &[]),
    ("replica", &["host", "mesh"]),
    ("resolver", &[]),
    ("store", &[]),
];

/// Rooms of `agent` that may use only these modules of the rules; the others may use all.
const RULES: &[(&str, &[&str])] =
    &[("cli", &["api"]), ("demo", &["api"]), ("http", &["api", "access"])];

/// The modules that put everything together, or test it so, and may see everything.
const ROOTS: [&str; 4] = ["main", "lib", "daemon", "tests"];

#[test]
fn the_rules_know_each_other_as_written_here() {
    let wrong = wrong(&sources("proto/src"), &table(PROTO), None);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_agents_rooms_know_each_other_as_written_here() {
    let wrong = wrong(&sources("agent/src"), &table(AGENT), Some(&table(RULES)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_use_that_is_not_written_is_found_however_it_looks() {
    let graph = table(&[("id", &[]), ("roster", &["id"]), ("admission", &["roster"])]);
    let found = |module: &str, text: &str| against(module, text, &graph, None);
    for text in [
        "use crate::roster::Roster;",
        "use crate::{id::NodeId, roster::{Member, Roster}};",
        "use crate::{\n    id::NodeId,\n    roster,\n};",
        "pub(crate) use crate::roster;",
        "fn f() -> crate::roster::Roster { todo!() }",
        "use super::roster;",
    ] {
        let wrong = found("id", text);
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        assert!(wrong[0].contains("id uses roster"), "{wrong:?}");
        assert!(!found("admission", text).iter().any(|line| line.contains("roster")), "{text}");
    }
    for text in ["// use crate::roster::Roster;", "/// [`crate::roster`]", "//! crate::roster"] {
        assert!(found("id", text).is_empty(), "{text}");
    }
}

#[test]
fn a_room_that_reaches_too_far_is_found() {
    let (graph, rules) = (table(AGENT), table(RULES));
    for (module, text, line) in [
        ("store", "use crate::mesh::Pool;", "store uses mesh"),
        ("mesh", "use crate::store::Store;", "mesh uses store"),
        ("http", "use crate::replica::Handle;", "http uses replica"),
        ("cli", "use crate::host::Config;", "cli uses host"),
        ("cli", "use peerage_proto::roster::Roster;", "cli uses the rules of roster"),
        ("cli", "use peerage_proto::{api::Exit, roster};", "cli uses the rules of roster"),
        ("replica", "crate::daemon::run();", "replica uses daemon"),
        ("helpers", "", "helpers has no place"),
    ] {
        let wrong = against(module, text, &graph, Some(&rules));
        assert!(wrong.iter().any(|found| found.contains(line)), "{module}, {text}: {wrong:?}");
    }
}

/// The table once permitted 330 uses, of which 57 were made, so it told nothing of the sources any
/// more. It also named a module that was never written, and so permitted what nobody had thought
/// about.
#[test]
fn what_is_written_here_and_is_not_so_is_found() {
    let sources = [("a".to_owned(), "use crate::b;".to_owned()), ("b".to_owned(), String::new())];
    let all = |graph: &[(&str, &[&str])]| wrong(&sources, &table(graph), None);
    assert!(all(&[("a", &["b"]), ("b", &[])]).is_empty());
    let unused = all(&[("a", &["b"]), ("b", &["a"])]);
    assert!(unused.iter().any(|line| line.contains("b does not use a")), "{unused:?}");
    let missing = all(&[("a", &["b", "c"]), ("b", &[]), ("d", &[])]);
    assert!(missing.iter().any(|line| line.contains("there is no c")), "{missing:?}");
    assert!(missing.iter().any(|line| line.contains("there is no d")), "{missing:?}");
}

#[test]
fn rooms_that_know_each_other_in_a_circle_are_found() {
    let around = circle(&table(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &["a"])]));
    assert_eq!(around.expect("b and c know each other"), ["b", "c", "b"]);
    assert_eq!(circle(&table(PROTO)), None);
    assert_eq!(circle(&table(AGENT)), None);
}

/// What each module uses, or may use.
type Table = BTreeMap<String, BTreeSet<String>>;

fn table(rules: &[(&str, &[&str])]) -> Table {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    rules.iter().map(|(module, uses)| (module.to_string(), owned(uses))).collect()
}

/// Where the sources and the tables differ, in words. `sources` are the names of top modules with
/// their texts, one for each file.
fn wrong(sources: &[(String, String)], graph: &Table, rules: Option<&Table>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut made: Table = BTreeMap::new();
    for (module, text) in sources.iter().filter(|(module, _)| !ROOTS.contains(&module.as_str())) {
        wrong.extend(against(module, text, graph, rules));
        made.entry(module.clone()).or_default().extend(used(module, text, graph));
    }
    let named = graph.values().flatten().chain(graph.keys());
    let named: BTreeSet<_> = named.chain(rules.into_iter().flat_map(Table::keys)).collect();
    let missing = named.into_iter().filter(|name| !made.contains_key(*name));
    wrong.extend(missing.map(|name| format!("there is no {name}, which the table names")));
    for (module, made) in &made {
        let unused = graph.get(module).into_iter().flatten().filter(|name| !made.contains(*name));
        wrong.extend(
            unused.map(|name| format!("{module} does not use {name}: take it out of the table")),
        );
    }
    wrong
}

/// What one file uses against the tables, in words.
fn against(module: &str, text: &str, graph: &Table, rules: Option<&Table>) -> Vec<String> {
    let Some(may) = graph.get(module) else {
        return vec![format!("{module} has no place in the directions yet: give it one")];
    };
    let uses = used(module, text, graph).into_iter().filter(|name| !may.contains(name));
    let uses = uses.map(|name| format!("{module} uses {name}, against the direction"));
    let rules = rules.and_then(|rules| rules.get(module)).into_iter().flat_map(|may| {
        let heads = heads(&code(text), "peerage_proto::").into_iter();
        heads.filter(|name| name.starts_with(char::is_lowercase) && !may.contains(name))
    });
    let rules =
        rules.map(|name| format!("{module} uses the rules of {name}, which it need not know"));
    uses.chain(rules).collect()
}

/// The modules that one file of a module uses. Other names after `crate::` are those of items.
fn used(module: &str, text: &str, graph: &Table) -> BTreeSet<String> {
    let text = code(text);
    let mut used = heads(&text, "crate::");
    // In a top module, `super` is the crate.
    used.extend(heads(&text, "super::"));
    used.retain(|name| {
        name != module && (graph.contains_key(name) || ROOTS.contains(&name.as_str()))
    });
    used
}

/// Modules that know each other in a circle, where there are such.
fn circle(graph: &Table) -> Option<Vec<String>> {
    fn walk(graph: &Table, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let last = way.last().expect("a way has a start").clone();
        if let Some(first) = way[..way.len() - 1].iter().position(|name| *name == last) {
            way.drain(..first);
            return true;
        }
        for next in graph.get(&last).into_iter().flatten() {
            if !done.contains(next) {
                way.push(next.clone());
                if walk(graph, way, done) {
                    return true;
                }
            }
        }
        way.pop();
        done.insert(last);
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|name| {
        let mut way = vec![name.clone()];
        walk(graph, &mut way, &mut done).then_some(way)
    })
}

/// The text without comments.
fn code(text: &str) -> String {
    let without = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

/// The first name in every path that begins with the prefix: one name, or those of a group in
/// braces.
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
