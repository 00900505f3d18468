//! The agent as the [`Service`] that front ends speak to: each operation, handed to where it is
//! done.

use std::sync::Arc;

use peerage_proto::access::Caller;
use peerage_proto::api::events::{Event, FollowEvents, WatchSettings, WatchedChange};
use peerage_proto::api::invites::{
    CreateInvite, CreatedInvite, Inspect, Inspection, Invite, ListInvites, RevokeInvite,
};
use peerage_proto::api::links::{GetLinks, GetNodeLinks, Links, PeerLinks, ResetLinks, SetLinks};
use peerage_proto::api::members::{
    AcceptMember, Accepted, Lag, ListLag, ListMembers, Member, RemoveMember, Removed, RenameMember,
    Renamed,
};
use peerage_proto::api::node::{
    Create, Created, Departure, GetStatus, IdentityReset, Join, Joined, Leave, Meet, Met,
    ResetIdentity, Status,
};
use peerage_proto::api::settings::{
    CompactSettings, Compacted, Conflict, Document, GetDocument, GetHistory, HistoryEntry,
    ListConflicts, ListDocuments, RemoveDocument, Revert, SetFields, StampedDocument, WriteOutcome,
};
use peerage_proto::api::{ApiError, ErrorCode};

use super::{
    Answer, Due, Items, List, Service, invites, links, members, room, settings, status, streams,
};
use crate::links::LinksHandle;
use crate::node::Node;

/// The operations of one node.
#[derive(Clone)]
pub struct Agent {
    node: Arc<Node>,
    links: LinksHandle,
}

impl Agent {
    /// The operations of this node, with its links.
    pub fn new(node: Arc<Node>, links: LinksHandle) -> Self {
        Self { node, links }
    }

    /// Does what must be finished once it is begun, also when the one who asked hangs up.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let done = tokio::spawn(work).await;
        done.unwrap_or_else(|error| {
            Err(ApiError::new(ErrorCode::Internal, format!("the agent failed at it: {error}"))
                .hint("its journal tells more"))
        })
    }
}

impl Service for Agent {
    async fn status(&self, _: &Caller, _: GetStatus) -> Answer<Status> {
        status::status(&self.node).await
    }

    async fn create(&self, caller: &Caller, request: Create) -> Answer<Created> {
        let (node, who) = (self.node.clone(), caller.to_string());
        self.to_the_end(async move { status::create(&node, &who, request).await }).await
    }

    async fn join(&self, _: &Caller, request: Join) -> Answer<Joined> {
        let node = self.node.clone();
        self.to_the_end(async move { status::join(&node, request).await }).await
    }

    async fn meet(&self, _: &Caller, request: Meet) -> Answer<Met> {
        let node = self.node.clone();
        self.to_the_end(async move { status::meet(&node, request).await }).await
    }

    async fn reset_identity(&self, _: &Caller, request: ResetIdentity) -> Answer<IdentityReset> {
        let node = self.node.clone();
        self.to_the_end(async move { status::reset_identity(&node, request).await }).await
    }

    async fn leave(&self, caller: &Caller, request: Leave) -> Answer<Departure> {
        let (node, who) = (self.node.clone(), caller.to_string());
        self.to_the_end(async move { status::leave(&node, &who, request).await }).await
    }

    async fn members(&self, _: &Caller, _: ListMembers) -> Answer<List<Member>> {
        Ok(List::made(members::members(&self.node)))
    }

    async fn rename(&self, caller: &Caller, request: RenameMember) -> Answer<Renamed> {
        members::rename(&self.node, caller, request).await
    }

    async fn accept(&self, caller: &Caller, request: AcceptMember) -> Answer<Accepted> {
        members::accept(&self.node, caller, request).await
    }

    async fn remove(&self, caller: &Caller, request: RemoveMember) -> Answer<Removed> {
        let (node, caller) = (self.node.clone(), caller.clone());
        self.to_the_end(async move { members::remove(&node, &caller, request).await }).await
    }

    async fn lag(&self, _: &Caller, _: ListLag) -> Answer<List<Lag>> {
        Ok(List::made(members::lag(&self.node)))
    }

    async fn links(&self, _: &Caller, _: GetLinks) -> Answer<Links> {
        Ok(links::links(&self.node, &self.links))
    }

    async fn node_links(&self, _: &Caller, request: GetNodeLinks) -> Answer<PeerLinks> {
        links::of_node(&self.node, &request)
    }

    async fn set_links(&self, _: &Caller, request: SetLinks) -> Answer<Links> {
        links::set(&self.node, &self.links, request).await
    }

    async fn reset_links(&self, _: &Caller, _: ResetLinks) -> Answer<Links> {
        links::reset(&self.node, &self.links).await
    }

    async fn invite(&self, caller: &Caller, request: CreateInvite) -> Answer<CreatedInvite> {
        invites::create(&self.node, &self.links.own(), caller, request).await
    }

    async fn invites(&self, _: &Caller, _: ListInvites) -> Answer<List<Invite>> {
        Ok(List::made(invites::list(&self.node)))
    }

    async fn revoke(&self, caller: &Caller, request: RevokeInvite) -> Answer<Invite> {
        invites::revoke(&self.node, caller, request).await
    }

    async fn inspect(&self, _: &Caller, request: Inspect) -> Answer<Inspection> {
        invites::inspect(&self.node, &request)
    }

    async fn documents(&self, _: &Caller, request: ListDocuments) -> Answer<List<Document>> {
        settings::documents(&self.node, request).await
    }

    async fn document(&self, _: &Caller, request: GetDocument) -> Answer<Due<StampedDocument>> {
        settings::document(&self.node, request).await
    }

    async fn set(&self, caller: &Caller, request: SetFields) -> Answer<WriteOutcome> {
        settings::set(&self.node, caller, request).await
    }

    async fn remove_document(
        &self,
        caller: &Caller,
        request: RemoveDocument,
    ) -> Answer<WriteOutcome> {
        settings::remove(&self.node, caller, request).await
    }

    async fn revert(&self, caller: &Caller, request: Revert) -> Answer<WriteOutcome> {
        settings::revert(&self.node, caller, request).await
    }

    async fn history(&self, _: &Caller, request: GetHistory) -> Answer<List<HistoryEntry>> {
        settings::history(&self.node, request).await
    }

    async fn conflicts(&self, _: &Caller, _: ListConflicts) -> Answer<List<Conflict>> {
        settings::conflicts(&self.node).await
    }

    async fn compact(&self, _: &Caller, _: CompactSettings) -> Answer<Compacted> {
        room::compact(&self.node).await
    }

    async fn events(&self, _: &Caller, request: FollowEvents) -> Answer<Items<Event>> {
        streams::events(&self.node, &request)
    }

    async fn watch(&self, _: &Caller, request: WatchSettings) -> Answer<Items<WatchedChange>> {
        streams::watch(self.node.clone(), request)
    }
}
