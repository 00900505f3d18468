//! `peerage members`, with its acceptance, `peerage rename` and `peerage remove`.

use std::time::Duration;

use clap::{Args, Subcommand};
use peerage_proto::api::events::{Event, FollowEvents};
use peerage_proto::api::members::{
    AcceptMember, ListMembers, Member, MemberState, RemoveMember, RenameMember,
};
use peerage_proto::api::{ApiError, ErrorCode};
use tokio::time::{sleep, timeout};

use super::follow::{again, may_pass};
use super::sse::Subscription;
use super::table::Table;
use super::text::{UNKNOWN, age, or_unknown, short};
use super::{Client, Console, Outcome};

/// How often `--watch` looks without an event: for a person, who sees ages and round trips; and for
/// a program, since no event tells some changes, such as what a member says of its own clock.
const REFRESH_SHOWN: Duration = Duration::from_secs(2);
const REFRESH_UNSEEN: Duration = Duration::from_secs(10);

/// How long the command waits before it opens the stream of events again, after the stream ended or
/// could not be opened.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// For how long the command waits for further events after one, so that events of one moment cause
/// one look.
const SETTLE: Duration = Duration::from_millis(50);

/// How many characters of an id are enough to name a member.
const ID_MIN: usize = 4;

/// List the members of the Data Center.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct MembersArgs {
    #[command(subcommand)]
    command: Option<MembersCommand>,
    /// Go on, and print the list again whenever it changes
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Subcommand)]
enum MembersCommand {
    /// Let a member that came in beyond the uses of its invitation let others in
    Accept {
        /// Its name, its id, or the beginning of its id
        node: String,
    },
}

pub(super) async fn members(args: MembersArgs, client: &Client, console: &mut Console) -> Outcome {
    if let Some(MembersCommand::Accept { node }) = args.command {
        return accept(node, client, console).await;
    }
    let members = console.attend("asking the agent", client.call(&ListMembers {})).await?;
    if args.watch {
        return watch(members, client, console).await;
    }
    if console.wants_json() {
        return console.json(&members);
    }
    show(&members, console)
}

async fn accept(node: String, client: &Client, console: &mut Console) -> Outcome {
    let request = AcceptMember { node };
    let accepted = console.attend("accepting", client.call(&request)).await?;
    if console.wants_json() {
        return console.json(&accepted);
    }
    let now = if accepted.was.is_some() { "accepted" } else { "accepted already" };
    console.say(format_args!("{} is {now}", accepted.name));
    Ok(())
}

fn show(members: &[Member], console: &mut Console) -> Outcome {
    if members.is_empty() {
        console.say("no members: this node is standalone");
        return Ok(());
    }
    console.table(&table(members))
}

fn table(members: &[Member]) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "PATH", "SEEN", "VERSION", "MESSAGE"]);
    for member in members {
        table.row([
            member.name.as_str(),
            member.state.word(),
            &path(member),
            &member.seen_s.map_or(UNKNOWN.to_owned(), age),
            or_unknown(member.version.as_deref()),
            member.message.as_deref().unwrap_or(""),
        ]);
    }
    table
}

/// How a member is reached, with the link in use and the round trip where they are known.
fn path(member: &Member) -> String {
    let mut words = vec![or_unknown(Some(&member.path)).to_owned()];
    words.extend(member.link.clone());
    words.extend(member.rtt_ms.map(|rtt_ms| format!("{rtt_ms:.1}ms")));
    words.join(" ")
}

/// Prints the list anew whenever something in it changes that does not change by itself.
async fn watch(mut members: Vec<Member>, client: &Client, console: &mut Console) -> Outcome {
    let mut shown = None;
    // A person is shown the ages as they grow; a program is told of changes only.
    let ages_too = console.shows_to_a_person() && !console.wants_json();
    let refresh = if ages_too { REFRESH_SHOWN } else { REFRESH_UNSEEN };
    let mut news = News::default();
    loop {
        let fresh = worth_telling(&members);
        if ages_too || shown.as_ref() != Some(&fresh) {
            if console.wants_json() {
                console.json_line(&members)?;
            } else {
                console.clear_screen()?;
                show(&members, console)?;
            }
            shown = Some(fresh);
        }
        // It does not matter what ends the waiting: the list is asked for in any case.
        let _ = timeout(refresh, news.come(client)).await;
        let ask = async || client.call(&ListMembers {}).await;
        members = match ask().await {
            Err(error) if may_pass(&error) => again(ask, console).await?,
            answer => answer?,
        };
    }
}

/// The events of the agent, as reasons to look at the members again.
#[derive(Default)]
struct News {
    events: Option<Subscription<Event>>,
    /// The place of the last event: a new stream goes on behind it.
    last: Option<String>,
    /// Whether a stream has ended that is not opened anew yet.
    ended: bool,
}

impl News {
    /// Returns once something happened, and what happened with it has been read as well, or once
    /// the stream ended, which happens when the agent stops. May be dropped at any time.
    async fn come(&mut self, client: &Client) {
        while !self.open(client).await {
            sleep(REOPEN_AFTER).await;
        }
        if self.next().await {
            // One look serves all events of a moment: a look at each of a thousand would be too
            // many.
            let _ = timeout(SETTLE, async { while self.next().await {} }).await;
        }
    }

