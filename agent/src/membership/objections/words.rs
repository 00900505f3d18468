//! What the operator is told of objections.

use peerage_proto::id::NodeId;
use peerage_proto::roster::{Ending, Roster, Standing};

use super::noted::Grounds;

/// An objection that counts, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contested {
    /// The nodes that object.
    pub by: Vec<NodeId>,
    /// What is said, and by whom.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What is told to the operator; `by` holds at least one node.
pub(super) fn in_words(roster: &Roster, grounds: Grounds, by: &[NodeId]) -> Contested {
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

/// The name of a node, and by whom it was put out.
fn put_out_here(roster: &Roster, id: &NodeId) -> String {
    let name = roster.name_of(id);
    match roster.member(id).map(|member| &member.standing) {
        Some(Standing::Removed(Ending { by, who, .. })) => {
            format!("{name} (removed here by {who} on {})", roster.name_of(by))
        }
        _ => name,
    }
}
