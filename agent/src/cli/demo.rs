//! The options of `peerage demo`.

use clap::Args;

/// Show real agents at work on this host, in a temporary folder and on the loopback device.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How many agents
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    pub nodes: u32,
    /// End once everything has been shown
    #[arg(long)]
    pub once: bool,
}
