//! What joiner and member say to each other, in this order, on one stream of the join protocol:
//! request, verdict, the whole state, "ready", admission. Neither side writes anything before the
//! joiner is ready. A joiner that crashes after that is already admitted and asks again.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::refusal::Refusal;
use super::verdict::JoinRequest;
use crate::codec::{self, DecodeError};
use crate::id::{InviteId, NodeId};
use crate::replica::Vector;

/// What the joiner says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum JoinerFrame {
    /// The first frame.
    #[serde(rename = "request")]
    Request(JoinRequest),
    /// The joiner has read the whole state, and its disk has room for it.
    #[serde(rename = "ready")]
    Ready,
}

/// What the member that was asked says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MemberFrame {
    /// The member refuses, with the reason. The last frame.
    #[serde(rename = "refused")]
    Refused(Refusal),
    /// The member accepts the request so far; the state follows.
    #[serde(rename = "welcome")]
    Welcome {
        /// The name of the member that was asked.
        #[serde(rename = "m")]
        member: String,
    },
    /// Part of the state.
    #[serde(rename = "changes")]
    Changes(Vec<ByteBuf>),
    /// The end of the state: up to which change the member has seen each writer.
    #[serde(rename = "done")]
    Done(Vector),
    /// The joiner is a member now: these changes admit it. The last frame.
    #[serde(rename = "admitted")]
    Admitted(Vec<ByteBuf>),
}

/// A question among members before one admits: how often was this invitation used?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsesQuestion {
    /// The invitation.
    #[serde(rename = "i")]
    pub invite: InviteId,
    /// The joiner that is about to be admitted.
    #[serde(rename = "j")]
    pub joiner: NodeId,
}

/// The answer to a [`UsesQuestion`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsesAnswer {
    /// The nodes that the invitation has admitted, as far as the answering member knows.
    #[serde(rename = "a", default)]
    pub admitted: Vec<NodeId>,
    /// The nodes that the answering member, or a member that asked it lately, is about to admit.
    #[serde(rename = "p", default)]
    pub pending: Vec<NodeId>,
    /// Whether the invitation was revoked.
    #[serde(rename = "r", default)]
    pub revoked: bool,
}

/// How many nodes each list of an answer holds at most. Further nodes are left out: an invitation
/// with more is used up anyway, or has no bound.
pub const LISTED_MAX: usize = 64;

macro_rules! frame {
    ($name:ty, $bound:expr) => {
        impl $name {
            /// The binary form.
            pub fn encode(&self) -> Vec<u8> {
                codec::encode(self)
            }

            /// Reads the binary form.
            ///
            /// # Errors
            /// [`DecodeError`], for bytes of any content.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                codec::decode(bytes, $bound)
            }
        }
    };
}

frame!(JoinerFrame, super::verdict::REQUEST_BYTES_MAX);
frame!(MemberFrame, crate::replica::sync::FRAME_BYTES_MAX);
frame!(UsesQuestion, 256);
frame!(UsesAnswer, 8 * 1024);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = JoinerFrame::decode(&bytes);
            let _ = MemberFrame::decode(&bytes);
            let _ = UsesQuestion::decode(&bytes);
            let _ = UsesAnswer::decode(&bytes);
        }

        #[test]
        fn frames_read_back(text in ".*", bytes: Vec<u8>, revoked: bool) {
            let frames = [
                MemberFrame::Refused(Refusal::BadName(text.clone())),
                MemberFrame::Welcome { member: text },
                MemberFrame::Changes(vec![ByteBuf::from(bytes)]),
                MemberFrame::Done(Vector::default()),
                MemberFrame::Admitted(Vec::new()),
            ];
            for frame in frames {
                prop_assert_eq!(MemberFrame::decode(&frame.encode()).unwrap(), frame);
            }
            prop_assert_eq!(JoinerFrame::decode(&JoinerFrame::Ready.encode()).unwrap(), JoinerFrame::Ready);
            let answer = UsesAnswer { admitted: vec![NodeId([1; 32])], pending: Vec::new(), revoked };
            prop_assert_eq!(UsesAnswer::decode(&answer.encode()).unwrap(), answer);
        }
    }
}
