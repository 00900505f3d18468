//! A service in memory: one document store, one invitation, two members. It keeps the promises of
//! the contract that its front ends rely on, and none of those of a Data Center.

use std::collections::BTreeMap;
use std::sync::Mutex;

use peerage_proto::access::Caller;
use peerage_proto::admission::invitation::{Invitation, JoinInformation, Secret, Terms};
use peerage_proto::api::events::{Event, FollowEvents, Gap, Told, WatchSettings, WatchedChange};
use peerage_proto::api::invites::{
    CreateInvite, CreatedInvite, Inspect, Inspection, Invite, ListInvites, RevokeInvite, Seed,
};
use peerage_proto::api::links::{
    GetLinks, GetNodeLinks, Links, OwnLink, PeerLinks, ResetLinks, SetLinks,
};
use peerage_proto::api::members::{
    AcceptMember, Accepted, Lag, ListLag, ListMembers, Member, RemoveMember, Removed, RenameMember,
    Renamed,
};
use peerage_proto::api::node::{
    Create, Created, Departure, GetStatus, IdentityReset, Join, Joined, Leave, Meet, MemberCounts,
    Met, Missed, Node, ResetIdentity, SettingsSummary, Status,
};
use peerage_proto::api::settings::{
    CompactSettings, Compacted, Conflict, Document, Edit, FieldMeta, Fields, GetDocument,
    GetHistory, HistoryEntry, ListConflicts, ListDocuments, LosingEdit, RemoveDocument, Revert,
    Room, SetFields, StampedDocument, WriteOutcome, WrittenChange,
};
use peerage_proto::api::{ApiError, ErrorCode, Named, Wait, WaitOutcome};
use peerage_proto::id::DataCenterId;
use peerage_proto::identity::Keypair;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::{Answer, Due, Items, List, Service, Step};

/// The token that the fake admits, and the one that is without its secret.
pub(super) const TOKEN: &str = "peerage1-fake";
pub(super) const TOKEN_WITHOUT_SECRET: &str = "peerage1-bare";
/// A token as long as real ones are, which the fake admits too.
pub(super) fn whole_token() -> String {
    let (issuer, secret) = (Keypair::from_seed([1; 32]), Secret::new([5; 16]));
    let terms = Terms {
        datacenter: DataCenterId([2; 16]),
        datacenter_name: "lab".into(),
        issuer: issuer.node_id(),
        issuer_name: "pve-2".into(),
        invite: secret.key().invite_id(),
        seeds: vec![],
        issued_ms: 1,
        expires_ms: 2,
        uses: None,
        node_name: None,
        strict: false,
    };
    let invitation = Invitation::issue(terms, &issuer);
    JoinInformation { invitation, secret: Some(secret) }.to_string()
}

pub(super) const PASSWORD: &str = "open sesame";

const AT: &str = "2026-01-02T03:04:05Z";

/// What has happened before anyone asks.
const EVENTS: usize = 3;

fn event(n: usize) -> Step<Due<Event>> {
    let event = Event {
        id: n.to_string(),
        at: AT.into(),
        kind: "member-down".into(),
        node: Some("pve-2".into()),
        message: format!("event {n}"),
        data: Value::Null,
    };
    Step { id: n.to_string(), told: Some(Told::Item(Due::made(event))) }
}

/// The service, with all it knows.
#[derive(Debug, Default)]
pub(super) struct Fake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    datacenter: Option<Named>,
    documents: BTreeMap<String, StampedDocument>,
    history: Vec<(String, HistoryEntry)>,
    changes: Vec<WatchedChange>,
    watchers: Vec<mpsc::Sender<Step<Due<WatchedChange>>>>,
    /// How many of the changes a watcher that comes is no longer told.
    forgotten: usize,
    followers: Vec<mpsc::Sender<Step<Due<Event>>>>,
    pve_2_is_up: bool,
    is_last: bool,
    links: Option<SetLinks>,
}

impl Fake {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    /// How many watchers are connected still.
    pub(super) fn watchers(&self) -> usize {
        self.state().watchers.iter().filter(|watcher| !watcher.is_closed()).count()
    }

    /// How many follow the events still.
    pub(super) fn followers(&self) -> usize {
        self.state().followers.iter().filter(|follower| !follower.is_closed()).count()
    }

    /// Makes the second member answer, and tells that something happened.
    pub(super) fn bring_up_pve_2(&self) {
        let mut state = self.state();
        state.pve_2_is_up = true;
        for follower in &state.followers {
            // Who hung up hears nothing.
            let _ = follower.try_send(event(EVENTS + 1));
        }
    }

