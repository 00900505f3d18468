//! Tests of every disk, and of the store over it. The disk in memory and the journal pass the same
//! tests.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use peerage_proto::id::NodeId;
use peerage_proto::replica::{Dot, StoreOp, Writer};

use super::header::HEADER_LEN;
use super::journal::COMPACT_BYTES_MIN;
use super::record::{HEAD_LEN, Head};
use super::{
    Damage, Disk, Failure, Folder, Home, Image, Journal, MemoryDisk, Report, Store, StoreError,
};
use super::{VALUE_BYTES_MAX, Write};

// ---- Every disk.

#[test]
fn what_was_committed_is_there_after_a_crash() {
    on_each_disk(|reopen| {
        let mut disk = reopen();
        disk.commit(&[change(2, 1), change(1, 2), change(1, 1), seen(1, 2)]).unwrap();
        disk.commit(&[meta("boot", b"1"), meta("name", b"pve1")]).unwrap();
        disk.commit(&[meta("boot", b"2"), Write::MetaDelete { name: "name" }]).unwrap();
        disk.commit(&[forget(1, 1), seen(1, 1), seen(2, 1)]).unwrap();
        drop(disk);
        let image = reopen().load().unwrap();
        assert_eq!(image.changes, vec![change_bytes(1, 2), change_bytes(2, 1)]);
        assert_eq!(image.seen, vec![(writer(1), 1), (writer(2), 1)], "the last one holds");
        assert_eq!(image.meta.into_iter().collect::<Vec<_>>(), vec![("boot".into(), b"2".into())]);
        assert!(image.damage.is_none());
    });
}

#[test]
fn the_writes_of_one_commit_take_effect_in_their_order() {
    on_each_disk(|reopen| {
        let mut disk = reopen();
        disk.commit(&[change(1, 1), forget(1, 1), forget(1, 2), change(1, 2)]).unwrap();
        disk.commit(&[meta("a", b"1"), Write::ClearReplica, change(3, 1)]).unwrap();
        drop(disk);
        let image = reopen().load().unwrap();
        assert_eq!(image.changes, vec![change_bytes(3, 1)]);
        assert_eq!(image.meta["a"], b"1", "clearing the replica leaves what is under names");
    });
}

#[test]
fn what_is_too_large_is_refused_and_leaves_nothing() {
    on_each_disk(|reopen| {
        let mut disk = reopen();
        let large = Write::Meta { name: "a", value: vec![0; VALUE_BYTES_MAX + 1] };
        let refused = disk.commit(&[change(1, 1), large]).unwrap_err();
        assert!(matches!(refused, StoreError::TooLarge { .. }), "{refused}");
        disk.commit(&[meta("a", &vec![7; VALUE_BYTES_MAX])]).unwrap();
        drop(disk);
        let image = reopen().load().unwrap();
        assert!(image.changes.is_empty());
        assert_eq!(image.meta["a"].len(), VALUE_BYTES_MAX);
    });
}

#[test]
fn a_copy_is_a_journal_of_the_same() {
    on_each_disk(|reopen| {
        let mut disk = reopen();
        disk.commit(&[change(1, 1), change(1, 2), seen(1, 2), meta("boot", b"1")]).unwrap();
        disk.commit(&[forget(1, 1)]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        disk.copy_to(&dir.path().join("journal")).unwrap();
        assert_eq!(journal(dir.path()).load().unwrap(), disk.load().unwrap());
    });
}

fn on_each_disk(test: impl Fn(&dyn Fn() -> Box<dyn Disk>)) {
    let memory = MemoryDisk::default();
    test(&|| Box::new(memory.clone()));
    let dir = tempfile::tempdir().unwrap();
    test(&|| Box::new(journal(dir.path())));
}

// ---- The journal.

#[test]
fn a_commit_torn_at_any_byte_is_dropped_whole_and_writing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut disk = journal(dir.path());
    disk.commit(&[change(1, 1), change(1, 2)]).unwrap();
    let whole = fs::metadata(&path).unwrap().len();
    disk.commit(&[change(2, 1), change(2, 2), meta("a", b"1")]).unwrap();
    drop(disk);
    let bytes = fs::read(&path).unwrap();
    for cut in whole as usize..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut disk = journal(dir.path());
        let image = disk.load().unwrap();
        assert_eq!(image.changes, vec![change_bytes(1, 1), change_bytes(1, 2)], "cut at {cut}");
        assert!(image.damage.is_none() && image.meta.is_empty());
        disk.commit(&[change(3, 1)]).unwrap();
        drop(disk);
        assert_eq!(journal(dir.path()).load().unwrap().changes.len(), 3);
    }
}

