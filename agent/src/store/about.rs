//! The file `node.about`, beside key and journal: it says which node the data folder belongs to.
//!
//! The journal holds all of this, too. When the key or the journal is lost, the file still says
//! whose they were; when the journal lost its end, the number of commits in the file shows it.

use std::path::Path;

use peerage_proto::id::{DataCenterId, NodeId};

use super::StoreError;
use super::files;
use super::header::FORMAT;

/// The name of the file in the data folder.
pub(super) const NAME: &str = "node.about";

/// The name under which a new file is written, until it is whole.
pub(super) const FRESH: &str = "node.about.new";

/// What a node is called, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The node's name, as it shows it.
    pub name: String,
    /// The number of this start of the agent.
    pub boot: u64,
    /// The Data Center that it is in, with its name.
    pub datacenter: Option<(DataCenterId, String)>,
}

impl Label {
    /// Whether the other label has the same name and the same Data Center, at whichever start.
    pub fn names_as(&self, other: &Self) -> bool {
        self.name == other.name && self.datacenter == other.datacenter
    }
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The node.
    pub node: NodeId,
    /// How many commits the journal had when this file was written. A journal with fewer commits
    /// has lost its end.
    pub commit: u64,
    /// What it is called, and where it belongs.
    pub label: Label,
}

impl About {
    /// Reads the file of a folder. A missing or damaged file is no error.
    pub(super) fn read(folder: &Path) -> Result<Found, StoreError> {
        let path = folder.join(NAME);
        let bytes = files::read_small(&path).map_err(|e| StoreError::io("read", &path, &e))?;
        Ok(match bytes {
            None => Found::Missing,
            Some(bytes) => Self::parse(&bytes).map_or(Found::Damaged, Found::Whole),
        })
    }

    /// Writes the file anew; a crash leaves the old file or the new one.
    pub(super) fn write(&self, folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(NAME);
        files::replace(&path, &folder.join(FRESH), self.text().as_bytes())
            .map_err(|e| StoreError::io("write", &path, &e))
    }

    fn text(&self) -> String {
        let Label { name, boot, datacenter } = &self.label;
        let mut text = format!("peerage data folder, format {FORMAT}\nnode {}\n", self.node);
        text += &format!("name {name}\nboot {boot}\ncommit {}\n", self.commit);
        if let Some((id, name)) = datacenter {
            text += &format!("datacenter {id} {name}\n");
        }
        files::sealed(NAME, &text)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = files::opened(NAME, bytes)?;
        let of =
            |word: &str| text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        let datacenter = match of("datacenter") {
            None => None,
            Some(both) => {
                let (id, name) = both.split_once(' ')?;
                Some((id.parse().ok()?, name.to_owned()))
            }
        };
        Some(Self {
            node: of("node")?.parse().ok()?,
            commit: of("commit")?.parse().ok()?,
            label: Label {
                name: of("name")?.to_owned(),
                boot: of("boot")?.parse().ok()?,
                datacenter,
            },
        })
    }
}

/// How the file was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Missing,
    Damaged,
    Whole(About),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        for datacenter in [None, Some((DataCenterId([3; 16]), "North of 5".to_owned()))] {
            let label = Label { name: "pve-1".into(), boot: 1_700_000_000, datacenter };
            let about = About { node: NodeId([9; 32]), commit: 41, label };
            about.write(dir.path()).unwrap();
            assert_eq!(About::read(dir.path()).unwrap(), Found::Whole(about));
        }
        std::fs::write(dir.path().join(NAME), "half").unwrap();
        assert_eq!(About::read(dir.path()).unwrap(), Found::Damaged);
    }
}
