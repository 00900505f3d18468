//! Objections: members that this node dials say for good reason that it is not a member.
//!
//! This node's admission may have been written by a node that had been put out by then, and did not
//! know it. Members that had heard so before take this node for a stranger, and only its operator
//! can help. Mostly, though, the news of an admission is still on its way, so an objection counts
//! once it has stood for a while, and a node that objects is asked again until it takes this node
//! in. This node gives up nothing by itself: it keeps its data and its membership until its
//! operator has put its settings where they are wanted.

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

/// The first and the longest wait before a node that objects is asked again.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));

/// The objections to this node's membership. Nodes that object are asked again, and objections that
/// stand are told to the operator and to the other members.
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
    /// No objections so far.
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

    /// The objections to this node's membership that have stood for a while.
    pub fn standing(&self) -> Vec<Contested> {
        let roster = self.members.roster();
        let standing = self.noted.standing();
        standing.iter().map(|(grounds, by)| in_words(&roster, *grounds, by)).collect()
    }

    /// Why a node objects to this one's membership; none where it does not.
    pub fn of(&self, node: &NodeId) -> Option<&'static str> {
        self.noted.told(node).map(|grounds| match grounds {
            Grounds::AdmittedBy(_) => "it does not take this node in (see status)",
            Grounds::PutOutBoth { .. } => {
                "it goes on, and holds this node to be removed (see status)"
            }
        })
    }

    /// Asks a node that objects again and again, until it takes this node in or its objection no
    /// longer matters.
    async fn ask_again(self, by: NodeId) {
        for asked in 0.. {
            sleep(ASK_AGAIN.wait(asked)).await;
            let is_member = self.members.roster().is_current(&by);
            let grounds = self.noted.grounds(&by);
            let matters = is_member == matches!(grounds, Some(Grounds::AdmittedBy(_)));
            // That the node is out of reach says nothing. If it objects again, the gate notes that.
            let is_over = !matters
                || self.mesh.is_connected(by)
                || match self.mesh.connect(by).await {
                    // The host has another identity now, so the node that objected gave way.
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

    /// Sets or clears the notice about objections. Names in the vitals the nodes that hold this one
    /// to be removed: the other members on this side ask those nodes about themselves, too.
    fn tell(&self) {
        let contested = self.standing();
        // Each kind of objection is told once, however many nodes join in later.
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

/// Whether a node that refuses with this code gave way: it put itself aside, or is in another Data
/// Center.
pub(super) fn is_aside(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::Standalone | RefusalCode::WrongDataCenter)
}