    /// Leaves nobody who holds what this node holds.
    pub(super) fn make_last(&self) {
        self.state().is_last = true;
    }

    /// Ends all streams, as a service does that stops.
    pub(super) fn end_streams(&self) {
        self.state().watchers.clear();
    }

    /// Forgets what it would tell a watcher that goes on behind an earlier place.
    pub(super) fn forget_changes(&self) {
        let mut state = self.state();
        state.forgotten = state.changes.len();
    }
}

impl State {
    fn write(
        &mut self,
        caller: &Caller,
        SetFields { path, set, unset, if_match, wait, .. }: SetFields,
        removed: bool,
    ) -> Answer<WriteOutcome> {
        if self.datacenter.is_none() {
            return Err(ApiError::new(ErrorCode::Refused, "this node is standalone")
                .hint("`peerage create NAME` or `peerage join` first"));
        }
        let before = self.documents.get(&path).cloned();
        if let Some(seen) = if_match
            && before.as_ref().map(|document| &document.stamp) != Some(&seen)
        {
            let message = format!("{path} has changed since {seen}");
            return Err(ApiError::new(ErrorCode::Changed, message).hint("read it again"));
        }
        let mut fields = before.as_ref().map(|d| d.fields.clone()).unwrap_or_default();
        fields.extend(set.clone());
        fields.retain(|field, _| !unset.contains(field) && !removed);
        let changed = before.as_ref().map(|d| &d.fields) != Some(&fields);
        let stamp = match before {
            Some(before) if !changed => before.stamp,
            _ => self.record(caller, &path, fields, (set, unset, removed)),
        };
        let met = wait.needed(2) <= 1;
        let wait =
            WaitOutcome { wanted: wait, reached: 1, of: 2, met, missing: vec!["pve-2".into()] };
        Ok(WriteOutcome { path, stamp, changed, wait })
    }

    fn record(
        &mut self,
        caller: &Caller,
        path: &str,
        fields: Fields,
        (set, unset, removed): (Fields, Vec<String>, bool),
    ) -> String {
        let id = (self.changes.len() + 1).to_string();
        let (writer, actor, stamp) = ("pve-1".to_owned(), caller.to_string(), format!("{id}.0"));
        let shown = (!fields.is_empty()).then_some(fields);
        match shown.clone() {
            Some(fields) => {
                let (path, stamp, meta) = (path.to_owned(), stamp.clone(), None);
                self.documents.insert(path.clone(), StampedDocument { path, stamp, fields, meta });
            }
            None => drop(self.documents.remove(path)),
        }
        let entry = HistoryEntry {
            stamp: stamp.clone(),
            at: AT.into(),
            writer: writer.clone(),
            actor: actor.clone(),
            set: set.clone(),
            unset: unset.clone(),
            left_out: Vec::new(),
            removed,
            current: true,
        };
        self.history.insert(0, (path.to_owned(), entry));
        let change = WatchedChange {
            id,
            path: path.to_owned(),
            stamp: stamp.clone(),
            writer,
            actor,
            set,
            unset,
            removed,
            fields: shown,
        };
        self.watchers.retain(|watcher| watcher.try_send(step(&change)).is_ok());
        self.changes.push(change);
        stamp
    }
}

fn step(change: &WatchedChange) -> Step<Due<WatchedChange>> {
    Step { id: change.id.clone(), told: Some(Told::Item(Due::made(change.clone()))) }
}

/// The links of the first member: those that were set, or that of its interface.
impl State {
    fn links(&self) -> Links {
        let link = |(index, address, priority): (u32, String, u64)| OwnLink {
            address,
            rank: index + 1,
            priority,
            name: None,
            interface: Some("eth0".into()),
            peers_in: 1,
        };
        let set = self.links.as_ref().map(|set| {
            let each = (0..).zip(&set.links);
            each.map(|(i, wish)| (i, wish.address.clone(), wish.priority.unwrap_or(1))).collect()
        });
        let links: Vec<_> = set.unwrap_or_else(|| vec![(0, "192.0.2.7:4747".into(), 1)]);
        Links {
            source: if self.links.is_some() { "set" } else { "interfaces" }.into(),
            layer: None,
            overruled: self.links.is_some().then(|| "/etc/peerage/peerage.toml".into()),
            links: links.into_iter().map(link).collect(),
            peers: vec![PeerLinks {
                name: "pve-2".into(),
                id: named("pve-2").id,
                state: "alive".into(),
                address: Some("192.0.2.8:4747".into()),
                dialled: Some(true),
                path: "direct".into(),
                rtt_ms: Some(0.25),
                addresses: vec!["10.0.0.8:4747".into(), "192.0.2.8:4747".into()],
                seen_at: vec!["203.0.113.8:31000".into()],
            }],
        }
    }
}

