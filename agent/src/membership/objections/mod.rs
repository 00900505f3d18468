//! Who says for good reason that this node is not in: members that it finds do not take it for one.
//!
//! Its admission may have been written by a node that had been put out by then, and did not know
//! it: then those who had heard so take the newcomer for a stranger, and only its operator can help.
//! Mostly the news of an admission is just still on its way, so an objection counts once it has
//! stood for a while, and whoever objected is asked again until it takes this node in. Nothing is
//! given up here: what this node holds stays, and so does its membership, until its operator has
//! put its settings where they are wanted.

mod noted;
mod words;

use std::sync::Arc;
use std::time::Duration;

use peerage_proto::backoff::Backoff;
use peerage_proto::id::NodeId;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::vitals::OBJECTORS_MAX;
use peerage_proto::wire::RefusalCode;
use tokio::time::sleep;

use self::noted::Noted;
use self::words::in_words;
use super::members::Members;
use super::tasks::Tasks;
use super::vitals::VitalsHandle;
use crate::mesh::{DialError, Mesh};
use crate::notices::Notices;

pub use self::noted::Grounds;
pub use self::words::Contested;

/// The first and the longest wait before one who objects is asked again.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));

/// What is said against this node's membership, and what is done about it: whoever objects is asked
/// again, and what stands is told to the operator and to the other members.
#[derive(Clone)]
pub struct Objections {
    noted: Arc<Noted>,
    members: Members,
    mesh: Mesh,
    notices: Notices,
    vitals: VitalsHandle,
    tasks: Tasks,
}

impl Objections {
    /// None so far.
    pub(super) fn new(
        members: Members,
        mesh: Mesh,
        notices: Notices,
        vitals: VitalsHandle,
        tasks: Tasks,
    ) -> Self {
        Self { noted: Arc::default(), members, mesh, notices, vitals, tasks }
    }

    /// Notes that a node, which this one dialled, does not take it for a member.
    pub(crate) fn note(&self, by: NodeId, grounds: Grounds) {
        if self.noted.note(by, grounds) {
            self.tasks.spawn(self.clone().ask_again(by));
        }
    }

    /// Whether a node is known to object.
    pub(super) fn is_known(&self, by: &NodeId) -> bool {
        self.noted.is_known(by)
    }

    /// What other nodes have against this one's membership, where that has stood for a while.
    pub fn standing(&self) -> Vec<Contested> {
        let roster = self.members.roster();
        let standing = self.noted.standing();
        standing.iter().map(|(grounds, by)| in_words(&roster, *grounds, by)).collect()
    }

    /// What a node has against this one's membership; none where it has nothing.
    pub fn of(&self, node: &NodeId) -> Option<&'static str> {
        self.noted.told(node).map(|grounds| match grounds {
            Grounds::AdmittedBy(_) => "it does not take this node in (see status)",
            Grounds::PutOutBoth { .. } => {
                "it goes on, and holds this node to be removed (see status)"
            }
        })
    }

    /// Asks one who objects, until it takes this node in or no longer matters.
    async fn ask_again(self, by: NodeId) {
        for asked in 0.. {
            sleep(ASK_AGAIN.wait(asked)).await;
            let is_member = self.members.roster().is_current(&by);
            let grounds = self.noted.grounds(&by);
            let matters = is_member == matches!(grounds, Some(Grounds::AdmittedBy(_)));
            // That it is out of reach says nothing, and if it objects again that is noted on the way.
            let is_over = !matters
                || self.mesh.is_connected(by)
                || match self.mesh.connect(by).await {
                    // Another identity is there now: it gave way.
                    Ok(()) | Err(DialError::WrongKey { is_self: false, .. }) => true,
                    Err(DialError::Refused(refusal)) => is_aside(refusal.code),
                    Err(_) => false,
                };
            if is_over {
                self.noted.forget(&by);
                return self.tell();
            }
            if self.noted.news(&by).is_some() {
                self.tell();
            }
        }
    }

    /// Says, as the notice that it is, whether anybody objects, and tells the others on this side
    /// whom to ask whether they are held to be removed, too.
    fn tell(&self) {
        let contested = self.standing();
        // Each way to object is told once, however many join in later.
        let grade = u8::try_from(contested.len()).unwrap_or(u8::MAX);
        let all = |each: fn(&Contested) -> &str| {
            contested.iter().map(each).collect::<Vec<_>>().join("; ")
        };
        let state = State::new(all(|c| &c.message), all(|c| &c.hint)).grade(grade);
        self.notices.set(NoticeKind::Contested, (grade > 0).then_some(state));
        let mut objectors = self.noted.put_out();
        objectors.truncate(OBJECTORS_MAX);
        self.vitals.tell(|own| own.objectors = objectors);
    }
}

/// Whether a node that refuses so gave way: it put itself aside, or is in another Data Center.
pub(super) fn is_aside(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::Standalone | RefusalCode::WrongDataCenter)
}
