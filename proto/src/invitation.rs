//! Join Information: the one string that an operator pastes.
//!
//! `peerage1-` and base64url (RFC 4648 section 5) of `opening (2 bytes) | content | check (4)`. The
//! terms in it are signed by the node that issued them, so any member can check them with no
//! registration. The secret makes an Ed25519 key whose public half stands in the terms: a joiner
//! proves that it holds it and never sends it.
//!
//! The opening is a number, the highest byte first. Its upper two bits tell the form: `10` is the
//! short one ([`short`]), and the other bits are the length of the content. A string of it has at
//! most 300 characters for one seed with one IPv4 address, names of up to 16 bytes and no pattern,
//! and 60 more for each further such seed. `00` is the long one, `terms (MessagePack) | signature
//! (64) | secret (16 bytes or none)`, where the bits are the length of the terms; it is read, and
//! written where the terms were signed in another spelling than this version's.

mod short;

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::Address;
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
    let lengths = match Form::of([opening[0], opening[1]]) {
        Some(Form::Short { content }) => content..=content,
        Some(Form::Long { terms }) => {
            let bare = terms + SIGNATURE_LEN;
            bare..=bare + SECRET_LEN
        }
        None => return Progress::Wrong,
    };
    let chars = |content: &usize| BASE64URL_NOPAD.encode_len(OPENING_LEN + content + CHECK_LEN);
    let is_whole =
        || BASE64URL_NOPAD.decode(encoded.as_bytes()).is_ok_and(|b| checked(&b).is_some());
    match encoded.len() {
        length if length < chars(lengths.start()) => Progress::More,
        length if length == chars(lengths.start()) && is_whole() => Progress::Whole,
        length if length < chars(lengths.end()) => Progress::More,
        length if length == chars(lengths.end()) && is_whole() => Progress::Whole,
        _ => Progress::Wrong,
    }
}

/// How a string is written, and how much of what follows its opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Without the names of fields: the bytes of the whole content.
    Short { content: usize },
    /// With the terms as they were signed: the bytes of them.
    Long { terms: usize },
}

impl Form {
    /// The bits of the opening that tell the form, and those of [`Form::Short`].
    const BITS: u16 = 0xc000;
    const SHORT: u16 = 0x8000;

    /// Reads an opening; none of another version, or longer than any of this one.
    fn of(opening: [u8; OPENING_LEN]) -> Option<Self> {
        let opening = u16::from_be_bytes(opening);
        let length = usize::from(opening & !Self::BITS);
        let fits = length <= TERMS_BYTES_MAX;
        match opening & Self::BITS {
            Self::SHORT => fits.then_some(Self::Short { content: length }),
            0 => fits.then_some(Self::Long { terms: length }),
            _ => None,
        }
    }

    /// The opening of this form; none where it is too long for it.
    fn opening(self) -> Option<[u8; OPENING_LEN]> {
        let (form, length) = match self {
            Self::Short { content } => (Self::SHORT, content),
            Self::Long { terms } => (0, terms),
        };
        let length = u16::try_from(length).ok().filter(|_| length <= TERMS_BYTES_MAX)?;
        Some((form | length).to_be_bytes())
    }
}

/// What opens the strings of all versions.
const ANY_PREFIX: &str = "peerage";

/// How long the string may be.
const TOKEN_CHARS_MAX: usize = 8 * 1024;

/// How long the encoded terms may be, and the content of a string in the short form.
pub const TERMS_BYTES_MAX: usize = 4 * 1024;

/// How many seeds an invitation names.
pub const SEEDS_MAX: usize = 5;

const OPENING_LEN: usize = 2;
const SECRET_LEN: usize = 16;
const CHECK_LEN: usize = 4;

/// A member that a joiner may ask to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Its key: whoever answers at the addresses must hold it.
    pub node: NodeId,
    /// Where it was reached when the invitation was made.
    pub addresses: Vec<Address>,
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

