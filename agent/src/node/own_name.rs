//! The name that a node takes where nobody gives it another.

use peerage_proto::roster::{NameError, NodeName};

/// What to do where the host's name cannot name its node.
pub const NAMELESS_HINT: &str = "give the host a name of its own (`hostnamectl set-hostname NAME`), or the node: `peerage join \
     --name NAME ...`, or name = \"NAME\" in /etc/peerage/peerage.toml, and restart the agent";

/// Where a node's own name comes from.
#[derive(Debug, Clone)]
pub enum OwnName {
    /// The configuration.
    Given(NodeName),
    /// The host. Its name may be set, or be set anew, while the agent runs, so it is read when it
    /// is needed. It may be a name that a node cannot have, such as `localhost`.
    OfHost(fn() -> String),
}

impl OwnName {
    /// The name as it is now.
    ///
    /// # Errors
    /// [`NameError`]: the host's name cannot name a node.
    pub fn read(&self) -> Result<NodeName, NameError> {
        match self {
            Self::Given(name) => Ok(name.clone()),
            Self::OfHost(read) => read().parse(),
        }
    }

    /// The name to show, whether a node may have it or not.
    pub fn shown(&self) -> String {
        match self {
            Self::Given(name) => name.to_string(),
            Self::OfHost(read) => read(),
        }
    }
}

impl From<NodeName> for OwnName {
    fn from(name: NodeName) -> Self {
        Self::Given(name)
    }
}