fn named(name: &str) -> Named {
    Named { name: name.into(), id: format!("{name}-{}", "0".repeat(40)) }
}

fn member(name: &str, state: &str, is_self: bool) -> Member {
    Member {
        name: name.into(),
        id: named(name).id,
        state: state.into(),
        is_self,
        addresses: vec!["192.0.2.7:4747".into()],
        seen_at: vec![],
        version: is_self.then(|| "0.1.0".into()),
        rtt_ms: None,
        path: if is_self { "self".into() } else { "-".into() },
        link: None,
        seen_s: is_self.then_some(0.0),
        message: (!is_self).then(|| "no answer for 7s: is it powered on?".into()),
        joined: None,
        boot: None,
        uptime_s: None,
        load: None,
        digest: None,
        notices: Vec::new(),
        clock_ahead_ms: None,
        accepted: true,
        unaccepted: None,
    }
}

fn room(history_bytes: u64) -> Room {
    Room {
        live_bytes: 800_000,
        limit_bytes: 100_000_000,
        history_bytes,
        marker_bytes: 1_000,
        record_bytes: 2_000,
        reserve_bytes: 16_000_000,
        journal_bytes: 2_400_000,
    }
}

fn no_such(what: &str, name: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no {what} {name:?}"))
}

impl Service for Fake {
    async fn status(&self, _: &Caller, _: GetStatus) -> Answer<Status> {
        let state = self.state();
        Ok(Status {
            datacenter: state.datacenter.clone(),
            node: Node {
                name: "pve-1".into(),
                id: named("pve-1").id,
                state: if state.datacenter.is_some() { "member" } else { "standalone" }.into(),
            },
            members: MemberCounts { alive: 1, down: 1, ..MemberCounts::default() },
            settings: SettingsSummary {
                documents: state.documents.len() as u64,
                digest: "0123456789abcdef".into(),
                bytes: 1_200,
                conflicts: 1,
                room: room(350_000),
            },
            version: "0.1.0".into(),
            uptime_s: 3_700,
            boot: 4,
            addresses: vec![],
            traffic: peerage_proto::api::node::Traffic::default(),
            notice: None,
            notices: Vec::new(),
            clock: None,
        })
    }

    async fn create(&self, _: &Caller, request: Create) -> Answer<Created> {
        let mut state = self.state();
        if let Some(there) = &state.datacenter {
            let message = format!("this node is a member of {} already", there.name);
            return Err(ApiError::new(ErrorCode::Refused, message).hint("`peerage leave` first"));
        }
        let datacenter = state.datacenter.insert(named(&request.name)).clone();
        Ok(Created { datacenter, node: named("pve-1") })
    }

    async fn join(&self, _: &Caller, request: Join) -> Answer<Joined> {
        match (request.token.as_str(), request.password.as_deref()) {
            (TOKEN, None) | (TOKEN_WITHOUT_SECRET, Some(PASSWORD)) => {}
            (token, None) if token == whole_token() => {}
            _ => return Err(ApiError::new(ErrorCode::Refused, "the token was revoked")),
        }
        let datacenter = self.state().datacenter.insert(named("lab")).clone();
        let node = named(request.name.as_deref().unwrap_or("pve-1"));
        Ok(Joined { datacenter, node, seed: "pve-2".into(), members: 2, already: false })
    }

    async fn meet(&self, _: &Caller, request: Meet) -> Answer<Met> {
        let datacenter = self.state().datacenter.clone();
        let datacenter = datacenter.filter(|_| request.token == TOKEN).ok_or_else(|| {
            ApiError::new(ErrorCode::Refused, "this node is a member of another Data Center")
        })?;
        let Named { name, id } = named("pve-3");
        let missed = Missed { name, id, message: "pve-3 at 192.0.2.9:4747: no answer".into() };
        Ok(Met { datacenter, met: vec![named("pve-2")], missed: vec![missed] })
    }

    async fn reset_identity(&self, _: &Caller, _: ResetIdentity) -> Answer<IdentityReset> {
        Err(ApiError::new(ErrorCode::Refused, "this node is a member of Home Lab"))
    }

