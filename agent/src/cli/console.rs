//! What a command says and hears: data on stdout, words on stderr, answers from stdin.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use peerage_proto::api::{ApiError, ErrorCode, Exit, HowLong, text};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Serialize;
use tokio::time::Instant;

use super::Stop;
use super::qr::Picture;
use super::table::Table;
use super::text::printable;

/// For how long a command waits silently; after that it says that it is waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the waiting time is shown anew.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Moves the cursor to the start of the line, and clears the line.
const CLEAR_LINE: &str = "\r\x1b[K";

/// The exit code of a process that Ctrl-C ended, as shells tell it.
const EXIT_INTERRUPTED: i32 = 130;

/// Where a command reads its input and writes its output.
pub struct Console {
    json: bool,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    input: Box<dyn BufRead>,
    /// Which of the three streams is a terminal, with a person in front of it.
    terminal: Terminal,
}

/// Which of a command's three streams is a terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Whether stdout is a terminal.
    pub out: bool,
    /// Whether stderr is a terminal.
    pub err: bool,
    /// Whether stdin is a terminal.
    pub input: bool,
}

impl Console {
    /// The process's own three streams.
    pub fn of_this_process(json: bool) -> Self {
        let terminal = Terminal {
            out: io::stdout().is_terminal(),
            err: io::stderr().is_terminal(),
            input: io::stdin().is_terminal(),
        };
        let input = Box::new(io::BufReader::new(io::stdin()));
        Self::new(json, Box::new(io::stdout()), Box::new(io::stderr()), input, terminal)
    }

    /// A console over any three streams.
    pub fn new(
        json: bool,
        out: Box<dyn Write>,
        err: Box<dyn Write>,
        input: Box<dyn BufRead>,
        terminal: Terminal,
    ) -> Self {
        Self { json, out, err, input, terminal }
    }

    /// Whether data is to be JSON.
    pub(super) fn wants_json(&self) -> bool {
        self.json
    }

    /// Whether stdout is a terminal.
    pub(super) fn shows_to_a_person(&self) -> bool {
        self.terminal.out
    }

    /// Whether someone can be asked.
    pub(super) fn can_ask(&self) -> bool {
        self.terminal.input && self.terminal.err
    }

