//! Who says for good reason that this node is not in: members that it finds do not take it for one.
//!
//! Its admission may have been written by a node that had been put out by then, and did not know
//! it: then those who had heard so take the newcomer for a stranger, and only its operator can help.
//! Mostly the news of an admission is just still on its way, so an objection counts once it has
//! stood for a while, and whoever objected is asked again until it takes this node in. Nothing is
//! given up here: what this node holds stays, and so does its membership, until its operator has
//! put its settings where they are wanted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_proto::backoff::Backoff;
use peerage_proto::id::NodeId;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::roster::{Ending, Roster, Standing};
use peerage_proto::vitals::OBJECTORS_MAX;
use tokio::time::{Instant, sleep};

use super::Membership;
use super::calling::{is_aside, is_called_by};
use crate::mesh::DialError;

/// From how many nodes objections are kept; what more of them would say is the same.
const OBJECTIONS_MAX: usize = 16;

/// For how long an objection must stand to count: by then the news of an admission has come round.
const COUNTS_AFTER: Duration = Duration::from_secs(10);

/// The first and the longest wait before one who objects is asked again.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));

/// Why a node does not take this one in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grounds {
    /// This one's place hangs on the word of a node that was out before the other heard of it.
    AdmittedBy(NodeId),
    /// Each of the two sides put out the other before it heard of the other's doing: the removal of
    /// this node was asked for on that one.
    PutOutBoth {
        /// The node on which this one's removal was asked for.
        by: NodeId,
    },
}

/// What is said against this node's membership.
#[derive(Debug, Default)]
pub(super) struct Objections(Mutex<BTreeMap<NodeId, Objection>>);

#[derive(Debug, Clone, Copy)]
struct Objection {
    grounds: Grounds,
    since: Instant,
    last: Instant,
    is_told: bool,
}

impl Objection {
    fn counts(&self) -> bool {
        self.last - self.since >= COUNTS_AFTER
    }
}

impl Objections {
    /// Notes what a node says; tells whether it says so for the first time.
    fn note(&self, by: NodeId, grounds: Grounds) -> bool {
        let now = Instant::now();
        let mut objections = self.lock();
        if let Some(objection) = objections.get_mut(&by) {
            (objection.grounds, objection.last) = (grounds, now);
            return false;
        }
        let has_room = objections.len() < OBJECTIONS_MAX;
        if has_room {
            let objection = Objection { grounds, since: now, last: now, is_told: false };
            objections.insert(by, objection);
        }
        has_room
    }

    /// Those that are told, by their grounds.
    fn standing(&self) -> BTreeMap<Grounds, Vec<NodeId>> {
        let mut standing: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (by, objection) in self.lock().iter().filter(|(_, objection)| objection.is_told) {
            standing.entry(objection.grounds).or_default().push(*by);
        }
        standing
    }

    /// Those that are told, and were put out themselves.
    fn put_out(&self) -> Vec<NodeId> {
        let objections = self.lock();
        let of_both = |o: &&Objection| o.is_told && matches!(o.grounds, Grounds::PutOutBoth { .. });
        objections.iter().filter(|(_, o)| of_both(o)).map(|(by, _)| *by).collect()
    }

    /// Whether a node is known to object.
    pub(super) fn is_known(&self, by: &NodeId) -> bool {
        self.lock().contains_key(by)
    }

