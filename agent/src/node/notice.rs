//! What the operator of a node must know after it came out of its Data Center: how that happened,
//! and what to do. It stays known over restarts.

use peerage_proto::notice::{NoticeKind, State};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{NAMELESS_HINT, Node};
use crate::store::{Image, Write};

/// What a node that left can do.
pub(super) const LEFT_HINT: &str =
    "join again with new Join Information (`peerage invite` on a member)";

/// What a node that was removed can do.
pub(super) const REMOVED_HINT: &str = "to join again it needs a new identity: `peerage reset --identity`, then \
                            new Join Information";

/// What to do about a disk that was copied.
pub const TWIN_HINT: &str = "if this host is the copy, give it an identity of its own: \
                             `peerage reset --identity`; if it is the one to stay, stop the other \
                             for good, do the same here, and take the name over by `peerage join \
                             --replace` with Join Information of another member; starting it anew \
                             changes nothing";

/// Something that the operator should know, until it is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether this node's key was put out for good.
    pub removed: bool,
}

impl Notice {
    pub(super) fn write(&self, name: &'static str) -> Write {
        Write::Meta { name, value: self.bytes() }
    }

    /// The notice as it is kept on disk.
    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a notice is plain text")
    }

    /// The notice that a disk holds under a name.
    pub(super) fn read(image: &Image, name: &str) -> Option<Self> {
        image.meta.get(name).and_then(|notice| serde_json::from_slice(notice).ok())
    }
}

impl Node {
    /// Shows how the last membership ended. Each end is told as an event of its own.
    pub(super) fn show_notices(&self) {
        let state = |notice: &watch::Sender<Option<Notice>>| {
            notice.borrow().as_ref().map(|n| State::new(n.message.clone(), n.hint.clone()))
        };
        self.notices.show(NoticeKind::Copy, state(&self.twin));
        self.notices.show(NoticeKind::Ended, state(&self.notice));
        self.look_at_name();
    }

    /// Sets a notice if this node is in no Data Center and has no name to take; its host may be
    /// given one at any time. The name of a member is looked at by its membership.
    pub fn look_at_name(&self) {
        if self.membership().is_none() {
            let nameless = self.own_name().err();
            let nameless = nameless.map(|error| State::new(error.to_string(), NAMELESS_HINT));
            self.notices.set(NoticeKind::Name, nameless);
        }
    }
}
