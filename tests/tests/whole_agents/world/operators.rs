//! What operators do: they found, invite, join, write, rename, remove and leave, on any node, and
//! note what they are told.

use std::ops::Range;

use peerage::api::Answer;
use peerage_proto::api::invites::Uses;
use peerage_proto::api::{ErrorCode, Wait};
use peerage_proto::roster::Roster;
use peerage_tests::sim::promise::{Broken, Promise, hold};

use super::ledger::{Kept, PutOut};
use super::trouble::Fate;
use super::{Life, Pending, STORM_MAX_MS, TROUBLED_MS, World};
use crate::host::{Ask, Said};

/// Documents that all write to, and how many fields of each.
pub(super) const SHARED: [&str; 6] =
    ["storage/nas1", "storage/nas2", "options", "users/ann", "users/bob", "network/lan"];
const FIELDS: u64 = 3;

/// The name that more than one host would like to have.
const TWIN: &str = "twin";

/// How all names begin that hosts are given later.
const RENAMED: &str = "r";

/// How long operators rest between two deeds, in milliseconds.
const WORK_EVERY_MS: (u64, u64) = (100, 1_000);

/// How long a joiner that failed waits before it tries again, in milliseconds.
const JOIN_AGAIN_MS: u64 = 2_000;

/// How long a write may wait for others, and be acknowledged after it was made, in milliseconds.
const WAIT_MAX_MS: u64 = 5_100;

/// What an operator does next.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Write,
    WriteEverywhere,
    Invite,
    Admit,
    Rename,
    Remove,
    Leave,
    Status,
}