#[test]
fn a_last_commit_of_which_any_page_never_reached_the_disk_is_dropped_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut disk = journal(dir.path());
    disk.commit(&[change(1, 1)]).unwrap();
    let whole = fs::metadata(&path).unwrap().len() as usize;
    let large = Write::Meta { name: "large", value: vec![9; 40_000] };
    disk.commit(&[change(2, 1), large, change(2, 2)]).unwrap();
    drop(disk);
    let bytes = fs::read(&path).unwrap();
    for page in (0..bytes.len()).step_by(4096) {
        let (from, to) = (page.max(whole), (page + 4096).min(bytes.len()));
        let mut torn = bytes.clone();
        torn[from..to].fill(0);
        fs::write(&path, &torn).unwrap();
        let mut disk = journal(dir.path());
        let image = disk.load().unwrap();
        assert_eq!(image.changes, vec![change_bytes(1, 1)], "without the page at {page}");
        assert!(image.meta.is_empty() && image.damage.is_none());
    }
}

#[test]
fn damage_before_the_last_commit_is_named_and_no_vector_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = journal(dir.path());
    let value = change_bytes(1, 2);
    disk.commit(&[change(1, 1), change(1, 2), change(2, 1), meta("name", b"a name")]).unwrap();
    disk.commit(&[seen(1, 9), seen(2, 9)]).unwrap();
    assert!(disk.check().unwrap().damage.is_none());
    flip(&dir.path().join("journal"), &value);
    flip(&dir.path().join("journal"), b"a name");
    let expected =
        Damage { changes: vec![dot(1, 2)], meta: vec!["name".into()], ..Damage::default() };
    assert_eq!(disk.check().unwrap().damage, expected, "the self-check finds it");
    drop(disk);
    let mut disk = journal(dir.path());
    let image = disk.load().unwrap();
    assert_eq!(image.damage, expected);
    assert_eq!(image.changes, vec![change_bytes(1, 1), change_bytes(2, 1)]);
    assert_eq!(image.seen, vec![(writer(1), 1), (writer(2), 9)]);
    assert!(image.meta.is_empty());
    // A change that is written again is no damage any more; a lost name stays damage until
    // `Mended`.
    disk.commit(&[change(1, 2)]).unwrap();
    assert_eq!(disk.load().unwrap().damage.changes, vec![]);
    disk.tidy().unwrap();
    let lost = Damage { meta: vec!["name".into()], ..Damage::default() };
    assert_eq!(disk.load().unwrap().damage, lost, "a name stays lost in a file written anew");
    disk.commit(&[Write::Mended]).unwrap();
    assert!(disk.load().unwrap().damage.is_none());
    assert!(dir.path().join("journal.damaged").exists());
}

#[test]
fn damage_that_cannot_be_named_leaves_no_vector_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut disk = journal(dir.path());
    disk.commit(&[change(1, 1), seen(1, 9)]).unwrap();
    let (from, seq) = (fs::metadata(&path).unwrap().len(), 2);
    disk.commit(&[change(1, seq)]).unwrap();
    disk.commit(&[change(1, 3)]).unwrap();
    drop(disk);
    // The head of the second commit.
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&[0xff; 8], from).unwrap();
    let image = journal(dir.path()).load().unwrap();
    assert_eq!(image.changes, vec![change_bytes(1, 1), change_bytes(1, 3)]);
    assert_eq!((image.seen, image.damage.unnamed), (vec![], 1));
}

