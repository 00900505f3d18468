//! `peerage demo`: real agents at work on one host, shown step by step with what each step took.
//!
//! The agents are processes of this very binary, on the loopback device, in a temporary folder.
//! They are asked over their sockets, as any user would. However the demo ends, by a signal, a
//! failed step or a kill, the agents end with it and the folder goes.

mod folder;
mod node;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use peerage_proto::api::invites::{CreateInvite, Uses};
use peerage_proto::api::members::MemberState;
use peerage_proto::api::node::{Create, Join};
use peerage_proto::api::settings::SetFields;
use peerage_proto::api::{HowLong, SOCKET_PATH_BYTES_MAX};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use folder::Folder;
use node::Node;

/// How long a step may take, such as waiting until all nodes see each other alive.
const STEP_BOUND: Duration = Duration::from_secs(30);

/// How often a waiting step asks the nodes again. The measured times are no finer than this.
const POLL: Duration = Duration::from_millis(2);

/// What the Data Center of the demo is called.
const DATA_CENTER: &str = "demo";

/// The paths of the documents: one is written while the founder runs, one while it is down.
const DOCUMENTS: [&str; 2] = ["storage/nas1", "storage/nas2"];

/// What to show.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many agents; at least two.
    pub nodes: u32,
    /// Whether to end once everything has been shown.
    pub once: bool,
}

/// Runs the demo, and returns when it has ended and nothing of it is left.
///
/// # Errors
/// The step that failed, after the end of every agent's log was printed on stderr; or why the demo
/// could not begin.
pub fn run(options: Options) -> anyhow::Result<()> {
    // One thread: the agents die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stop = StopSignal::new()?;
        let mut demo = Demo::new(options.nodes)?;
        let shown = tokio::select! {
            shown = demo.show() => shown.map(|()| !options.once),
            () = stop.received() => Ok(false),
        };
        if let Err(error) = &shown {
            eprintln!("\nThis step failed: {error:#}");
            demo.nodes.iter().for_each(Node::print_log_tail);
        }
        if matches!(shown, Ok(true)) {
            demo.tell_how_to_talk()?;
            stop.received().await;
        }
        demo.end().await;
        shown.map(|_| ()).context("the demo did not go as promised")
    })
}

/// The agents and what they live in. The nodes come first, so that they go before the folder.
#[derive(Debug)]
struct Demo {
    nodes: Vec<Node>,
    folder: Folder,
}

impl Demo {
    fn new(count: u32) -> anyhow::Result<Self> {
        let folder = Folder::new().context("no temporary folder can be made")?;
        let nodes: Vec<_> =
            (1..=count).map(|i| Node::new(&format!("pve-{i}"), folder.path())).collect();
        let longest = nodes.iter().map(|node| node.socket().as_os_str().len()).max();
        anyhow::ensure!(
            longest.is_none_or(|bytes| bytes <= SOCKET_PATH_BYTES_MAX),
            "the temporary folder {} has too long a name for the agents' sockets, whose paths may be \
             {SOCKET_PATH_BYTES_MAX} bytes long: set TMPDIR to a shorter one",
            folder.path().display()
        );
        Ok(Self { nodes, folder })
    }

    /// Shows everything, one step after the other.
    async fn show(&mut self) -> anyhow::Result<()> {
        let count = self.nodes.len();
        say(format_args!("{count} agents on this host, in {}", self.folder.path().display()));

        let clock = Clock::started();
        for node in &mut self.nodes {
            node.start()?;
        }
        within("all agents answer", try_join_all(self.nodes.iter_mut().map(Node::ready))).await?;
        let all = names(&self.nodes);
        clock.step("start", format_args!("the agents {} answer", listed(&all)));

        let [founder, others @ ..] = &self.nodes[..] else { bail!("a demo takes two agents") };
        let clock = Clock::started();
        founder.client().call(&Create { name: DATA_CENTER.to_owned() }).await?;
        let what = format_args!("{} founds the Data Center {DATA_CENTER:?}", founder.name());
        clock.step("create", what);

        let clock = Clock::started();
        let for_all = CreateInvite { uses: Uses::Any, ..CreateInvite::default() };
        let invite = founder.client().call(&for_all).await?;
        clock.step(
            "invite",
            format_args!("{} makes a token: {}", founder.name(), cut(&invite.token)),
        );

        let clock = Clock::started();
        let joins = others.iter().map(|node| join(node, &invite.token));
        within("all join", try_join_all(joins)).await?;
        clock.step("join", format_args!("{} join with it, all at once", listed(&all[1..])));
        see(&self.nodes, &all, MemberState::Alive).await?;
        clock.step("members", "every node sees every node alive");

        let writer = &others[0];
        self.set_and_read(writer, DOCUMENTS[0], &self.nodes).await?;

        self.lose_the_founder_and_go_on().await?;
        self.bring_the_founder_back().await
    }

