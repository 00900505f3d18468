//! Inside a room, files know each other in one direction only, so that each can be read with those
//! below it alone.
//!
//! A room is a folder of modules. Its files, and the folders in it, are what knows each other there;
//! what a folder holds is looked at as a room of its own. The file that opens the room
//! (`mod.rs`, or the file beside the folder with the folder's name) puts the others together and is
//! left out, as tests are; a name that it passes on counts as a use of the file that has the name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use peerage_tests::binary;

use super::paths::{Name, absolute, declares, imports, paths, without_tests};
use super::{Table, code};

/// Circles that are known and not ended yet: the room, and all files that are in the circle. One that
/// is no circle any more, or a smaller one, is to be taken out of here.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "proto/src/api",
        &[
            "apply",
            "events",
            "invites",
            "links",
            "members",
            "node",
            "operation",
            "settings",
            "table",
        ],
    ),
    ("proto/src/roster", &["acceptance", "member", "precedence", "records"]),
];

#[test]
fn the_files_of_a_room_know_each_other_in_no_circle_but_the_known_ones() {
    let rooms: Vec<Room> = ["agent/src", "proto/src"].into_iter().flat_map(rooms).collect();
    assert!(rooms.iter().any(|room| room.name == "agent/src/mesh" && room.files.len() > 20));
    let circles = rooms.iter().flat_map(Room::circles);
    let found: BTreeMap<_, _> =
        circles.map(|circle| ((circle.room, circle.files), circle.uses)).collect();
    let owned = |(room, files): &(&str, &[&str])| {
        (room.to_string(), files.iter().map(ToString::to_string).collect::<BTreeSet<_>>())
    };
    let known: BTreeSet<_> = KNOWN.iter().map(owned).collect();
    let new: Vec<_> = found.iter().filter(|(circle, _)| !known.contains(circle)).collect();
    assert!(new.is_empty(), "files know each other in a circle: {new:#?}");
    let gone: Vec<_> = known.iter().filter(|circle| !found.contains_key(circle)).collect();
    assert!(gone.is_empty(), "take out of the table what is no circle any more: {gone:#?}");
}

#[test]
fn a_circle_of_files_is_found_however_they_name_each_other() {
    let opens = "mod a;\nmod b;\nmod c;\npub use a::{A, X as Y};\nuse crate::room::b::B;";
    let circle = |a: &str, b: &str| {
        let files = [("a", a), ("b", b), ("c", "")];
        let files = files.map(|(name, text)| (name.to_owned(), vec![(vec![], text.to_owned())]));
        let room = Room::new("agent/src/room", &["room"], opens, files.into());
        room.circles().into_iter().map(|circle| circle.files).collect::<Vec<_>>()
    };
    for to_a in
        ["use super::a::X;", "use super::{a, c::C};", "use super::Y;", "fn f(_: super::A) {}"]
    {
        for to_b in ["use crate::room::{\n    b::Z,\n};", "use crate::room::B;", "use super::b;"] {
            assert_eq!(circle(to_b, to_a), [["a", "b"].map(str::to_owned).into()], "{to_a} {to_b}");
            assert!(circle(to_b, "").is_empty() && circle("", to_a).is_empty(), "{to_a} {to_b}");
        }
    }
    // What mod.rs has itself, other rooms, comments and tests make no circle.
    let tests = "#[cfg(test)]\nmod tests {\n    use super::a::A;\n}\nfn f() {}";
    for none in ["use super::Room;", "use crate::b::B;", "// super::a", "use super::C;", tests] {
        assert!(circle("use super::b::B;", none).is_empty(), "{none}");
    }
}

#[test]
fn what_lies_deeper_in_a_room_uses_for_its_folder() {
    let deeper =
        ("sub".to_owned(), vec![(vec!["x".to_owned()], "use super::super::a;".to_owned())]);
    let a = ("a".to_owned(), vec![(vec![], "use super::sub::x::X;".to_owned())]);
    let room = Room::new("agent/src/room", &["room"], "mod a;\nmod sub;", [deeper, a].into());
    let circles = room.circles();
    assert_eq!(circles.len(), 1);
    assert_eq!(circles[0].uses, ["a uses sub::x::X", "sub uses a"]);
}

/// Files that know each other in a circle.
struct Circle {
    room: String,
    files: BTreeSet<String>,
    /// The uses that make the circle, in words.
    uses: Vec<String>,
}

/// A folder of modules.
struct Room {
    /// The folder, from the workspace on.
    name: String,
    /// The path of the module.
    module: Name,
    /// The files of names that the room passes on.
    passed_on: BTreeMap<String, String>,
    /// Each file or folder with its texts, and with the path below it that each of them has.
    files: BTreeMap<String, Vec<(Name, String)>>,
}