#[test]
fn something_else_is_no_journal_and_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    fs::write(&path, b"something else").unwrap();
    let refused = Journal::open(Arc::new(Folder::open(dir.path()).unwrap())).unwrap_err();
    assert!(matches!(refused, StoreError::Unfit { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"something else");
}

#[test]
fn another_format_is_refused_by_name_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let older = include_str!("golden/journal-v1.hex").split_whitespace().collect::<String>();
    fs::write(&path, data_encoding::HEXLOWER.decode(older.as_bytes()).unwrap()).unwrap();
    let open = || Journal::open(Arc::new(Folder::open(dir.path()).unwrap())).unwrap_err();
    let words = open().to_string();
    for part in ["journal has format 1", "older version", "reset --identity --data-dir"] {
        assert!(words.contains(part), "{words}");
    }
}

/// The golden file holds the bytes of a journal of format 2, as hex.
#[test]
fn the_golden_journal_loads_and_is_what_we_still_write() {
    let golden = include_str!("golden/journal-v2.hex").split_whitespace().collect::<String>();
    let golden = data_encoding::HEXLOWER.decode(golden.as_bytes()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut disk = journal(dir.path());
    for commit in golden_commits() {
        disk.commit(&commit).unwrap();
    }
    drop(disk);
    let written = fs::read(&path).unwrap();
    assert!(written == golden, "now: {}", data_encoding::HEXLOWER.encode(&written));
    fs::write(&path, &golden).unwrap();
    let expected = Image {
        changes: vec![change_bytes(2, 1), change_bytes(3, 1)],
        seen: vec![(writer(1), 5), (writer(2), 1)],
        meta: [("boot".to_owned(), b"2".to_vec())].into(),
        damage: Damage::default(),
    };
    assert_eq!(journal(dir.path()).load().unwrap(), expected);
}

fn golden_commits() -> [Vec<Write>; 4] {
    [
        vec![change(1, 1), meta("boot", b"1"), meta("name", b"pve1")],
        vec![Write::ClearReplica],
        vec![change(2, 1), change(3, 1), change(1, 5), seen(1, 5), seen(2, 1)],
        vec![forget(1, 5), meta("boot", b"2"), Write::MetaDelete { name: "name" }],
    ]
}

#[test]
fn overwriting_for_ever_does_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut disk = journal(dir.path());
    disk.commit(&[change(1, 1), seen(1, 1)]).unwrap();
    for round in 0..30u8 {
        disk.commit(&[meta("large", &vec![round; 1024 * 1024])]).unwrap();
        disk.tidy().unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= COMPACT_BYTES_MIN + 2 * 1024 * 1024);
    }
    disk.commit(&[change(1, 2)]).unwrap();
    let before = disk.load().unwrap();
    assert_eq!(before.changes, vec![change_bytes(1, 1), change_bytes(1, 2)]);
    assert_eq!(before.meta["large"][0], 29);
    drop(disk);
    assert_eq!(journal(dir.path()).load().unwrap(), before);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

/// The journal once knew only at its start how much of it counted. So 100 MB that were loaded, and
/// forgotten since, stayed in the file until it had grown to twice that.
#[test]
fn what_was_forgotten_since_the_start_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let large = |seq| {
        let bytes = vec![7; 1024 * 1024].into();
        Write::Replica(StoreOp::Put { dot: dot(1, seq), bytes })
    };
    let mut disk = journal(dir.path());
    for seq in 1..=24 {
        disk.commit(&[large(seq)]).unwrap();
    }
    drop(disk);
    let mut disk = journal(dir.path());
    disk.tidy().unwrap();
    assert_eq!(disk.size_bytes(), fs::metadata(&path).unwrap().len());
    assert!(disk.size_bytes() > 24 * 1024 * 1024, "all of it counts");
    for seq in 1..=20 {
        disk.commit(&[forget(1, seq)]).unwrap();
        disk.tidy().unwrap();
    }
    // It was rewritten once, when half of it had been forgotten.
    assert!(fs::metadata(&path).unwrap().len() < 14 * 1024 * 1024);
    disk.compact().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 5 * 1024 * 1024);
    assert_eq!(disk.load().unwrap().changes.len(), 4);
    drop(disk);
    assert_eq!(journal(dir.path()).load().unwrap().changes.len(), 4);
}

