//! What can be allowed: verbs on resources.

use std::fmt;

/// What a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// The Data Center as a whole.
    DataCenter,
    /// A node's own affairs: its identity, its links, its disk.
    Node,
    /// Who belongs to the Data Center, and under which name.
    Member,
    /// The settings.
    Settings,
    /// The settings that are secret, in the clear.
    Secrets,
    /// Users, groups, grants and tokens.
    Access,
    /// Guests: virtual machines and containers.
    Guest,
    /// Certificates.
    Cert,
    /// What happened.
    Events,
}

impl Area {
    const fn word(self) -> &'static str {
        match self {
            Self::DataCenter => "dc",
            Self::Node => "node",
            Self::Member => "member",
            Self::Settings => "settings",
            Self::Secrets => "secrets",
            Self::Access => "access",
            Self::Guest => "guest",
            Self::Cert => "cert",
            Self::Events => "events",
        }
    }
}

/// What a verb does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Looks.
    Audit,
    /// Changes.
    Modify,
}

impl Deed {
    const fn word(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Modify => "modify",
        }
    }
}

/// What is done, such as `settings.modify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    /// What it is about.
    pub area: Area,
    /// What it does.
    pub deed: Deed,
}

impl Verb {
    /// Looks at something.
    pub const fn audit(area: Area) -> Self {
        Self { area, deed: Deed::Audit }
    }

    /// Changes something.
    pub const fn modify(area: Area) -> Self {
        Self { area, deed: Deed::Modify }
    }

    /// The right to use this verb on a resource.
    pub const fn on(self, on: Resource<'_>) -> Right<'_> {
        Right { verb: self, on }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.area.word(), self.deed.word())
    }
}

/// What a verb is used on: a place in the tree of paths. It borrows the name from the request or
/// the item, so that a decision allocates no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// `/`: the Data Center.
    Root,
    /// `/nodes/ID`, with the text that the request names the node by: its name, its id or the
    /// beginning of its id. Grants name nodes by id. Where a grant names a node, the agent's `api`,
    /// which holds the roster, therefore resolves that text before it asks for a decision.
    Node(&'a str),
    /// The node that received the request. Where a grant names a node, the agent resolves this to
    /// its own id, just as it resolves a name.
    ThisNode,
    /// `/settings/PATH`.
    Setting(&'a str),
    /// Any place where the caller has the verb. An agent asks this before it answers with a list or
    /// a stream, whose items it then checks one by one, and before it reads a body that names the
    /// resource.
    Anywhere,
}

impl Resource<'_> {
    /// Whether the resource lies at this path of a grant or, where `below` is set, under the path.
    pub fn lies_at(&self, path: &str, below: bool) -> bool {
        let mut path = path.split('/').filter(|segment| !segment.is_empty());
        let (folder, name, rest) = match *self {
            Self::Anywhere => return true,
            Self::Root => return path.next().is_none(),
            Self::ThisNode => ("nodes", "self", false),
            Self::Node(name) => ("nodes", name, false),
            Self::Setting(name) => ("settings", name, true),
        };
        // The name of a node is one segment, even if it contains a slash.
        let names = name.split(move |c| rest && c == '/');
        let mut own = std::iter::once(folder).chain(names);
        loop {
            match (path.next(), own.next()) {
                (None, None) => return true,
                (None, Some(_)) => return below,
                (Some(granted), Some(own)) if granted == own => {}
                (Some(_), _) => return false,
            }
        }
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("/"),
            Self::Node(name) => write!(f, "/nodes/{name}"),
            Self::ThisNode => f.write_str("/nodes/self"),
            Self::Setting(path) => write!(f, "/settings/{path}"),
            Self::Anywhere => f.write_str("any path"),
        }
    }
}

/// A verb on a resource. A caller needs it for an operation, or to be shown an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right<'a> {
    /// What the caller wants to do.
    pub verb: Verb,
    /// What the caller wants to do it to.
    pub on: Resource<'a>,
}

impl fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.verb, self.on)
    }
}
