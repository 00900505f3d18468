//! Tests of every kind of damage, at every file and every record: a start heals it, or stops with
//! words after which the host is whole again. No start may panic, lose data silently, or change who
//! the node is.

use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::replica::{
    Actor, Commit, Edit, Limits, Outputs, Path as DocumentPath, Replica, SignedChange, Vector,
};
use peerage_proto::roster::{NodeName, Roster, datacenter_path, member_path};
use peerage_proto::time::Now;
use serde_json::json;

use super::disk::{META_DATACENTER, META_NOTICE, META_PAST, META_TWIN};
use super::mending::{META_BOOT, META_PORT, mend};
use super::notice::{LEFT_HINT, Notice, TWIN_HINT};
use super::renewal::reset_stopped;
use crate::admission::past::Past;
use crate::host::links::META_LINKS;
use crate::store::suite::{Placed, records};
use crate::store::{Folder, Home, Label, StoreError, Write};

const NORTH: DataCenterId = DataCenterId([0x4e; 16]);
const SOUTH: DataCenterId = DataCenterId([0x53; 16]);
const WALL_MS: u64 = 1_790_000_000_000;

/// How the node whose disk is damaged stands in its Data Center.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Member,
    /// A member that keeps apart, because another host has its key.
    Twin,
    Left,
}

const STANDINGS: [Standing; 3] = [Standing::Member, Standing::Twin, Standing::Left];

/// The data folder of a member, or of a node that left, which has stopped or was killed.
struct Lab {
    dir: tempfile::TempDir,
    standing: Standing,
    node: NodeId,
    /// The other member.
    peer: Replica,
    /// How many changes in the folder count.
    changes: usize,
    /// Whether the damaged journal still says by the name of a record that the node keeps apart.
    stays_apart: bool,
}

