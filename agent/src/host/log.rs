//! Where the log goes: to stderr, for people or for the journal. The journal is given each message
//! with its fields as one line of text, since `journalctl` shows no other field, and is told how
//! grave it is in the way of sd-daemon(3).

use std::fmt::{self, Display};
use std::io::{self, IsTerminal};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// The filter of the log, which can be changed while the agent runs.
#[derive(Debug, Clone)]
pub struct Filter(reload::Handle<Targets, Registry>);

impl Filter {
    /// Logs from now on what this filter lets through.
    ///
    /// # Errors
    /// The filter makes no sense; the filter before stays.
    pub fn change(&self, filter: &str) -> Result<(), FilterError> {
        let targets = targets(filter)?;
        // The reload fails only where the log has ended, with the process.
        let _ = self.0.reload(targets);
        Ok(())
    }
}

/// Begins to log what the filter lets through: `info`, or `warn,peerage=debug`. To be called once.
///
/// # Errors
/// The filter makes no sense.
pub fn begin(filter: &str) -> Result<Filter, FilterError> {
    let (targets, handle) = reload::Layer::new(targets(filter)?);
    let registry = tracing_subscriber::registry().with(targets);
    let stderr = layer().with_writer(io::stderr);
    // A second call finds the first one's subscriber in place, and leaves it there.
    let _ = if to_journal() {
        registry.with(stderr.event_format(JournalLine)).try_init()
    } else {
        registry.with(stderr.with_ansi(io::stderr().is_terminal())).try_init()
    };
    Ok(Filter(handle))
}

/// Why a filter makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A part of the filter cannot be parsed.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// A word that is no level. Taken as the name of a part of the program, it would silence all
    /// other parts.
    #[error("{0:?} is no level")]
    NoLevel(String),
}

/// Reads a filter.
fn targets(filter: &str) -> Result<Targets, FilterError> {
    let is_level = |word: &str| word.is_empty() || word.parse::<LevelFilter>().is_ok();
    let words = filter.split(',').map(str::trim).filter(|part| !part.contains('='));
    for word in words {
        if !is_level(word) {
            return Err(FilterError::NoLevel(word.to_owned()));
        }
    }
    Ok(filter.parse()?)
}

/// Whether stderr leads to systemd's journal.
pub fn to_journal() -> bool {
    // systemd tells which file it is: the variable alone may be inherited by a process whose
    // stderr goes elsewhere.
    let told = std::env::var("JOURNAL_STREAM").ok();
    let is = rustix::fs::fstat(io::stderr()).ok();
    told.zip(is).is_some_and(|(told, is)| told == format!("{}:{}", is.st_dev, is.st_ino))
}

/// Tells the journal why the agent ends, where there is no log yet, or no more.
pub fn last_words(words: impl Display) {
    eprintln!("<{}>{}", priority(&Level::ERROR), in_one_line(&words.to_string()));
}

/// A message as the journal takes it: its priority, its text, its fields. The journal adds the time
/// and the unit by itself.
struct JournalLine;

impl<S, N> FormatEvent<S, N> for JournalLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.field_format().format_fields(Writer::new(&mut text), event)?;
        writeln!(to, "<{}>{}", priority(event.metadata().level()), in_one_line(&text))
    }
}

/// The journal's priority of a level: debug is its lowest.
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Joins a text into one line, since a line break would begin another message without a priority.
fn in_one_line(text: &str) -> String {
    text.split('\n').map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{error, info, warn};

    use super::*;

    #[test]
    fn the_journal_is_told_how_grave_a_message_is_and_shows_all_of_it() {
        let lines = logged(|| {
            error!(cause = "no\nroom", "a commit failed");
            warn!("{} is late", "pve-2");
            info!(name = %"pve-3", uses = 2, "admitted");
        });
        assert_eq!(
            lines,
            "<3>a commit failed cause=\"no\\nroom\"\n<4>pve-2 is late\n<6>admitted name=pve-3 uses=2\n"
        );
    }

    /// A misspelt level was once taken for the name of a part of the program, and nothing was
    /// logged at all.
    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for right in ["info", "warn,peerage=debug", "peerage=debug, off", "DEBUG", ""] {
            assert!(targets(right).is_ok(), "{right}");
        }
        for wrong in ["inof", "loud,peerage=debug", "info,warm", "peerage=loud"] {
            assert!(targets(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_of_several_lines_stays_one() {
        assert_eq!(logged(|| warn!("first\n  second")), "<4>first second\n");
    }

    /// What the journal gets while this runs.
    fn logged(run: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let to = Sink(lines.clone());
        let layer = layer().event_format(JournalLine).with_writer(move || to.clone());
        with_default(tracing_subscriber::registry().with(layer), run);
        let lines = lines.lock().unwrap();
        String::from_utf8(lines.clone()).unwrap()
    }

    #[derive(Clone)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
