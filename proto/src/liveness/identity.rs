//! What SWIM takes for a member: a node in one of its lives.

use foca::Identity;

use crate::id::NodeId;

/// The boot number of a node that the roster names and that was not met yet. No agent starts with
/// it, so the node's real life always wins. It is used to address a node, and never spread.
pub(super) const BOOT_UNMET: u64 = 0;

/// Boot numbers from here on are taken for nonsense: no agent starts so often, and a node that is
/// told of one must not adopt it.
const BOOT_MAX: u64 = u64::MAX >> 1;

/// A node in one of its lives. Down is terminal for a life and never for a node: the life with the
/// larger (boot, renewal) wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life {
    /// The node.
    pub(super) node: NodeId,
    /// The node's boot number, larger at each start.
    pub(super) boot: u64,
    /// How often the node was declared down wrongly in this boot, and came back.
    pub(super) renewal: u32,
}

impl Life {
    /// The address of a node of which no life is known.
    pub(super) fn unmet(node: NodeId) -> Self {
        Self { node, boot: BOOT_UNMET, renewal: 0 }
    }

    /// The life that a node takes up when it hears others speak of `other`, a later life of its
    /// own: its disk was rolled back, and its boot number with it. `None` where `other` is not
    /// later.
    pub(super) fn beyond(&self, other: &Self) -> Option<Self> {
        let later = (other.boot, other.renewal) > (self.boot, self.renewal);
        (later && other.boot < BOOT_MAX).then(|| other.successor()).flatten()
    }

    /// Whether an agent can have this life: no agent reaches a boot number from [`BOOT_MAX`] on, or
    /// takes up the last renewal. A member that spread such a life as down would keep the node
    /// down.
    pub(super) fn is_credible(&self) -> bool {
        self.boot != BOOT_UNMET && self.boot < BOOT_MAX && self.renewal < u32::MAX
    }

    fn successor(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.checked_add(1)?, ..*self })
    }
}

impl Identity for Life {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.successor()
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.boot, self.renewal) > (adversary.boot, adversary.renewal)
    }
}
