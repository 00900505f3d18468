//! One agent as a process of its own, with a folder of its own.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, Events, Failure};
use crate::command::{self, Ran};
use crate::netlab::Namespace;
use crate::patience::{SOON, eventually};
use crate::process;

/// How many bytes at the end of its log an agent gives to its test, and shows when the test fails.
const LOG_TAIL_BYTES: u64 = 6000;

/// How long a graceful stop may take.
const STOP_BOUND: Duration = Duration::from_secs(15);

/// An agent. It may run or not; dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Agent {
    name: String,
    home: TempDir,
    data: PathBuf,
    /// The port that it listens on. It is kept over restarts, since the others know the agent by
    /// it.
    port: Option<u16>,
    /// The address that it listens on.
    host: String,
    /// What its configuration file says.
    config: String,
    /// The host that it runs on, where that is not this one.
    network: Option<Arc<Namespace>>,
    /// What it takes for `/etc/hosts`, where that is not this host's.
    hosts: Option<PathBuf>,
    child: Option<Child>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
}

impl Agent {
    /// An agent that does not run yet.
    pub fn named(name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("peerage-test-").tempdir();
        let home = home.expect("a temporary folder can be made");
        Self {
            name: name.to_owned(),
            data: home.path().join("data"),
            home,
            port: None,
            host: "127.0.0.1".to_owned(),
            config: String::new(),
            network: None,
            hosts: None,
            child: None,
            args: Vec::new(),
            envs: Vec::new(),
        }
    }

    /// An agent that runs and answers, standalone.
    pub fn start(name: &str) -> Self {
        let mut agent = Self::named(name);
        agent.restart();
        agent
    }

    /// Adds to the command line of the next starts.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Adds to the environment of the next starts.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on this address in place of 127.0.0.1, such as `[::]`.
    #[must_use]
    pub fn on_host(mut self, host: &str) -> Self {
        self.move_to(host);
        self
    }

    /// Listens on this address from the next start on.
    pub fn move_to(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// Uses this configuration file from the next start on.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.config);
        self
    }

    /// Uses this data folder instead of one of its own.
    #[must_use]
    pub fn on_data(mut self, data: PathBuf) -> Self {
        self.data = data;
        self
    }

    /// Runs it in this network, where it listens on all addresses, at the port that is the default.
    #[must_use]
    pub fn in_network(mut self, network: &Arc<Namespace>) -> Self {
        self.network = Some(network.clone());
        self
    }

    /// Lets it see this file as `/etc/hosts`, and what is written into it while it runs. Needs root,
    /// which a [`Lab`](crate::Lab) needs, too.
    #[must_use]
    pub fn with_hosts(mut self, file: &Path) -> Self {
        self.hosts = Some(file.to_owned());
        self
    }

    /// Forgets what [`Agent::args`] and [`Agent::env`] added.
    pub fn plain(&mut self) {
        self.args.clear();
        self.envs.clear();
    }

