//! Join Information: the one string that an operator pastes.
//!
//! `peerage1-` and base64url (RFC 4648 section 5) of
//! `length (2 bytes) | terms (MessagePack) | signature (64) | secret (16 bytes or none) | check (4)`.
//! The terms are signed by the node that issued them, so any member can check them with no
//! registration. The secret makes an Ed25519 key whose public half stands in the terms: a joiner
//! proves that it holds it and never sends it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::codec;
use crate::id::{DataCenterId, InviteId, NodeId};
use crate::identity::{Domain, Keypair, SIGNATURE_LEN};
use crate::text;

/// What opens every string of this version.
const PREFIX: &str = "peerage1-";

/// How much of a string there is, where it comes line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All of it, by its length and its checksum.
    Whole,
    /// A beginning.
    More,
    /// Neither: no further line makes it Join Information of this version.
    Wrong,
}

/// How much of a string of this version a text is.
pub fn progress(text: &str) -> Progress {
    let text = text::one_word(text);
    let Some(encoded) = text.strip_prefix(PREFIX) else {
        return if PREFIX.starts_with(&text) { Progress::More } else { Progress::Wrong };
    };
    let foreign = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_';
    if text.len() > TOKEN_CHARS_MAX || encoded.bytes().any(foreign) {
        return Progress::Wrong;
    }
    // Four characters are three bytes, of which two tell the length of what follows.
    let Some(Ok(opening)) = encoded.get(..4).map(|four| BASE64URL_NOPAD.decode(four.as_bytes()))
    else {
        return Progress::More;
    };
    let terms = usize::from(u16::from_be_bytes([opening[0], opening[1]]));
    if terms > TERMS_BYTES_MAX {
        return Progress::Wrong;
    }
    let chars = |bytes: usize| BASE64URL_NOPAD.encode_len(bytes);
    let bare = 2 + terms + SIGNATURE_LEN + CHECK_LEN;
    let is_whole =
        || BASE64URL_NOPAD.decode(encoded.as_bytes()).is_ok_and(|b| checked(&b).is_some());
    match encoded.len() {
        length if length == chars(bare) && is_whole() => Progress::Whole,
        length if length < chars(bare + SECRET_LEN) => Progress::More,
        length if length == chars(bare + SECRET_LEN) && is_whole() => Progress::Whole,
        _ => Progress::Wrong,
    }
}

/// What opens the strings of all versions.
const ANY_PREFIX: &str = "peerage";

/// How long the string may be.
const TOKEN_CHARS_MAX: usize = 8 * 1024;

/// How long the encoded terms may be.
pub const TERMS_BYTES_MAX: usize = 4 * 1024;

/// How many seeds an invitation names.
pub const SEEDS_MAX: usize = 5;

const SECRET_LEN: usize = 16;
const CHECK_LEN: usize = 4;

/// A member that a joiner may ask to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Its key: whoever answers at the addresses must hold it.
    pub node: NodeId,
    /// Where it was reached when the invitation was made.
    pub addresses: Vec<SocketAddr>,
}

/// What an invitation promises, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The Data Center.
    pub datacenter: DataCenterId,
    /// Its name when the invitation was made.
    pub datacenter_name: String,
    /// The member that made it.
    pub issuer: NodeId,
    /// The name of that member.
    pub issuer_name: String,
    /// The invitation: the public half of the key that its secret makes.
    pub invite: InviteId,
    /// Whom to ask.
    pub seeds: Vec<Seed>,
    /// From when it holds, in milliseconds since 1970.
    pub issued_ms: u64,
    /// Until when it holds, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How many nodes it admits; none for any number.
    #[serde(default)]
    pub uses: Option<u32>,
    /// A pattern with `*` and `?` that the name of an admitted node matches.
    #[serde(default)]
    pub node_name: Option<String>,
    /// Whether only the issuer's own word admits.
    #[serde(default)]
    pub strict: bool,
}

/// The secret part of an invitation.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

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

/// Terms with their issuer's signature: what the joiner shows, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    terms: Terms,
    body: Arc<[u8]>,
    signature: [u8; SIGNATURE_LEN],
}

impl Invitation {
    /// Signs terms as their issuer, whose key must be given.
    pub fn issue(terms: Terms, issuer: &Keypair) -> Self {
        debug_assert_eq!(terms.issuer, issuer.node_id());
        let body = codec::encode(&terms);
        let signature = issuer.sign(Domain::Invite, &body);
        Self { terms, body: body.into(), signature }
    }

    /// Reads terms and checks that their issuer signed them.
    ///
    /// # Errors
    /// [`TokenError::Damaged`] where they do not read, [`TokenError::Forged`] where the signature
    /// is another's.
    pub fn verify(body: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<Self, TokenError> {
        let terms: Terms = codec::decode(body, TERMS_BYTES_MAX).map_err(|_| TokenError::Damaged)?;
        if terms.seeds.len() > SEEDS_MAX {
            return Err(TokenError::Damaged);
        }
        let checked = terms.issuer.verify(Domain::Invite, body, signature);
        checked.map_err(|_| TokenError::Forged)?;
        Ok(Self { terms, body: body.into(), signature: *signature })
    }

    /// What it promises.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The bytes that the issuer signed.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The issuer's signature.
    pub fn signature(&self) -> &[u8; SIGNATURE_LEN] {
        &self.signature
    }
}

/// The whole string: an invitation, with its secret or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinInformation {
    /// What is shown to the member that is asked.
    pub invitation: Invitation,
    /// What is proved to be held; none where the string was made without.
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
        let (length, rest) = content.split_first_chunk().ok_or(TokenError::Damaged)?;
        let (body, rest) = rest
            .split_at_checked(usize::from(u16::from_be_bytes(*length)))
            .ok_or(TokenError::Damaged)?;
        let (signature, secret) = rest.split_first_chunk().ok_or(TokenError::Damaged)?;
        let secret = match secret.len() {
            0 => None,
            _ => Some(Secret(secret.try_into().map_err(|_| TokenError::Damaged)?)),
        };
        let invitation = Invitation::verify(body, signature)?;
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
        let body = &self.invitation.body;
        let length = u16::try_from(body.len()).expect("terms are bounded well below 64 KiB");
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&self.invitation.signature);
        bytes.extend(self.secret.iter().flat_map(|secret| secret.0));
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