fn now() -> Now {
    Now { mono: Duration::from_secs(60), wall_ms: WALL_MS }
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Lab {
    fn new(standing: Standing, is_closed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = open(dir.path()).unwrap();
        let (node, key, store) = (home.key.node_id(), home.key.clone(), home.store.clone());
        let label = |datacenter| Label { name: "pve-1".into(), boot: 7, datacenter };
        let mut own = Replica::new(NORTH, key, Limits::default());
        let mut peer = Replica::new(NORTH, Keypair::from_seed([2; 32]), Limits::default());
        block(async {
            let boot = Write::Meta { name: META_BOOT, value: 7u64.to_be_bytes().to_vec() };
            let port = Write::Meta { name: META_PORT, value: 4711u16.to_be_bytes().to_vec() };
            store.commit(vec![boot, port]).await.unwrap();
            store.label(label(None)).await.unwrap();
            let past = Past { datacenter: SOUTH, how: "left South: root".into(), evidence: vec![] };
            let value = past.encode();
            store.commit(vec![Write::Meta { name: META_PAST, value }]).await.unwrap();

            let mut outputs =
                write(&mut own, &datacenter_path(), Roster::founding("North", WALL_MS));
            for (id, name, port) in [(node, "pve-1", 4711), (peer.node_id(), "pve-2", 4712)] {
                let address = format!("192.0.2.1:{port}").parse().unwrap();
                let roster = Roster::of(&own);
                let admission =
                    roster.admission(&id, &self::name(name), &[address], node, None, WALL_MS);
                outputs.extend(write(&mut own, &member_path(&id), admission));
            }
            let mut writes = vec![
                Write::ClearReplica,
                Write::Meta { name: META_DATACENTER, value: NORTH.0.to_vec() },
                Write::MetaDelete { name: META_NOTICE },
            ];
            writes.extend(outputs.commit.ops.iter().cloned().map(Write::Replica));
            store.commit(writes).await.unwrap();
            own.committed(&outputs.commit);
            store.label(label(Some((NORTH, "North".into())))).await.unwrap();
            let links = json!([{"address": "192.0.2.1", "priority": 1, "name": "cable"}]);
            let value = serde_json::to_vec(&links).unwrap();
            store.commit(vec![Write::Meta { name: META_LINKS, value }]).await.unwrap();
            for i in 0..4 {
                let path: DocumentPath = format!("storage/nas{i}").parse().unwrap();
                let outputs = write(&mut own, &path, setting(i));
                commit(&store, &outputs.commit).await;
                own.committed(&outputs.commit);
            }
            meet(&mut own, &mut peer);
            let outputs = write(&mut peer, &"network/br0".parse().unwrap(), setting(9));
            peer.committed(&outputs.commit);
            let news = absorb(&mut own, &peer);
            commit(&store, &news).await;
            own.committed(&news);
            match standing {
                Standing::Member => {}
                Standing::Twin => store.commit(vec![twin().write(META_TWIN)]).await.unwrap(),
                Standing::Left => {
                    let leaving = Roster::leaving(node, "root", WALL_MS);
                    let outputs = write(&mut own, &member_path(&node), leaving);
                    commit(&store, &outputs.commit).await;
                    own.committed(&outputs.commit);
                    let past = Past::of(&own, &node, "left North: root".into());
                    let notice = Notice {
                        message: "root took this node out of North".into(),
                        hint: LEFT_HINT.into(),
                        removed: false,
                    };
                    let writes = vec![
                        Write::MetaDelete { name: META_DATACENTER },
                        notice.write(META_NOTICE),
                        Write::Meta { name: META_PAST, value: past.encode() },
                    ];
                    store.commit(writes).await.unwrap();
                    store.archive("left").await.unwrap();
                    store.label(label(None)).await.unwrap();
                }
            }
            if is_closed {
                store.close().await;
            }
        });
        let changes = own.delta(&Vector::default()).0.len();
        drop(store);
        end(home);
        Self { dir, standing, node, peer, changes, stays_apart: false }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    /// Starts on the damaged folder, and checks every promise. Tells whether it came up.
    fn survives(&self, what: &str) -> bool {
        let damaged = fs::read(self.file("journal")).ok();
        let (mut home, told) = match start(self.dir.path()) {
            Ok(started) => started,
            Err(error) => {
                self.is_whole_after_the_words(&error, damaged, what);
                return false;
            }
        };
        assert_eq!(home.key.node_id(), self.node, "{what}: another node");
        self.stands_as_before(&home, what);
        let image = home.image.clone();
        if self.standing != Standing::Left {
            self.heals(&mut home, what);
        }
        // A second start tells nothing of damage that the first one dealt with.
        block(home.store.close());
        end(home);
        let (home, again) = start(self.dir.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(again, Vec::<String>::new(), "{what}, told before: {told:?}");
        assert!(home.image.damage.is_none() && !home.is_behind, "{what}: {:?}", home.image.damage);
        assert_eq!(home.image.meta, image.meta, "{what}");
        self.stands_as_before(&home, what);
        block(home.store.close());
        end(home);
        true
    }

    fn stands_as_before(&self, home: &Home, what: &str) {
        let meta = &home.image.meta;
        let datacenter = meta.get(META_DATACENTER).map(Vec::as_slice);
        match self.standing {
            Standing::Member | Standing::Twin => {
                assert_eq!(datacenter, Some(&NORTH.0[..]), "{what}: it left by itself");
                let is_apart = Notice::read(&home.image, META_TWIN).is_some();
                assert!(is_apart || !self.stays_apart, "{what}: it takes part as a copy");
            }
            Standing::Left => {
                assert_eq!(datacenter, None, "{what}: it came back by itself");
                assert!(meta.contains_key(META_NOTICE), "{what}: it might join by itself");
                assert!(Notice::read(&home.image, META_NOTICE).is_some(), "{what}");
            }
        }
        let boot = meta.get(META_BOOT).map(|boot| boot.as_slice().try_into().unwrap());
        assert_eq!(boot.map(u64::from_be_bytes), Some(7), "{what}");
    }

    /// The other member brings back what is lost here, and loses nothing itself.
    fn heals(&self, home: &mut Home, what: &str) {
        let seen = Vector::from(home.image.seen.clone());
        let changes = home.image.changes.iter();
        let changes = changes.map(|bytes| SignedChange::verify(bytes.clone()).unwrap());
        let (key, limits) = (home.key.clone(), Limits::default());
        let mut own = Replica::load(NORTH, key, limits, changes, seen, now());
        let mut peer = copy_of(&self.peer);
        block(async {
            let news = absorb(&mut own, &peer);
            commit(&home.store, &news).await;
            own.committed(&news);
            let news = absorb(&mut peer, &own);
            peer.committed(&news);
        });
        assert_eq!(own.digest(), peer.digest(), "{what}");
        let held = own.delta(&Vector::default()).0.len();
        assert!(held >= self.changes, "{what}: {held} changes of {}", self.changes);
        assert!(Roster::of(&own).is_current(&self.node), "{what}");
    }

    /// The error says what is the matter and what to do. After that is done, the host is a new
    /// node, and all that was there is kept.
    fn is_whole_after_the_words(&self, error: &StoreError, damaged: Option<Vec<u8>>, what: &str) {
        assert!(error.needs_somebody(), "{what}: {error}");
        let words = error.to_string();
        assert!(words.contains("reset --identity --data-dir"), "{what}: {words}");
        assert!(words.contains("from a backup"), "{what}: {words}");
        let renewed =
            block(reset_stopped(self.dir.path())).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_ne!(renewed.is, self.node, "{what}");
        let backup = renewed.backup.unwrap_or_else(|| panic!("{what}: no backup"));
        if let Some(damaged) = damaged {
            assert!(fs::read(backup.join("journal")).unwrap() == damaged, "{what}");
        }
        let (home, told) = start(self.dir.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((home.key.node_id(), told), (renewed.is, vec![]), "{what}");
        assert!(!home.image.meta.contains_key(META_DATACENTER), "{what}");
        end(home);
    }
}

fn twin() -> Notice {
    Notice { message: "pve-2 refuses this node".into(), hint: TWIN_HINT.into(), removed: false }
}

fn open(dir: &Path) -> Result<Home, StoreError> {
    // The former owner of the folder may still be letting go of it.
    let bound = Instant::now() + Duration::from_secs(20);
    let folder = loop {
        match Folder::open(dir) {
            Err(StoreError::InUse { .. }) if Instant::now() < bound => thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    Home::open(Arc::new(folder))
}

/// What the agent does at its start, as far as the disk goes.
fn start(dir: &Path) -> Result<(Home, Vec<String>), StoreError> {
    let mut home = open(dir)?;
    match block(mend(&mut home, Some(name("pve-1")), now())) {
        Ok(told) => Ok((home, told)),
        Err(error) => {
            end(home);
            Err(error)
        }
    }
}

/// Drops the store without closing it, as a kill does.
fn end(home: Home) {
    let folder = home.path().to_owned();
    drop(home);
    // The store's thread holds the lock until it has seen that all handles are gone.
    let bound = Instant::now() + Duration::from_secs(20);
    while matches!(Folder::open(&folder), Err(StoreError::InUse { .. })) {
        assert!(Instant::now() < bound, "somebody holds the store");
        thread::yield_now();
    }
}

fn setting(i: u8) -> Edit {
    Edit {
        set: [("server".parse().unwrap(), json!(format!("10.0.0.{i}")))].into(),
        ..Edit::default()
    }
}

fn write(replica: &mut Replica, path: &DocumentPath, edit: Edit) -> Outputs {
    let actor = Actor { who: "root".into(), via: "test".into() };
    replica.write(path, edit, actor, 5, now()).unwrap().1
}

async fn commit(store: &crate::store::Store, commit: &Commit) {
    store.commit(commit.ops.iter().cloned().map(Write::Replica).collect()).await.unwrap();
}

/// Merges into one replica what another one holds.
fn absorb(into: &mut Replica, from: &Replica) -> Commit {
    let (changes, vector) = from.delta(into.vector());
    let mut outputs = Outputs::default();
    for change in changes {
        outputs.extend(into.merge(change, false, now()));
    }
    outputs.extend(into.absorb(&vector));
    outputs.commit
}

fn meet(one: &mut Replica, other: &mut Replica) {
    let news = absorb(one, other);
    one.committed(&news);
    let news = absorb(other, one);
    other.committed(&news);
}

fn copy_of(replica: &Replica) -> Replica {
    let (changes, vector) = replica.delta(&Vector::default());
    let key = Keypair::from_seed([2; 32]);
    Replica::load(NORTH, key, Limits::default(), changes, vector, now())
}

// ---- Damage.

type Damage = (&'static str, fn(&mut Vec<u8>, &Placed));

/// What a disk does to a record.
const DAMAGES: [Damage; 14] = [
    ("a bit of its length", |bytes, placed| flip(bytes, placed.at[0] + 3)),
    ("a high bit of its length", |bytes, placed| flip(bytes, placed.at[0])),
    ("a bit of its kind", |bytes, placed| flip(bytes, placed.at[0] + 4)),
    ("the mark of a commit's end", |bytes, placed| flip(bytes, placed.at[0] + 5)),
    ("a bit of the key's length", |bytes, placed| flip(bytes, placed.at[0] + 7)),
    ("a bit of the commit's number", |bytes, placed| flip(bytes, placed.at[0] + 15)),
    ("a bit of the value's checksum", |bytes, placed| flip(bytes, placed.at[0] + 20)),
    ("a bit of its checksum", |bytes, placed| flip(bytes, placed.at[0] + 30)),
    ("a bit of its body", |bytes, placed| flip(bytes, placed.at[3] - 1)),
    ("cut before it", |bytes, placed| bytes.truncate(placed.at[0])),
    ("cut within it", |bytes, placed| bytes.truncate(placed.at[1])),
    ("zeroed", |bytes, placed| bytes[placed.at[0]..placed.at[3]].fill(0)),
    ("zeroed to the end", |bytes, placed| bytes[placed.at[0]..].fill(0)),
    ("twice", |bytes, placed| {
        let twice = bytes[placed.at[0]..placed.at[3]].to_vec();
        bytes.splice(placed.at[3]..placed.at[3], twice);
    }),
];

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1;
}

/// Found once: one flipped bit in the record `datacenter` took the node out of its Data Center,
/// unasked.
fn every_damage_at_every_record(standing: Standing) {
    for is_closed in [true, false] {
        let whole = Lab::new(standing, is_closed);
        let journal = whole.read("journal");
        let records = records(&journal);
        assert!(records.len() > 8, "{records:?}");
        let (mut came_up, mut broken) = (0, Vec::new());
        for (what, damage) in DAMAGES {
            for placed in &records {
                let mut lab = whole.copy();
                let mut bytes = journal.clone();
                damage(&mut bytes, placed);
                lab.stays_apart = names_twin(&bytes, &journal, &records);
                fs::write(lab.file("journal"), &bytes).unwrap();
                let what = format!("{standing:?}, closed: {is_closed}; {}: {what}", placed.about);
                match catch_unwind(AssertUnwindSafe(|| lab.survives(&what))) {
                    Ok(is_up) => came_up += usize::from(is_up),
                    Err(_) => broken.push(what),
                }
            }
        }
        let cases = DAMAGES.len() * records.len();
        eprintln!("{standing:?}, closed: {is_closed}: {came_up} of {cases} starts came up");
        assert!(broken.is_empty(), "{broken:#?}");
        assert!(came_up * 2 > cases, "what can be mended is mended");
    }
}

/// Whether a damaged journal still says by the name of a record that the node keeps apart. If the
/// head of a record is unreadable, nobody knows what the record was about; and damage at the end
/// may be a torn commit. In these cases the other members find the copy out once more.
fn names_twin(damaged: &[u8], whole: &[u8], records: &[Placed]) -> bool {
    let twin = records.iter().find(|placed| placed.about == format!("Meta({META_TWIN:?})"));
    twin.is_some_and(|Placed { at, .. }| {
        let same = |part: Range<usize>| damaged.get(part.clone()) == whole.get(part);
        same(at[0]..at[2]) && (same(at[2]..at[3]) || whole.len() > at[3])
    })
}

#[test]
fn every_damage_at_every_record_of_a_member_heals_or_is_told_with_what_to_do() {
    every_damage_at_every_record(Standing::Member);
}

#[test]
fn every_damage_at_every_record_of_a_copy_leaves_it_apart_or_is_told_with_what_to_do() {
    every_damage_at_every_record(Standing::Twin);
}

#[test]
fn every_damage_at_every_record_of_one_that_left_keeps_it_out_or_is_told_with_what_to_do() {
    every_damage_at_every_record(Standing::Left);
}

/// Found once: with `node.key` lost, or one bit of it flipped, the host took another identity, and
/// acknowledged writes that no other node accepted.
#[test]
fn every_damage_at_every_file_is_healed_or_told_by_the_files_name() {
    let other = Lab::new(Standing::Member, true);
    for standing in STANDINGS {
        let whole = Lab::new(standing, true);
        for file in ["node.key", "journal", "node.about"] {
            let bytes = whole.read(file);
            let half = bytes.len() / 2;
            let with = |at: usize| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                Some(bytes)
            };
            let mut cases: Vec<(String, Option<Vec<u8>>)> = vec![
                ("missing".into(), None),
                ("empty".into(), Some(vec![])),
                ("cut in half".into(), Some(bytes[..half].to_vec())),
                ("zeroed".into(), Some(vec![0; bytes.len()])),
                ("something else".into(), Some(b"dear diary\n".to_vec())),
                ("another node's".into(), Some(other.read(file))),
            ];
            let places = (0..bytes.len().min(64)).chain([half, bytes.len() - 2]);
            cases.extend(places.map(|at| (format!("bit at {at}"), with(at))));
            for (what, content) in cases {
                let lab = whole.copy();
                match content {
                    Some(content) => fs::write(lab.file(file), content).unwrap(),
                    None => fs::remove_file(lab.file(file)).unwrap(),
                }
                let what = format!("{standing:?}; {file}: {what}");
                let words = start(lab.dir.path()).map(|(home, _)| {
                    assert_eq!(home.key.node_id(), lab.node, "{what}: another node");
                    end(home);
                });
                if let Err(error) = words {
                    let words = error.to_string();
                    assert!(words.contains(file), "{what}: {words}");
                    assert!(words.contains("pve-1"), "{what}: {words}");
                    assert_ne!(file, "node.about", "{what}: {words}");
                }
                lab.survives(&what);
            }
        }
    }
}

impl Lab {
    fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_all(self.dir.path(), dir.path());
        Self { dir, peer: copy_of(&self.peer), ..*self }
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir(&to).unwrap();
            copy_all(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// The error names what is missing, whose folder it is, and the way out.
#[test]
fn a_journal_without_its_key_says_whose_it_is() {
    for with_about in [true, false] {
        let lab = Lab::new(Standing::Member, true);
        fs::remove_file(lab.file("node.key")).unwrap();
        if !with_about {
            fs::remove_file(lab.file("node.about")).unwrap();
        }
        let words = start(lab.dir.path()).unwrap_err().to_string();
        let of = format!(
            "pve-1 ({}), a member of the Data Center North ({})",
            lab.node.short(),
            NORTH.short()
        );
        for part in ["node.key is missing", &of, "Bring node.key back", "join --replace"] {
            assert!(words.contains(part), "{part:?}: {words}");
        }
    }
}

#[test]
fn a_new_folder_whose_first_commit_was_cut_is_told_from_a_journal_that_lost_nearly_all() {
    let lab = Lab::new(Standing::Member, false);
    let journal = lab.read("journal");
    let first = records(&journal)[2].at;
    // The journal holds its owner, a mark, and a part of the first commit.
    fs::write(lab.file("journal"), &journal[..first[1]]).unwrap();
    let words = start(lab.dir.path()).unwrap_err().to_string();
    assert!(words.contains("lost") && words.contains("North"), "{words}");
    // Without the label nothing says that there ever was more.
    fs::remove_file(lab.file("node.about")).unwrap();
    let (home, told) = start(lab.dir.path()).unwrap();
    assert!(home.image.meta.is_empty() && told.is_empty() && home.key.node_id() == lab.node);
    end(home);
}

/// After a crash anywhere in the making of a folder, or of a new identity, the folder has either
/// the old key or the new one.
#[test]
fn a_change_of_the_key_that_was_cut_off_is_finished_or_was_never_begun() {
    let lab = Lab::new(Standing::Left, true);
    let key = lab.read("node.key");
    let renewed = block(reset_stopped(lab.dir.path())).unwrap();
    let new_key = lab.read("node.key");
    // The journal is the new node's already, and the key is not in its place yet.
    fs::write(lab.file("node.key"), &key).unwrap();
    fs::write(lab.file("node.key.new"), &new_key).unwrap();
    let (home, _) = start(lab.dir.path()).unwrap();
    assert_eq!(home.key.node_id(), renewed.is);
    end(home);
    assert_eq!(lab.read("node.key.old-2"), key);
    // A key in `node.key.new` that the journal has not taken over yet.
    fs::write(lab.file("node.key.new"), &key).unwrap();
    let (home, _) = start(lab.dir.path()).unwrap();
    assert_eq!(home.key.node_id(), renewed.is);
    assert!(!lab.file("node.key.new").exists(), "no key is left that is nobody's");
    end(home);
}

/// A single node has no other member that could bring a lost change back.
#[test]
fn one_that_is_alone_says_again_what_only_it_had_said() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path()).unwrap();
    let node = home.key.node_id();
    let mut own = Replica::new(NORTH, home.key.clone(), Limits::default());
    let mut outputs = write(&mut own, &datacenter_path(), Roster::founding("North", WALL_MS));
    let admission = Roster::default().admission(&node, &name("pve-1"), &[], node, None, WALL_MS);
    outputs.extend(write(&mut own, &member_path(&node), admission));
    let mut writes =
        vec![Write::ClearReplica, Write::Meta { name: META_DATACENTER, value: NORTH.0.to_vec() }];
    writes.extend(outputs.commit.ops.iter().cloned().map(Write::Replica));
    let datacenter = Some((NORTH, "North".into()));
    block(async {
        home.store.commit(writes).await.unwrap();
        home.store.label(Label { name: "pve-1".into(), boot: 1, datacenter }).await.unwrap();
        home.store.close().await;
    });
    end(home);
    let journal = fs::read(dir.path().join("journal")).unwrap();
    let changes = records(&journal).into_iter().filter(|placed| placed.about.starts_with("Put"));
    for placed in changes {
        let mut bytes = journal.clone();
        flip(&mut bytes, placed.at[3] - 1);
        fs::write(dir.path().join("journal"), bytes).unwrap();
        let (home, told) = start(dir.path()).unwrap();
        assert!(!told.is_empty());
        let seen = Vector::from(home.image.seen.clone());
        let changes = home.image.changes.iter().map(|b| SignedChange::verify(b.clone()).unwrap());
        let own = Replica::load(NORTH, home.key.clone(), Limits::default(), changes, seen, now());
        let roster = Roster::of(&own);
        assert_eq!(roster.datacenter_name, "North");
        assert_eq!(roster.name_of(&node), "pve-1");
        assert!(roster.is_current(&node));
        block(home.store.close());
        end(home);
    }
}
