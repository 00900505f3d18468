//! Why a string is refused, in words for the person who pasted it.

use super::PREFIX;

/// Why a string is not Join Information.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error(
        "this is not Join Information: it opens with `{PREFIX}`, as `peerage invite` prints it"
    )]
    NotJoinInformation,
    /// Made by another version.
    #[error(
        "this Join Information was made by another version of peerage; upgrade this node, or make it on a node of this version"
    )]
    Version,
    /// A character is missing, added or altered.
    #[error(
        "this Join Information is damaged (a character is missing or altered): copy the whole string again"
    )]
    Damaged,
    /// Whole, but not what its issuer signed.
    #[error(
        "this Join Information was not signed by the node that it names as its issuer: do not trust where it came from"
    )]
    Forged,
    /// Not the password that belongs to the string.
    #[error(
        "this is not the password that `peerage invite --no-secret` printed with this Join Information"
    )]
    Password,
}
