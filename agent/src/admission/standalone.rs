//! What a node that belongs to no Data Center tells a joiner.

use std::sync::Arc;

use peerage_proto::admission::refusal::Refusal;
use peerage_proto::invitation::Invitation;
use quinn::Connection;

use super::exchange::{AdmissionError, first_request, in_time, refuse};
use super::past::Past;

/// Tells a joiner that this node belongs to no Data Center, and how it came to be out of the Data
/// Center that the joiner looks for.
///
/// # Errors
/// [`AdmissionError`].
pub async fn refuse_as_standalone(
    connection: &Connection,
    past: Option<Arc<Past>>,
) -> Result<(), AdmissionError> {
    let (mut send, mut recv) = in_time(connection.accept_bi()).await??;
    let invitation = match first_request(connection, &mut recv).await? {
        Ok((request, _)) => {
            let signature = request.terms_signature.try_into().unwrap_or([0; 64]);
            Invitation::verify(&request.terms, &signature).ok()
        }
        Err(refusal) => return refuse(&mut send, refusal).await,
    };
    let terms = invitation.as_ref().map(Invitation::terms);
    let wanted = terms.map_or_else(|| "another".into(), |terms| terms.datacenter_name.clone());
    let past = past.filter(|past| terms.is_some_and(|terms| terms.datacenter == past.datacenter));
    let ended = past.map(|past| past.how.clone());
    refuse(&mut send, Refusal::WrongDataCenter { wanted, found: None, ended }).await
}
