//! How far this node sees, in words: where it may itself be the one that is cut off, it does not say
//! who is gone, and removes only when it is told twice.

use peerage_proto::api::{ApiError, ErrorCode};
use peerage_proto::isolation::{MEET, Sight};
use peerage_proto::liveness::{Standing, Why};

use super::Answer;
use crate::membership::Horizon;

/// Whether a member may be removed here from this Data Center, on the word of one who does not insist.
///
/// # Errors
/// [`ErrorCode::NeedsForce`], where this node reaches too few to tell who is gone.
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

/// What is said of a member that is down, by a node that sees so far.
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

/// What is said of a member that is in doubt.
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
