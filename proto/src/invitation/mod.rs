//! Join Information: the one string that an operator pastes.
//!
//! `peerage1-` and base64url (RFC 4648 section 5) of `opening (2 bytes) | content | check (4)`. The
//! terms in it are signed by the node that issued them, so any member can check them with no
//! registration. The secret makes an Ed25519 key whose public half stands in the terms: a joiner
//! proves that it holds that key, and never sends the secret.
//!
//! The opening is a number, the highest byte first. Its upper two bits tell the form: `10` is the
//! short one ([`short`]), and the other bits are the length of the content. A string of this form
//! has at most 300 characters for one seed with one IPv4 address, names of up to 16 bytes and no
//! pattern, and 60 more for each further such seed. `00` is the long one, `terms (MessagePack) |
//! signature (64) | secret (16 bytes or none)`, where the bits are the length of the terms; this
//! version reads it, and writes it where the terms were signed in another spelling than its own.

mod error;
mod form;
mod progress;
mod secret;
mod short;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

use self::form::Form;
use crate::codec;
use crate::text;

pub use self::error::TokenError;
pub use self::progress::{Progress, progress};
pub use self::secret::Secret;
pub use self::terms::{Invitation, SEEDS_MAX, Seed, TERMS_BYTES_MAX, Terms};

/// The beginning of every string of this version.
const PREFIX: &str = "peerage1-";

/// The beginning of the strings of all versions.
const ANY_PREFIX: &str = "peerage";

/// How long the string may be.
const TOKEN_CHARS_MAX: usize = 8 * 1024;

/// How many bytes the checksum has.
const CHECK_LEN: usize = 4;

/// The whole string: an invitation, with its secret or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinInformation {
    /// The part that a joiner shows to the member that it asks.
    pub invitation: Invitation,
    /// The secret that a joiner proves to hold; none where the string was made without it.
    pub secret: Option<Secret>,
}

impl JoinInformation {
    /// Reads the string. What terminals, editors and mail programs put in does not matter: blanks,
    /// line breaks, a byte order mark, comment lines.
    ///
    /// # Errors
    /// [`TokenError`], for any text; never a panic.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text::one_word(text);
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let of_another = text.strip_prefix(ANY_PREFIX).and_then(|rest| rest.split_once('-'));
            return Err(match of_another {
                Some((v, _)) if !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()) => {
                    TokenError::Version
                }
                _ => TokenError::NotJoinInformation,
            });
        };
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::Damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TokenError::Damaged)?;
        let content = checked(&bytes).ok_or(TokenError::Damaged)?;
        let (opening, content) = content.split_first_chunk().ok_or(TokenError::Damaged)?;
        let (invitation, secret) = match Form::of(*opening) {
            Some(Form::Short { content: length }) if length == content.len() => {
                let short::Content { terms, signature, secret } = short::read(content)?;
                (Invitation::verify(&codec::encode(&terms), &signature)?, secret)
            }
            Some(Form::Long { terms }) => read_long(content, terms)?,
            Some(Form::Short { .. }) => return Err(TokenError::Damaged),
            None => return Err(TokenError::Version),
        };
        let this = Self { invitation, secret };
        match &this.secret {
            Some(secret) if !this.opens_with(secret) => Err(TokenError::Forged),
            _ => Ok(this),
        }
    }

    /// Whether this is the secret that belongs to the invitation.
    pub fn opens_with(&self, secret: &Secret) -> bool {
        secret.key().invite_id() == self.invitation.terms.invite
    }
}

impl fmt::Display for JoinInformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Invitation { terms, body, signature } = &self.invitation;
        // A reader of the short form encodes the terms again, as this version does, and checks the
        // signature.
        let is_ours = codec::encode(terms)[..] == body[..];
        let content = short::write(terms, signature, self.secret.as_ref());
        let short = Form::Short { content: content.len() }.opening().filter(|_| is_ours);
        let (opening, content) = match short {
            Some(opening) => (opening, content),
            None => {
                let opening = Form::Long { terms: body.len() }.opening();
                let secret = self.secret.iter().flat_map(|Secret(secret)| secret);
                let content = body.iter().chain(signature).chain(secret).copied().collect();
                (opening.expect("terms that do not fit are neither read nor issued"), content)
            }
        };
        let mut bytes = opening.to_vec();
        bytes.extend(content);
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

/// Reads the content of a string in the long form.
fn read_long(content: &[u8], terms: usize) -> Result<(Invitation, Option<Secret>), TokenError> {
    let (body, rest) = content.split_at_checked(terms).ok_or(TokenError::Damaged)?;
    let (signature, secret) = rest.split_first_chunk().ok_or(TokenError::Damaged)?;
    let secret = match secret.len() {
        0 => None,
        _ => Some(Secret::new(secret.try_into().map_err(|_| TokenError::Damaged)?)),
    };
    Ok((Invitation::verify(body, signature)?, secret))
}

/// The bytes that the checksum at their end covers; `None` where the checksum does not fit them.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, check) = bytes.split_last_chunk()?;
    (*check == checksum(content)).then_some(content)
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let hash = Sha256::digest(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}
