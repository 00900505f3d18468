//! `peerage config show`.

use std::path::PathBuf;

use clap::Subcommand;
use peerage_proto::api::{ApiError, Exit};
use serde::Serialize;
use serde_json::Value;

use super::table::Table;
use super::{Console, text};

/// Tell about the agent's configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print each value, and where it comes from
    Show {
        /// The configuration file [default: /etc/peerage/peerage.toml, if there is one]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// A value of the configuration, with its source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its name in the file.
    pub key: &'static str,
    /// The value; `None` where there is none.
    pub value: Value,
    /// Where it comes from.
    pub source: String,
}

/// Prints the values, or why there are none.
pub fn show(settings: Result<Vec<Setting>, ApiError>, console: &mut Console) -> Exit {
    let shown = settings.map_err(Into::into).and_then(|settings| {
        if console.wants_json() {
            return console.json(&settings);
        }
        let mut table = Table::new(&["KEY", "VALUE", "SOURCE"]);
        for Setting { key, value, source } in &settings {
            let value = match value {
                Value::Null => text::UNKNOWN.to_owned(),
                Value::Array(none) if none.is_empty() => text::UNKNOWN.to_owned(),
                value => text::bare(value),
            };
            table.row([*key, &value, source]);
        }
        console.table(&table)
    });
    console.end(shown)
}
