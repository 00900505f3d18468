//! The one table of all operations.
//!
//! The router and the tests of the contract, which do something for each operation, walk this
//! table. A type that is not in it cannot be an [`Operation`](super::Operation), so that no
//! operation can be left out.

/// Calls a macro with the types of all operations, in the order in which they are shown to people.
///
/// `operations!(each)` becomes `each! { Type, Type, ... }`. Tokens after the name are passed on
/// before the types: `operations!(each, some words)` becomes
/// `each! { some words; Type, Type, ... }`.
///
/// ```
/// use peerage_proto::api::{Operation, operations};
///
/// macro_rules! paths {
///     ($($operation:ty),*) => { [$(<$operation>::PATH),*] };
/// }
///
/// assert!(operations!(paths).contains(&"status"));
/// ```
#[macro_export]
macro_rules! operations {
    ($each:ident $(, $($words:tt)*)?) => {
        $each! {
            $($($words)*;)?
            $crate::api::node::GetStatus,
            $crate::api::node::Create,
            $crate::api::node::Join,
            $crate::api::node::Meet,
            $crate::api::node::Leave,
            $crate::api::node::ResetIdentity,
            $crate::api::members::ListMembers,
            $crate::api::members::RenameMember,
            $crate::api::members::AcceptMember,
            $crate::api::members::RemoveMember,
            $crate::api::members::ListLag,
            $crate::api::links::GetLinks,
            $crate::api::links::GetNodeLinks,
            $crate::api::links::SetLinks,
            $crate::api::links::ResetLinks,
            $crate::api::invites::CreateInvite,
            $crate::api::invites::ListInvites,
            $crate::api::invites::RevokeInvite,
            $crate::api::invites::Inspect,
            $crate::api::settings::ListDocuments,
            $crate::api::settings::GetDocument,
            $crate::api::settings::SetFields,
            $crate::api::settings::RemoveDocument,
            $crate::api::apply::ApplyDocuments,
            $crate::api::settings::Revert,
            $crate::api::settings::GetHistory,
            $crate::api::settings::ListConflicts,
            $crate::api::settings::CompactSettings,
            $crate::api::events::FollowEvents,
            $crate::api::events::WatchSettings
        }
    };
}

/// Marks a type that has its line in the table. Only the table implements it.
pub trait InTable {}

macro_rules! are_in_table {
    ($($operation:ty),*) => { $(impl InTable for $operation {})* };
}

crate::operations!(are_in_table);
