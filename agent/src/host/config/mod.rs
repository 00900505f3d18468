//! The configuration: defaults, then the file, then the environment, then the flags; the later
//! layer wins, value by value.
//!
//! It is parsed once into typed values. What is wrong is told with the key, the layer that it comes
//! from and what is expected; a key of the file that does not exist is wrong too, since it is a
//! misspelt one. An environment variable that names no key may be another program's: it is warned of.

mod address;
mod layers;
mod links;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::Value;
use peerage_proto::api::SOCKET_PATH_BYTES_MAX;
use peerage_proto::links::Link;
use peerage_proto::roster::{NameError, NodeName};
use serde::Deserialize;

use layers::DEFAULTS;
use links::RawLink;

pub use address::Listen;

/// The file that is read where no other is named. It need not exist.
pub const FILE: &str = "/etc/peerage/peerage.toml";

/// The environment variable that names the configuration file.
const FILE_VARIABLE: &str = "PEERAGE_CONFIG";

/// The socket where no layer names another.
pub const SOCKET: &str = "/run/peerage/peerage.sock";

/// All keys, in the order in which they are shown. Those that hold a list are lists.
const KEYS: [&str; 11] = [
    "data_dir",
    "socket",
    "listen",
    "advertise",
    "link",
    "name",
    "join",
    "join_file",
    "replace",
    "log",
    "group",
];

/// How many strange variables a warning names.
const STRANGE_TOLD: usize = 8;

/// What stands in for Join Information where the configuration is shown.
const HIDDEN: &str = "(given, not shown)";

/// The agent's configuration, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The folder of the node's key and data.
    pub data_dir: PathBuf,
    /// The socket that the command line talks to.
    pub socket: PathBuf,
    /// The UDP address that other nodes talk to.
    pub listen: Listen,
    /// The addresses at which other nodes find this one, the best first, with the layer that gives
    /// them; `None` where the agent finds them out itself.
    pub links: Option<(Vec<Link>, String)>,
    /// What the node is to be called; `None` keeps the name that it has, or takes [`host_name`].
    pub name: Option<NodeName>,
    /// How to join where the node is standalone.
    pub join: Option<JoinSource>,
    /// Whether joining takes the name over from a member that is down.
    pub replace: bool,
    /// What to log, as `tracing-subscriber` filters it: `info`, `peerage=debug`.
    pub log: String,
    /// The group whose members may write.
    pub group: String,
    /// Each key with its value and its layer, for people.
    shown: Vec<Shown>,
    /// The environment variables that begin as ours and name no key.
    strange: Vec<String>,
}

/// Where the Join Information is.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinSource {
    /// The Join Information itself.
    Token(String),
    /// The file that holds it.
    File(PathBuf),
}

/// Without the token, which is a secret.
impl std::fmt::Debug for JoinSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::File(path) => write!(f, "File({path:?})"),
        }
    }
}

/// What the flags of `peerage agent` say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The configuration file; it must exist then.
    pub config: Option<PathBuf>,
    /// As [`Config::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// As [`Config::socket`].
    pub socket: Option<PathBuf>,
    /// As [`Config::listen`].
    pub listen: Option<String>,
    /// As [`Config::links`], the best first.
    pub advertise: Vec<String>,
    /// As [`Config::name`].
    pub name: Option<String>,
    /// As [`Config::join`].
    pub join: Option<String>,
    /// As [`Config::join`].
    pub join_file: Option<PathBuf>,
    /// As [`Config::replace`]; not given where it is false.
    pub replace: bool,
}