    async fn leave(&self, _: &Caller, request: Leave) -> Answer<Departure> {
        if self.state().is_last && !request.force {
            let message = "this node is the last member of lab";
            return Err(ApiError::new(ErrorCode::NeedsForce, message).hint("--force"));
        }
        match self.state().datacenter.take() {
            Some(datacenter) => {
                Ok(Departure { datacenter, told: vec![], backup: "/b".into(), notice: None })
            }
            None => Err(ApiError::new(ErrorCode::Refused, "this node is standalone")),
        }
    }

    async fn members(&self, _: &Caller, _: ListMembers) -> Answer<List<Member>> {
        let state = if self.state().pve_2_is_up { "alive" } else { "down" };
        Ok(List::made(vec![member("pve-1", "alive", true), member("pve-2", state, false)]))
    }

    async fn rename(&self, _: &Caller, request: RenameMember) -> Answer<Renamed> {
        match request.node.as_str() {
            "a/b" | "pve-1" => {
                Ok(Renamed { name: request.name, id: named("x").id, was: request.node })
            }
            other => Err(no_such("node", other)),
        }
    }

    async fn accept(&self, _: &Caller, request: AcceptMember) -> Answer<Accepted> {
        let was = match request.node.as_str() {
            "pve-1" => None,
            "pve-2" => Some("its invitation was used up".to_owned()),
            other => return Err(no_such("node", other)),
        };
        let Named { name, id } = named(&request.node);
        Ok(Accepted { name, id, was })
    }

    async fn remove(&self, _: &Caller, request: RemoveMember) -> Answer<Removed> {
        match request.node.as_str() {
            "pve-2" => Ok(Removed {
                name: "pve-2".into(),
                id: named("pve-2").id,
                state: "removed".into(),
                told: vec!["pve-1".into()],
            }),
            other => Err(no_such("node", other)),
        }
    }

    async fn lag(&self, _: &Caller, _: ListLag) -> Answer<List<Lag>> {
        let Named { name, id } = named("pve-2");
        Ok(List::made(vec![Lag { name, id, digest: None, in_sync: false, age_s: None }]))
    }

    async fn invite(&self, _: &Caller, request: CreateInvite) -> Answer<CreatedInvite> {
        let token = if request.no_secret { TOKEN_WITHOUT_SECRET } else { TOKEN };
        Ok(CreatedInvite {
            token: token.into(),
            id: "abcdef0123456789".into(),
            expires: AT.into(),
            password: request.no_secret.then(|| PASSWORD.into()),
            command: format!("peerage join {token}"),
            uses: request.uses.at_most(),
            warnings: Vec::new(),
        })
    }

    async fn invites(&self, _: &Caller, _: ListInvites) -> Answer<List<Invite>> {
        Ok(List::made(vec![Invite {
            id: "abcdef0123456789".into(),
            issuer: "pve-1".into(),
            created: None,
            expires: Some(AT.into()),
            uses: Some(3),
            used: 1,
            node_name: None,
            state: "open".into(),
        }]))
    }

    async fn revoke(&self, by: &Caller, request: RevokeInvite) -> Answer<Invite> {
        let mut invite = self.invites(by, ListInvites {}).await?.all().remove(0);
        if !invite.id.starts_with(&request.id) {
            return Err(no_such("invitation", &request.id));
        }
        invite.state = "revoked".into();
        Ok(invite)
    }

    async fn links(&self, _: &Caller, _: GetLinks) -> Answer<Links> {
        Ok(self.state().links())
    }

    async fn node_links(&self, _: &Caller, request: GetNodeLinks) -> Answer<PeerLinks> {
        let peer = self.state().links().peers.into_iter().find(|peer| peer.name == request.node);
        peer.ok_or_else(|| no_such("node", &request.node))
    }

    async fn set_links(&self, _: &Caller, request: SetLinks) -> Answer<Links> {
        let mut state = self.state();
        state.links = Some(request);
        Ok(state.links())
    }

    async fn reset_links(&self, _: &Caller, _: ResetLinks) -> Answer<Links> {
        let mut state = self.state();
        state.links = None;
        Ok(state.links())
    }

    async fn inspect(&self, _: &Caller, request: Inspect) -> Answer<Inspection> {
        Ok(Inspection {
            datacenter: named("lab"),
            issuer: "pve-2".into(),
            seeds: vec![Seed {
                id: named("pve-2").id,
                addresses: vec!["192.0.2.7:4747".into(), "[2001:db8::7]:4747".into()],
            }],
            expires: AT.into(),
            uses: None,
            node_name: None,
            strict: false,
            secret: request.token != TOKEN_WITHOUT_SECRET,
            valid: true,
            message: None,
            already: false,
        })
    }

