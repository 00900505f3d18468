//! What the agent does when it is sent a signal.
//!
//! By default most signals end a process on the spot: the others would find the node dead rather
//! than hear its goodbye. So each signal that can be caught either makes the agent stop with a
//! goodbye or is a line in the log. Two pass without a line: SIGPIPE, since a reader that hangs up
//! causes one, and SIGXFSZ, which comes with a failed write that is told by itself. Signals that
//! report a crash, pause a process or kill it keep their meaning.

use std::io::{self, IsTerminal};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Reads the configuration anew, and says what came of it.
pub type Reload = Box<dyn FnMut() -> Result<String, String> + Send>;

/// What a signal is to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The agent is to stop.
    Stop,
    /// The agent is to read its configuration anew; or its terminal is gone, and it is to stop.
    Hangup,
    /// The signal asks for nothing, and the log says so.
    Nothing,
    /// The signal comes with a failure that is told by itself.
    Known,
}

/// The signals that the agent catches: those that would end it.
const SIGNALS: [(&str, Signal, Meaning); 14] = [
    ("SIGHUP", Signal::HUP, Meaning::Hangup),
    ("SIGINT", Signal::INT, Meaning::Stop),
    ("SIGQUIT", Signal::QUIT, Meaning::Stop),
    ("SIGUSR1", Signal::USR1, Meaning::Nothing),
    ("SIGUSR2", Signal::USR2, Meaning::Nothing),
    ("SIGALRM", Signal::ALARM, Meaning::Nothing),
    ("SIGTERM", Signal::TERM, Meaning::Stop),
    ("SIGXCPU", Signal::XCPU, Meaning::Nothing),
    // Where this is caught, a write to a file that may not grow any more fails as on a full disk.
    ("SIGXFSZ", Signal::XFSZ, Meaning::Known),
    ("SIGVTALRM", Signal::VTALARM, Meaning::Nothing),
    ("SIGIO", Signal::IO, Meaning::Nothing),
    ("SIGSTKFLT", Signal::STKFLT, Meaning::Nothing),
    ("SIGPROF", Signal::PROF, Meaning::Nothing),
    // The power is about to fail.
    ("SIGPWR", Signal::POWER, Meaning::Stop),
];

/// The signals of this process, caught.
pub struct Signals {
    caught: mpsc::Receiver<(&'static str, Meaning)>,
    reload: Reload,
    /// Whether the agent runs on a terminal, which may hang up.
    on_terminal: bool,
}

impl Signals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    /// The system has no more resources for that.
    pub fn catch(reload: Reload) -> io::Result<Self> {
        let (sender, caught) = mpsc::channel(SIGNALS.len());
        for (name, signal, meaning) in SIGNALS {
            let signal = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
            tokio::spawn(pass_on(signal, name, meaning, sender.clone()));
        }
        Ok(Self { caught, reload, on_terminal: io::stderr().is_terminal() })
    }

    /// Waits for the signal that stops the agent; does what the signals before it ask for.
    pub async fn stop(&mut self) {
        while let Some((name, meaning)) = self.caught.recv().await {
            match meaning {
                Meaning::Stop => return info!("{name}: stopping"),
                Meaning::Hangup if self.on_terminal => {
                    return info!("{name}: the terminal is gone; stopping");
                }
                Meaning::Hangup => match (self.reload)() {
                    Ok(told) => info!("{name}: the configuration was read anew: {told}"),
                    Err(error) => warn!("{name}: nothing is changed: {error}"),
                },
                Meaning::Known => {}
                Meaning::Nothing => warn!("{name} means nothing to the agent, which goes on"),
            }
        }
    }
}

async fn pass_on(
    mut signal: unix::Signal,
    name: &'static str,
    meaning: Meaning,
    to: mpsc::Sender<(&'static str, Meaning)>,
) {
    while signal.recv().await.is_some() {
        if to.send((name, meaning)).await.is_err() {
            return;
        }
    }
}
