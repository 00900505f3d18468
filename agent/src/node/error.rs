//! Why a node did not go from standalone to member, or back.

use peerage_proto::departure::Loss;
use peerage_proto::id::DataCenterId;
use peerage_proto::invitation::TokenError;
use peerage_proto::replica::WriteError;
use peerage_proto::roster::NameError;

use crate::admission::join::JoinError;
use crate::replica::WriteFailure;
use crate::store::StoreError;

/// Why the node did not change sides. It is as it was before, except after [`Self::PutAside`]: then
/// it is standalone.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It belongs to a Data Center already.
    #[error("this node is already a member of {name} ({id})", id = .id.short())]
    AlreadyMember {
        /// The Data Center's name.
        name: String,
        /// Its id.
        id: DataCenterId,
    },
    /// Another host with this node's key is alive, and belongs there.
    #[error("{0}")]
    Twin(String),
    /// The node belongs to a Data Center: with a new key it would be another node there, without a
    /// word to the others.
    #[error("this node is a member of {name}: with another identity it would be a stranger there")]
    StillMember {
        /// The Data Center's name.
        name: String,
    },
    /// No other member is known to hold what this node holds.
    #[error("{0}")]
    Loss(Loss),
    /// The node's key is not in a data folder.
    #[error("this agent keeps its key nowhere")]
    NoKeyPlace,
    /// The node belongs to no Data Center.
    #[error("this node is in no Data Center")]
    Standalone,
    /// The text cannot be a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its host has a name that a node cannot have, and nobody gave the node another.
    #[error("this node has no name yet: by the name of its host, {0}")]
    Nameless(NameError),
    /// The text is not Join Information, or the password is not the one that belongs to it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The Join Information has no secret, and no password was given.
    #[error("this Join Information was made without its secret")]
    PasswordNeeded,
    /// The seeds did not let it in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The node met none of the members that it was to meet.
    #[error(transparent)]
    Meet(#[from] MeetError),
    /// A write was refused.
    #[error(transparent)]
    Write(#[from] WriteFailure),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is out of its last Data Center, and what it had there is still in its store.
    #[error(
        "this node is standalone now, but what it had in its last Data Center could not be put \
         aside yet: {0}"
    )]
    PutAside(#[source] StoreError),
    /// What was to be written does not fit.
    #[error(transparent)]
    Rule(#[from] WriteError),
}

/// Why this node met none of the seeds. The node is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    /// The Join Information names only the node itself.
    #[error("this Join Information was made on this very node, and names nobody else to meet")]
    OnlyItself,
    /// No seed answers.
    #[error("no seed of the Join Information can be reached: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// A seed answered and refused this node.
    #[error("{by} refused: {cause}")]
    Refused {
        /// The seed's name, or its id where this node knows no name.
        by: String,
        /// What it said.
        cause: String,
    },
}