// ---- The store.

#[tokio::test]
async fn all_who_wait_while_a_commit_runs_share_the_next_in_their_order() {
    let (disk, script) = Scripted::new();
    let store = Store::start(disk.clone(), "/nowhere".into()).unwrap();
    let mut first = Box::pin(commit_of(&store, 1));
    assert!(futures_util::poll!(&mut first).is_pending());
    script.entered.recv().unwrap();
    // The disk is in the first commit. The channel is in order, and each task runs when polled.
    let mut rest = VecDeque::new();
    for seq in 2..=50 {
        let mut commit = Box::pin(commit_of(&store, seq));
        assert!(futures_util::poll!(&mut commit).is_pending());
        rest.push_back(commit);
    }
    script.go.send(Ok(())).unwrap();
    script.go.send(Ok(())).unwrap();
    first.await.unwrap();
    for commit in rest {
        commit.await.unwrap();
    }
    let groups = disk.groups.lock().unwrap().clone();
    assert_eq!(groups, vec![vec![1], (2..=50).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn a_failed_commit_fails_all_in_it_and_the_next_may_succeed() {
    for after_effect in [false, true] {
        let (disk, script) = Scripted::new();
        let store = Store::start(disk.clone(), "/nowhere".into()).unwrap();
        let mut first = Box::pin(commit_of(&store, 1));
        assert!(futures_util::poll!(&mut first).is_pending());
        script.entered.recv().unwrap();
        let mut second = Box::pin(commit_of(&store, 2));
        let mut third = Box::pin(commit_of(&store, 3));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(&mut third).is_pending());
        let full = StoreError::Failed {
            attempt: "write",
            path: "/data/journal".into(),
            failure: Failure::Full,
            cause: "no space".into(),
        };
        script.go.send(Ok(())).unwrap();
        script.go.send(Err((full.clone(), after_effect))).unwrap();
        script.go.send(Ok(())).unwrap();
        assert_eq!(first.await, Ok(()));
        assert_eq!((second.await, third.await), (Err(full.clone()), Err(full)));
        let held = store.load().await.unwrap().changes.len();
        assert_eq!(held, if after_effect { 3 } else { 1 }, "to go on from what is there");
        assert_eq!(commit_of(&store, 4).await, Ok(()));
        store.close().await;
        let there = disk.memory.clone().load().unwrap().changes.len();
        assert_eq!(there, if after_effect { 4 } else { 2 });
    }
}

#[tokio::test]
async fn a_closed_store_lets_go_of_the_folder_and_an_idle_one_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Home { store, image, .. } = home(dir.path());
    assert_eq!(image, Image::default());
    store.commit(vec![change(1, 1), seen(1, 1)]).await.unwrap();
    let path = dir.path().join("journal");
    let len = fs::metadata(&path).unwrap().len();
    store.commit(vec![]).await.unwrap();
    assert!(store.self_check().await.unwrap().damage.is_none());
    assert_eq!(fs::metadata(&path).unwrap().len(), len);
    assert!(matches!(Folder::open(dir.path()), Err(StoreError::InUse { .. })));
    store.close().await;
    assert_eq!(store.commit(vec![change(1, 2)]).await, Err(StoreError::Closed));
    let Home { store, image, .. } = home(dir.path());
    assert_eq!(image.changes, vec![change_bytes(1, 1)]);
    let backup = store.archive("lab").await.unwrap();
    assert!(backup.starts_with(dir.path().join("backup")));
    store.close().await;
    let Home { image, .. } = home(dir.path());
    assert_eq!(image, Image::default());
}

fn commit_of(
    store: &Store,
    seq: u64,
) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
    let store = store.clone();
    async move { store.commit(vec![change(1, seq)]).await }
}

/// A disk that tells the test when a commit begins, and does with the commit what the test says.
#[derive(Clone)]
struct Scripted {
    memory: MemoryDisk,
    groups: Arc<Mutex<Vec<Vec<u64>>>>,
    entered: mpsc::Sender<()>,
    go: Arc<Mutex<mpsc::Receiver<Verdict>>>,
}

