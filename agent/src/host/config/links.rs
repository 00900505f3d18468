//! The links of the configuration: `advertise`, a list in order, or `[[link]]`, tables that can say
//! priorities and names.
//!
//! A file may use one of the two. What the environment or a flag advertises overrules either, as
//! every later layer overrules an earlier one.

use figment::Figment;
use peerage_proto::links::{Link, LinkError, Priority, in_order};
use serde::Deserialize;

use super::{ConfigError, source_of};

/// A `[[link]]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLink {
    address: String,
    priority: Option<i64>,
    name: Option<String>,
}

impl RawLink {
    fn link(self) -> Result<Link, LinkError> {
        let priority = match self.priority {
            None => Priority::default(),
            Some(number) => u64::try_from(number)
                .map_err(|_| LinkError::Priority(number.to_string()))?
                .try_into()?,
        };
        Ok(Link { address: self.address.parse()?, priority, name: self.name })
    }

    /// The link for people; none where it is wrong.
    pub(super) fn shown(self) -> Option<String> {
        self.link().ok().map(|link| link.to_string())
    }
}

/// The links, the best first, with the layer that they come from; none where no layer gives any.
pub(super) fn read(
    figment: &Figment,
    advertise: &[String],
    tables: Vec<RawLink>,
) -> Result<Option<(Vec<Link>, String)>, ConfigError> {
    let (of_list, of_tables) = (source_of(figment, "advertise"), source_of(figment, "link"));
    let (key, source, links) = match (advertise.is_empty(), tables.is_empty()) {
        (true, true) => return Ok(None),
        (false, false) if of_list == of_tables => return Err(ConfigError::TwoLinkLists(of_list)),
        (true, false) => (
            "link",
            of_tables,
            tables.into_iter().map(RawLink::link).collect::<Result<Vec<_>, _>>(),
        ),
        // Only the file has tables, so an `advertise` of another source is of a later layer and
        // wins.
        (false, _) => {
            let link = |(index, text): (usize, &String)| {
                let priority = Priority::of_place(index);
                Ok(Link { address: text.parse()?, priority, name: None })
            };
            ("advertise", of_list, advertise.iter().enumerate().map(link).collect())
        }
    };
    match links.and_then(in_order) {
        Ok(links) => Ok(Some((links, source))),
        Err(error) => Err(ConfigError::Invalid {
            key: key.to_owned(),
            source_name: source,
            message: error.to_string(),
        }),
    }
}
