//! What the agent does for whoever asks, apart from how they ask.
//!
//! [`Service`] has one method per operation of [`peerage_proto::api`]. The front ends (the socket
//! today, HTTPS later) know only this trait; the rights are asked for by [`admit`], once, before a
//! method is called, so that no method has to think of them.

mod agent;
mod due;
mod failure;
mod invites;
mod links;
mod members;
mod reach;
mod room;
mod settings;
mod status;
mod streams;

use std::future::Future;

use peerage_proto::access::{self, Caller, Policy};
use peerage_proto::api::events::{Event, FollowEvents, Told, WatchSettings, WatchedChange};
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
use peerage_proto::api::{ApiError, ErrorCode, Operation};
use tokio::sync::mpsc;

pub use agent::Agent;
pub use due::{Due, List};

/// One step of a stream: the place to which it has come, and what it tells there. A reader that gives
/// the place back goes on behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<T> {
    /// The place.
    pub id: String,
    /// What is told; none where there is nothing to tell up to there.
    pub told: Option<Told<T>>,
}

/// The steps of a stream, in order. The service waits for no reader: what one that falls behind does
/// not get is a gap, which is told.
pub type Items<T> = mpsc::Receiver<Step<Due<T>>>;

/// What a method of [`Service`] answers.
pub type Answer<T> = Result<T, ApiError>;

/// The operations of an agent.
///
/// A future may be dropped at any await, when the one who asked hangs up; a method whose work must
/// be finished once begun hands it to a task. The caller has the right when a method is called.
pub trait Service: Send + Sync + 'static {
    /// What this node is and how it is doing.
    fn status(
        &self,
        caller: &Caller,
        request: GetStatus,
    ) -> impl Future<Output = Answer<Status>> + Send;

    /// Founds a Data Center.
    fn create(
        &self,
        caller: &Caller,
        request: Create,
    ) -> impl Future<Output = Answer<Created>> + Send;

    /// Joins a Data Center.
    fn join(&self, caller: &Caller, request: Join) -> impl Future<Output = Answer<Joined>> + Send;

    /// Meets members by Join Information.
    fn meet(&self, caller: &Caller, request: Meet) -> impl Future<Output = Answer<Met>> + Send;

    /// Gives this host another identity.
    fn reset_identity(
        &self,
        caller: &Caller,
        request: ResetIdentity,
    ) -> impl Future<Output = Answer<IdentityReset>> + Send;

    /// Leaves the Data Center.
    fn leave(
        &self,
        caller: &Caller,
        request: Leave,
    ) -> impl Future<Output = Answer<Departure>> + Send;

    /// The members.
    fn members(
        &self,
        caller: &Caller,
        request: ListMembers,
    ) -> impl Future<Output = Answer<List<Member>>> + Send;

    /// Gives a member another name.
    fn rename(
        &self,
        caller: &Caller,
        request: RenameMember,
    ) -> impl Future<Output = Answer<Renamed>> + Send;

    /// Lets a member that came in beyond the uses of its invitation let others in.
    fn accept(
        &self,
        caller: &Caller,
        request: AcceptMember,
    ) -> impl Future<Output = Answer<Accepted>> + Send;

    /// Puts a member out, for good.
    fn remove(
        &self,
        caller: &Caller,
        request: RemoveMember,
    ) -> impl Future<Output = Answer<Removed>> + Send;

    /// Which members hold what this node holds.
    fn lag(
        &self,
        caller: &Caller,
        request: ListLag,
    ) -> impl Future<Output = Answer<List<Lag>>> + Send;

    /// Where this node is reached, and where it reaches the others.
    fn links(
        &self,
        caller: &Caller,
        request: GetLinks,
    ) -> impl Future<Output = Answer<Links>> + Send;

    /// Where one member is reached.
    fn node_links(
        &self,
        caller: &Caller,
        request: GetNodeLinks,
    ) -> impl Future<Output = Answer<PeerLinks>> + Send;

    /// Gives this node other links.
    fn set_links(
        &self,
        caller: &Caller,
        request: SetLinks,
    ) -> impl Future<Output = Answer<Links>> + Send;

    /// Goes back to the links that nobody set.
    fn reset_links(
        &self,
        caller: &Caller,
        request: ResetLinks,
    ) -> impl Future<Output = Answer<Links>> + Send;

    /// Makes Join Information.
    fn invite(
        &self,
        caller: &Caller,
        request: CreateInvite,
    ) -> impl Future<Output = Answer<CreatedInvite>> + Send;

    /// The invitations, without their secrets.
    fn invites(
        &self,
        caller: &Caller,
        request: ListInvites,
    ) -> impl Future<Output = Answer<List<Invite>>> + Send;

    /// Makes an invitation void.
    fn revoke(
        &self,
        caller: &Caller,
        request: RevokeInvite,
    ) -> impl Future<Output = Answer<Invite>> + Send;

    /// What Join Information says.
    fn inspect(
        &self,
        caller: &Caller,
        request: Inspect,
    ) -> impl Future<Output = Answer<Inspection>> + Send;

    /// The documents below a prefix.
    fn documents(
        &self,
        caller: &Caller,
        request: ListDocuments,
    ) -> impl Future<Output = Answer<List<Document>>> + Send;

    /// One document.
    fn document(
        &self,
        caller: &Caller,
        request: GetDocument,
    ) -> impl Future<Output = Answer<Due<StampedDocument>>> + Send;

    /// Sets fields of a document and takes others away.
    fn set(
        &self,
        caller: &Caller,
        request: SetFields,
    ) -> impl Future<Output = Answer<WriteOutcome>> + Send;

    /// Takes a document away.
    fn remove_document(
        &self,
        caller: &Caller,
        request: RemoveDocument,
    ) -> impl Future<Output = Answer<WriteOutcome>> + Send;

    /// Makes a document what it was.
    fn revert(
        &self,
        caller: &Caller,
        request: Revert,
    ) -> impl Future<Output = Answer<WriteOutcome>> + Send;

    /// What was written to a document.
    fn history(
        &self,
        caller: &Caller,
        request: GetHistory,
    ) -> impl Future<Output = Answer<List<HistoryEntry>>> + Send;

    /// The conflicts that nobody has settled yet.
    fn conflicts(
        &self,
        caller: &Caller,
        request: ListConflicts,
    ) -> impl Future<Output = Answer<List<Conflict>>> + Send;

    /// Forgets the history of the settings, and gives the disk's room back.
    fn compact(
        &self,
        caller: &Caller,
        request: CompactSettings,
    ) -> impl Future<Output = Answer<Compacted>> + Send;

    /// What happens, after `last_event_id` where there is one; what is no longer known is a gap.
    fn events(
        &self,
        caller: &Caller,
        request: FollowEvents,
    ) -> impl Future<Output = Answer<Items<Event>>> + Send;

    /// The changes of the settings, as [`events`](Self::events).
    fn watch(
        &self,
        caller: &Caller,
        request: WatchSettings,
    ) -> impl Future<Output = Answer<Items<WatchedChange>>> + Send;
}

/// Asks whether the caller may use this operation.
///
/// # Errors
/// [`ErrorCode::Forbidden`], with the way to get the right.
pub fn admit<O: Operation>(policy: &Policy, caller: &Caller) -> Result<(), ApiError> {
    access::decide(policy, caller, O::ACTION)
        .map_err(|denied| ApiError::new(ErrorCode::Forbidden, denied.to_string()).hint(denied.hint))
}
