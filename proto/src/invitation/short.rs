//! The short form of the string: the terms without the names of their fields.
//!
//! The issuer signs, the Data Center records and a joiner shows the binary form of [`Terms`], with
//! named fields. The string says the same in fewer bytes. Its reader encodes the terms with named
//! fields again, and the issuer's signature tells whether the two agree. So only the string is in
//! the short form, and a member of another version sees what it always saw.
//!
//! `marks | Data Center (16) | its name | issuer (32) | its name | secret (16) or invitation (32) |
//! issued | for how long | uses? | pattern? | seeds | signature (64)`. The length of a text or a
//! list stands before it. Lengths and other numbers are written in groups of seven bits, the lowest
//! first (LEB128). A seed that is the issuer is written as 0. An address is its family and its
//! bytes, or a mark and a name, and then its port. Where the secret is there, it stands for the
//! invitation, which is the public half of the key that the secret makes.

use std::net::SocketAddr;

use crate::address::{Address, HostName};
use crate::id::{DataCenterId, InviteId, NodeId};
use crate::identity::SIGNATURE_LEN;
use crate::invitation::{SEEDS_MAX, Secret, Seed, Terms, TokenError};

/// The marks: which optional parts are there, and whether the invitation is strict.
const WITH_SECRET: u8 = 0x01;
const BOUNDED: u8 = 0x02;
const WITH_PATTERN: u8 = 0x04;
const STRICT: u8 = 0x08;
const MARKS: u8 = WITH_SECRET | BOUNDED | WITH_PATTERN | STRICT;

/// The first byte of a seed: the issuer itself, or another member, whose id follows.
const ISSUER: u8 = 0;
const OTHER: u8 = 1;

/// The first byte of an address: its family, or the mark of a name.
const IPV4: u8 = 4;
const IPV6: u8 = 6;
const NAME: u8 = 10;

/// What the content of a string says.
#[derive(Debug)]
pub(super) struct Content {
    /// The terms.
    pub(super) terms: Terms,
    /// The issuer's signature over their binary form.
    pub(super) signature: [u8; SIGNATURE_LEN],
    /// The secret, where the string holds it.
    pub(super) secret: Option<Secret>,
}

/// Writes the terms, the signature over their binary form, and the secret.
pub(super) fn write(
    terms: &Terms,
    signature: &[u8; SIGNATURE_LEN],
    secret: Option<&Secret>,
) -> Vec<u8> {
    let mark = |holds: bool, mark: u8| if holds { mark } else { 0 };
    let marks = mark(secret.is_some(), WITH_SECRET)
        | mark(terms.uses.is_some(), BOUNDED)
        | mark(terms.node_name.is_some(), WITH_PATTERN)
        | mark(terms.strict, STRICT);
    let mut out = vec![marks];
    out.extend(terms.datacenter.0);
    write_text(&mut out, &terms.datacenter_name);
    out.extend(terms.issuer.0);
    write_text(&mut out, &terms.issuer_name);
    match secret {
        Some(Secret(secret)) => out.extend(secret),
        None => out.extend(terms.invite.0),
    }
    write_number(&mut out, terms.issued_ms);
    write_number(&mut out, terms.expires_ms.wrapping_sub(terms.issued_ms));
    terms.uses.iter().for_each(|uses| write_number(&mut out, (*uses).into()));
    terms.node_name.iter().for_each(|pattern| write_text(&mut out, pattern));
    write_number(&mut out, terms.seeds.len() as u64);
    for seed in &terms.seeds {
        if seed.node == terms.issuer {
            out.push(ISSUER);
        } else {
            out.push(OTHER);
            out.extend(seed.node.0);
        }
        write_number(&mut out, seed.addresses.len() as u64);
        seed.addresses.iter().for_each(|address| write_address(&mut out, address));
    }
    out.extend(signature);
    out
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// [`TokenError::Damaged`], or [`TokenError::Version`] for what this version does not know.
pub(super) fn read(bytes: &[u8]) -> Result<Content, TokenError> {
    let mut from = Reader(bytes);
    let [marks] = from.array()?;
    if marks & !MARKS != 0 {
        return Err(TokenError::Version);
    }
    let marked = |mark: u8| marks & mark != 0;
    let datacenter = DataCenterId(from.array()?);
    let datacenter_name = from.text()?;
    let issuer = NodeId(from.array()?);
    let issuer_name = from.text()?;
    let secret = marked(WITH_SECRET).then(|| from.array().map(Secret)).transpose()?;
    let invite = match &secret {
        Some(secret) => secret.key().invite_id(),
        None => InviteId(from.array()?),
    };
    let issued_ms = from.number()?;
    let expires_ms = issued_ms.wrapping_add(from.number()?);
    let uses = marked(BOUNDED).then(|| from.number()).transpose()?;
    let uses = uses.map(u32::try_from).transpose().map_err(|_| TokenError::Damaged)?;
    let node_name = marked(WITH_PATTERN).then(|| from.text()).transpose()?;
    let count = from.number()?;
    if count > SEEDS_MAX as u64 {
        return Err(TokenError::Damaged);
    }
    let seeds = (0..count).map(|_| from.seed(issuer)).collect::<Result<_, _>>()?;
    let signature = from.array()?;
    if !from.0.is_empty() {
        return Err(TokenError::Damaged);
    }
    let strict = marked(STRICT);
    let terms = Terms {
        datacenter,
        datacenter_name,
        issuer,
        issuer_name,
        invite,
        seeds,
        issued_ms,
        expires_ms,
        uses,
        node_name,
        strict,
    };
    Ok(Content { terms, signature, secret })
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_number(out, text.len() as u64);
    out.extend(text.as_bytes());
}

fn write_address(out: &mut Vec<u8>, address: &Address) {
    match address {
        Address::Ip(SocketAddr::V4(address)) => {
            out.push(IPV4);
            out.extend(address.ip().octets());
        }
        Address::Ip(SocketAddr::V6(address)) => {
            out.push(IPV6);
            out.extend(address.ip().octets());
        }
        Address::Name { host, .. } => {
            out.push(NAME);
            write_text(out, host.as_str());
        }
    }
    out.extend(address.port().to_be_bytes());
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(TokenError::Damaged)?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64, TokenError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(TokenError::Damaged)
    }

    fn text(&mut self) -> Result<String, TokenError> {
        let length = usize::try_from(self.number()?).map_err(|_| TokenError::Damaged)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(TokenError::Damaged)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| TokenError::Damaged)
    }

    fn seed(&mut self, issuer: NodeId) -> Result<Seed, TokenError> {
        let node = match self.array()? {
            [ISSUER] => issuer,
            [OTHER] => NodeId(self.array()?),
            _ => return Err(TokenError::Version),
        };
        // Each address takes bytes that are there, so a false count cannot make this allocate more.
        let addresses = (0..self.number()?).map(|_| self.address()).collect::<Result<_, _>>()?;
        Ok(Seed { node, addresses })
    }

    fn address(&mut self) -> Result<Address, TokenError> {
        let ip = match self.array()? {
            [IPV4] => self.array::<4>()?.into(),
            [IPV6] => self.array::<16>()?.into(),
            [NAME] => {
                let host: HostName = self.text()?.parse().map_err(|_| TokenError::Damaged)?;
                let port = self.port()?;
                return Ok(Address::Name { host, port });
            }
            _ => return Err(TokenError::Version),
        };
        Ok(Address::Ip(SocketAddr::new(ip, self.port()?)))
    }

    fn port(&mut self) -> Result<u16, TokenError> {
        Ok(u16::from_be_bytes(self.array()?))
    }
}
