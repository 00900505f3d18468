//! What the benches take from their command lines.

use clap::builder::RangedU64ValueParser;

/// Numbers from `least` on.
pub fn at_least(least: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..)
}
