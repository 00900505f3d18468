//! The side of Serf: its agent with its defaults, the lan profile among them, and a snapshot file,
//! so that an agent that starts again knows the others; a message is a user event.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peerage_tests::Lab;
use peerage_tests::agent::{die_with_parent, exit_of};
use peerage_tests::netlab::Namespace;
use peerage_tests::patience::{SOON, eventually};
use peerage_tests::process::signal;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::messages::MESSAGE_BYTES;
use crate::rpc::Rpc;
use crate::side::{Inbox, Side};

/// How long an agent that leaves may take: it waits until its goodbye has gone round.
const LEAVE_BOUND: Duration = Duration::from_secs(30);

/// What an agent logs whenever it believes that another one failed.
const FAILED: &str = "EventMemberFailed: ";

/// What an event's name begins with; its number follows.
const EVENT: &str = "message-";

/// Agents of Serf on the hosts of a lab.
pub(crate) struct Serf {
    hosts: Vec<Host>,
    /// Snapshots and logs.
    folder: TempDir,
    made: usize,
}

struct Host {
    network: Arc<Namespace>,
    address: IpAddr,
    /// The name of the agent and of its files.
    name: String,
    child: Option<Child>,
    rpc: Option<Rpc>,
}

/// What `serf version` says first.
pub(crate) fn version() -> io::Result<String> {
    let output = Command::new("serf").arg("version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

impl Serf {
    pub(crate) fn new(lab: &Lab) -> Self {
        let host = |host| Host {
            network: lab.host(host).clone(),
            address: lab.addresses(host)[0],
            name: String::new(),
            child: None,
            rpc: None,
        };
        let folder = tempfile::Builder::new().prefix("beside-serf-").tempdir();
        Self {
            hosts: (0..lab.hosts()).map(host).collect(),
            folder: folder.expect("a temporary folder can be made"),
            made: 0,
        }
    }

    /// Starts the agent of a host, which joins one of these if it can, and keeps trying.
    fn spawn(&mut self, host: usize, known: &[usize]) {
        let known = known.iter().map(|&other| format!("-retry-join={}", self.hosts[other].address));
        let known: Vec<_> = known.collect();
        let Host { network, address, name, .. } = &self.hosts[host];
        let log = File::options().create(true).append(true).open(self.log(host));
        let log = log.expect("a log can be opened");
        let mut command = Command::new("serf");
        command
            .arg("agent")
            .arg(format!("-node={name}"))
            .arg(format!("-bind={address}"))
            .arg(format!("-snapshot={}", self.folder.path().join(name).display()))
            .args(known)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file clones"))
            .stderr(log);
        network.enter(&mut command);
        die_with_parent(&mut command);
        self.hosts[host].child = Some(command.spawn().expect("serf starts"));
        self.hosts[host].rpc = None;
    }

    fn log(&self, host: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("{}.log", self.hosts[host].name))
    }

    /// Waits until the agent of a host answers.
    fn rpc(&mut self, host: usize) -> &mut Rpc {
        let Host { network, rpc, name, .. } = &mut self.hosts[host];
        rpc.get_or_insert_with(|| {
            eventually(&format!("{name} answers"), SOON, || Rpc::open(network))
        })
    }
}

impl Side for Serf {
    fn name(&self) -> &'static str {
        "Serf"
    }

    fn hosts(&self) -> usize {
        self.hosts.len()
    }

    fn fresh(&mut self, host: usize) {
        self.kill(host);
        self.made += 1;
        self.hosts[host].name = format!("pve-{}", self.made);
        self.spawn(host, &[]);
        self.rpc(host);
    }

    fn join(&mut self, host: usize) {
        let first = self.hosts[0].address.to_string();
        self.rpc(host).join(&first).expect("an agent joins");
    }

    fn leave(&mut self, host: usize) {
        self.rpc(host).leave().expect("an agent leaves");
        self.ended(host);
    }

    fn start(&mut self, host: usize) {
        let known: Vec<_> = (0..self.hosts.len()).filter(|other| *other != host).take(2).collect();
        self.spawn(host, &known);
    }

    fn kill(&mut self, host: usize) {
        self.hosts[host].rpc = None;
        if let Some(mut child) = self.hosts[host].child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    fn stop(&mut self, host: usize) {
        // Serf takes this signal as the request to leave in good order.
        signal(self.pid(host), Signal::INT);
    }

    fn ended(&mut self, host: usize) {
        self.hosts[host].rpc = None;
        let mut child = self.hosts[host].child.take().expect("the agent runs");
        if exit_of(&mut child, LEAVE_BOUND).is_none() {
            child.kill().expect("a child can be killed");
            panic!("{} did not leave within {LEAVE_BOUND:?}", self.hosts[host].name);
        }
    }

    fn pid(&self, host: usize) -> u32 {
        self.hosts[host].child.as_ref().expect("the agent runs").id()
    }

    fn present(&mut self, host: usize) -> Option<usize> {
        let Host { network, rpc, .. } = &mut self.hosts[host];
        let mut asked = match rpc.take() {
            Some(rpc) => rpc,
            None => Rpc::open(network).ok()?,
        };
        let present = asked.present().ok()?;
        *rpc = Some(asked);
        Some(present)
    }

    fn downs(&mut self) -> usize {
        let logs = (0..self.hosts.len()).map(|host| {
            let log = fs::read(self.log(host)).unwrap_or_default();
            String::from_utf8_lossy(&log).matches(FAILED).count()
        });
        logs.sum()
    }

    fn send(&mut self, host: usize, number: u64) {
        let payload = "x".repeat(MESSAGE_BYTES);
        self.rpc(host).send(&format!("{EVENT}{number}"), &payload).expect("an agent sends");
    }

    fn inbox(&mut self, host: usize) -> Box<dyn Inbox> {
        let mut rpc = Rpc::open(&self.hosts[host].network).expect("an agent answers");
        rpc.follow_events().expect("an agent tells events");
        Box::new(Stream(rpc))
    }
}

impl Drop for Serf {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the end of each log:");
            for host in 0..self.hosts.len() {
                let log = fs::read_to_string(self.log(host)).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(3).collect();
                eprintln!("{}: {lines:#?}", self.hosts[host].name);
            }
        }
        for host in &mut self.hosts {
            if let Some(mut child) = host.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The user events as an agent tells them.
struct Stream(Rpc);

impl Inbox for Stream {
    fn next(&mut self, bound: Duration) -> Option<u64> {
        self.0.next_event(bound).ok()?.strip_prefix(EVENT)?.parse().ok()
    }
}
