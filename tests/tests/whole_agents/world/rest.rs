//! What must be true once all trouble is over.

use std::collections::BTreeSet;

use peerage_proto::api::Wait;
use peerage_proto::api::invites::Uses;
use peerage_proto::liveness::State;
use peerage_proto::notice::NoticeKind;
use peerage_proto::roster::Standing;
use peerage_tests::sim::promise::{Broken, Promise, hold};

use super::World;
use super::operators::SHARED;
use super::trouble::Fate;
use crate::flaw::Flaw;
use crate::host::{Ask, Said, View};

/// Within what time all must be at rest once all is well.
const REST_MAX_MS: u64 = 90_000;

/// How long all must stay at rest to count as such.
const REST_MS: u64 = 2_000;

/// How long after that nothing may happen, and no disk may be written.
const QUIET_MS: u64 = 15_000;

impl World<'_> {
    /// Goes on until all is at rest.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Broken> {
        let begun_ms = self.now_ms();
        let mut since_ms = None;
        let mut invites: Option<usize> = None;
        loop {
            self.step()?;
            // The only member that is left may have to start first, and one that was put out may
            // not have heard of it yet. So joiners are given the token of a member that stays.
            let members = self.members();
            if invites.is_none_or(|host| !members.contains(&host)) {
                invites = members.first().copied();
                if let Some(host) = invites {
                    self.ask(host, Ask::Invite { uses: Uses::Any });
                }
            }
            self.help_the_contested();
            self.try_again();
            self.start_what_is_due();
            let now_ms = self.now_ms();
            let Some(unrest) = self.unrest() else {
                let since_ms = *since_ms.get_or_insert(now_ms);
                if now_ms - since_ms >= REST_MS {
                    self.rest_ms = since_ms - begun_ms;
                    let rest_ms = self.rest_ms;
                    self.note(format_args!("all is at rest after {rest_ms} ms"));
                    return Ok(());
                }
                continue;
            };
            since_ms = None;
            hold(Promise::AlwaysWritable, now_ms - begun_ms <= REST_MAX_MS, || {
                format!("{REST_MAX_MS} ms after the end of all trouble {unrest}")
            })?;
        }
    }

    /// What is not at rest yet, if anything.
    fn unrest(&self) -> Option<String> {
        if let Some((number, pending)) = self.pending.first_key_value() {
            return Some(format!("h{} has not answered {number} yet", pending.host));
        }
        let members = self.members();
        let Some(first) = members.first().and_then(|host| self.membership(*host)) else {
            return Some("there is no member left".into());
        };
        let roster = first.roster();
        let digest = first.replica.progress().borrow().digest.clone();
        for host in 0..self.hosts.len() {
            let id = self.hosts[host].id();
            let belongs = roster.is_current(&id);
            if self.lives[host].fate == Fate::Destroyed {
                continue;
            }
            if !self.lives[host].runs {
                return Some(format!("h{host} does not run"));
            }
            // A disk that took nothing is tried every few seconds, with a write.
            let node = self.hosts[host].node();
            let board = node.map(|node| node.notices().board().borrow().clone());
            if board.is_some_and(|board| board.standing().any(|(kind, _)| kind == NoticeKind::Disk))
            {
                return Some(format!("the disk of h{host} has not shown that it is well again"));
            }
            let Some(membership) = self.membership(host) else {
                if belongs {
                    return Some(format!("h{host} is a member and does not know it"));
                }
                if self.lives[host].token.is_some() && roster.member(&id).is_none() {
                    return Some(format!("h{host} has not joined"));
                }
                continue;
            };
            if !belongs {
                return Some(format!("h{host} is no member and does not know it"));
            }
            if *membership.roster() != *roster {
                return Some(format!("h{host} has another roster than h{}", members[0]));
            }
            if membership.replica.progress().borrow().digest != digest {
                return Some(format!("h{host} holds something else than h{}", members[0]));
            }
            let standings = membership.members.standings();
            for other in 0..self.hosts.len() {
                let id = self.hosts[other].id();
                if other == host || !roster.is_current(&id) {
                    continue;
                }
                let wanted = match self.lives[other].fate {
                    Fate::Destroyed => State::Down,
                    Fate::There | Fate::Left => State::Alive,
                };
                let state = standings.get(&id).map(|standing| standing.state);
                if state != Some(wanted) {
                    return Some(format!("h{other} is {state:?} on h{host}, and not {wanted:?}"));
                }
            }
        }
        None
    }

    /// Checks what the members show against what was acknowledged.
    pub(super) fn check_what_was_kept(&mut self) -> Result<(), Broken> {
        let members = self.members();
        let mut histories: BTreeSet<String> =
            self.ledger.kept.iter().map(|kept| kept.path.clone()).collect();
        histories.retain(|path| SHARED.contains(&path.as_str()) || path.starts_with("own/"));
        let mut views: Vec<(usize, View)> = Vec::new();
        for host in members {
            let ask = Ask::Look { histories: Vec::new() };
            if let Some(Ok(Said::Looked(view))) = self.ask_and_wait(host, ask)? {
                views.push((host, *view));
            }
        }
        let there: BTreeSet<String> =
            views.iter().flat_map(|(_, v)| v.documents.iter().map(|d| d.path.clone())).collect();
        let histories: Vec<String> = histories.into_iter().filter(|p| there.contains(p)).collect();
        for (host, view) in &mut views {
            let ask = Ask::Look { histories: histories.clone() };
            let looked = self.ask_and_wait(*host, ask)?;
            let Some(Ok(Said::Looked(seen))) = looked else {
                let found = || format!("h{host} does not show its settings: {looked:?}");
                return hold(Promise::AlwaysWritable, false, found);
            };
            *view = *seen;
        }
        let Some(((first, view), others)) = views.split_first() else { return Ok(()) };
        for (host, other) in others {
            hold(Promise::AlwaysWritable, view == other, || {
                format!("h{first} and h{host} show different settings")
            })?;
        }
        let shown: BTreeSet<&String> = view
            .histories
            .iter()
            .flat_map(|(_, entries)| entries.iter().map(|entry| &entry.stamp))
            .collect();
        for kept in &self.ledger.kept {
            let everywhere = kept.on >= kept.of && kept.of > 2;
            let required = everywhere || !self.may_be_lost(kept.host, kept.at_ms);
            hold(Promise::AcknowledgedMeansKept, !required || shown.contains(&kept.stamp), || {
                format!("{kept:?} was acknowledged and is nowhere")
            })?;
            let plain = kept.path.starts_with("own/");
            let document = view.documents.iter().find(|document| document.path == kept.path);
            let value = document.and_then(|document| document.fields.get(&kept.field));
            let shows = value.and_then(serde_json::Value::as_u64) == Some(kept.value);
            hold(Promise::AcknowledgedMeansKept, !required || !plain || shows, || {
                format!("{kept:?} was acknowledged, nobody wrote over it, and it shows {value:?}")
            })?;
        }
        self.check_removals()
    }

    /// Every node that was put out is out in the roster of all, and does not go on as a member.
    fn check_removals(&self) -> Result<(), Broken> {
        let Some(first) = self.members().first().and_then(|host| self.membership(*host)) else {
            return Ok(());
        };
        let roster = first.roster();
        for put_out in &self.ledger.put_out {
            let standing = roster.member(&put_out.node).map(|member| &member.standing);
            let out = matches!(standing, Some(Standing::Removed(_)));
            let required = !self.may_be_lost(put_out.by, put_out.at_ms);
            hold(Promise::RemovedStaysRemoved, out || !required, || {
                format!("{put_out:?} was acknowledged, and its standing is {standing:?}")
            })?;
            let host = self.hosts.iter().position(|host| host.id() == put_out.node);
            let back = host.filter(|host| out && self.membership(*host).is_some());
            hold(Promise::RemovedStaysRemoved, back.is_none(), || {
                format!("h{back:?} is removed, and goes on as a member")
            })?;
        }
        Ok(())
    }

    /// Whether what a host came to hold at a time may be lost: its disk is lost, or the host was
    /// put out or left before it could tell anyone.
    fn may_be_lost(&self, host: usize, at_ms: u64) -> bool {
        let id = self.hosts[host].id();
        let first = self.members().first().and_then(|host| self.membership(*host));
        let belongs = first.is_some_and(|membership| membership.roster().is_current(&id));
        !belongs || self.ledger.may_be_gone(host, at_ms)
    }

    /// Checks that all stays at rest: no disk is written, and every member keeps its state.
    pub(super) fn stay_quiet(&mut self) -> Result<(), Broken> {
        let commits = |world: &Self| -> Vec<u64> {
            world.hosts.iter().map(|host| host.disk.commits()).collect()
        };
        let before = commits(self);
        let end_ms = self.now_ms() + QUIET_MS;
        while self.now_ms() < end_ms {
            self.step()?;
            if self.flaw == Some(Flaw::Chatters) && self.now_ms().is_multiple_of(5_000) {
                let chatterer = self.members()[0];
                self.write(chatterer, Wait::Local);
                continue;
            }
            let after = commits(self);
            hold(Promise::Quiet, before == after, || {
                format!(
                    "the hosts are idle, and their disks were at {before:?} and are at {after:?}"
                )
            })?;
            let unrest = self.unrest().filter(|_| self.flaw != Some(Flaw::Chatters));
            hold(Promise::Quiet, unrest.is_none(), || {
                format!("all was at rest, nothing happened, and {}", unrest.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    /// Checks that all members can still write and hear of it, and that all others stay out.
    pub(super) fn try_the_door(&mut self) -> Result<(), Broken> {
        for host in self.members() {
            self.write(host, Wait::Local);
        }
        let member = self.members()[0];
        let made = self.ask_and_wait(member, Ask::Invite { uses: Uses::default() })?;
        let Some(Ok(Said::Invited { token, id })) = made else {
            let found = || format!("h{member} does not invite: {made:?}");
            return hold(Promise::AlwaysWritable, false, found);
        };
        let removed: Vec<usize> = (0..self.hosts.len())
            .filter(|host| {
                let status = self.lives[*host].runs && self.membership(*host).is_none();
                status && self.ledger.put_out.iter().any(|p| p.node == self.hosts[*host].id())
            })
            .collect();
        for host in removed {
            let is_removed = matches!(
                self.ask_and_wait(host, Ask::Status)?,
                Some(Ok(Said::Status { state })) if state == "removed"
            );
            if is_removed {
                let name = "again".to_owned();
                let ask = Ask::Join { token: token.clone(), name };
                let joined = self.ask_and_wait(host, ask)?;
                hold(Promise::RemovedStaysRemoved, !matches!(joined, Some(Ok(_))), || {
                    format!("h{host} was removed, and joined again: {joined:?}")
                })?;
            }
        }
        self.ask_and_wait(member, Ask::Revoke { invite: id })?;
        let stranger = self.hosts.len() - 1;
        let ask = Ask::Join { token, name: "stranger".into() };
        let joined = self.ask_and_wait(stranger, ask)?;
        hold(Promise::NobodyElse, matches!(joined, Some(Err(_))), || {
            format!("an invitation was revoked, and h{stranger} came in by it: {joined:?}")
        })?;
        self.come_to_rest()?;
        self.check_what_was_kept()
    }
}
