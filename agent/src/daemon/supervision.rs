//! What the agent tells systemd: that it is ready, how it is doing, that it still works, that it
//! stops. Where systemd did not start the agent, nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use peerage_proto::liveness::State;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::node::Node;

/// How often the status line is looked at.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Says that the agent is ready, then reports until the task is aborted. The watchdog is fed only
/// while the replica answers, so systemd restarts an agent that hangs.
pub(super) async fn report(node: Arc<Node>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    notify(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    let every = watchdog.map_or(STATUS_EVERY, |feed| feed.min(STATUS_EVERY));
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = String::new();
    loop {
        ticks.tick().await;
        if watchdog.is_some() {
            match timeout(every, answers(&node)).await {
                Ok(()) => notify(&[NotifyState::Watchdog]),
                Err(_) => warn!("the replica does not answer; the watchdog is not fed"),
            }
        }
        let now = status(&node);
        if now != before {
            notify(&[NotifyState::Status(&now)]);
            before = now;
        }
    }
}

/// Says that the agent stops.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

async fn answers(node: &Node) {
    if let Some(membership) = node.membership() {
        // An error is an answer, too: it means that the membership is just ending.
        let _ = membership.replica.read(|_| ()).await;
    }
}

fn status(node: &Node) -> String {
    let Some(membership) = node.membership() else {
        return node.notice().map_or_else(|| "standalone".into(), |notice| notice.message);
    };
    let roster = membership.roster();
    let standings = membership.members.standings();
    let others = roster.current().filter(|member| member.id != membership.me);
    let (mut alive, mut not) = (1, 0);
    for member in others {
        match standings.get(&member.id).map(|standing| standing.state) {
            Some(State::Alive | State::Suspect) => alive += 1,
            _ => not += 1,
        }
    }
    let board = node.notices().board();
    let notice =
        board.borrow().standing().next().map(|(_, notice)| format!("; {}", notice.message));
    format!("{}: {alive} alive, {not} not{}", roster.datacenter_name, notice.unwrap_or_default())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd was not told");
    }
}