/// What the checksum behind it covers; `None` where it is another's.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, check) = bytes.split_last_chunk()?;
    (*check == checksum(content)).then_some(content)
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let hash = Sha256::digest(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> JoinInformation {
        let issuer = Keypair::from_seed([1; 32]);
        let secret = Secret::new([5; 16]);
        let terms = Terms {
            datacenter: DataCenterId([2; 16]),
            datacenter_name: "Home Lab".into(),
            issuer: issuer.node_id(),
            issuer_name: "pve-1".into(),
            invite: secret.key().invite_id(),
            seeds: vec![Seed {
                node: issuer.node_id(),
                addresses: vec![
                    "192.0.2.1:4747".parse().unwrap(),
                    "[2001:db8::1]:4747".parse().unwrap(),
                ],
            }],
            issued_ms: 1,
            expires_ms: 2,
            uses: Some(3),
            node_name: Some("pve-*".into()),
            strict: false,
        };
        JoinInformation { invitation: Invitation::issue(terms, &issuer), secret: Some(secret) }
    }

    #[test]
    fn the_string_reads_back_also_across_line_breaks() {
        let token = sample();
        let text = token.to_string();
        assert_eq!(JoinInformation::parse(&text).unwrap(), token);
        let broken: Vec<String> =
            text.as_bytes().chunks(60).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
        assert_eq!(JoinInformation::parse(&broken.join("\r\n ")).unwrap(), token);
    }

    #[test]
    fn every_altered_or_missing_character_is_noticed() {
        let text = sample().to_string();
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(JoinInformation::parse(&altered).is_err(), "altered at {at}");
            assert!(JoinInformation::parse(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_string_without_the_secret_opens_with_the_password() {
        let whole = sample();
        let bare = JoinInformation { secret: None, ..whole.clone() };
        let read = JoinInformation::parse(&bare.to_string()).unwrap();
        assert_eq!(read.secret, None);
        let password = whole.secret.unwrap().password();
        let secret = Secret::from_password(&password.to_uppercase().replace('-', " ")).unwrap();
        assert!(read.opens_with(&secret));
        assert!(!read.opens_with(&Secret::new([6; 16])));
        assert_eq!(Secret::from_password("nonsense!").unwrap_err(), TokenError::Password);
    }

    #[test]
    fn what_editors_and_chats_put_in_does_not_matter() {
        let token = sample();
        let text = token.to_string();
        let (head, tail) = text.split_at(50);
        let handed = format!("\u{feff}# for pve-7\r\n{head}\u{200b}\r\n# more\r\n {tail}\r\n");
        assert_eq!(JoinInformation::parse(&handed).unwrap(), token);
        let password = format!("\u{feff}{}\r\n", token.secret.unwrap().password());
        assert!(Secret::from_password(&password).is_ok());
    }

    #[test]
    fn a_string_is_whole_where_its_length_and_its_checksum_say_so() {
        let whole = sample();
        let bare = JoinInformation { secret: None, ..whole.clone() };
        for text in [whole.to_string(), bare.to_string()] {
            for at in 0..text.len() {
                assert_eq!(progress(&text[..at]), Progress::More, "the first {at}");
            }
            assert_eq!(progress(&text), Progress::Whole);
            assert_eq!(
                progress(&format!("\u{feff}{}\r\n{}", &text[..70], &text[70..])),
                Progress::Whole
            );
        }
        let mut damaged = whole.to_string();
        damaged.replace_range(60..61, if &damaged[60..61] == "A" { "B" } else { "A" });
        for wrong in [
            &damaged,
            &format!("{whole}A"),
            "hello",
            "peerage2-AAAA",
            "peerage1-!",
            "peerage1-zzzz",
        ] {
            assert_eq!(progress(wrong), Progress::Wrong, "{wrong}");
        }
        assert_eq!(progress(""), Progress::More);
    }

    #[test]
    fn other_texts_are_told_apart() {
        let told = |text: &str| JoinInformation::parse(text).unwrap_err();
        assert_eq!(told("hello"), TokenError::NotJoinInformation);
        assert_eq!(told("peerage2-AAAA"), TokenError::Version);
        assert_eq!(told("peerage1-AAAA"), TokenError::Damaged);
        assert_eq!(told(""), TokenError::NotJoinInformation);
    }

    proptest! {
        #[test]
        fn arbitrary_content_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut whole = bytes.clone();
            whole.extend(checksum(&bytes));
            let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&whole));
            prop_assert!(JoinInformation::parse(&text).is_err());
        }

        #[test]
        fn arbitrary_text_does_no_harm(text in "\\PC*") {
            prop_assert!(JoinInformation::parse(&text).is_err());
            prop_assert_ne!(progress(&text), Progress::Whole);
        }
    }
}