    /// Opens the stream, if it is not open; `false` where that fails.
    async fn open(&mut self, client: &Client) -> bool {
        if self.events.is_none() {
            if self.ended {
                sleep(REOPEN_AFTER).await;
                self.ended = false;
            }
            let from = FollowEvents { follow: true, last_event_id: self.last.clone() };
            match client.follow(&from).await {
                Ok(events) => self.events = Some(events),
                Err(_) => {
                    // After a new start the agent does not know such a place; the list tells how
                    // things stand.
                    self.last = None;
                    return false;
                }
            }
        }
        true
    }

    /// Waits for another event; `false` where the stream has ended.
    async fn next(&mut self) -> bool {
        let Some(events) = &mut self.events else { return false };
        match events.next().await {
            // A gap is a reason to look, as any event.
            Ok(Some(_)) => {
                self.last = events.place().map(str::to_owned);
                true
            }
            _ => {
                (self.events, self.ended) = (None, true);
                false
            }
        }
    }
}

/// What of the members is worth telling.
fn worth_telling(members: &[Member]) -> Vec<[String; 7]> {
    let row = |member: &Member| {
        let Member { id, name, state, path, link, version, message, .. } = member.clone();
        let [link, version, message] = [link, version, message].map(Option::unwrap_or_default);
        [id, name, state.to_string(), path, link, version, message]
    };
    members.iter().map(row).collect()
}

/// Give a member another name.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// Its name, its id, or the beginning of its id
    node: String,
    /// Its new name
    new: String,
}

pub(super) async fn rename(args: RenameArgs, client: &Client, console: &mut Console) -> Outcome {
    let request = RenameMember { node: args.node, name: args.new };
    let renamed = console.attend("renaming", client.call(&request)).await?;
    if console.wants_json() {
        return console.json(&renamed);
    }
    console.say(format_args!("{} is called {} now", renamed.was, renamed.name));
    Ok(())
}

/// Put a member out of the Data Center, for good.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name, its id, or the beginning of its id
    node: String,
    /// Remove it also where this node reaches less than half of the members, itself counted
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn remove(args: RemoveArgs, client: &Client, console: &mut Console) -> Outcome {
    if console.can_ask() && !args.yes && !args.force {
        confirm_removal(&args.node, client, console).await?;
    }
    let request = RemoveMember { node: args.node, force: args.force };
    let removed = console.attend("removing", client.call(&request)).await?;
    if console.wants_json() {
        return console.json(&removed);
    }
    console.say(format_args!("{} is {}", removed.name, removed.state));
    if !removed.told.is_empty() {
        console.say(format_args!("told: {}", removed.told.join(", ")));
    }
    Ok(())
}

/// Asks whether a member that is alive shall be removed. For a member that is down there is no
/// question: removing it is what the command is for.
async fn confirm_removal(node: &str, client: &Client, console: &mut Console) -> Outcome {
    let members = client.call(&ListMembers {}).await?;
    // The member is found as the agent finds it: upper and lower case are the same.
    let start = node.to_ascii_lowercase();
    let is_meant = |m: &&Member| {
        m.name.eq_ignore_ascii_case(node) || (node.len() >= ID_MIN && m.id.starts_with(&start))
    };
    let lives = |m: &&Member| matches!(m.state, MemberState::Alive | MemberState::Suspect);
    // If no live member is found here, there is no question; the agent refuses an unknown one in
    // full words.
    let Some(member) = members.iter().filter(is_meant).find(lives) else { return Ok(()) };
    let mut about = Table::default();
    about.row(["Node", &format!("{} ({})", member.name, short(&member.id))]);
    about.row(["State", member.state.word()]);
    let places: Vec<_> = member.addresses.iter().chain(&member.seen_at).cloned().collect();
    about.row(["Addresses", &places.join(" ")]);
    if console.confirm(&about, "It is there. Remove it for good?")? {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Refused, "nothing was changed: you said no").into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_of_members_lines_up_and_the_unknown_is_a_dash() {
        let members: Vec<Member> = serde_json::from_value(json!([
            {"name": "pve-1", "id": "00", "state": "alive", "self": true, "addresses": [],
             "version": "0.1.0", "path": "self", "seen_s": 0.0},
            {"name": "pve-2", "id": "01", "state": "down", "self": false, "addresses": [],
             "path": "-", "message": "no answer for 7s: is it powered on?"},
            {"name": "pve-3", "id": "02", "state": "alive", "self": false, "addresses": [],
             "version": "0.1.0", "path": "direct", "link": "192.0.2.9:4747", "rtt_ms": 0.25,
             "seen_s": 1.5},
        ]))
        .unwrap();
        let expected = "\
NAME   STATE  PATH                         SEEN  VERSION  MESSAGE
pve-1  alive  self                         0.0s  0.1.0
pve-2  down   -                            -     -        no answer for 7s: is it powered on?
pve-3  alive  direct 192.0.2.9:4747 0.2ms  1.5s  0.1.0
";
        assert_eq!(table(&members).to_string(), expected);
    }
}
