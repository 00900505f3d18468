//! One host: a Linux with systemd as its first process, on which the package can be installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cgroup::Groups;
use super::disk::{Disk, Volume};
use super::kit::{Kit, unique};
use crate::agent::{die_with_parent, exit_of};
use crate::client::{Client, Failure};
use crate::command::{self, Ran};
use crate::netlab::Namespace;
use crate::patience::{LATER, SOON, eventually};

/// The agent's data, where every installed agent has it.
const DATA: &str = "/var/lib/peerage";

/// Where a host finds the package.
const PACKAGE: &str = "/srv/peerage.deb";

/// How the container says that its host asked for a reboot.
const REBOOT: i32 = 133;

/// How long a command on a host may take, in seconds.
const COMMAND_SECONDS: &str = "120";

/// How long a host may take to go down in good order.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(60);

/// How many lines of its journal a host shows when its test fails.
const JOURNAL_LINES: &str = "40";

/// A host. It may be on or off; dropping it takes it away.
#[derive(Debug)]
pub struct Host {
    name: String,
    machine: String,
    /// The container, and the host's own first process in it.
    container: Option<Child>,
    init: Option<u32>,
    namespace: Arc<Namespace>,
    groups: Groups,
    volume: Option<Volume>,
    disk: Disk,
    // Last, so that it is removed when nothing is mounted in it any more.
    home: TempDir,
}

impl Host {
    /// A host that is off, with the network of this namespace.
    ///
    /// # Panics
    /// When its disk cannot be made.
    pub fn new(kit: &Kit, name: &str, namespace: Arc<Namespace>) -> Self {
        let home = tempfile::Builder::new().prefix("peerage-host-").tempdir();
        let home = home.expect("a temporary folder can be made");
        let disk = Disk::over(kit.image(), home.path());
        fs::write(disk.root().join("etc/hostname"), format!("{name}\n")).expect("a root is ours");
        fs::copy(kit.package(), disk.root().join(PACKAGE.trim_start_matches('/')))
            .expect("the package is there");
        let machine = unique();
        Self {
            name: name.to_owned(),
            container: None,
            init: None,
            namespace,
            groups: Groups::new(&machine),
            machine,
            volume: None,
            disk,
            home,
        }
    }

    /// Keeps the agent's data on a file system of its own, from the next boot on.
    pub fn with_volume(&mut self, megabytes: u64) {
        self.volume = Some(Volume::new(self.home.path(), megabytes));
    }

    /// The name of the host and of its node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file system of the agent's data.
    ///
    /// # Panics
    /// When it has none.
    pub fn volume(&self) -> &Volume {
        self.volume.as_ref().expect("the test gave it one")
    }