impl World<'_> {
    pub(super) fn found(&mut self) -> Result<(), Broken> {
        self.ledger.invited.insert(self.hosts[0].id());
        let founded = self.ask_and_wait(0, Ask::Create)?;
        hold(Promise::AlwaysWritable, matches!(founded, Some(Ok(_))), || {
            format!("h0 could not found a Data Center: {founded:?}")
        })?;
        self.ask_and_wait(0, Ask::Invite { uses: Uses::Any })?;
        hold(Promise::AlwaysWritable, !self.tokens.is_empty(), || "h0 could not invite".into())
    }

    /// Lets all hosts join at once.
    pub(super) fn storm(&mut self, members: usize) -> Result<(), Broken> {
        let begun_ms = self.now_ms();
        for host in 1..members {
            self.join(host, self.tokens[0].clone());
        }
        while (1..members).any(|host| self.lives[host].token.is_some()) {
            self.step()?;
            self.try_again();
            hold(Promise::AlwaysWritable, self.now_ms() < begun_ms + STORM_MAX_MS, || {
                let left = (1..members).filter(|host| self.lives[*host].token.is_some());
                format!("hosts {:?} still cannot join", left.collect::<Vec<_>>())
            })?;
        }
        let took_ms = self.now_ms() - begun_ms;
        self.note(format_args!("all are in after {took_ms} ms"));
        Ok(())
    }

    /// Tells a host to join.
    fn join(&mut self, host: usize, token: String) {
        self.ledger.invited.insert(self.hosts[host].id());
        self.lives[host].token = Some(token.clone());
        let twin = self.dice.chance(15);
        let name = if twin { TWIN.to_owned() } else { self.hosts[host].name() };
        self.ask(host, Ask::Join { token, name });
    }

    /// Tells the hosts that failed to join to try again, a while after.
    pub(super) fn try_again(&mut self) {
        if !self.now_ms().is_multiple_of(JOIN_AGAIN_MS) {
            return;
        }
        for host in 0..self.hosts.len() {
            let busy = self.pending.values().any(|p| p.host == host);
            if self.lives[host].runs && !busy && self.lives[host].token.is_some() {
                // The seeds of an older token may be gone.
                let token = self.tokens.last().expect("the founder made one").clone();
                let name = self.hosts[host].name();
                self.ask(host, Ask::Join { token, name });
            }
        }
    }

    /// Lets operators work while all goes wrong; the given hosts come in meanwhile.
    pub(super) fn be_troubled(&mut self, mut late: Range<usize>) -> Result<(), Broken> {
        let end_ms = self.now_ms() + self.dice.between(TROUBLED_MS.0, TROUBLED_MS.1);
        let mut work_ms = 0;
        let mut trouble_ms = self.now_ms() + self.dice.between(0, 3_000);
        let mut last_ms = end_ms - self.dice.between(500, 8_000);
        while self.now_ms() < end_ms {
            self.step()?;
            self.try_again();
            self.start_what_is_due();
            self.release_what_is_due();
            if self.now_ms() >= work_ms {
                work_ms = self.now_ms() + self.dice.between(WORK_EVERY_MS.0, WORK_EVERY_MS.1);
                self.work(&mut late);
            }
            if self.now_ms() >= trouble_ms {
                trouble_ms = self.now_ms() + self.dice.between(300, 3_000);
                self.trouble()?;
            }
            if self.now_ms() >= last_ms {
                // This cut still stands when the trouble ends, and has to heal.
                last_ms = u64::MAX;
                self.part_some();
            }
        }
        Ok(())
    }

    fn work(&mut self, late: &mut Range<usize>) {
        let deed = self.dice.weighted(&[
            (60, Deed::Write),
            (10, Deed::WriteEverywhere),
            (4, Deed::Invite),
            (8, Deed::Admit),
            (5, Deed::Rename),
            (3, Deed::Remove),
            (2, Deed::Leave),
            (6, Deed::Status),
        ]);
        let members = self.members();
        let Some(host) = self.dice.pick(&members).copied() else { return };
        match deed {
            Deed::Write => self.write(host, Wait::Local),
            Deed::WriteEverywhere => self.write(host, Wait::All),
            Deed::Invite => {
                let uses = if self.dice.chance(40) { Uses::default() } else { Uses::Any };
                self.ask(host, Ask::Invite { uses });
            }
            Deed::Admit => {
                let token = self.dice.pick(&self.tokens).cloned();
                let newcomer = late.next().or_else(|| self.who_left());
                if let (Some(newcomer), Some(token)) = (newcomer, token) {
                    self.join(newcomer, token);
                }
            }
            Deed::Rename => {
                let other = *self.dice.pick(&members).expect("there is one");
                let twin = self.dice.chance(30);
                let name = if twin { TWIN.into() } else { format!("{RENAMED}{}", self.orders) };
                let node = self.hosts[other].id().to_string();
                self.ask(host, Ask::Rename { node, name });
            }
            Deed::Remove => {
                let others: Vec<_> = members.into_iter().filter(|other| *other != host).collect();
                if let Some(other) = self.dice.pick(&others).copied()
                    && self.is_not_the_last(other)
                    && self.may_be_put_out(other)
                    && self.budget.spend_member()
                {
                    let node = self.hosts[other].id().to_string();
                    self.ask(host, Ask::Remove { node });
                }
            }
            Deed::Leave => {
                if self.is_not_the_last(host) && self.budget.spend_member() {
                    self.ask(host, Ask::Leave);
                }
            }
            Deed::Status => drop(self.ask(host, Ask::Status)),
        }
    }

    /// Whether a member stays when this one goes.
    pub(super) fn is_not_the_last(&self, host: usize) -> bool {
        let goes = |other: &usize| {
            let id = self.hosts[*other].id().to_string();
            let is_asked = |pending: &Pending| match &pending.ask {
                Ask::Remove { node } => *node == id,
                Ask::Leave => pending.host == *other,
                _ => false,
            };
            self.is_put_out(*other) || self.pending.values().any(is_asked)
        };
        self.members().iter().any(|other| *other != host && !goes(other))
    }

    /// Whether a host may be put out as things are. Where two hosts put each other out across a
    /// partition, a third member that knows both settles it in the same way for all. But a host
    /// that only one of the two ever let in then knows no other member, and only new identities
    /// could join the sides that are left, which simulated hosts do not take.
    fn may_be_put_out(&self, host: usize) -> bool {
        let is_about_to =
            self.pending.values().any(|p| p.host == host && matches!(p.ask, Ask::Remove { .. }));
        let did = self.ledger.put_out.iter().any(|put_out| put_out.by == host);
        let members = self.members();
        let knows_all = |member: &usize| {
            let membership = self.membership(*member);
            let knows =
                |roster: &Roster, other: &usize| roster.member(&self.hosts[*other].id()).is_some();
            membership.is_some_and(|m| members.iter().all(|other| knows(&m.roster(), other)))
        };
        let is_free = !is_about_to && !did;
        is_free || (members.len() > 2 && members.iter().all(knows_all))
    }

    fn is_put_out(&self, host: usize) -> bool {
        let id = self.hosts[host].id();
        self.ledger.put_out.iter().any(|put_out| put_out.node == id)
    }

    /// A host that left, and may come back. Only the members that it told keep what it wrote
    /// before.
    fn who_left(&mut self) -> Option<usize> {
        let left = |life: &Life| life.runs && matches!(life.fate, Fate::Left);
        let host = self.lives.iter().position(left)?;
        self.lives[host].fate = Fate::There;
        // A write from before may still be waiting for others.
        self.ledger.rolled_back(host, 0, self.now_ms() + WAIT_MAX_MS);
        Some(host)
    }

    /// The operator of a host that the others do not take in does what the agent says: the host
    /// leaves, and joins again with a token of one of them. The others do not get what it wrote
    /// meanwhile.
    pub(super) fn help_the_contested(&mut self) {
        for host in self.members() {
            let contested =
                self.membership(host).map(|m| m.objections.standing()).unwrap_or_default();
            let said = contested.iter().find(|said| said.message.contains("is void"));
            let busy = self.pending.values().any(|p| p.host == host);
            let Some(said) = said.filter(|_| !busy) else { continue };
            let is_meant = |other: &usize| said.by.contains(&self.hosts[*other].id());
            let Some(helper) = self.members().into_iter().find(is_meant) else { continue };
            self.note(format_args!("h{host} is told: {}", said.message));
            self.ask(helper, Ask::Invite { uses: Uses::Any });
            self.ask(host, Ask::Leave);
            self.lives[host].token = self.tokens.last().cloned();
            self.ledger.rolled_back(host, 0, self.now_ms() + WAIT_MAX_MS);
        }
    }

    /// The hosts on which a member runs.
    pub(super) fn members(&self) -> Vec<usize> {
        let is_member = |host: &usize| {
            self.lives[*host].runs
                && self.hosts[*host].node().is_some_and(|node| node.membership().is_some())
        };
        (0..self.hosts.len()).filter(is_member).collect()
    }

    /// Writes a value that nobody wrote before: half of the time to a document of the host's own,
    /// else to one that all write to.
    pub(super) fn write(&mut self, host: usize, wait: Wait) {
        self.writes += 1;
        let value = self.writes;
        let (path, field) = if self.dice.chance(50) {
            (format!("own/h{host}"), format!("w{value}"))
        } else {
            let path = self.dice.pick(&SHARED).expect("there are some");
            (path.to_string(), format!("f{}", self.dice.below(FIELDS)))
        };
        self.ask(host, Ask::Set { path, field, value, wait });
    }

    /// Hands an order to the agent of a host. Where none runs nothing happens.
    pub(super) fn ask(&mut self, host: usize, ask: Ask) -> u64 {
        self.orders += 1;
        let number = self.orders;
        if self.hosts[host].order((number, ask.clone())) {
            self.note(format_args!("{number}: h{host} is asked to {}", in_words(&ask)));
            let asked_ms = self.now_ms();
            self.pending.insert(number, Pending { host, ask, asked_ms });
        }
        number
    }

    /// Takes note of an answer.
    pub(super) fn take(
        &mut self,
        host: usize,
        number: u64,
        answer: Answer<Said>,
    ) -> Result<(), Broken> {
        let Some(Pending { ask, asked_ms, .. }) = self.pending.remove(&number) else {
            return Ok(());
        };
        let at_ms = self.now_ms();
        let took_ms = at_ms - asked_ms;
        match &answer {
            Ok(Said::Invited { .. } | Said::Looked(_)) => {
                self.note(format_args!("{number}: h{host} did, after {took_ms} ms"));
            }
            Ok(Said::Told { names }) => {
                self.note(format_args!("{number}: h{host} did, {names:?} heard ({took_ms} ms)"));
            }
            Ok(said) => self.note(format_args!("{number}: h{host} says {said:?} ({took_ms} ms)")),
            Err(error) => {
                self.note(format_args!("{number}: h{host} refuses: {error} ({took_ms} ms)"));
            }
        }
        match (ask, &answer) {
            (Ask::Set { path, field, value, .. }, Ok(Said::Written { stamp, on, of })) => {
                let (stamp, on, of) = (stamp.clone(), *on, *of);
                self.ledger.kept.push(Kept { host, path, field, value, stamp, at_ms, on, of });
            }
            (Ask::Set { .. }, Err(error)) => {
                // A node that is on its way out, or whose disk is full, may say so.
                let may = matches!(error.code, ErrorCode::Busy | ErrorCode::Refused)
                    || (error.code == ErrorCode::Failed && self.budget.disk_failed(host));
                hold(Promise::AlwaysWritable, may, || format!("h{host} does not write: {error}"))?;
            }
            (Ask::Remove { node }, Ok(_)) => {
                let node = self.hosts.iter().map(|h| h.id()).find(|id| id.to_string() == node);
                let node = node.expect("only hosts are removed");
                self.ledger.put_out.push(PutOut { by: host, node, at_ms });
            }
            (Ask::Invite { .. }, Ok(Said::Invited { token, .. })) => {
                self.tokens.push(token.clone());
            }
            (Ask::Join { name: asked, .. }, Ok(Said::Joined { name })) => {
                self.lives[host].token = None;
                self.lives[host].fate = Fate::There;
                // A host that was admitted before, and did not hear so, keeps the name that it has
                // had since.
                let own = [&asked, TWIN, &self.hosts[host].name()].contains(&name.as_str());
                let own = own || name.starts_with(RENAMED);
                hold(Promise::NamesAreUnique, own || name.contains('~'), || {
                    format!("h{host} joined as {asked}, and is called {name}")
                })?;
            }
            (Ask::Join { .. }, Err(error)) if error.code == ErrorCode::BadRequest => {
                hold(Promise::AlwaysWritable, false, || format!("a good token is bad: {error}"))?;
            }
            // A host that was put out while it left, and would come back, is refused for good.
            (Ask::Join { .. }, Err(_)) if self.is_put_out(host) => self.lives[host].token = None,
            (Ask::Leave, Ok(_)) => self.lives[host].fate = Fate::Left,
            (Ask::Stop, _) => self.stopped(host),
            _ => {}
        }
        if let Err(error) = &answer {
            hold(Promise::NobodyWaits, error.code != ErrorCode::Internal, || {
                format!("h{host} failed at an order: {error}")
            })?;
        }
        self.answered.insert(number, answer);
        Ok(())
    }
}

fn in_words(ask: &Ask) -> String {
    match ask {
        Ask::Join { name, .. } => format!("join as {name}"),
        Ask::Set { path, field, value, wait } => format!("set {path} {field}={value} on {wait}"),
        Ask::Remove { node } => format!("remove {}", &node[..8]),
        Ask::Rename { node, name } => format!("call {} {name}", &node[..8]),
        other => format!("{other:?}"),
    }
}
