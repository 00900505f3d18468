//! The layers of the configuration, each with the name of its source.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use peerage_proto::text;

use super::{ConfigError, Environment, FILE, FILE_VARIABLE, Flags, KEYS, Listen, SOCKET};

/// What the names of our environment variables begin with.
const ENVIRONMENT_PREFIX: &str = "PEERAGE_";

/// What the layer of defaults is called.
pub(super) const DEFAULTS: &str = "default";

/// Some values, and where they come from.
#[derive(Debug)]
pub(super) struct Layer {
    source: String,
    pub(super) values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

pub(super) fn defaults() -> Layer {
    let texts = [
        ("data_dir", "/var/lib/peerage"),
        ("socket", SOCKET),
        ("listen", Listen::DEFAULT),
        ("log", "info"),
        ("group", "peerage"),
    ];
    let mut values: Dict =
        texts.into_iter().map(|(key, text)| (key.to_owned(), Value::from(text))).collect();
    values.insert("advertise".to_owned(), Value::from(Vec::<String>::new()));
    values.insert("replace".to_owned(), Value::from(false));
    Layer { source: DEFAULTS.to_owned(), values }
}

/// The layer of the configuration file: of the named file, which must exist, or else of the usual
/// one, which need not exist.
pub(super) fn file(named: Option<&Path>) -> Result<Option<Layer>, ConfigError> {
    match (read(named.unwrap_or(Path::new(FILE))), named) {
        (Err(ConfigError::Unreadable { source, .. }), None)
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        (layer, _) => layer.map(Some),
    }
}

pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let source = path.display().to_string();
    let unreadable = |error| ConfigError::Unreadable { file: path.to_owned(), source: error };
    let text = fs::read(path).and_then(|bytes| {
        text::decoded(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    let text = text.map_err(unreadable)?;
    let mut profiles = Toml::string(&text).data().map_err(|error| ConfigError::Malformed {
        source_name: source.clone(),
        message: error.kind.to_string(),
    })?;
    let values = profiles.remove(&Profile::Default).unwrap_or_default();
    match values.keys().find(|key| !KEYS.contains(&key.as_str())) {
        Some(key) => Err(ConfigError::UnknownKey { key: key.clone(), source_name: source }),
        None => Ok(Layer { source, values }),
    }
}

/// The variables that begin with our prefix and name no key: they are another program's, or
/// misspelt. An orchestrator sets such variables for a service that is called peerage
/// (`PEERAGE_PORT_4747_UDP`).
pub(super) fn strange(environment: &Environment) -> Vec<String> {
    let is_strange = |variable: &&String| {
        let key = variable.strip_prefix(ENVIRONMENT_PREFIX).map(str::to_ascii_lowercase);
        *variable != FILE_VARIABLE && key.is_some_and(|key| !KEYS.contains(&key.as_str()))
    };
    environment.keys().filter(is_strange).cloned().collect()
}

/// One layer for each variable, so that an error can name the variable. Empty variables and strange
/// ones are left out.
pub(super) fn environment(environment: &Environment) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    for (variable, text) in environment {
        let Some(key) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        if variable == FILE_VARIABLE || text.is_empty() {
            continue;
        }
        let source = format!("the environment variable {variable}");
        let key = key.to_ascii_lowercase();
        if !KEYS.contains(&key.as_str()) {
            continue;
        }
        if key == "link" {
            let advertise = format!("{ENVIRONMENT_PREFIX}ADVERTISE");
            return Err(ConfigError::OnlyInFile { source_name: source, advertise });
        }
        let value = match key.as_str() {
            "advertise" => {
                Value::from(text.split([',', ' ']).filter(|a| !a.is_empty()).collect::<Vec<_>>())
            }
            "replace" => match text.as_str() {
                "1" | "true" => Value::from(true),
                "0" | "false" => Value::from(false),
                // The parser reports it as a wrong value, like any other.
                other => Value::from(other),
            },
            _ => Value::from(text.as_str()),
        };
        layers.push(Layer { source, values: Dict::from([(key, value)]) });
    }
    Ok(layers)
}

/// One layer for each flag that was given.
pub(super) fn flags(given: &Flags) -> Vec<Layer> {
    let path =
        |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let texts = [
        ("data_dir", path(&given.data_dir)),
        ("socket", path(&given.socket)),
        ("listen", given.listen.clone()),
        ("name", given.name.clone()),
        ("join", given.join.clone()),
        ("join_file", path(&given.join_file)),
    ];
    let layer = |key: &str, value: Value| Layer {
        source: format!("the flag --{}", key.replace('_', "-")),
        values: Dict::from([(key.to_owned(), value)]),
    };
    let mut layers: Vec<Layer> = texts
        .into_iter()
        .filter_map(|(key, text)| text.map(|text| layer(key, Value::from(text))))
        .collect();
    if given.replace {
        layers.push(layer("replace", Value::from(true)));
    }
    if !given.advertise.is_empty() {
        layers.push(layer("advertise", Value::from(given.advertise.clone())));
    }
    layers
}
