//! One agent of the demo, as a child process.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use peerage_proto::api::members::{ListMembers, Member};
use peerage_proto::api::node::GetStatus;
use peerage_proto::api::settings::{Fields, GetDocument};
use peerage_proto::api::{ApiError, ErrorCode};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};

use super::POLL;
use crate::cli::Client;

/// How long an agent may take to stop before it is killed.
const STOP_BOUND: Duration = Duration::from_secs(5);

/// How many lines of its log an agent shows when a step failed.
const LOG_TAIL_LINES: usize = 20;

/// An agent, running or not.
#[derive(Debug)]
pub(super) struct Node {
    name: String,
    home: PathBuf,
    socket: PathBuf,
    /// Where it listens. The port is the kernel's choice at the first start and kept afterwards.
    listen: SocketAddr,
    child: Option<Child>,
}

impl Node {
    pub(super) fn new(name: &str, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            home: folder.join(name),
            socket: folder.join(format!("{name}.sock")),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            child: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// Starts the process, and returns before it answers.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.home)?;
        // A configuration of its own, so that the host's does not count.
        let config = self.home.join("peerage.toml");
        fs::write(&config, "")?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PEERAGE_") {
                command.env_remove(variable);
            }
        }
        command
            .arg("agent")
            .arg("--config")
            .arg(config)
            .arg("--data-dir")
            .arg(self.home.join("data"))
            .arg("--socket")
            .arg(&self.socket)
            .args(["--name", &self.name, "--listen", &self.listen.to_string()])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C on the terminal must reach only the demo, which then stops all agents.
            .process_group(0)
            .kill_on_drop(true);
        die_with_parent(&mut command);
        self.child = Some(command.spawn().context("an agent cannot be started")?);
        Ok(())
    }

    /// Waits until it answers, and learns its port.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let client = self.client();
        let child = self.child.as_mut().context("it was not started")?;
        let status = loop {
            match client.call(&GetStatus {}).await {
                Ok(status) => break status,
                Err(error) if error.code != ErrorCode::Unreachable => return Err(error.into()),
                Err(_) => tokio::time::sleep(POLL).await,
            }
            if let Some(ended) = child.try_wait()? {
                bail!("{} ended at its start ({ended})", self.name);
            }
        };
        if let Some(address) = status.addresses.first() {
            self.listen = address.parse().context("it told an address that is none")?;
        }
        Ok(())
    }

    /// Kills it, as a power cut would.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to stop, and kills it if it does not.
    pub(super) async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_BOUND, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }

    pub(super) async fn members(&self) -> Result<Vec<Member>, ApiError> {
        self.client().call(&ListMembers {}).await
    }

    /// The fields of a document; `None` where there is none.
    pub(super) async fn fields(&self, path: &str) -> Result<Option<Fields>, ApiError> {
        let get = GetDocument { path: path.to_owned(), ..GetDocument::default() };
        match self.client().call(&get).await {
            Ok(document) => Ok(Some(document.fields)),
            Err(error) if error.code == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn print_log_tail(&self) {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        eprintln!("\nThe end of the log of {}:", self.name);
        for line in &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..] {
            eprintln!("  {line}");
        }
    }

    fn log(&self) -> PathBuf {
        self.home.join("agent.log")
    }
}

/// Makes the kernel kill the process when the thread that starts it ends, however it ends.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let bind = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec only async-signal-safe functions may run; this is one system
    // call without allocation or locks.
    unsafe { command.pre_exec(bind) };
}