/// A value of the configuration, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its key.
    pub key: &'static str,
    /// The value as text, a list as several; a secret is not shown.
    pub value: Vec<String>,
    /// Where it comes from.
    pub source: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{source_name} is not TOML: {message}")]
    Malformed {
        /// The file.
        source_name: String,
        /// What is wrong, and in which line.
        message: String,
    },
    /// There is no such key.
    #[error("there is no key {key:?}, which {source_name} gives; there are: {}", KEYS.join(", "))]
    UnknownKey {
        /// What was given.
        key: String,
        /// The file.
        source_name: String,
    },
    /// The value is not what the key takes.
    #[error("{key} as given by {source_name} is wrong: {message}")]
    Invalid {
        /// The key.
        key: String,
        /// The layer.
        source_name: String,
        /// What is wrong, and what is expected.
        message: String,
    },
    /// Links are given in two ways by one layer.
    #[error(
        "{0} gives both advertise and [[link]]: say it one way, and take the other away; [[link]] \
         can say priorities, advertise is in order"
    )]
    TwoLinkLists(String),
    /// Only a file can say this.
    #[error("{source_name} cannot give links with priorities: use {advertise}, best first")]
    OnlyInFile {
        /// The environment variable.
        source_name: String,
        /// What to use.
        advertise: String,
    },
    /// Join Information is given twice.
    #[error("both join (by {join}) and join_file (by {join_file}) are given: take one away")]
    TwoJoins {
        /// The layer of one.
        join: String,
        /// The layer of the other.
        join_file: String,
    },
}

impl ConfigError {
    /// Whether the error stays until someone changes the configuration. A read error of a disk is
    /// not final: the disk may answer the next time.
    pub fn is_final(&self) -> bool {
        use io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied};
        match self {
            Self::Unreadable { source, .. } => matches!(
                source.kind(),
                InvalidData | IsADirectory | NotADirectory | NotFound | PermissionDenied
            ),
            _ => true,
        }
    }
}

/// The environment variables that are text, as `std::env::vars_os` has them.
pub type Environment = BTreeMap<String, String>;

impl Config {
    /// Puts the layers together.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(layers::defaults());
        let named = flags.config.clone().or_else(|| named_file(environment).map(Into::into));
        for layer in layers::file(named.as_deref())?
            .into_iter()
            .chain(layers::environment(environment)?)
            .chain(layers::flags(flags))
        {
            figment = figment.merge(layer);
        }
        Ok(Self { strange: layers::strange(environment), ..Self::parse(&figment)? })
    }

    fn parse(figment: &Figment) -> Result<Self, ConfigError> {
        let raw: Raw = figment.extract().map_err(invalid)?;
        let wrong = |key: &str, message: String| ConfigError::Invalid {
            key: key.to_owned(),
            source_name: source_of(figment, key),
            message,
        };
        let listen = match source_of(figment, "listen").as_str() {
            DEFAULTS => Listen::Default,
            _ => raw.listen.parse().map_err(|message| wrong("listen", message))?,
        };
        let links = links::read(figment, &raw.advertise, raw.link)?;
        let join = match (raw.join, raw.join_file) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::TwoJoins {
                    join: source_of(figment, "join"),
                    join_file: source_of(figment, "join_file"),
                });
            }
            (Some(token), None) => Some(JoinSource::Token(token)),
            (None, file) => file.map(JoinSource::File),
        };
        let name =
            raw.name.map(|name| name.parse().map_err(|e: NameError| wrong("name", e.to_string())));
        for (key, path) in [("data_dir", &raw.data_dir), ("socket", &raw.socket)] {
            if path.as_os_str().is_empty() {
                return Err(wrong(key, "it is empty".to_owned()));
            }
        }
        let length = raw.socket.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "the path is {length} bytes long, and Linux takes {SOCKET_PATH_BYTES_MAX} at most \
                 for a socket: give a shorter one, and the same to the commands (--socket or \
                 PEERAGE_SOCKET)"
            );
            return Err(wrong("socket", message));
        }
        Ok(Self {
            data_dir: raw.data_dir,
            socket: raw.socket,
            listen,
            links,
            name: name.transpose()?,
            join,
            replace: raw.replace,
            log: raw.log,
            group: raw.group,
            shown: shown(figment),
            strange: Vec::new(),
        })
    }

    /// The message after a running agent has read its configuration anew: it takes over the log's
    /// level at once, and everything else at its next start.
    pub fn told_of(&self, new: &Self) -> String {
        let value = |config: &Self, key: &str| {
            config.shown.iter().find(|shown| shown.key == key).map(|shown| shown.value.clone())
        };
        // The shown values hide the token, so changed tokens are compared here.
        let secret = |key: &str| match (&self.join, &new.join) {
            (Some(JoinSource::Token(old)), Some(JoinSource::Token(new))) => {
                key == "join" && old != new
            }
            _ => false,
        };
        let changed = |key: &str| value(self, key) != value(new, key) || secret(key);
        let later: Vec<_> =
            KEYS.into_iter().filter(|key| *key != "log").filter(|key| changed(key)).collect();
        let level = match self.log == new.log {
            true => format!("the log stays at {:?}", new.log),
            false => format!("the log is at {:?} now", new.log),
        };
        match later.is_empty() {
            true => format!("{level}; nothing else has changed"),
            false => {
                format!("{level}; what changed of {} holds from the next start", later.join(", "))
            }
        }
    }

    /// What is said about environment variables that begin as ours and name no key, if there are any.
    pub fn warning(&self) -> Option<String> {
        let (named, more) = self.strange.split_at(self.strange.len().min(STRANGE_TOLD));
        let first = named.first()?;
        let names = named.join(", ");
        let more =
            if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        Some(format!(
            "ignored, since no key is named so: {names}{more}; if {first} was meant for this agent, \
             it is misspelt: `peerage config show` lists the keys"
        ))
    }

    /// Each key with its value and its source, in a fixed order.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }
}

