//! The options of `peerage agent`.

use std::path::PathBuf;

use clap::Args;

/// Run the agent. Each option is told by the configuration file too, and by the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentArgs {
    /// The configuration file [default: /etc/peerage/peerage.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the agent keeps its key and its data [default: /var/lib/peerage]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The UDP address that other nodes talk to [default: [::]:4747]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Where other nodes are told to find this one: an IP address, or a DNS name that they look up when
    /// they dial; may be repeated, best first; [[link]] of the file does not count then [default: found
    /// out]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub advertise: Vec<String>,
    /// What this node is called [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Join with this Join Information, unless the node is a member already; - reads it from stdin. It
    /// leaves the process's arguments at once, which all users see
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file")]
    pub join: Option<String>,
    /// Join with the Join Information in this file, unless the node is a member already
    #[arg(long, value_name = "FILE")]
    pub join_file: Option<PathBuf>,
    /// Where it joins: take the name over from a member that is down, which is removed by that
    #[arg(long)]
    pub replace: bool,
}
