//! What a person sees who joins at a terminal.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use peerage_tests::agent::exit_of;
use peerage_tests::fleet::DATA_CENTER;
use peerage_tests::hosts::{Host, Kit, Site};
use peerage_tests::patience::{LATER, SOON, until};

#[test]
fn a_terminal_is_asked_for_the_password_and_does_not_show_it() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 2);
    site.at_once(Host::install);
    site[0].cli(&["create", DATA_CENTER]).exits(0);
    let invite = site[0].cli(&["invite", "--no-secret", "--json"]).exits(0).json();
    let (token, password) =
        (invite["token"].as_str().unwrap(), invite["password"].as_str().unwrap());

    let mut dialog = Dialog::on(&site[1], &format!("peerage join {token}"));
    let shown = dialog.asks("[y/N]");
    assert!(shown.contains(DATA_CENTER), "it shows what is joined: {shown}");
    dialog.answer("y");
    dialog.asks("Password");
    dialog.answer(password);
    let shown = dialog.ends_with(0);
    assert!(!shown.contains(password), "{shown}");
    site.all_see_all();
}

/// A command on a host's terminal.
struct Dialog {
    command: Child,
    input: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Dialog {
    /// Runs it on a terminal of its own.
    fn on(host: &Host, line: &str) -> Self {
        let mut script =
            host.command(&["script", "--quiet", "--return", "--command", line, "/dev/null"]);
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut command = script.spawn().unwrap();
        let (input, mut output) = (command.stdin.take().unwrap(), command.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let screen = shown.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                screen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { command, input, shown }
    }

    /// Waits until this is on the screen, and returns all that is.
    #[track_caller]
    fn asks(&self, words: &str) -> String {
        let shown = || self.shown.lock().unwrap().clone();
        until(&format!("it asks {words:?}"), SOON, shown, |shown| shown.contains(words))
    }

    fn answer(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits until the command ends, and returns all that was on the screen.
    #[track_caller]
    fn ends_with(mut self, code: i32) -> String {
        let ended = exit_of(&mut self.command, LATER);
        let shown = self.shown.lock().unwrap().clone();
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{shown}");
        shown
    }
}
