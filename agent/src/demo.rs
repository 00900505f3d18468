//! Real agents at work on one host.

/// What to show.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many agents.
    pub nodes: u32,
    /// Whether to end once everything has been shown.
    pub once: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// What did not go as promised.
pub fn run(options: Options) -> anyhow::Result<()> {
    anyhow::bail!("the demonstration with {} agents is not built in yet", options.nodes)
}
