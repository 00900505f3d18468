//! What the Data Center keeps of an invitation: its terms with their issuer's signature, so that
//! every node judges by itself how many it admits, whoever wrote the record; and whether it was
//! called back.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;

use super::Roster;
use super::records::{ending, setting};
use crate::id::{InviteId, NodeId};
use crate::identity::SIGNATURE_LEN;
use crate::invitation::{Invitation, Terms};
use crate::replica::{Document, Edit};

/// The fields of the record.
const TERMS: &str = "terms";
const SIGNATURE: &str = "signature";
const REVOKED: &str = "revoked";

/// What is recorded of an invitation.
#[derive(Debug, Clone, PartialEq)]
pub struct InviteRecord {
    /// The invitation.
    pub id: InviteId,
    /// What its issuer signed; none where no terms are on record, or not those that were signed.
    pub terms: Option<Terms>,
    /// Whether it was called back.
    pub revoked: bool,
}

impl InviteRecord {
    /// Reads the record of an invitation.
    pub(super) fn read(id: InviteId, document: &Document) -> Self {
        let terms = signed(document).filter(|invitation| invitation.terms().invite == id);
        Self {
            id,
            terms: terms.map(|invitation| invitation.terms().clone()),
            revoked: document.value(REVOKED).is_some(),
        }
    }

    /// The node that made it.
    pub fn issuer(&self) -> Option<NodeId> {
        self.terms.as_ref().map(|terms| terms.issuer)
    }

    /// How many nodes it admits; none for any number, and where it is not known.
    pub fn uses(&self) -> Option<u32> {
        self.terms.as_ref().and_then(|terms| terms.uses)
    }
}

fn signed(document: &Document) -> Option<Invitation> {
    let bytes = |field| BASE64URL_NOPAD.decode(document.value(field)?.as_str()?.as_bytes()).ok();
    let signature: [u8; SIGNATURE_LEN] = bytes(SIGNATURE)?.try_into().ok()?;
    Invitation::verify(&bytes(TERMS)?, &signature).ok()
}

impl Roster {
    /// The record of an invitation. Its issuer writes it, or a member that admits a node by it and
    /// finds no record: for [`invite_path`](super::invite_path).
    pub fn inviting(invitation: &Invitation) -> Edit {
        setting([
            (TERMS, json!(BASE64URL_NOPAD.encode(invitation.body()))),
            (SIGNATURE, json!(BASE64URL_NOPAD.encode(invitation.signature()))),
        ])
    }

    /// The calling back of an invitation: for [`invite_path`](super::invite_path).
    pub fn revoking(by: NodeId, who: &str, at_ms: u64) -> Edit {
        setting([(REVOKED, ending(by, who, at_ms))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;
    use crate::roster::invite_path;
    use crate::roster::tests::{invitation, replica, write};

    fn read_back(invitation: &Invitation, as_id: InviteId) -> InviteRecord {
        let mut replica = replica(9);
        write(&mut replica, &invite_path(&as_id), Roster::inviting(invitation), 1);
        Roster::of(&replica).invite(&as_id).expect("it is on record").clone()
    }

    #[test]
    fn an_invitation_on_record_says_what_its_issuer_signed_whoever_wrote_it_down() {
        let invitation = invitation(&Keypair::from_seed([1; 32]), InviteId([7; 32]), 3);
        let record = read_back(&invitation, InviteId([7; 32]));
        assert_eq!(record.terms.as_ref(), Some(invitation.terms()));
        assert_eq!((record.uses(), record.issuer()), (Some(3), Some(invitation.terms().issuer)));
    }

    #[test]
    fn the_terms_of_one_invitation_say_nothing_of_another() {
        let invitation = invitation(&Keypair::from_seed([1; 32]), InviteId([7; 32]), 3);
        let record = read_back(&invitation, InviteId([8; 32]));
        assert_eq!((record.terms, record.revoked), (None, false));
    }
}
