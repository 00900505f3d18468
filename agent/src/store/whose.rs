//! Tells whose a data folder is, from `node.about` or from the signed changes in the journal.

use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::replica::{Limits, Replica, SignedChange, Vector};
use peerage_proto::roster::Roster;
use peerage_proto::time::Now;
use std::collections::BTreeMap;

use super::about::{About, Found};
use super::{Image, Label};

/// What a folder's changes say of one Data Center.
#[derive(Debug)]
pub struct Trace {
    /// The changes of the Data Center that are left.
    pub replica: Replica,
    /// The members of the Data Center, as far as those changes name them.
    pub roster: Roster,
}

impl Trace {
    /// What an image's changes say, one for each Data Center that they were made for.
    pub fn all(image: &Image, key: &Keypair, now: Now) -> Vec<Self> {
        let mut by_datacenter: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let changes = image.changes.iter().filter_map(|b| SignedChange::trust(b.clone()).ok());
        for change in changes {
            by_datacenter.entry(change.datacenter).or_default().push(change);
        }
        let trace = |(datacenter, changes)| {
            let seen = Vector::from(image.seen.clone());
            let (key, limits) = (key.clone(), Limits::default());
            let replica = Replica::load(datacenter, key, limits, changes, seen, now);
            Self { roster: Roster::of(&replica), replica }
        };
        by_datacenter.into_iter().map(trace).collect()
    }
}

/// The words for a folder's owner.
pub(super) fn words(image: Option<&Image>, owner: Option<NodeId>, about: &Found) -> Option<String> {
    let about = match about {
        Found::Whole(about) if owner.is_none_or(|owner| owner == about.node) => Some(about),
        _ => None,
    };
    let node = owner.or_else(|| about.map(|about| about.node))?;
    let told = about.map(|About { label, .. }| of_label(&node, label));
    told.or_else(|| Some(of_changes(image?, &node)))
        .or_else(|| Some(format!("node {}", node.short())))
}

fn of_label(node: &NodeId, label: &Label) -> String {
    let at = match &label.datacenter {
        Some((id, name)) => format!("a member of the Data Center {name} ({})", id.short()),
        None => "in no Data Center".into(),
    };
    format!("{} ({}), {at}", label.name, node.short())
}

fn of_changes(image: &Image, node: &NodeId) -> String {
    // Any key can read a replica, and nothing is written with this one.
    let reader = Keypair::from_seed([0; 32]);
    let now = Now { mono: std::time::Duration::ZERO, wall_ms: 0 };
    let mut traces = Trace::all(image, &reader, now);
    traces.sort_by_key(|trace| trace.roster.is_current(node));
    match traces.last().and_then(|trace| Some((trace, trace.roster.member(node)?))) {
        Some((Trace { replica, roster }, member)) => {
            let datacenter = (replica.datacenter(), roster.datacenter_name.clone());
            let was = Label { name: member.name.clone(), boot: 0, datacenter: Some(datacenter) };
            of_label(node, &was)
        }
        None => format!("node {}", node.short()),
    }
}