    async fn documents(&self, _: &Caller, request: ListDocuments) -> Answer<List<Document>> {
        let state = self.state();
        let below = state.documents.values().filter(|d| d.path.starts_with(&request.prefix));
        let meta = |fields: &Fields| {
            let meta = FieldMeta { stamp: "1.0".into(), writer: "pve-1".into(), actor: "a".into() };
            fields.keys().map(|field| (field.clone(), meta.clone())).collect()
        };
        let below = below.map(|StampedDocument { path, fields, .. }| Document {
            path: path.clone(),
            meta: request.full.then(|| meta(fields)),
            fields: fields.clone(),
        });
        Ok(List::made(below.collect()))
    }

    async fn document(&self, _: &Caller, request: GetDocument) -> Answer<Due<StampedDocument>> {
        let found = self.state().documents.get(&request.path).cloned();
        found.map(Due::made).ok_or_else(|| no_such("document", &request.path))
    }

    async fn set(&self, by: &Caller, request: SetFields) -> Answer<WriteOutcome> {
        self.state().write(by, request, false)
    }

    async fn remove_document(&self, by: &Caller, request: RemoveDocument) -> Answer<WriteOutcome> {
        let RemoveDocument { path, if_match, wait, timeout } = request;
        let request = SetFields { path, if_match, wait, timeout, ..SetFields::default() };
        self.state().write(by, request, true)
    }

    async fn revert(&self, by: &Caller, request: Revert) -> Answer<WriteOutcome> {
        let mut state = self.state();
        let entry = state.history.iter().find(|(_, entry)| entry.stamp == request.stamp).cloned();
        let (path, entry) = entry.ok_or_else(|| no_such("change", &request.stamp))?;
        let request = SetFields { path, set: entry.set, wait: Wait::Local, ..SetFields::default() };
        state.write(by, request, false)
    }

    async fn history(&self, _: &Caller, request: GetHistory) -> Answer<List<HistoryEntry>> {
        let state = self.state();
        let of_path = state.history.iter().filter(|(path, _)| *path == request.path);
        Ok(List::made(of_path.map(|(_, entry)| entry.clone()).collect()))
    }

    async fn conflicts(&self, _: &Caller, _: ListConflicts) -> Answer<List<Conflict>> {
        let edit = |stamp: &str, value: Value| Edit {
            stamp: stamp.into(),
            value: Some(value),
            writer: "pve-1".into(),
            actor: "root".into(),
            at: AT.into(),
        };
        let change = WrittenChange {
            set: BTreeMap::from([("size".into(), json!(9))]),
            ..WrittenChange::default()
        };
        Ok(List::made(vec![Conflict {
            path: "storage/nas1".into(),
            field: "size".into(),
            winner: edit("2.0", json!(8)),
            losers: vec![LosingEdit { edit: edit("1.0", json!(9)), change }],
        }]))
    }

    async fn compact(&self, _: &Caller, _: CompactSettings) -> Answer<Compacted> {
        let mut after = room(0);
        after.journal_bytes = 1_000_000;
        Ok(Compacted { forgotten: 17, before: room(350_000), after })
    }

    async fn events(&self, _: &Caller, request: FollowEvents) -> Answer<Items<Event>> {
        let (sender, receiver) = mpsc::channel(8);
        let after: usize = request.last_event_id.map_or(0, |id| id.parse().unwrap_or(0));
        for n in after + 1..=EVENTS {
            sender.try_send(event(n)).expect("the channel holds them all");
        }
        if request.follow {
            self.state().followers.push(sender);
        }
        Ok(receiver)
    }

    async fn watch(&self, _: &Caller, request: WatchSettings) -> Answer<Items<WatchedChange>> {
        let mut state = self.state();
        let (sender, receiver) = mpsc::channel(64);
        let tell = |step| sender.try_send(step).expect("no test makes more changes than that");
        match request.last_event_id {
            None => tell(Step { id: state.changes.len().to_string(), told: None }),
            Some(id) => {
                let mut after: usize = id.parse().map_err(|_| {
                    ApiError::new(ErrorCode::BadRequest, format!("{id} is no place in the stream"))
                })?;
                if after < state.forgotten {
                    let missed = (state.forgotten - after) as u64;
                    after = state.forgotten;
                    let gap = Gap::of_slow_reader(missed, id, after.to_string());
                    tell(Step { id: gap.to.clone(), told: Some(Told::Gap(gap)) });
                }
                state.changes[after..].iter().map(step).for_each(tell);
            }
        }
        state.watchers.push(sender);
        Ok(receiver)
    }
}