    /// Prints a line of data, as it is.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Stop> {
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }

    /// Prints data as JSON: in one line for programs, indented for a person.
    pub(super) fn json(&mut self, data: &impl Serialize) -> Result<(), Stop> {
        let text = match self.terminal.out {
            true => serde_json::to_string_pretty(data),
            false => serde_json::to_string(data),
        };
        self.line(&text.expect("what the api answers are maps with text keys"))
    }

    /// Prints data as indented JSON, also for programs: a text that is kept and compared.
    pub(super) fn json_text(&mut self, data: &impl Serialize) -> Result<(), Stop> {
        let text = serde_json::to_string_pretty(data);
        self.line(&text.expect("what the api answers are maps with text keys"))
    }

    /// Prints data as JSON in one line, also for people: one item of a stream.
    pub(super) fn json_line(&mut self, data: &impl Serialize) -> Result<(), Stop> {
        self.line(&serde_json::to_string(data).expect("what the api tells are maps with text keys"))
    }

    /// Prints a table.
    pub(super) fn table(&mut self, table: &Table) -> Result<(), Stop> {
        write!(self.out, "{table}")?;
        Ok(self.out.flush()?)
    }

    /// Clears the screen before data that takes the place of what was there.
    pub(super) fn clear_screen(&mut self) -> Result<(), Stop> {
        if self.terminal.out {
            write!(self.out, "\x1b[H\x1b[J")?;
        }
        Ok(())
    }

    /// Says something to a person. With `--json` nobody is there to hear it.
    pub(super) fn say(&mut self, words: impl Display) {
        if !self.json {
            // Data may be read while stderr is closed; a command does not fail for that.
            let _ = writeln!(self.err, "{}", printable(&words.to_string()));
        }
    }

    /// Warns a person: said with `--json`, too, since it goes to stderr and is no answer.
    pub fn warn(&mut self, words: impl Display) {
        let _ = writeln!(self.err, "peerage: {}", printable(&words.to_string()));
    }

    /// Shows a picture beside the data, with `--json` too, and says so if the terminal has no room
    /// for it.
    pub(super) fn show(&mut self, picture: &Picture) {
        let _ = writeln!(self.err, "{picture}");
        let size = self.terminal.err.then(|| tcgetwinsize(io::stderr()).ok()).flatten();
        // A terminal that does not know its size says 0.
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let size = size.filter(|(columns, rows)| *columns > 0 && *rows > 0);
        let (columns, rows) = (picture.columns(), picture.rows());
        if let Some((wide, high)) = size.filter(|(wide, high)| *wide < columns || *high < rows) {
            self.warn(format_args!(
                "the QR code is {columns} columns wide and {rows} lines high, and this terminal \
                 {wide} and {high}: make it larger, or its letters smaller"
            ));
        }
    }

    /// Shows what the question is about and asks it; any answer but `y` or `yes` is no.
    pub(super) fn confirm(&mut self, about: &Table, question: &str) -> Result<bool, Stop> {
        write!(self.err, "{about}{question} [y/N] ")?;
        self.err.flush()?;
        let answer = self.read_line()?.unwrap_or_default();
        Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Shows what would be lost, and asks the person to type its name: nobody types that by habit.
    pub(super) fn confirm_by_name(&mut self, loss: &ApiError, name: &str) -> Result<bool, Stop> {
        let (message, name) = (printable(&loss.message), printable(name));
        writeln!(self.err, "{message}")?;
        if let Some(hint) = &loss.hint {
            writeln!(self.err, "  {}", printable(hint))?;
        }
        write!(self.err, "To go on all the same, type {name}: ")?;
        self.err.flush()?;
        Ok(self.read_line()?.is_some_and(|answer| answer.trim() == name))
    }

    /// Asks for a secret, which a terminal does not show.
    pub(super) fn secret(&mut self, question: &str) -> Result<Option<String>, Stop> {
        if !self.terminal.input {
            return self.read_line();
        }
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        restore_on_interrupt(before.clone());
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(io::Error::from)?;
        // The question is asked only now: an answer typed before would have been shown, and thrown
        // away.
        write!(self.err, "{question}: ")?;
        self.err.flush()?;
        let answer = self.read_line();
        tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(io::Error::from)?;
        writeln!(self.err)?;
        answer
    }

    /// The next line of stdin without its end, and without the byte order mark that may stand before
    /// the first; `None` where there is no more.
    pub(super) fn read_line(&mut self) -> Result<Option<String>, Stop> {
        let mut line = String::new();
        let length = self.input.read_line(&mut line).map_err(|error| cannot_read(&error))?;
        let line = text::without_mark(&line).trim_end_matches(['\r', '\n']);
        Ok((length > 0).then(|| line.to_owned()))
    }

    /// The rest of stdin.
    pub(super) fn read_all(&mut self) -> Result<String, Stop> {
        let mut text = String::new();
        self.input.read_to_string(&mut text).map_err(|error| cannot_read(&error))?;
        Ok(text)
    }

    /// Waits for work to end. If a person looks on, it says after a second what it waits for, and
    /// for how long already.
    pub(super) async fn attend<T>(&mut self, doing: &str, work: impl Future<Output = T>) -> T {
        if self.json || !self.terminal.err {
            return work.await;
        }
        let begun = Instant::now();
        let mut ticks = tokio::time::interval_at(begun + PATIENCE, PROGRESS_EVERY);
        let mut told = false;
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = ticks.tick() => {
                    told = true;
                    let passed = HowLong(Duration::from_secs(begun.elapsed().as_secs()));
                    let _ = write!(self.err, "{CLEAR_LINE}{doing} ... {passed}");
                    let _ = self.err.flush();
                }
            }
        };
        if told {
            let _ = write!(self.err, "{CLEAR_LINE}");
            let _ = self.err.flush();
        }
        done
    }

    /// As [`end`](Self::end), for a command that asks no agent.
    pub fn end_of(&mut self, outcome: Result<(), ApiError>) -> Exit {
        self.end(outcome.map_err(Stop::Failed))
    }

    /// Says how the command ended, where there is something to say, and gives back its exit.
    pub(super) fn end(&mut self, outcome: Result<(), Stop>) -> Exit {
        let error = match outcome {
            Ok(()) | Err(Stop::PipeClosed) => return Exit::Done,
            Err(Stop::Failed(error)) => error,
        };
        // If stderr is closed too, the exit code is all that is left to tell.
        let _ = match (self.json, &error.hint) {
            (true, _) => {
                let text = serde_json::to_string(&error).expect("an error is three texts");
                writeln!(self.err, "{text}")
            }
            (false, None) => writeln!(self.err, "peerage: {}", printable(&error.message)),
            (false, Some(hint)) => {
                let (message, hint) = (printable(&error.message), printable(hint));
                writeln!(self.err, "peerage: {message}\n  {hint}")
            }
        };
        error.code.exit()
    }
}

/// Makes Ctrl-C set the terminal back as it was, before it ends the process as it always does. A
/// thread of its own waits for Ctrl-C, since reading the answer blocks this one.
fn restore_on_interrupt(before: Termios) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
            std::process::exit(EXIT_INTERRUPTED);
        }
    });
}

fn cannot_read(error: &io::Error) -> ApiError {
    ApiError::new(ErrorCode::Failed, format!("cannot read stdin: {error}"))
}