    /// The grounds of one that counts and is not told yet; it is from now on.
    fn news(&self, by: &NodeId) -> Option<Grounds> {
        let mut objections = self.lock();
        let objection = objections.get_mut(by).filter(|o| o.counts() && !o.is_told)?;
        objection.is_told = true;
        Some(objection.grounds)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Objection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An objection that counts, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contested {
    /// Who says so.
    pub by: Vec<NodeId>,
    /// What is said, and by whom.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Membership {
    /// Notes that a node, which this one dialled, does not take it for a member.
    pub(crate) fn object(self: &Arc<Self>, by: NodeId, grounds: Grounds) {
        if self.objections.note(by, grounds) {
            self.spawn(ask_again(self.clone(), by));
        }
    }

    /// Calls back a node that was put out, and calls as if it were a member: if it put out this one
    /// in turn, this one does not know that by the refusal of its call. One of a side does that.
    pub(crate) fn call_back(self: &Arc<Self>, peer: NodeId) {
        if !self.objections.is_known(&peer) && is_called_by(&self.roster(), self, peer) {
            // What it answers is noted on the way. After a failure it rests like any other.
            self.mesh.seek(peer);
        }
    }

    /// What other nodes have against this one's membership, where that has stood for a while.
    pub fn contested(&self) -> Vec<Contested> {
        let roster = self.roster();
        let standing = self.objections.standing();
        standing.iter().map(|(grounds, by)| in_words(&roster, *grounds, by)).collect()
    }

    /// Says, as the notice that it is, whether anybody objects.
    fn tell_contested(&self) {
        let contested = self.contested();
        // Each way to object is told once, however many join in later.
        let grade = u8::try_from(contested.len()).unwrap_or(u8::MAX);
        let all = |each: fn(&Contested) -> &str| {
            contested.iter().map(each).collect::<Vec<_>>().join("; ")
        };
        let state = State::new(all(|c| &c.message), all(|c| &c.hint)).grade(grade);
        self.notices.set(NoticeKind::Contested, (grade > 0).then_some(state));
        self.tell_objectors();
    }

    /// What a node has against this one's membership; none where it has nothing.
    pub fn objection_of(&self, node: &NodeId) -> Option<&'static str> {
        let objection = self.objections.lock().get(node).copied();
        objection.filter(|objection| objection.is_told).map(|objection| match objection.grounds {
            Grounds::AdmittedBy(_) => "it does not take this node in (see status)",
            Grounds::PutOutBoth { .. } => {
                "it goes on, and holds this node to be removed (see status)"
            }
        })
    }

    /// Tells the others on this side whom to ask whether they are held to be removed, too.
    fn tell_objectors(&self) {
        let mut objectors = self.objections.put_out();
        objectors.truncate(OBJECTORS_MAX);
        self.vitals.tell(|own| own.objectors = objectors);
    }
}

/// Asks one who objects, until it takes this node in or no longer matters.
async fn ask_again(this: Arc<Membership>, by: NodeId) {
    for asked in 0.. {
        sleep(ASK_AGAIN.wait(asked)).await;
        let is_member = this.roster().is_current(&by);
        let grounds = this.objections.lock().get(&by).map(|objection| objection.grounds);
        let matters = is_member == matches!(grounds, Some(Grounds::AdmittedBy(_)));
        // That it is out of reach says nothing, and if it objects again that is noted on the way.
        let is_over = !matters
            || this.mesh.is_connected(by)
            || match this.mesh.connect(by).await {
                // Another identity is there now: it gave way.
                Ok(()) | Err(DialError::WrongKey { is_self: false, .. }) => true,
                Err(DialError::Refused(refusal)) => is_aside(refusal.code),
                Err(_) => false,
            };
        if is_over {
            this.objections.lock().remove(&by);
            return this.tell_contested();
        }
        if this.objections.news(&by).is_some() {
            this.tell_contested();
        }
    }
}

/// What is told to the operator; `by` holds at least one.
fn in_words(roster: &Roster, grounds: Grounds, by: &[NodeId]) -> Contested {
    let names: Vec<_> = by.iter().map(|id| roster.name_of(id)).collect();
    let (who, does) = (names.join(", "), if by.len() == 1 { "does" } else { "do" });
    match grounds {
        Grounds::AdmittedBy(admitter) => {
            let name = roster.name_of(&admitter);
            let ended = match roster.member(&admitter).map(|member| &member.standing) {
                Some(Standing::Removed(ending)) => {
                    format!("was removed by {} on {}", ending.who, roster.name_of(&ending.by))
                }
                _ => "left".to_owned(),
            };
            Contested {
                by: by.to_vec(),
                message: format!(
                    "{who} {does} not take this node in: its admission by {name} is void there, \
                     since {name} {ended} before that was heard of"
                ),
                hint: format!(
                    "what is set here does not reach them: keep it by `peerage settings export`; \
                     then `peerage leave`, and join again with new Join Information from {}",
                    names.first().map_or("a member", String::as_str)
                ),
            }
        }
        Grounds::PutOutBoth { by: on } => {
            let here: Vec<_> = by.iter().map(|id| put_out_here(roster, id)).collect();
            let goes = if by.len() == 1 { "goes" } else { "go" };
            Contested {
                by: by.to_vec(),
                message: format!(
                    "{} {goes} on, and {does} hold this node to be removed, as {} did: the two \
                     sides do not speak with each other any more",
                    here.join(", "),
                    roster.name_of(&on)
                ),
                hint: "to make them one, on each node of the side that is to give way: keep its \
                       settings by `peerage settings export`, then `peerage leave`, `peerage reset \
                       --identity`, and join by new Join Information of the other side (`peerage \
                       invite` there)"
                    .into(),
            }
        }
    }
}

/// Who was put out, and by whom.
fn put_out_here(roster: &Roster, id: &NodeId) -> String {
    let name = roster.name_of(id);
    match roster.member(id).map(|member| &member.standing) {
        Some(Standing::Removed(Ending { by, who, .. })) => {
            format!("{name} (removed here by {who} on {})", roster.name_of(by))
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMITTED: Grounds = Grounds::AdmittedBy(NodeId([9; 32]));

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    /// The news of an admission and that of the end of whoever wrote it go different ways.
    #[tokio::test(start_paused = true)]
    async fn what_is_said_once_does_not_count_and_what_stands_is_told_once() {
        let objections = Objections::default();
        assert!(objections.note(node(1), ADMITTED));
        sleep(COUNTS_AFTER).await;
        assert_eq!(objections.news(&node(1)), None);
        assert!(!objections.note(node(1), ADMITTED), "it is known already");
        assert!(objections.standing().is_empty());
        assert_eq!(objections.news(&node(1)), Some(ADMITTED));
        assert_eq!(objections.news(&node(1)), None);
        assert_eq!(objections.standing(), [(ADMITTED, vec![node(1)])].into());
    }

    #[test]
    fn however_many_object_only_so_many_are_kept() {
        let objections = Objections::default();
        let kept = (0..u8::MAX).filter(|n| objections.note(node(*n), ADMITTED)).count();
        assert_eq!((kept, objections.lock().len()), (OBJECTIONS_MAX, OBJECTIONS_MAX));
    }
}