/// The host's name up to its first dot, as it is now. It may be no valid name of a node.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    short_name(&name).to_owned()
}

/// The first label of a host's name: `web1` of `web1.example.org`. An address is no name of labels,
/// and stays whole.
fn short_name(name: &str) -> &str {
    let is_address = name.parse::<IpAddr>().is_ok();
    if is_address { name } else { name.split('.').next().unwrap_or_default() }
}

/// The socket that a client talks to: what the flag says, else the environment, else the file as
/// far as it can be read (it may hold Join Information and be closed to most), else [`SOCKET`].
pub fn client_socket(flag: Option<PathBuf>, environment: &Environment) -> PathBuf {
    let variable = || environment.get("PEERAGE_SOCKET").filter(|path| !path.is_empty());
    let in_file = || {
        let named = named_file(environment).map_or(FILE, String::as_str);
        let layer = layers::read(Path::new(named)).ok()?;
        layer.values.get("socket")?.as_str().map(PathBuf::from)
    };
    flag.or_else(|| variable().map(PathBuf::from))
        .or_else(in_file)
        .unwrap_or_else(|| PathBuf::from(SOCKET))
}

/// The file that the environment names. An empty variable says nothing.
fn named_file(environment: &Environment) -> Option<&String> {
    environment.get(FILE_VARIABLE).filter(|path| !path.is_empty())
}

/// The values as the layers give them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data_dir: PathBuf,
    socket: PathBuf,
    listen: String,
    advertise: Vec<String>,
    #[serde(default)]
    link: Vec<RawLink>,
    name: Option<String>,
    join: Option<String>,
    join_file: Option<PathBuf>,
    replace: bool,
    log: String,
    group: String,
}

fn source_of(figment: &Figment, key: &str) -> String {
    figment.find_metadata(key).map_or("nobody".to_owned(), |metadata| metadata.name.to_string())
}

fn shown(figment: &Figment) -> Vec<Shown> {
    let row = |key: &'static str| {
        let value = match figment.find_value(key) {
            Ok(_) if key == "join" => vec![HIDDEN.to_owned()],
            Ok(Value::Array(_, items)) if key == "link" => items
                .iter()
                .filter_map(|item| item.deserialize::<RawLink>().ok()?.shown())
                .collect(),
            Ok(Value::Array(_, items)) => {
                items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Ok(Value::Bool(_, flag)) => vec![flag.to_string()],
            Ok(value) => value.as_str().map(str::to_owned).into_iter().collect(),
            Err(_) if key == "name" => {
                let source = "the host's name, unless the node has one already".to_owned();
                return Shown { key, value: vec![host_name()], source };
            }
            Err(_) => return Shown { key, value: vec![], source: DEFAULTS.to_owned() },
        };
        Shown { key, value, source: source_of(figment, key) }
    };
    KEYS.into_iter().map(row).collect()
}

fn invalid(error: figment::Error) -> ConfigError {
    ConfigError::Invalid {
        key: error.path.join("."),
        source_name: error.metadata.as_ref().map_or("nobody", |metadata| &metadata.name).to_owned(),
        message: error.kind.to_string(),
    }
}

#[cfg(test)]
mod tests;
