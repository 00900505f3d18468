//! The secret of an invitation: sixteen random bytes, in the string or apart from it as a password.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use super::TokenError;
use crate::identity::Keypair;
use crate::text;

/// How many bytes a secret has.
pub(super) const SECRET_LEN: usize = 16;

/// The secret part of an invitation.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) [u8; SECRET_LEN]);

impl Secret {
    /// The secret of sixteen random bytes.
    pub fn new(random: [u8; SECRET_LEN]) -> Self {
        Self(random)
    }

    /// The key that proves possession.
    pub fn key(&self) -> Keypair {
        let seed = Sha256::new().chain_update(b"peerage invite key 1").chain_update(self.0);
        Keypair::from_seed(seed.finalize().into())
    }

    /// The secret as a password, for a string that was made without it: six groups of letters and
    /// digits.
    pub fn password(&self) -> String {
        let text = BASE32_NOPAD.encode(&self.0).to_lowercase();
        let groups: Vec<_> = text.as_bytes().chunks(5).map(String::from_utf8_lossy).collect();
        groups.join("-")
    }

    /// Reads a password; case, blanks and hyphens do not matter.
    ///
    /// # Errors
    /// [`TokenError::Password`].
    pub fn from_password(text: &str) -> Result<Self, TokenError> {
        let kept = text::one_word(text).replace('-', "");
        let bytes = BASE32_NOPAD.decode(kept.to_uppercase().as_bytes());
        let bytes = bytes.map_err(|_| TokenError::Password)?;
        Ok(Self(bytes.try_into().map_err(|_| TokenError::Password)?))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
