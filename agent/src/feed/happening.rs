//! What happens, in words: the things that `peerage events` tells.

use std::collections::BTreeMap;

use peerage_proto::id::NodeId;
use peerage_proto::liveness::{LivenessEvent, State, Why};
use peerage_proto::replica::SignedChange;
use peerage_proto::roster::{Ending, Roster, RosterEvent};
use serde_json::{Value, json};

/// How many fields of a change are named.
const FIELDS_TOLD: usize = 16;

/// A thing that happened in the Data Center, as this node saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// A word for programs.
    pub kind: &'static str,
    /// The name of the node that it is about.
    pub node: Option<String>,
    /// What happened, and on what evidence.
    pub message: String,
    /// Particulars, by kind.
    pub data: Value,
}

impl Happening {
    /// How many bytes it takes, about.
    pub fn bytes(&self) -> usize {
        const SHELL: usize = 512;
        SHELL + self.message.len()
    }

    /// Something about this node itself, or about a member as only this node saw it.
    pub fn here(kind: &'static str, name: &str, message: String) -> Self {
        Self { kind, node: Some(name.to_owned()), message, data: Value::Null }
    }

    /// A change of the roster.
    pub fn of_roster(event: &RosterEvent, roster: &Roster) -> Self {
        let named = |kind, name: &str, id: NodeId, message| Self {
            kind,
            node: Some(name.to_owned()),
            message,
            data: json!({ "id": id }),
        };
        match event {
            RosterEvent::Joined(member) => {
                let by = roster.name_of(&member.admitted_by);
                let message = format!("{} joined, admitted by {by}", member.name);
                named("joined", &member.name, member.id, message)
            }
            RosterEvent::Left(member, ending) => {
                let on = roster.name_of(&ending.by);
                let message = format!("{} left: {} on {on}", member.name, ending.who);
                named("left", &member.name, member.id, message)
            }
            RosterEvent::Removed(member, ending) => {
                let on = roster.name_of(&ending.by);
                let message = format!("{} was removed: {} on {on}", member.name, ending.who);
                named("removed", &member.name, member.id, message)
            }
            RosterEvent::Renamed(member, before) => {
                let message = match roster.holder_above(member) {
                    None => format!("{before} is now named {}", member.name),
                    Some(holder) => format!(
                        "{before} shows as {} now: {} has the name {}, and had it earlier; \
                         `peerage rename {} NEW` gives it another",
                        member.name,
                        holder.id.short(),
                        member.given_name,
                        member.name
                    ),
                };
                named("renamed", &member.name, member.id, message)
            }
            RosterEvent::Unaccepted(member) => {
                let (name, why) = (&member.name, roster.why_unaccepted(member));
                let message = format!(
                    "{name} lets nobody in until it is accepted: {}; `peerage members accept {name}` \
                     if it is to stay, `peerage remove {name}` if not",
                    why.unwrap_or_default()
                );
                named("unaccepted", name, member.id, message)
            }
            RosterEvent::Accepted(member) => {
                let message = match &member.accepted {
                    Some(Ending { by, who, .. }) => {
                        let on = roster.name_of(by);
                        format!("{} was accepted: {who} on {on}", member.name)
                    }
                    None => format!("{} is accepted with the one it came in by", member.name),
                };
                named("accepted", &member.name, member.id, message)
            }
        }
    }

    /// A change of who is alive.
    pub fn of_liveness(event: &LivenessEvent, roster: &Roster) -> Self {
        let name = roster.name_of(&event.node);
        let kind = match event.to {
            State::Unknown => "unknown",
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Down => "down",
            State::Left => "stopped",
        };
        let why = reason(&event.why, roster);
        let message = match event.why {
            Why::Back { .. } => format!("{name} {why}"),
            _ => format!("{name} {kind}: {why}"),
        };
        Self {
            kind,
            message,
            node: Some(name),
            data: json!({ "id": event.node, "was": event.from.to_string() }),
        }
    }

    /// A change of the settings.
    pub fn of_change(change: &SignedChange, roster: &Roster) -> Self {
        let on = roster.name_of(&change.dot.writer.node);
        let who = &change.actor.who;
        let touched = change.set.keys().chain(&change.unset).map(|field| field.as_str());
        let touched = touched.take(FIELDS_TOLD).collect::<Vec<_>>();
        let message = if change.remove {
            format!("{} removed by {who} on {on}", change.path)
        } else {
            format!("{}: {} by {who} on {on}", change.path, touched.join(", "))
        };
        let data = json!({
            "path": change.path, "fields": touched, "stamp": change.stamp().to_string(),
        });
        Self { kind: "settings", node: Some(on), message, data }
    }

    /// Many changes that came at once: one happening for each user and each node on which the user
    /// made some of them.
    pub fn of_many_changes<'c>(
        changes: impl Iterator<Item = &'c SignedChange>,
        roster: &Roster,
    ) -> Vec<Self> {
        let mut counts: BTreeMap<(NodeId, &str), usize> = BTreeMap::new();
        for change in changes {
            *counts.entry((change.dot.writer.node, &change.actor.who)).or_default() += 1;
        }
        let told = |((node, who), count): ((NodeId, &str), usize)| {
            let on = roster.name_of(&node);
            let message = format!("{count} documents: written or removed by {who} on {on}");
            Self { kind: "settings", node: Some(on), message, data: json!({ "documents": count }) }
        };
        counts.into_iter().map(told).collect()
    }
}

/// Why a node has its present state of liveness, in words with names instead of ids.
pub fn reason(why: &Why, roster: &Roster) -> String {
    why.in_words(|node| roster.name_of(node))
}
