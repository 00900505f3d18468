//! The changes by which nodes show each other who belongs and who no longer does.

use super::records::member_at;
use super::{Member, Standing, member_path};
use crate::id::NodeId;
use crate::replica::{Replica, SignedChange};

/// The changes that vouch for a node to a peer that has not heard of it: its admission, that of the
/// node which admitted it, and so on towards the founder, at most `links` of them, nearest last.
pub fn admission_chain(replica: &Replica, node: &NodeId, links: usize) -> Vec<SignedChange> {
    let mut chain = Vec::new();
    let mut next = *node;
    while chain.len() < links {
        let document = replica.document(&member_path(&next));
        let admission =
            document.and_then(|d| d.fields().find(|(field, _, _)| field.as_str() == "admitted"));
        let Some((_, _, change)) = admission else { break };
        chain.push(change.clone());
        if change.dot.writer.node == next {
            break;
        }
        next = change.dot.writer.node;
    }
    chain.reverse();
    chain
}

/// The change by which the membership of a node ended; none where it did not end.
pub fn ending_of(replica: &Replica, node: &NodeId) -> Option<SignedChange> {
    let document = replica.document(&member_path(node))?;
    let field = match Member::read(*node, document)?.standing {
        Standing::Member => return None,
        Standing::Left(_) => "left",
        Standing::Removed(_) => "removed",
    };
    let (_, _, change) = document.fields().find(|(name, _, _)| name.as_str() == field)?;
    Some(change.clone())
}

/// The admissions of current members that a node wrote, at most `most`: the latest, in the order in
/// which they were written.
pub fn admissions_by(replica: &Replica, node: &NodeId, most: usize) -> Vec<SignedChange> {
    let documents = replica.documents("@member/");
    let standing = documents.filter(|(path, document)| {
        member_at(path).and_then(|id| Member::read(id, document)).is_some_and(|m| m.is_current())
    });
    let mut admissions: Vec<_> = standing
        .filter_map(|(_, d)| d.fields().find(|(name, _, _)| name.as_str() == "admitted"))
        .map(|(_, _, change)| change.clone())
        .filter(|change| change.dot.writer.node == *node)
        .collect();
    admissions.sort_by_key(|change| change.stamp());
    let surplus = admissions.len().saturating_sub(most);
    admissions.split_off(surplus)
}
