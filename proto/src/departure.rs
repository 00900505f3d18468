//! What is lost when a node leaves: changes that no other node holds.
//!
//! A node that leaves puts its data aside, and no other node asks it for that data any more. If
//! another member has just confirmed that all of it is on its own disk, nothing is lost. If no
//! member has, the operator is told what would be lost, and has to confirm.

use std::collections::BTreeSet;
use std::fmt;

use crate::id::NodeId;
use crate::replica::{Path, Replica, Vector};
use crate::roster::Roster;

/// How many names a sentence lists.
const NAMED_MAX: usize = 5;

/// Why no other member is known to hold what the node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// There is no other member.
    Last,
    /// There are other members, and this node reaches none of them.
    Unreached {
        /// Their names.
        away: Vec<String>,
    },
    /// This node reaches other members, and none of them confirmed in time that it holds the data.
    Unconfirmed {
        /// The names of the members that were asked.
        asked: Vec<String>,
    },
}

/// What would be lost if the node left now. Prints as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The Data Center's name.
    pub datacenter: String,
    /// Why it would be lost.
    pub lacking: Lacking,
    /// How many documents the node holds.
    pub documents: usize,
    /// Those of these documents with changes that were seen on no other node.
    pub unseen: BTreeSet<Path>,
}

impl Loss {
    /// What would be lost if the node with this replica left now; `None` where another member has
    /// `confirmed` that it holds all of it. `reached` are the members that can be asked, and `seen`
    /// is what any other node was ever known to hold.
    pub fn of(
        replica: &Replica,
        reached: &[NodeId],
        confirmed: bool,
        seen: &Vector,
    ) -> Option<Self> {
        let (roster, me) = (Roster::of(replica), replica.node_id());
        let names = |ids: &mut dyn Iterator<Item = NodeId>| -> Vec<String> {
            ids.map(|id| roster.name_of(&id)).collect()
        };
        let away = names(&mut roster.others(me));
        let lacking = match (away.is_empty(), reached.is_empty()) {
            (true, _) => Lacking::Last,
            (false, _) if confirmed => return None,
            (false, true) => Lacking::Unreached { away },
            (false, false) => Lacking::Unconfirmed { asked: names(&mut reached.iter().copied()) },
        };
        let (unseen, _) = replica.delta(seen);
        // Changes that another node wrote are on the disk of that node.
        let own = unseen.iter().filter(|change| change.dot.writer.node == me);
        let unseen = own.map(|change| &change.path).filter(|path| !path.is_reserved());
        Some(Self {
            datacenter: roster.datacenter_name.clone(),
            lacking,
            documents: replica.documents("").count(),
            unseen: unseen.cloned().collect(),
        })
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        let first = match self.lacking {
            Lacking::Last => "`peerage settings export > FILE` keeps the settings",
            Lacking::Unreached { .. } => "bring one of them back, and leave then",
            Lacking::Unconfirmed { .. } => {
                "look at `peerage members`, and leave once one of them answers"
            }
        };
        format!("{first}; to give it all up: `peerage leave --force`")
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { datacenter, lacking, documents, unseen } = self;
        let documents = counted(*documents, "document");
        match lacking {
            Lacking::Last => {
                return write!(
                    f,
                    "this node is the last member of {datacenter}: if it leaves, the Data Center \
                     is gone, with {documents}"
                );
            }
            Lacking::Unreached { away } => write!(
                f,
                "no other member of {datacenter} is reached ({}), so nobody is known to hold what \
                 this node holds: {documents}",
                listed(away)
            )?,
            Lacking::Unconfirmed { asked } => write!(
                f,
                "no other member of {datacenter} confirmed that it holds what this node holds \
                 ({} did not answer): {documents}",
                listed(asked)
            )?,
        }
        if unseen.is_empty() {
            return Ok(());
        }
        let paths: Vec<String> = unseen.iter().map(Path::to_string).collect();
        write!(f, "; not known to be elsewhere: what was last written here to {}", listed(&paths))
    }
}

fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::DataCenterId;
    use crate::identity::Keypair;
    use crate::replica::{Actor, Edit, Limits};
    use crate::roster::{datacenter_path, member_path};
    use crate::time::Now;

    fn key(n: u8) -> Keypair {
        Keypair::from_seed([n; 32])
    }

    fn write(replica: &mut Replica, path: Path, edit: Edit) {
        let actor = Actor { who: "root".into(), via: "test".into() };
        let now = Now { mono: Duration::ZERO, wall_ms: 1_000 };
        let (_, outputs) = replica.write(&path, edit, actor, 1, now).expect("within the bounds");
        replica.committed(&outputs.commit);
    }

    fn set(replica: &mut Replica, path: &str) {
        let set = [("x".parse().unwrap(), 1.into())].into();
        write(replica, path.parse().unwrap(), Edit { set, ..Edit::default() });
    }

    /// The replica of `pve-1` in a Data Center of so many members.
    fn member_of(members: u8) -> Replica {
        let mut replica = Replica::new(DataCenterId([1; 16]), key(1), Limits::default());
        write(&mut replica, datacenter_path(), Roster::founding("north", 1));
        for n in 1..=members {
            let (id, by) = (key(n).node_id(), replica.node_id());
            let name = format!("pve-{n}").parse().unwrap();
            let edit = Roster::of(&replica).admission(&id, &name, &[], by, None, 1);
            write(&mut replica, member_path(&id), edit);
        }
        replica
    }

    #[test]
    fn who_leaves_as_the_last_is_told_that_the_data_center_goes_with_it() {
        let mut last = member_of(1);
        set(&mut last, "storage/nas1");
        // No member is left that could have confirmed anything.
        let loss = Loss::of(&last, &[], true, &Vector::default()).expect("all is lost");
        assert_eq!(
            loss.to_string(),
            "this node is the last member of north: if it leaves, the Data Center is gone, with 1 \
             document"
        );
        assert!(loss.hint().contains("export") && loss.hint().contains("leave --force"));
    }

    #[test]
    fn nothing_is_lost_once_another_member_has_confirmed_that_it_holds_it_all() {
        let replica = member_of(3);
        let reached = [key(2).node_id()];
        assert_eq!(Loss::of(&replica, &reached, true, &Vector::default()), None);
        let loss = Loss::of(&replica, &reached, false, &Vector::default()).expect("unconfirmed");
        assert!(loss.to_string().contains("(pve-2 did not answer)"), "{loss}");
    }

    #[test]
    fn what_was_seen_nowhere_else_is_named() {
        let mut replica = member_of(3);
        set(&mut replica, "dns");
        let seen = replica.durable_vector().clone();
        (0..7).for_each(|n| set(&mut replica, &format!("storage/nas{n}")));
        let loss = Loss::of(&replica, &[], false, &seen).expect("nobody is reached");
        assert_eq!(
            loss.to_string(),
            "no other member of north is reached (pve-2, pve-3), so nobody is known to hold what \
             this node holds: 8 documents; not known to be elsewhere: what was last written here to \
             storage/nas0, storage/nas1, storage/nas2, storage/nas3, storage/nas4 and 2 more"
        );
    }
}
