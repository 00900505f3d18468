//! A client that writes all the time, and remembers which writes were acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peerage_tests::hosts::Host;
use peerage_tests::patience::{LATER, until};
use serde_json::json;

/// How long it rests between two writes: there are others on the machine.
const REST: Duration = Duration::from_millis(2);

/// It writes `PREFIX/0`, `PREFIX/1` and so on, until it is stopped or a write fails.
pub(crate) struct Writer {
    prefix: String,
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    writing: JoinHandle<()>,
}

impl Writer {
    /// Begins to write on this host.
    pub(crate) fn on(host: &Host, prefix: &str) -> Self {
        let (acknowledged, stop) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (acknowledged.clone(), stop.clone());
        let (client, folder) = (host.client(), prefix.to_owned());
        let writing = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.load(Ordering::Relaxed);
                let set = json!({ "set": { "number": number } });
                if client.patch(&format!("settings/{folder}/{number}"), &set).is_err() {
                    return;
                }
                counted.store(number + 1, Ordering::Relaxed);
                thread::sleep(REST);
            }
        });
        Self { prefix: prefix.to_owned(), acknowledged, stop, writing }
    }

    /// Waits until this many more writes were acknowledged.
    #[track_caller]
    pub(crate) fn gets_on_by(&self, more: usize) {
        let count = || self.acknowledged.load(Ordering::Relaxed);
        let enough = count() + more;
        until(&format!("{} gets on", self.prefix), LATER, count, |count| *count >= enough);
    }

    /// Stops, and returns what was acknowledged.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.writing.join().expect("a writer does not panic");
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        (0..acknowledged).map(|number| format!("{}/{number}", self.prefix)).collect()
    }
}

/// Waits until a host holds all of these documents.
#[track_caller]
pub(crate) fn holds_all(host: &Host, paths: &[String]) {
    let missing = || {
        let settings = host.client().get("settings").unwrap_or_default();
        let held = settings.as_array().map(Vec::as_slice).unwrap_or_default();
        let held = held.iter().filter_map(|document| document["path"].as_str());
        let held = held.collect::<std::collections::BTreeSet<_>>();
        paths.iter().filter(|path| !held.contains(path.as_str())).cloned().collect::<Vec<_>>()
    };
    let what = format!("{} holds {} acknowledged documents", host.name(), paths.len());
    until(&what, LATER, missing, Vec::is_empty);
}