impl Room {
    /// `opens` is the text of the file that opens the room.
    fn new(
        name: &str,
        module: &[&str],
        opens: &str,
        mut files: BTreeMap<String, Vec<(Name, String)>>,
    ) -> Self {
        let module: Name = module.iter().map(ToString::to_string).collect();
        let opens = without_tests(&code(opens));
        // A file that only tests have is not declared without them.
        files.retain(|file, _| opens.lines().any(|line| declares(line, file)));
        let mut passed_on = BTreeMap::new();
        for (path, alias) in imports(&opens) {
            let path = absolute(&path, &module).unwrap_or(path);
            let below = path.strip_prefix(&module[..]).unwrap_or(&path);
            if let [file, .., last] = below
                && files.contains_key(file)
            {
                passed_on.insert(alias.unwrap_or(last.clone()), file.clone());
            }
        }
        Self { name: name.to_owned(), module, passed_on, files }
    }

    /// What each file uses of the others, by name.
    fn uses(&self, file: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (below, text) in &self.files[file] {
            let mut module = self.module.clone();
            module.push(file.to_owned());
            module.extend(below.iter().cloned());
            for path in paths(&without_tests(&code(text))) {
                let Some(path) = absolute(&path, &module) else { continue };
                let Some(below @ [first, ..]) = path.strip_prefix(&self.module[..]) else {
                    continue;
                };
                let owner = self.files.get_key_value(first).map(|(file, _)| file);
                if let Some(owner) =
                    owner.or(self.passed_on.get(first)).filter(|used| *used != file)
                {
                    uses.entry(owner.clone()).or_default().insert(below.join("::"));
                }
            }
        }
        uses
    }

    fn circles(&self) -> Vec<Circle> {
        let uses: BTreeMap<_, _> = self.files.keys().map(|file| (file, self.uses(file))).collect();
        let graph: Table = uses
            .iter()
            .map(|(file, uses)| (file.to_string(), uses.keys().cloned().collect()))
            .collect();
        let mut circles: Vec<Circle> = Vec::new();
        for file in self.files.keys() {
            let around = |other: &&String| {
                reached(&graph, file).contains(*other) && reached(&graph, other).contains(file)
            };
            let files: BTreeSet<String> = self.files.keys().filter(around).cloned().collect();
            if files.is_empty() || circles.iter().any(|circle| circle.files == files) {
                continue;
            }
            let inside = files.iter().flat_map(|file| {
                let used = uses[file].iter().filter(|(used, _)| files.contains(*used));
                used.flat_map(move |(_, names)| {
                    names.iter().map(move |name| format!("{file} uses {name}"))
                })
            });
            let uses = inside.collect();
            circles.push(Circle { room: self.name.clone(), files, uses });
        }
        circles
    }
}

/// What can be reached from a file by going from use to use.
fn reached(graph: &Table, from: &str) -> BTreeSet<String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(file) = next.pop() {
        for used in graph.get(&file).into_iter().flatten() {
            if reached.insert(used.clone()) {
                next.push(used.clone());
            }
        }
    }
    reached
}

/// All rooms below a folder.
fn rooms(folder: &str) -> Vec<Room> {
    let mut rooms = Vec::new();
    collect(&binary::workspace().join(folder), folder, &[], &mut rooms);
    rooms
}

/// Notes the room that a folder is, and those in it. Answers with the texts in it, each with its path
/// below the folder.
fn collect(
    folder: &Path,
    name: &str,
    module: &[&str],
    rooms: &mut Vec<Room>,
) -> Vec<(Name, String)> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut files: BTreeMap<String, Vec<(Name, String)>> = BTreeMap::new();
    let mut opens = None;
    let beside = folder.with_extension("rs");
    if beside.exists() {
        opens = Some(fs::read_to_string(beside).unwrap());
    }
    for path in paths {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if path.is_dir() {
            let below = [module, &[stem]].concat();
            let texts = collect(&path, &format!("{name}/{stem}"), &below, rooms);
            files.entry(stem.to_owned()).or_default().extend(texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            match stem {
                "mod" => opens = Some(text),
                _ => files.entry(stem.to_owned()).or_default().push((Vec::new(), text)),
            }
        }
    }
    let below = |(file, texts): (&String, &Vec<(Name, String)>)| {
        let file = file.clone();
        let texts = texts.clone().into_iter();
        texts
            .map(move |(below, text)| ([vec![file.clone()], below].concat(), text))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<_> = files.iter().flat_map(below).collect();
    if let Some(opens) = opens.filter(|_| !module.is_empty()) {
        rooms.push(Room::new(name, module, &opens, files));
        all.push((Vec::new(), opens));
    }
    all
}
