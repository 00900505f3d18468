//! The agent as a process: the composition root.

use crate::config::Config;

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!(
        "the agent with the data folder {} is not built in yet",
        config.data_dir.display()
    )
}