    /// A path on the host, as this process reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.disk.root().join(path.trim_start_matches('/'))
    }

    /// Switches it on, and returns before it is up.
    ///
    /// The thread that does so must outlive it: the host dies with that thread.
    pub fn power_on(&mut self) {
        assert!(self.container.is_none(), "{} is on", self.name);
        let console = fs::File::options().create(true).append(true).open(self.console());
        let console = console.expect("a folder of the test can be written");
        // The shell enters the groups before it becomes the container.
        let enter: Vec<_> =
            self.groups.doors().map(|d| format!("echo $$ >{}", d.display())).collect();
        let mut container = Command::new("sh");
        container
            .args(["-c", &format!("{} && exec systemd-nspawn \"$@\"", enter.join(" && ")), "sh"])
            .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"])
            .arg(format!("--machine={}", self.machine))
            .arg(format!("--hostname={}", self.name))
            .arg(format!("--network-namespace-path={}", self.namespace.path()))
            .arg("--directory")
            .arg(self.disk.root());
        if let Some(volume) = &self.volume {
            container.arg(format!("--bind={}:{DATA}", volume.path().display()));
        }
        command::clean(&mut container);
        container
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .env("SYSTEMD_NSPAWN_LOCK", "0")
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("a file clones"))
            .stderr(console);
        die_with_parent(&mut container);
        self.container = Some(container.spawn().expect("a shell starts"));
    }

    /// Waits until it is up.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(&mut self) {
        let init = eventually(&format!("{} boots", self.name), LATER, || {
            let init = self
                .groups
                .init()
                .filter(|init| seen_by(*init).join("run/systemd/private").exists());
            init.ok_or_else(|| fs::read_to_string(self.console()).unwrap_or_default())
        });
        self.init = Some(init);
        // The command ends with 1 where a unit failed. The test decides whether a unit may fail.
        self.run(&["systemctl", "is-system-running", "--wait"]);
    }

    /// Reboots it in good order, and returns before it is up again.
    ///
    /// # Panics
    /// When it does not go down.
    pub fn reboot(&mut self) {
        self.run(&["systemctl", "--no-block", "reboot"]).exits(0);
        let ended = self.off();
        assert_eq!(ended.code(), Some(REBOOT), "{} went down to boot again", self.name);
        self.power_on();
    }

    /// Takes its power away: no process of it does anything more, and of its volume, if it has
    /// one, only what was synced is left.
    pub fn power_cut(&mut self) {
        if let Some(volume) = &self.volume {
            volume.cut();
        }
        send(self.init.expect("it is up"), Signal::KILL);
        self.off();
        if let Some(volume) = &mut self.volume {
            volume.restore();
        }
    }

    /// Stops all of its processes at once, as the kernel of a paused machine.
    pub fn freeze(&self) {
        self.groups.freeze(true);
    }

    /// Lets a frozen host go on.
    pub fn thaw(&self) {
        self.groups.freeze(false);
    }

    /// Runs a command on it, as root.
    pub fn run(&self, command: &[&str]) -> Ran {
        self.run_with(command, "")
    }

    /// As [`Host::run`], with this on standard input.
    pub fn run_with(&self, command: &[&str], stdin: &str) -> Ran {
        Ran::run(&mut self.command(command), stdin)
    }

    /// The command that [`Host::run`] runs.
    ///
    /// # Panics
    /// When the host is off.
    pub fn command(&self, command: &[&str]) -> Command {
        let init = self.init.unwrap_or_else(|| panic!("{} is off", self.name)).to_string();
        let mut enter = Command::new("timeout");
        enter
            .args(["--kill-after=5", COMMAND_SECONDS, "nsenter", "--all", "--target", &init, "--"])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        enter
    }

    /// Runs a line of shell on it, which must succeed, and returns what it printed.
    #[track_caller]
    pub fn shell(&self, line: &str) -> String {
        self.run(&["sh", "-euc", line]).exits(0).stdout.trim_end().to_owned()
    }

    /// Installs the package, which starts the agent.
    #[track_caller]
    pub fn install(&self) {
        self.run(&["dpkg", "--install", PACKAGE]).exits(0);
    }

    /// What systemd says of the agent's unit.
    #[track_caller]
    pub fn unit(&self, property: &str) -> String {
        self.shell(&format!("systemctl show --value --property {property} peerage"))
    }

    /// The agent's process, as this machine numbers it.
    #[track_caller]
    pub fn agent(&self) -> u32 {
        let inside = self.unit("MainPID");
        let processes = self.groups.processes("payload/system.slice/peerage.service");
        let own = |id: &&u32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or("");
            ids.split_whitespace().last() == Some(&inside)
        };
        *processes.iter().find(own).unwrap_or_else(|| panic!("no agent {inside} in {processes:?}"))
    }

    /// Sends the agent a signal.
    pub fn signal_agent(&self, signal: Signal) {
        send(self.agent(), signal);
    }

    /// What the agent's unit wrote to the journal since this host first booted; `options` narrow
    /// it down.
    pub fn journal(&self, options: &[&str]) -> String {
        let read = ["journalctl", "--unit=peerage", "--no-pager", "--quiet", "--output=cat"];
        self.run(&[&read, options].concat()).stdout
    }

    /// The command line on it: `peerage ARGS`.
    pub fn cli(&self, args: &[&str]) -> Ran {
        self.run(&[&["peerage"], args].concat())
    }

    /// A client of its agent, as root.
    ///
    /// # Panics
    /// When the host is off.
    pub fn client(&self) -> Client {
        let init = self.init.unwrap_or_else(|| panic!("{} is off", self.name));
        Client::new(seen_by(init).join("run/peerage/peerage.sock"))
    }

    /// Waits until its agent answers.
    #[track_caller]
    pub fn answers(&self) {
        let client = self.client();
        eventually(&format!("{} answers", self.name), SOON, || client.get("status"));
    }

    /// The state of a member as its agent sees it; empty where it knows none of this name.
    pub fn state_of(&self, name: &str) -> String {
        let members = self.client().get("members").unwrap_or_default();
        let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
        let member = members.iter().find(|member| member["name"] == name);
        member.and_then(|member| member["state"].as_str()).unwrap_or_default().to_owned()
    }

    /// Sets fields of a document; returns once they are on its disk.
    ///
    /// # Errors
    /// What its agent says.
    pub fn set(&self, path: &str, fields: Value) -> Result<Value, Failure> {
        self.client().patch(&format!("settings/{path}"), &json!({ "set": fields }))
    }

    /// The fields of a document; `null` where there is none, or the agent does not answer.
    pub fn fields(&self, path: &str) -> Value {
        let document = self.client().get(&format!("settings/{path}"));
        document.map(|document| document["fields"].clone()).unwrap_or_default()
    }

    /// The events that its agent still knows, oldest first.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let told = self.cli(&["events", "--json"]).exits(0).stdout;
        told.lines().map(|line| serde_json::from_str(line).expect("an event is JSON")).collect()
    }

    /// The messages of its events of a kind about a node.
    #[track_caller]
    pub fn told(&self, kind: &str, node: &str) -> Vec<String> {
        let events = self.events().into_iter();
        let events = events.filter(|event| event["kind"] == kind && event["node"] == node);
        events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until the container has ended.
    fn off(&mut self) -> ExitStatus {
        self.init = None;
        let mut container = self.container.take().expect("it is on");
        let ended = exit_of(&mut container, SHUTDOWN_BOUND);
        ended.unwrap_or_else(|| {
            kill(&mut container);
            panic!("{} did not go down: {:?}", self.name, fs::read_to_string(self.console()))
        })
    }

    fn console(&self) -> PathBuf {
        self.home.path().join("console.log")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() && self.init.is_some() {
            let journal = self.journal(&["--lines", JOURNAL_LINES, "--output=short-precise"]);
            eprintln!("--- the journal of {}:\n{journal}", self.name);
        }
        if let Some(init) = self.init.take() {
            let id = i32::try_from(init).ok().and_then(Pid::from_raw);
            let _ = id.map(|id| kill_process(id, Signal::KILL));
        }
        if let Some(mut container) = self.container.take() {
            kill(&mut container);
        }
        // What the container keeps for tools that talk with it.
        let _ = fs::remove_dir_all(format!("/run/systemd/nspawn/propagate/{}", self.machine));
    }
}

fn kill(container: &mut Child) {
    let _ = container.kill();
    let _ = container.wait();
}

/// The root of the file system that a process sees.
fn seen_by(process: u32) -> PathBuf {
    Path::new("/proc").join(process.to_string()).join("root")
}

fn send(process: u32, signal: Signal) {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process has an id");
    kill_process(id, signal).expect("a process of ours takes signals");
}