    /// Its name, as it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("peerage.sock")
    }

    /// A path in its folder, outside its data.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The id of its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the agent runs").id()
    }

    /// The port that it listens on; known once it has run.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Starts the process, and returns before it answers.
    ///
    /// The thread that starts it must outlive it: the agent dies with that thread.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        // The agent gets a configuration file of its own, so that the host's does not count.
        fs::write(self.config_path(), &self.config).expect("a folder of the test can be written");
        let mut command = self.command();
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("the log can be opened");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file clones")).stderr(log);
        die_with_parent(&mut command);
        self.child = Some(command.spawn().expect("the agent starts"));
    }

    /// Starts it again, with the data and the port that it had, and waits until it answers.
    pub fn restart(&mut self) {
        self.spawn();
        self.ready();
    }

    /// Waits until it answers, and learns its port.
    pub fn ready(&mut self) {
        let client = self.client();
        let child = self.child.as_mut().expect("the agent was started");
        let status = eventually(&format!("{} answers", self.name), SOON, || {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Ok(Err(status));
            }
            client.get("status").map(Ok)
        });
        match status {
            Ok(status) => self.port = self.port.or_else(|| port_in(&status)),
            Err(status) => panic!("{} ended at its start, {status}: {}", self.name, self.log()),
        }
    }

    /// Runs the agent where it is expected to end by itself, within a bound.
    pub fn run_to_end(&mut self) -> Ran {
        fs::write(self.config_path(), &self.config).expect("a folder of the test can be written");
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        if exit_of(&mut child, STOP_BOUND).is_none() {
            child.kill().expect("a child can be killed");
            panic!("{} was expected to end and still runs", self.name);
        }
        child.wait_with_output().expect("the agent ended").into()
    }

    /// Kills it: nothing that it has not committed survives.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Asks it to stop, as systemd does, and waits until it has.
    ///
    /// # Panics
    /// When it takes longer than a service manager would wait.
    pub fn stop(&mut self) -> ExitStatus {
        self.tell_to_stop();
        self.ended()
    }

    /// Asks it to stop, as systemd does.
    pub fn tell_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until an agent that was told to stop has ended.
    ///
    /// # Panics
    /// As [`Agent::stop`].
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the agent runs");
        match exit_of(&mut child, STOP_BOUND) {
            Some(status) => status,
            None => {
                child.kill().expect("a child can be killed");
                panic!("{} did not stop within {STOP_BOUND:?}", self.name)
            }
        }
    }

    /// Holds the process still, as a host that hangs.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Copies its data folder to `to`, which is replaced. The agent must not run.
    pub fn save_disk(&self, to: &Path) {
        assert!(self.child.is_none(), "the disk of a running agent changes while it is copied");
        copy_folder(self.data(), to);
    }

    /// Makes its data folder what [`Agent::save_disk`] saved. The agent must not run.
    pub fn restore_disk(&self, from: &Path) {
        assert!(self.child.is_none(), "the disk of a running agent cannot be replaced");
        copy_folder(from, self.data());
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// The command line against it: `peerage --socket S ARGS`.
    pub fn cli(&self, args: &[&str]) -> Ran {
        self.cli_with(args, "")
    }

    /// As [`Agent::cli`], with this on standard input.
    pub fn cli_with(&self, args: &[&str], stdin: &str) -> Ran {
        Ran::run(&mut self.cli_command(args), stdin)
    }

    /// The command that [`Agent::cli`] runs.
    pub fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = command::peerage();
        command.arg("--socket").arg(self.socket()).args(args);
        command
    }

    /// Founds a Data Center.
    #[track_caller]
    pub fn create(&self, datacenter: &str) {
        self.client().post("create", &json!({ "name": datacenter })).expect("it founds");
    }

    /// Makes Join Information with these wishes, and returns the token.
    #[track_caller]
    pub fn invite(&self, wishes: Value) -> String {
        let invite = self.client().post("invites", &wishes).expect("it invites");
        invite["token"].as_str().expect("an invitation has a token").to_owned()
    }

    /// Joins under the name that the agent was started with.
    pub fn join(&self, token: &str) -> Result<Value, Failure> {
        self.client().post("join", &json!({ "token": token }))
    }

    /// What it says of itself.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.client().get("status").expect("it tells its status")
    }

    /// The members as it sees them.
    #[track_caller]
    pub fn members(&self) -> Vec<Value> {
        match self.client().get("members").expect("it lists the members") {
            Value::Array(members) => members,
            other => panic!("members are a list, not {other}"),
        }
    }

    /// The state of a member as it sees it; empty where it knows none of this name.
    pub fn state_of(&self, name: &str) -> String {
        let members = self.client().get("members").unwrap_or_default();
        let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
        let member = members.iter().find(|member| member["name"] == name);
        member.and_then(|member| member["state"].as_str()).unwrap_or_default().to_owned()
    }

    /// Sets fields of a document; returns once they are on its disk.
    #[track_caller]
    pub fn set(&self, path: &str, fields: Value) -> Value {
        self.try_set(path, fields).expect("it sets")
    }

    /// As [`Agent::set`], where it may fail.
    pub fn try_set(&self, path: &str, fields: Value) -> Result<Value, Failure> {
        self.client().patch(&format!("settings/{path}"), &json!({ "set": fields }))
    }

    /// The fields of a document; `null` where there is none, or the agent does not answer.
    pub fn fields(&self, path: &str) -> Value {
        let document = self.client().get(&format!("settings/{path}"));
        document.map(|document| document["fields"].clone()).unwrap_or_default()
    }

    /// All documents, with their paths.
    #[track_caller]
    pub fn documents(&self) -> Value {
        self.client().get("settings").expect("it lists the settings")
    }

    /// The digest of the settings that it holds.
    pub fn digest(&self) -> String {
        let status = self.client().get("status").unwrap_or_default();
        status["settings"]["digest"].as_str().unwrap_or_default().to_owned()
    }

    /// Opens a stream of events of it.
    #[track_caller]
    pub fn events(&self, path: &str) -> Events {
        self.client().events(path, None).expect("it streams")
    }

    /// The end of its log, at most `LOG_TAIL_BYTES`.
    pub fn log(&self) -> String {
        let Ok(mut file) = File::open(self.log_path()) else { return String::new() };
        let length = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
        let mut tail = Vec::new();
        let start = length.saturating_sub(LOG_TAIL_BYTES);
        if file.seek(SeekFrom::Start(start)).is_ok() {
            let _ = file.read_to_end(&mut tail);
        }
        String::from_utf8_lossy(&tail).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.file("agent.log")
    }

    fn config_path(&self) -> PathBuf {
        self.file("peerage.toml")
    }

    fn command(&self) -> Command {
        let mut command = command::peerage();
        command
            .arg("agent")
            .arg("--config")
            .arg(self.config_path())
            .arg("--data-dir")
            .arg(self.data())
            .arg("--socket")
            .arg(self.socket())
            .args(["--name", &self.name])
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(hosts) = &self.hosts {
            Namespace::show_hosts(&mut command, hosts);
        }
        match &self.network {
            Some(network) => network.enter(&mut command),
            // Agents of one host share its ports.
            None => {
                command.args(["--listen", &format!("{}:{}", self.host, self.port.unwrap_or(0))]);
            }
        }
        command
    }

    fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} in {}:\n{}", self.name, self.home.path().display(), self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The port in the first of a node's own addresses.
fn port_in(status: &Value) -> Option<u16> {
    status["addresses"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

/// How a process ended; `None` when it has not within `bound`.
pub fn exit_of(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let deadline = std::time::Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if std::time::Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Makes the kernel kill the process when the thread that starts it ends, however it ends.
#[allow(unsafe_code)]
pub fn die_with_parent(command: &mut Command) {
    let bind = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec only async-signal-safe functions may run; this is one system
    // call without allocation or locks.
    unsafe { command.pre_exec(bind) };
}

fn copy_folder(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("a folder of the test can be removed");
    }
    // `cp` keeps modes, which the agent checks.
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success(), "{} could not be copied", from.display());
}
