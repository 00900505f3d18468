//! `peerage status`.

use peerage_proto::api::HowLong;
use peerage_proto::api::node::{
    ClockStatus, GetStatus, MemberCounts, Notice, SettingsSummary, Status,
};
use peerage_proto::api::settings::Room;

use super::table::Table;
use super::text::{UNKNOWN, age, count, or_unknown, short, size};
use super::{Client, Console, Outcome};

pub(super) async fn status(client: &Client, console: &mut Console) -> Outcome {
    let status = console.attend("asking the agent", client.call(&GetStatus {})).await?;
    if console.wants_json() {
        return console.json(&status);
    }
    console.table(&table(&status))?;
    for notice in &status.notices {
        console.say(format_args!("{}{}", notice.message, repeated(notice)));
        if let Some(hint) = &notice.hint {
            console.say(format_args!("  {hint}"));
        }
    }
    if status.notices.is_empty() && status.datacenter.is_none() {
        console.say("to begin: `peerage create NAME`, or `peerage join`");
    }
    Ok(())
}

/// How often a notice's event happened, where it happened more than once.
fn repeated(notice: &Notice) -> String {
    match (&notice.since, notice.times) {
        (Some(since), 2..) => format!(" ({} times since {since})", notice.times),
        _ => String::new(),
    }
}

fn table(status: &Status) -> Table {
    let node = &status.node;
    let mut table = Table::default();
    let datacenter = match &status.datacenter {
        Some(datacenter) => format!("{} ({})", datacenter.name, short(&datacenter.id)),
        None => "none".to_owned(),
    };
    table.row(["Data Center", &datacenter]);
    table.row(["Node", &format!("{} ({}), {}", node.name, short(&node.id), node.state)]);
    if status.datacenter.is_some() {
        table.row(["Members", &members(&status.members)]);
        table.row(["Settings", &settings(&status.settings)]);
        let journal = size(status.settings.room.journal_bytes);
        table.row(["Journal", &format!("{journal} on disk")]);
    }
    let (version, up) = (&status.version, age(status.uptime_s as f64));
    table.row(["Agent", &format!("version {version}, up {up}, start {}", status.boot)]);
    let addresses = match status.addresses.as_slice() {
        [] => UNKNOWN.to_owned(),
        addresses => addresses.join(" "),
    };
    table.row(["Addresses", &addresses]);
    if let Some(clock) = &status.clock {
        table.row(["Clock", &self::clock(clock)]);
    }
    table
}

/// How far off the clock is, and against whom.
fn clock(clock: &ClockStatus) -> String {
    let (off, peers) = (clock.ahead_ms, count(clock.peers.into(), "other node"));
    let way = if off < 0 { "behind" } else { "ahead of" };
    let writes = if clock.refusing { ", no writes" } else { "" };
    format!("{} {way} {peers}{writes}", HowLong::ms(off.unsigned_abs()))
}

/// The number of members that are alive is always told, the other numbers only where they are not
/// zero.
fn members(counts: &MemberCounts) -> String {
    let states = [
        ("suspect", counts.suspect),
        ("down", counts.down),
        ("left", counts.left),
        ("removed", counts.removed),
    ];
    let mut words = vec![format!("{} alive", counts.alive)];
    words.extend(states.iter().filter(|(_, n)| *n > 0).map(|(state, n)| format!("{n} {state}")));
    words.join(", ")
}

fn settings(settings: &SettingsSummary) -> String {
    let documents = count(settings.documents, "document");
    let conflicts = match settings.conflicts {
        0 => String::new(),
        n => format!(", {} (peerage settings conflicts)", count(n, "conflict")),
    };
    let digest = or_unknown(Some(short(&settings.digest)));
    let Room { live_bytes, limit_bytes, history_bytes, .. } = settings.room;
    let room = format!("{} of {}", size(live_bytes), size(limit_bytes));
    let history = match history_bytes {
        0 => String::new(),
        bytes => format!("; {} of history", size(bytes)),
    };
    format!("{documents}, {room}{history}, digest {digest}{conflicts}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_few_lines() {
        let status: Status = serde_json::from_value(json!({
            "datacenter": {"name": "lab", "id": "abcdef0123456789"},
            "node": {"name": "pve-1", "id": "0123456789abcdef", "state": "member"},
            "members": {"alive": 1, "down": 1},
            "settings": {
                "documents": 0, "digest": "0123456789abcdef", "conflicts": 1,
                "room": {"live_bytes": 800_000, "limit_bytes": 100_000_000,
                         "history_bytes": 350_000, "journal_bytes": 2_400_000},
            },
            "version": "0.1.0", "uptime_s": 3_700, "boot": 4, "addresses": [],
        }))
        .unwrap();
        let expected = "\
Data Center  lab (abcdef01)
Node         pve-1 (01234567), member
Members      1 alive, 1 down
Settings     0 documents, 800.0 kB of 100.0 MB; 350.0 kB of history, digest 01234567, 1 conflict (peerage settings conflicts)
Journal      2.4 MB on disk
Agent        version 0.1.0, up 62m, start 4
Addresses    -
";
        assert_eq!(table(&status).to_string(), expected);
    }
}
