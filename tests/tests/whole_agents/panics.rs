//! Panics of the agents' tasks, which tokio would catch and nobody see.

use std::panic;
use std::sync::{Mutex, PoisonError};

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on every panic of this process is kept.
pub(crate) fn keep() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
        before(info);
    }));
}

/// The first panic since the process began.
pub(crate) fn first() -> Option<String> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
}
