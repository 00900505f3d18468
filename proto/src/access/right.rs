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

    /// The right to do this there.
    pub const fn on(self, on: Resource<'_>) -> Right<'_> {
        Right { verb: self, on }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.area.word(), self.deed.word())
    }
}

/// What something is done to: a place in the tree of paths. It borrows what the request or the item
/// says, so that asking costs no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// `/`: the Data Center.
    Root,
    /// `/nodes/ID`. A request names a node by its name, its id or the beginning of its id, and that
    /// is what stands here. Grants name nodes by id: whoever holds the roster, the agent's `api`,
    /// resolves the name before it asks where a grant names a node.
    Node(&'a str),
    /// The node that is asked. The agent resolves it to its own id, as a name.
    ThisNode,
    /// `/settings/PATH`.
    Setting(&'a str),
    /// Wherever the caller has the verb. This is asked for a list or a stream, of which each item is
    /// asked for as well, and before a body is read that says what it is about.
    Anywhere,
}

impl Resource<'_> {
    /// Whether it lies at this path of a grant or, where that goes on below, under it.
    pub fn lies_at(&self, path: &str, below: bool) -> bool {
        let mut path = path.split('/').filter(|segment| !segment.is_empty());
        let (folder, name, rest) = match *self {
            Self::Anywhere => return true,
            Self::Root => return path.next().is_none(),
            Self::ThisNode => ("nodes", "self", false),
            Self::Node(name) => ("nodes", name, false),
            Self::Setting(name) => ("settings", name, true),
        };
        // The name of a node is one segment, whatever is in it.
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

/// A verb on a resource: what an operation, or to be shown an item, takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right<'a> {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub on: Resource<'a>,
}

impl fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.verb, self.on)
    }
}
