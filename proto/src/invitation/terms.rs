//! The terms of an invitation, and the issuer's signature under them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TokenError;
use crate::address::Address;
use crate::codec;
use crate::id::{DataCenterId, InviteId, NodeId};
use crate::identity::{Domain, Keypair, SIGNATURE_LEN};

/// How long the encoded terms may be, and the content of a string in the short form.
pub const TERMS_BYTES_MAX: usize = 4 * 1024;

/// How many seeds an invitation names.
pub const SEEDS_MAX: usize = 5;

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
    /// The members that a joiner may ask.
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
    /// Whether a member must have the issuer's answer before it admits a node by the invitation.
    #[serde(default)]
    pub strict: bool,
}

impl Terms {
    /// Whether their binary form is within [`TERMS_BYTES_MAX`]: no node reads longer ones.
    pub fn fit(&self) -> bool {
        codec::encode(self).len() <= TERMS_BYTES_MAX
    }
}

/// Terms with their issuer's signature: what the joiner shows, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub(super) terms: Terms,
    pub(super) body: Arc<[u8]>,
    pub(super) signature: [u8; SIGNATURE_LEN],
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

    /// The terms.
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