impl Terms {
    /// Whether their binary form is within [`TERMS_BYTES_MAX`]: longer ones are read by nobody.
    pub fn fit(&self) -> bool {
        codec::encode(self).len() <= TERMS_BYTES_MAX
    }
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
        // Who reads the short form spells the signed one out again.
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
        _ => Some(Secret(secret.try_into().map_err(|_| TokenError::Damaged)?)),
    };
    Ok((Invitation::verify(body, signature)?, secret))
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
    use crate::address::tests::address;

    const LONG: &str = include_str!("invitation/long.txt");
    const LONG_BARE: &str = include_str!("invitation/long_bare.txt");
    const SHORT: &str = include_str!("invitation/short.txt");
    const NAMED: &str = include_str!("invitation/named.txt");

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
    fn strings_of_the_long_form_are_still_read() {
        let whole = sample();
        let bare = JoinInformation { secret: None, ..whole.clone() };
        for (text, token) in [(LONG, whole), (LONG_BARE, bare)] {
            assert_eq!(JoinInformation::parse(text).unwrap(), token);
            let text = text::one_word(text);
            assert_eq!(progress(&text), Progress::Whole);
            for at in 0..text.len() {
                assert_ne!(progress(&text[..at]), Progress::Whole, "the first {at}");
                assert!(JoinInformation::parse(&text[..at]).is_err(), "cut at {at}");
            }
            assert!(token.to_string().len() < text.len() * 3 / 5);
        }
    }

    /// A version that adds to the terms signs what this one does not know.
    #[test]
    fn terms_in_another_spelling_keep_it() {
        #[derive(Serialize)]
        struct Newer {
            #[serde(flatten)]
            terms: Terms,
            colour: &'static str,
        }
        let issuer = Keypair::from_seed([1; 32]);
        let JoinInformation { invitation, secret } = sample();
        let body = codec::encode(&Newer { terms: invitation.terms, colour: "red" });
        let signature = issuer.sign(Domain::Invite, &body);
        let invitation = Invitation::verify(&body, &signature).unwrap();
        let token = JoinInformation { invitation, secret };
        assert_eq!(JoinInformation::parse(&token.to_string()).unwrap(), token);
        assert_eq!(token.invitation.body(), body);
    }

    #[test]
    fn the_short_form_stays_as_it_is() {
        assert_eq!(sample().to_string(), text::one_word(SHORT));
    }

    fn named() -> JoinInformation {
        let JoinInformation { invitation, secret } = sample();
        let mut terms = invitation.terms;
        terms.seeds[0].addresses[0] = "pve-1.example.org:4747".parse().unwrap();
        let invitation = Invitation::issue(terms, &Keypair::from_seed([1; 32]));
        JoinInformation { invitation, secret }
    }

    #[test]
    fn a_name_in_a_string_takes_its_letters_and_one_byte_more() {
        let text = named().to_string();
        assert_eq!(text, text::one_word(NAMED));
        assert_eq!(JoinInformation::parse(&text).unwrap(), named());
        let bytes = |text: &str| BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
        let instead_of_ipv4 = "pve-1.example.org".len() + 1 - 4;
        assert_eq!(bytes(&text).len(), bytes(&sample().to_string()).len() + instead_of_ipv4);
    }

    /// As many seeds as there may be, each with as many names as it may have, of the longest.
    #[test]
    fn terms_with_many_long_names_do_not_fit_and_those_of_one_seed_do() {
        let JoinInformation { invitation, .. } = sample();
        let mut terms = invitation.terms;
        let name = |n: usize| format!("{n}{}.lan:4747", ".a-part-of-a-name".repeat(14));
        let addresses: Vec<Address> = (1..=4).map(|n| name(n).parse().unwrap()).collect();
        terms.seeds = vec![Seed { node: NodeId([3; 32]), addresses }; SEEDS_MAX];
        assert!(!terms.fit());
        terms.seeds.truncate(1);
        assert!(terms.fit());
        let token = issued(terms, true);
        assert_eq!(JoinInformation::parse(&token.to_string()).unwrap(), token);
    }

    #[test]
    fn a_name_that_is_none_is_damage() {
        let text = named().to_string();
        let mut bytes = BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
        let at = bytes.windows(5).position(|window| window == b"pve-1").unwrap();
        // The issuer's name comes first, the name of the seed's address after it.
        let at = at + 1 + bytes[at + 1..].windows(5).position(|w| w == b"pve-1").unwrap();
        bytes[at] = b'-';
        let end = bytes.len() - CHECK_LEN;
        let check = checksum(&bytes[..end]);
        bytes[end..].copy_from_slice(&check);
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(JoinInformation::parse(&text).unwrap_err(), TokenError::Damaged);
    }

    /// One that was put together by somebody who does not have the issuer's key.
    #[test]
    fn terms_that_nobody_signed_are_forged_in_the_short_form_too() {
        let JoinInformation { invitation, secret } = sample();
        let terms = Terms { uses: Some(99), ..invitation.terms };
        let body = codec::encode(&terms).into();
        let invitation = Invitation { terms, body, signature: invitation.signature };
        let token = JoinInformation { invitation, secret };
        assert_eq!(JoinInformation::parse(&token.to_string()).unwrap_err(), TokenError::Forged);
    }

    #[test]
    fn what_a_later_version_puts_in_is_of_another_version() {
        let later = |content: &[u8], form: u16| {
            let mut bytes = (form | content.len() as u16).to_be_bytes().to_vec();
            bytes.extend(content);
            bytes.extend(checksum(&bytes));
            let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
            JoinInformation::parse(&text).unwrap_err()
        };
        assert_eq!(later(&[0x80; 60], Form::SHORT), TokenError::Version, "a mark");
        assert_eq!(later(&[0; 60], Form::BITS), TokenError::Version, "a form");
        assert_eq!(later(&[0; 60], Form::SHORT), TokenError::Damaged, "neither");
    }

    #[test]
    fn other_texts_are_told_apart() {
        let told = |text: &str| JoinInformation::parse(text).unwrap_err();
        assert_eq!(told("hello"), TokenError::NotJoinInformation);
        assert_eq!(told("peerage2-AAAA"), TokenError::Version);
        assert_eq!(told("peerage1-AAAA"), TokenError::Damaged);
        assert_eq!(told(""), TokenError::NotJoinInformation);
    }

    /// A name of at most 16 bytes.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[ -~]{1,16}", "[a-z0-9-]{16}", "[äöüß]{1,8}", "[一-三]{1,5}"]
    }

    /// Terms without seeds, as they are made until the year 2109.
    fn terms() -> impl Strategy<Value = Terms> {
        let times = (0..1_u64 << 42, 0..1_u64 << 42);
        let what = (name(), name(), any::<Option<u32>>(), any::<bool>());
        (any::<[u8; 16]>(), times, what).prop_map(|(datacenter, times, what)| Terms {
            datacenter: DataCenterId(datacenter),
            datacenter_name: what.0,
            issuer: Keypair::from_seed([1; 32]).node_id(),
            issuer_name: what.1,
            invite: Secret::new([5; 16]).key().invite_id(),
            seeds: Vec::new(),
            issued_ms: times.0,
            expires_ms: times.0 + times.1,
            uses: what.2,
            node_name: None,
            strict: what.3,
        })
    }

    fn issued(terms: Terms, with_secret: bool) -> JoinInformation {
        let invitation = Invitation::issue(terms, &Keypair::from_seed([1; 32]));
        let secret = with_secret.then(|| Secret::new([5; 16]));
        JoinInformation { invitation, secret }
    }

    proptest! {
        #[test]
        fn a_string_has_300_characters_and_60_more_for_each_further_seed(
            terms in terms(),
            seeds in prop::collection::vec(any::<([u8; 32], [u8; 4], u16)>(), 0..SEEDS_MAX),
            own in any::<([u8; 4], u16)>(),
            with_secret: bool,
        ) {
            let further = seeds.len();
            let seed = |node, address: ([u8; 4], u16)| {
                Seed { node, addresses: vec![Address::Ip(address.into())] }
            };
            let others = seeds.into_iter().map(|(id, ip, port)| seed(NodeId(id), (ip, port)));
            let seeds = std::iter::once(seed(terms.issuer, own)).chain(others).collect();
            let token = issued(Terms { seeds, ..terms }, with_secret);
            let text = token.to_string();
            prop_assert!(text.len() <= 300 + 60 * further, "{} characters: {text}", text.len());
            prop_assert_eq!(JoinInformation::parse(&text).unwrap(), token);
        }

        #[test]
        fn whatever_is_issued_is_read_back(
            terms in terms(),
            seeds in prop::collection::vec(
                (any::<[u8; 32]>(), prop::collection::vec(address(), 0..8)),
                0..=SEEDS_MAX,
            ),
            times: (u64, u64),
            node_name in prop::option::of("\\PC{0,64}"),
            with_secret: bool,
        ) {
            let seed = |(node, addresses)| Seed { node: NodeId(node), addresses };
            let seeds = seeds.into_iter().map(seed).collect();
            let (issued_ms, expires_ms) = times;
            let terms = Terms { seeds, issued_ms, expires_ms, node_name, ..terms };
            let token = issued(terms, with_secret);
            prop_assert_eq!(JoinInformation::parse(&token.to_string()).unwrap(), token);
        }

        #[test]
        fn arbitrary_content_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut short = Form::Short { content: bytes.len() }.opening().unwrap().to_vec();
            short.extend(&bytes);
            for mut whole in [bytes, short] {
                whole.extend(checksum(&whole));
                let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&whole));
                prop_assert!(JoinInformation::parse(&text).is_err());
            }
        }

        #[test]
        fn arbitrary_text_does_no_harm(text in "\\PC*") {
            prop_assert!(JoinInformation::parse(&text).is_err());
            prop_assert_ne!(progress(&text), Progress::Whole);
        }
    }
}
