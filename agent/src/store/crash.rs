//! Kills a process in the middle of its commits, again and again: every commit that was
//! acknowledged must be on disk.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::Home;
use super::suite::{change, change_bytes, home};

/// The environment variable that names the data folder to the process that is to be killed.
const CHILD: &str = "PEERAGE_TEST_STORE_CHILD";

const THIS: &str = "store::crash::everything_acknowledged_survives_a_kill_in_the_middle_of_commits";

const ROUNDS: u64 = 25;

#[test]
fn everything_acknowledged_survives_a_kill_in_the_middle_of_commits() {
    if let Some(folder) = env::var_os(CHILD) {
        write_until_killed(Path::new(&folder));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", THIS])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Each round kills the process after a different number of acknowledgements, while more
        // commits are under way.
        for _ in 0..1 + (round * 7) % 40 {
            let next = lines.find_map(|line| kept(&line.unwrap()));
            acknowledged.push(next.expect("the child writes until it is killed"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| kept(&line)));
        let Home { store, image, .. } = home(dir.path());
        assert!(image.damage.is_none());
        let changes = BTreeSet::from_iter(image.changes);
        for (writer, seq) in &acknowledged {
            let bytes = change_bytes(*writer, *seq);
            assert!(changes.contains(&bytes), "round {round}: {writer} {seq} is lost");
        }
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.close());
    }
}

/// An acknowledgement, from a line that the kill did not cut off.
fn kept(line: &str) -> Option<(u8, u64)> {
    let (writer, seq) = line.strip_prefix("kept ")?.strip_suffix('.')?.split_once(' ')?;
    Some((writer.parse().ok()?, seq.parse().ok()?))
}

/// Four writers write at the same time; each continues after its last change on disk.
fn write_until_killed(folder: &Path) -> ! {
    let Home { store, image, .. } = home(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let changes = BTreeSet::from_iter(image.changes);
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 1..=4u8 {
            let store = store.clone();
            let changes = changes.clone();
            writers.spawn(async move {
                let start = (1..).find(|seq| !changes.contains(&change_bytes(writer, *seq)));
                for seq in start.expect("the numbers do not end").. {
                    store.commit(vec![change(writer, seq)]).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    out.write_all(format!("\nkept {writer} {seq}.\n").as_bytes()).unwrap();
                }
            });
        }
        writers.join_next().await;
    });
    panic!("the writers write until they are killed")
}
