//! In words, how much of the Data Center this node reaches: where it may itself be cut off, it does
//! not say which members are gone, and removes a member only if the caller insists.

use peerage_proto::api::{ApiError, ErrorCode};
use peerage_proto::isolation::{MEET, Sight};
use peerage_proto::liveness::{Standing, Why};

use super::Answer;
use crate::membership::Horizon;

/// Checks whether a member may be removed from this Data Center on this node, without force.
///
/// # Errors
/// [`ErrorCode::NeedsForce`], where this node reaches too few members to tell which are gone.
pub(super) async fn check_removal(horizon: &Horizon, datacenter: &str, name: &str) -> Answer<()> {
    let sight = horizon.sight_after_asking().await;
    if !sight.needs_force_to_remove() {
        return Ok(());
    }
    let (what, look) = match &sight.isolation {
        Some(isolation) => (isolation.to_string(), isolation.hint()),
        None => (few(&sight), "look at this host's network first".to_owned()),
    };
    let message = format!(
        "{what}, so it may be this host that is cut off from {datacenter}, and whoever is removed \
         stays out for good"
    );
    let hint = format!("{look}; if {name} is gone all the same: `peerage remove {name} --force`");
    Err(ApiError::new(ErrorCode::NeedsForce, message).hint(hint))
}

/// What this node says of a member that is down, by what it sees of the others.
pub(super) fn of_silent(why: &str, standing: &Standing, sight: &Sight) -> String {
    let never = standing.why == Why::NeverHeard || standing.heard.is_none();
    let mut words = match (&sight.isolation, sight.tells_who_is_gone()) {
        (Some(isolation), _) => format!("{isolation}: look at this host first; {why}"),
        (None, false) => format!("{why}; {}: look at both hosts", few(sight)),
        (None, true) => {
            format!("{why}; look at its host, or `peerage remove` it if it is gone for good")
        }
    };
    if never {
        words += "; ";
        words += MEET;
    }
    words
}

/// What this node says of a member that is in doubt.
pub(super) fn of_doubted(why: String, sight: &Sight) -> String {
    match &sight.isolation {
        Some(isolation) => format!("{isolation}: look at this host first; {why}"),
        None => why,
    }
}

fn few(sight: &Sight) -> String {
    let (reached, members) = (sight.reach.reached, sight.reach.members);
    format!("this node reaches {reached} of {members} members, itself counted")
}
