//! A node's key, and the signatures that are made with it.
//!
//! Ed25519 (RFC 8032). Every signature covers a domain that says what kind of data was signed, so
//! that a signature of one kind can never be used as one of another kind.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::id::{InviteId, NodeId};

/// What kind of data a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A change of the replica, by the node that wrote it.
    Change,
    /// The terms of an invitation, by the node that issued it.
    Invite,
    /// The proof of a joining node that it holds the invitation, by the invitation's key.
    Joining,
}

impl Domain {
    /// The tag that precedes the signed bytes. All tags have the same length, so that no two
    /// domains overlap.
    const fn tag(self) -> &'static [u8; 16] {
        match self {
            Self::Change => b"peerage change 1",
            Self::Invite => b"peerage invite 1",
            Self::Joining => b"peerage join   1",
        }
    }
}

/// The length of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// The data was signed with another key than the expected one, or was altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// A private key and its public half. The private half leaves only through [`Keypair::seed`] and
/// is wiped from memory on drop.
#[derive(Clone)]
pub struct Keypair {
    key: SigningKey,
}

impl Keypair {
    /// The key of 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(&seed) }
    }

    /// The 32 bytes that [`Keypair::from_seed`] takes: the secret itself, for the key file, the
    /// Join Information, and the TLS stack.
    pub fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The id of the node that has this key.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }

    /// The id of the invitation that has this key.
    pub fn invite_id(&self) -> InviteId {
        InviteId(self.key.verifying_key().to_bytes())
    }

    /// Signs bytes as data of one kind.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&tagged(domain, bytes)).to_bytes()
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({})", self.node_id().short())
    }
}

impl NodeId {
    /// Checks that this node signed the bytes as data of this kind.
    ///
    /// # Errors
    /// [`BadSignature`]; also for an id that is no point of the curve, or one of small order.
    pub fn verify(
        &self,
        domain: Domain,
        bytes: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), BadSignature> {
        verify(&self.0, domain, bytes, signature)
    }
}

impl InviteId {
    /// Checks that the holder of the invitation signed the bytes as data of this kind.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(
        &self,
        domain: Domain,
        bytes: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), BadSignature> {
        verify(&self.0, domain, bytes, signature)
    }
}

fn tagged(domain: Domain, bytes: &[u8]) -> Vec<u8> {
    [domain.tag(), bytes].concat()
}

/// Strict verification: one signature has one form, so that no two nodes judge it differently.
fn verify(
    public: &[u8; 32],
    domain: Domain,
    bytes: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| BadSignature)?;
    key.verify_strict(&tagged(domain, bytes), &Signature::from_bytes(signature))
        .map_err(|_| BadSignature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_bytes_its_domain_and_its_signer_only() {
        let (mine, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        let signature = mine.sign(Domain::Change, b"nas1");
        assert_eq!(mine.node_id().verify(Domain::Change, b"nas1", &signature), Ok(()));
        assert_eq!(mine.node_id().verify(Domain::Change, b"nas2", &signature), Err(BadSignature));
        assert_eq!(mine.node_id().verify(Domain::Invite, b"nas1", &signature), Err(BadSignature));
        assert_eq!(other.node_id().verify(Domain::Change, b"nas1", &signature), Err(BadSignature));
    }

    #[test]
    fn a_key_shows_no_secret() {
        let key = Keypair::from_seed([3; 32]);
        assert!(!format!("{key:?}").contains("0303"));
        assert_eq!(Keypair::from_seed(key.seed()).node_id(), key.node_id());
    }
}