    /// Kills the founder; the others notice, and write without it.
    async fn lose_the_founder_and_go_on(&mut self) -> anyhow::Result<()> {
        let clock = Clock::started();
        self.nodes[0].kill().await?;
        let founder = self.nodes[0].name();
        clock.step("kill", format_args!("{founder}, the founder, is killed (SIGKILL)"));
        let others = &self.nodes[1..];
        see(others, &[founder], MemberState::Down).await?;
        clock.step("down", format_args!("{} see it down", listed(&names(others))));
        let writer = others.last().expect("a demo has two agents at least");
        self.set_and_read(writer, DOCUMENTS[1], others).await
    }

    /// Starts the founder again with the data on its disk. It then catches up with what it missed.
    async fn bring_the_founder_back(&mut self) -> anyhow::Result<()> {
        let clock = Clock::started();
        self.nodes[0].start()?;
        within("the founder answers", self.nodes[0].ready()).await?;
        let founder = &self.nodes[0];
        clock.step("return", format_args!("{} is started again, with no token", founder.name()));
        let found = self.nodes.last().expect("a demo has agents").fields(DOCUMENTS[1]).await?;
        until("the founder has caught up", async || {
            Ok(founder.fields(DOCUMENTS[1]).await? == found)
        })
        .await?;
        let what = format_args!("it reads {} that it missed", DOCUMENTS[1]);
        clock.step("caught up", what);
        see(&self.nodes, &names(&self.nodes), MemberState::Alive).await?;
        clock.step("members", "every node sees every node alive");
        Ok(())
    }

    /// Sets a document on one node and reads it on each of `readers`.
    async fn set_and_read(
        &self,
        writer: &Node,
        path: &str,
        readers: &[Node],
    ) -> anyhow::Result<()> {
        let fields = BTreeMap::from([
            ("server".to_owned(), json!("192.0.2.10")),
            ("by".to_owned(), json!(writer.name())),
        ]);
        let set = SetFields { path: path.to_owned(), set: fields, ..SetFields::default() };
        let wanted = Some(set.set.clone());
        let clock = Clock::started();
        writer.client().call(&set).await?;
        clock.step("set", format_args!("{} sets {path}; it is on its disk", writer.name()));
        until("every node reads the document", async || {
            for reader in readers {
                if reader.fields(path).await? != wanted {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        clock.step("read", format_args!("{} read the same", listed(&names(readers))));
        Ok(())
    }

    fn tell_how_to_talk(&self) -> io::Result<()> {
        let binary = std::env::current_exe()?;
        say("\nThe agents stay up. Talk to each of them:");
        for node in &self.nodes {
            let socket = node.socket().display();
            say(format_args!("  {} --socket {socket} members", binary.display()));
        }
        say("and try invite, settings set, remove, or --help. Ctrl-C stops them all.");
        Ok(())
    }

    /// Stops all agents, and removes the folder when the last has stopped.
    async fn end(mut self) {
        futures_util::future::join_all(self.nodes.iter_mut().map(Node::stop)).await;
    }
}

async fn join(node: &Node, token: &str) -> anyhow::Result<()> {
    let join = Join { token: token.to_owned(), name: None, password: None, replace: false };
    let joined = node.client().call(&join).await;
    joined.map(|_| ()).with_context(|| format!("{} does not join", node.name()))
}

/// Waits until every one of `nodes` sees all members of these names in this state.
async fn see(nodes: &[Node], names: &[&str], state: MemberState) -> anyhow::Result<()> {
    until(&format!("all see {} {state}", listed(names)), async || {
        for node in nodes {
            let members = node.members().await?;
            let is = |name: &&str| members.iter().any(|m| m.name == **name && m.state == state);
            if !names.iter().all(is) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// Asks again and again until `look` answers yes, for at most [`STEP_BOUND`].
async fn until(
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    within(what, async {
        while !look().await? {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    })
    .await
}

/// Waits for no longer than a step may take.
async fn within<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(STEP_BOUND, work).await {
        Ok(done) => done,
        Err(_) => bail!("not within {}: {what}", HowLong(STEP_BOUND)),
    }
}

/// Measures a step: prints it with the time that passed since the clock was started.
struct Clock(Instant);

impl Clock {
    fn started() -> Self {
        Self(Instant::now())
    }

    fn step(&self, word: &str, what: impl std::fmt::Display) {
        let took_ms = self.0.elapsed().as_secs_f64() * 1000.0;
        say(format_args!("  {took_ms:>8.1} ms  {word:<10} {what}"));
    }
}

/// The signals that end the demo.
struct StopSignal([tokio::signal::unix::Signal; 3]);

impl StopSignal {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn received(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn names(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().map(Node::name).collect()
}

/// Names as a person lists them; the middle of many is left out.
fn listed(names: &[&str]) -> String {
    match names {
        [first, .., last] if names.len() > 4 => format!("{first} to {last}"),
        _ => names.join(", "),
    }
}

/// The beginning of a token, enough to recognise it.
fn cut(token: &str) -> String {
    let shown: String = token.chars().take(24).collect();
    format!("{shown}... ({} characters)", token.len())
}

/// Prints a line at once. The demo goes on when nobody reads its output any more.
fn say(line: impl std::fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_cut_in_the_middle() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c", "d"]), "a, b, c, d");
        assert_eq!(listed(&["a", "b", "c", "d", "e"]), "a to e");
    }
}
