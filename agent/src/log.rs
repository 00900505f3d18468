//! Where the log goes: to the journal where systemd started us, else to stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log what the filter lets through: `info`, or `warn,peerage=debug`. To be called once.
///
/// # Errors
/// The filter makes no sense.
pub fn begin(filter: &str) -> Result<(), ParseError> {
    let registry = tracing_subscriber::registry().with(filter.parse::<Targets>()?);
    // systemd sets this variable where stderr is the journal's.
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // A second call finds the first one's subscriber in place, and leaves it there.
    let _ = match to_journal.then(tracing_journald::layer) {
        Some(Ok(journal)) => registry.with(journal).try_init(),
        _ => {
            let stderr = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
            registry.with(stderr).try_init()
        }
    };
    Ok(())
}