/// The outcome of a commit. With an error comes whether the commit took effect all the same.
type Verdict = Result<(), (StoreError, bool)>;

struct Script {
    entered: mpsc::Receiver<()>,
    go: mpsc::Sender<Verdict>,
}

impl Scripted {
    fn new() -> (Self, Script) {
        let ((enter, entered), (go, gone)) = (mpsc::channel(), mpsc::channel());
        let disk = Self {
            memory: MemoryDisk::default(),
            groups: Arc::default(),
            entered: enter,
            go: Arc::new(Mutex::new(gone)),
        };
        (disk, Script { entered, go })
    }
}

impl Disk for Scripted {
    fn load(&mut self) -> Result<Image, StoreError> {
        self.memory.load()
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let seqs = writes.iter().filter_map(|write| match write {
            Write::Replica(StoreOp::Put { dot, .. }) => Some(dot.seq),
            _ => None,
        });
        self.groups.lock().unwrap().push(seqs.collect());
        self.entered.send(()).unwrap();
        let verdict = self.go.lock().unwrap().recv().unwrap();
        match verdict {
            Ok(()) => self.memory.commit(writes),
            Err((error, took_effect)) => {
                if took_effect {
                    self.memory.commit(writes)?;
                }
                Err(error)
            }
        }
    }

    fn check(&mut self) -> Result<Report, StoreError> {
        self.memory.check()
    }

    fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        self.memory.copy_to(path)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.memory.tidy()
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        self.memory.compact()
    }

    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }
}

// ---- Writes to test with.

pub(super) fn writer(n: u8) -> Writer {
    Writer { node: NodeId([n; 32]), incarnation: u64::from(n) << 48 }
}

pub(super) fn dot(n: u8, seq: u64) -> Dot {
    Dot { writer: writer(n), seq }
}

pub(super) fn change_bytes(n: u8, seq: u64) -> Arc<[u8]> {
    format!("change {seq} of writer {n}, padded: {:?}", [n; 40]).into_bytes().into()
}

pub(super) fn change(n: u8, seq: u64) -> Write {
    Write::Replica(StoreOp::Put { dot: dot(n, seq), bytes: change_bytes(n, seq) })
}

fn forget(n: u8, seq: u64) -> Write {
    Write::Replica(StoreOp::Forget(dot(n, seq)))
}

fn seen(n: u8, seq: u64) -> Write {
    Write::Replica(StoreOp::Seen(writer(n), seq))
}

fn meta(name: &'static str, value: &[u8]) -> Write {
    Write::Meta { name, value: value.to_vec() }
}

pub(super) fn home(dir: &Path) -> Home {
    Home::open(Arc::new(Folder::open(dir).unwrap())).unwrap()
}

/// The journal of a folder; a new one where there is none.
pub(super) fn journal(dir: &Path) -> Journal {
    let folder = Arc::new(Folder::open(dir).unwrap());
    if !dir.join("journal").exists() {
        Journal::create(&folder, &NodeId([1; 32])).unwrap();
    }
    Journal::open(folder).unwrap()
}

/// Flips one bit within the only place in the file that holds these bytes.
fn flip(path: &Path, needle: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at + 1] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Where a record lies in a journal's file, and what it is about.
#[derive(Debug)]
pub(crate) struct Placed {
    /// The offsets of the head, of the key and of the value, and the end of the value.
    pub(crate) at: [usize; 4],
    pub(crate) about: String,
}

/// The records of a sound journal.
pub(crate) fn records(bytes: &[u8]) -> Vec<Placed> {
    let (mut at, mut records) = (HEADER_LEN, Vec::new());
    while at < bytes.len() {
        let head = Head::parse(&bytes[at..], at as u64).expect("the journal is sound");
        let value = at + head.len;
        let end = value + head.value_len;
        let about = format!("{:?}", head.subject);
        records.push(Placed { at: [at, at + HEAD_LEN, value, end], about });
        at = end;
    }
    records
}
