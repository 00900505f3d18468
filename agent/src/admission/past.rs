//! Keeps how this node's last membership ended, for nodes that still take this node for a member.
//!
//! If a node left or was removed while it reached nobody, members that did not hear of it look for
//! the node. It tells them how its membership ended, with the signed change that ended it. Before
//! that change it shows the admissions that it wrote, since a member that has heard of the end
//! accepts no further admission on the word of this node.

use peerage_proto::codec;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::replica::{Replica, SignedChange};
use peerage_proto::roster::{admissions_by, ending_of, member_path};
use peerage_proto::wire::{Refusal, RefusalCode};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// How many changes of a proof, or of evidence, are shown and looked at.
pub(crate) const PROOF_CHANGES_MAX: usize = 8;

/// How many bytes the disk may keep of it.
const PAST_BYTES_MAX: usize = 64 * 1024;

/// A membership that ended, as the disk keeps it until the node is in the same Data Center again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The Data Center.
    pub datacenter: DataCenterId,
    /// How it ended, in words that follow on the node's name: `was removed from North by root on
    /// pve-1`.
    pub how: String,
    /// The admissions that the node wrote, then the change that ended its own membership; at most
    /// `PROOF_CHANGES_MAX`.
    pub evidence: Vec<ByteBuf>,
}

impl Past {
    /// The end of a node's membership as its replica holds it.
    pub fn of(replica: &Replica, node: &NodeId, how: String) -> Self {
        let admissions = admissions_by(replica, node, PROOF_CHANGES_MAX - 1);
        let changes = admissions.into_iter().chain(ending_of(replica, node));
        let evidence = changes.map(|change| ByteBuf::from(change.bytes().to_vec())).collect();
        Self { datacenter: replica.datacenter(), how, evidence }
    }

    /// Its form on disk.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads what a disk keeps; `None` where that is nothing of the kind.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        codec::decode(bytes, PAST_BYTES_MAX).ok()
    }

    /// Whether it ended by a removal of the node, as the change that ended it says.
    pub fn says_removed(&self, node: &NodeId) -> bool {
        let end = self.evidence.last().map(|bytes| SignedChange::trust(bytes.to_vec().into()));
        end.is_some_and(|end| {
            end.is_ok_and(|end| end.path == member_path(node) && end.set.contains_key("removed"))
        })
    }

    /// The refusal for a node that takes this node for a member of that Data Center.
    pub fn refusal(&self, code: RefusalCode) -> Refusal {
        let evidence = self.evidence.clone();
        Refusal { evidence, ..Refusal::new(code, format!("the node that answers {}", self.how)) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerage_proto::identity::Keypair;
    use peerage_proto::replica::{Actor, Edit, Limits};
    use peerage_proto::roster::Roster;
    use peerage_proto::time::Now;

    use super::*;

    fn key(n: u8) -> Keypair {
        Keypair::from_seed([n; 32])
    }

    fn write(replica: &mut Replica, member: u8, edit: Edit, wall_ms: u64) {
        let actor = Actor { who: "root".into(), via: "test".into() };
        let now = Now { mono: Duration::ZERO, wall_ms };
        let path = member_path(&key(member).node_id());
        let _ = replica.write(&path, edit, actor, 1, now).expect("within the bounds");
    }

    fn admit(replica: &mut Replica, member: u8, wall_ms: u64) {
        let name = format!("n{member}").parse().expect("a name");
        let (id, by) = (key(member).node_id(), replica.node_id());
        let edit = Roster::of(replica).admission(&id, &name, &[], by, None, wall_ms);
        write(replica, member, edit, wall_ms);
    }

    /// The end comes last, because a node that has merged it takes no admission by this node after
    /// it.
    #[test]
    fn the_past_shows_the_latest_admissions_and_then_the_end_and_fits_in_an_answer() {
        let mut replica = Replica::new(DataCenterId([1; 16]), key(1), Limits::default());
        (1..=20).for_each(|n| admit(&mut replica, n, 1000 + u64::from(n)));
        let me = replica.node_id();
        write(&mut replica, 1, Roster::leaving(me, "root", 2000), 2000);

        let past = Past::of(&replica, &me, "left North: root".into());

        let shown: Vec<_> = past
            .evidence
            .iter()
            .map(|bytes| SignedChange::trust(bytes.to_vec().into()).expect("a change"))
            .collect();
        let (end, admissions) = shown.split_last().expect("the end at least");
        assert!(end.set.contains_key("left") && end.path == member_path(&me));
        let expected: Vec<_> = (14..=20).map(|n| member_path(&key(n).node_id())).collect();
        assert_eq!(admissions.iter().map(|c| c.path.clone()).collect::<Vec<_>>(), expected);
        let encoded = past.encode();
        assert!(encoded.len() < PAST_BYTES_MAX / 4);
        assert_eq!(Past::decode(&encoded), Some(past));
        assert_eq!(Past::decode(b"something else"), None);
    }

    /// A node that is upgraded reads what it kept before.
    #[test]
    fn the_form_on_disk_stays() {
        let past = Past {
            datacenter: DataCenterId([1; 16]),
            how: "left North: root on pve-1".into(),
            evidence: [b"one".to_vec(), b"two".to_vec()].map(ByteBuf::from).into(),
        };
        let golden = "83aa6461746163656e746572c41001010101010101010101010101010101\
                      a3686f77b96c656674204e6f7274683a20726f6f74206f6e207076652d31\
                      a865766964656e636592c4036f6e65c40374776f";
        assert_eq!(data_encoding::HEXLOWER.encode(&past.encode()), golden);
        assert_eq!(Past::decode(&past.encode()), Some(past));
    }
}
