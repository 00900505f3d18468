//! A joiner's request, and what the member that was asked decides on it.
//!
//! The verdict is a pure function of the roster, the request and the time. Between [`judge`] and
//! the admission the shell finds out what this function cannot know: how many admissions other
//! members have under way, and whether the joiner can be dialled back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::refusal::Refusal;
use crate::address::Address;
use crate::codec;
use crate::id::{DataCenterId, InviteId, NodeId};
use crate::identity::{Domain, Keypair, SIGNATURE_LEN};
use crate::invitation::{Invitation, Terms};
use crate::roster::{ADDRESSES_MAX, NodeName, Roster, Standing};
use crate::skew::{ClockOff, Estimate};
use crate::time::HowLong;

/// How far a joiner's clock may be from that of the member it asks.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// How large an encoded request may be.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// What ties a proof to one connection: keying material exported from its TLS session (RFC 5705).
pub type Binding = [u8; 32];

/// What a joiner asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The invitation's terms, as they were signed.
    #[serde(with = "serde_bytes")]
    pub terms: Vec<u8>,
    /// The issuer's signature over them.
    #[serde(with = "serde_bytes")]
    pub terms_signature: Vec<u8>,
    /// The proof that the joiner holds the invitation's secret.
    #[serde(with = "serde_bytes")]
    pub proof: Vec<u8>,
    /// The name that it asks for.
    pub name: String,
    /// The addresses at which it says that it is reached.
    pub addresses: Vec<Address>,
    /// Its version of peerage.
    pub version: String,
    /// The version of the protocol between members that it speaks.
    pub wire_version: u16,
    /// Its clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether it takes the name over from a member that is gone: a host that was installed anew.
    #[serde(default)]
    pub replace: bool,
}

/// What the proof covers.
#[derive(Serialize)]
struct Proven<'a> {
    invite: InviteId,
    datacenter: DataCenterId,
    joiner: NodeId,
    name: &'a str,
    #[serde(with = "serde_bytes")]
    binding: &'a [u8],
}

fn proven(terms: &Terms, joiner: NodeId, name: &str, binding: &Binding) -> Vec<u8> {
    let (invite, datacenter) = (terms.invite, terms.datacenter);
    codec::encode(&Proven { invite, datacenter, joiner, name, binding })
}

/// The proof that this joiner holds the invitation, good for one connection and one name only.
pub fn prove(
    terms: &Terms,
    key: &Keypair,
    joiner: NodeId,
    name: &str,
    binding: &Binding,
) -> [u8; SIGNATURE_LEN] {
    key.sign(Domain::Joining, &proven(terms, joiner, name, binding))
}

/// A request that [`judge`] found nothing against.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The invitation.
    pub terms: Terms,
    /// The name that the joiner gets.
    pub name: NodeName,
    /// Whether it is a member already; then the invitation need not hold any more.
    pub already: bool,
    /// The member whose name the joiner takes over. The shell still has to check that this member
    /// is gone.
    pub replaces: Option<NodeId>,
}

/// Who judges: the member that was asked.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    /// Its id.
    pub me: NodeId,
    /// Its name.
    pub name: &'a str,
    /// Its Data Center.
    pub datacenter: DataCenterId,
    /// What it knows of the members.
    pub roster: &'a Roster,
    /// The protocol between members that it speaks.
    pub wire_version: u16,
    /// Its clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// How far this clock is off, where it is known to be wrong.
    pub clock_off: Option<ClockOff>,
}

/// Decides on a request as far as the member that was asked can by itself.
///
/// # Errors
/// The [`Refusal`] to send back.
pub fn judge(
    judge: &Judge<'_>,
    request: &JoinRequest,
    joiner: NodeId,
    binding: &Binding,
) -> Result<Judged, Refusal> {
    let Judge { roster, wall_ms, .. } = *judge;
    let signature = array(&request.terms_signature)?;
    let invitation =
        Invitation::verify(&request.terms, &signature).map_err(|_| Refusal::NotProven)?;
    let terms = invitation.terms();
    if terms.datacenter != judge.datacenter {
        return Err(Refusal::WrongDataCenter {
            wanted: terms.datacenter_name.clone(),
            found: Some(roster.datacenter_name.clone()),
            ended: None,
        });
    }
    let proven = proven(terms, joiner, &request.name, binding);
    let checked = terms.invite.verify(Domain::Joining, &proven, &array(&request.proof)?);
    checked.map_err(|_| Refusal::NotProven)?;
    if request.wire_version != judge.wire_version {
        return Err(Refusal::Version {
            joiner: request.wire_version,
            member: judge.name.to_owned(),
            found: judge.wire_version,
        });
    }
    if let Some(Standing::Removed(ending)) = roster.member(&joiner).map(|m| &m.standing) {
        return Err(Refusal::Removed { by: roster.name_of(&ending.by), who: ending.who.clone() });
    }
    if let Some(ClockOff { estimate: Estimate { ahead_ms, peers } }) = judge.clock_off {
        return Err(Refusal::SeedClockOff { member: judge.name.to_owned(), ahead_ms, peers });
    }
    if is_unaccepted(roster, &judge.me) {
        return Err(Refusal::SeedUnaccepted { member: judge.name.to_owned() });
    }
    let ahead = i128::from(request.wall_ms) - i128::from(wall_ms);
    let ahead_ms = ahead.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    if u128::from(ahead_ms.unsigned_abs()) > CLOCK_SKEW_MAX.as_millis() {
        return Err(Refusal::ClockOff { ahead_ms, member: judge.name.to_owned() });
    }
    // A joiner that was admitted and then crashed is let in again, whatever became of its
    // invitation since.
    if let Some(member) = roster.member(&joiner).filter(|m| m.is_current()) {
        let name = member.given_name.parse().map_err(|_| Refusal::NotProven)?;
        return Ok(Judged { terms: terms.clone(), name, already: true, replaces: None });
    }
    let (name, replaces) = judge_terms(terms, roster, wall_ms, request)?;
    let listed = 1..=ADDRESSES_MAX;
    if !listed.contains(&request.addresses.len()) {
        return Err(Refusal::Malformed(format!("{} addresses", request.addresses.len())));
    }
    Ok(Judged { terms: terms.clone(), name, already: false, replaces })
}

fn judge_terms(
    terms: &Terms,
    roster: &Roster,
    wall_ms: u64,
    request: &JoinRequest,
) -> Result<(NodeName, Option<NodeId>), Refusal> {
    match roster.member(&terms.issuer).map(|m| &m.standing) {
        Some(Standing::Member) => {}
        // The issuer has left. Invitations that it issued as a member are on record and stay valid.
        // Any other terms that it signs do not count, or it could let itself in again without a
        // member's token.
        Some(Standing::Left(_)) if is_on_record(terms, roster) => {}
        standing => {
            let removed = standing.is_some();
            return Err(Refusal::Issuer { issuer: terms.issuer_name.clone(), removed });
        }
    }
    if is_unaccepted(roster, &terms.issuer) {
        let issuer = roster.name_of(&terms.issuer);
        return Err(Refusal::IssuerUnaccepted { issuer });
    }
    if roster.invite(&terms.invite).is_some_and(|record| record.revoked) {
        return Err(Refusal::Revoked);
    }
    if wall_ms >= terms.expires_ms {
        return Err(Refusal::Expired { ago: HowLong::ms(wall_ms - terms.expires_ms).to_string() });
    }
    uses_left(terms, roster.admitted_with(&terms.invite).count())?;
    let name: NodeName = request
        .name
        .parse()
        .map_err(|e: crate::roster::NameError| Refusal::BadName(e.to_string()))?;
    if let Some(pattern) = &terms.node_name
        && !admits_name(pattern, name.as_str())
    {
        return Err(Refusal::NamePattern { pattern: pattern.clone(), name: name.to_string() });
    }
    match roster.holder_of(name.as_str()) {
        Some(holder) if request.replace => Ok((name, Some(holder.id))),
        Some(holder) => {
            Err(Refusal::NameTaken { name: name.to_string(), holder: holder.id.short() })
        }
        None => Ok((name, None)),
    }
}

/// Whether an invitation's pattern matches a name. Case does not count, as between two names.
fn admits_name(pattern: &str, name: &str) -> bool {
    WildMatch::new_case_insensitive(pattern).matches(name)
}

/// Whether the Data Center's own record of an invitation holds these very terms.
fn is_on_record(terms: &Terms, roster: &Roster) -> bool {
    roster.invite(&terms.invite).is_some_and(|record| record.terms.as_ref() == Some(terms))
}

/// Whether a member may let nobody in until it is accepted.
fn is_unaccepted(roster: &Roster, id: &NodeId) -> bool {
    roster.member(id).is_some_and(|member| member.unaccepted.is_some())
}

/// Checks that an invitation which has admitted so many nodes may admit one more.
///
/// # Errors
/// [`Refusal::UsedUp`].
pub fn uses_left(terms: &Terms, admitted: usize) -> Result<(), Refusal> {
    match terms.uses {
        Some(uses) if admitted >= uses as usize => Err(Refusal::UsedUp { uses }),
        _ => Ok(()),
    }
}

fn array(bytes: &[u8]) -> Result<[u8; SIGNATURE_LEN], Refusal> {
    bytes.try_into().map_err(|_| Refusal::Malformed("a signature has another length".into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::invitation::{Secret, Seed};
    use crate::replica::{Actor, Limits, Replica};
    use crate::roster::{invite_path, member_path};
    use crate::time::Now;

    const BINDING: Binding = [3; 32];
    const WALL_MS: u64 = 1_000_000_000;

    fn now() -> Now {
        Now { mono: Duration::ZERO, wall_ms: WALL_MS }
    }

    fn key(n: u8) -> Keypair {
        Keypair::from_seed([n; 32])
    }

    struct Scene {
        replica: Replica,
        terms: Terms,
        secret: Secret,
    }

    impl Scene {
        fn new() -> Self {
            let replica = Replica::new(crate::id::DataCenterId([1; 16]), key(1), Limits::default());
            let secret = Secret::new([4; 16]);
            let terms = Terms {
                datacenter: replica.datacenter(),
                datacenter_name: "Lab".into(),
                issuer: key(1).node_id(),
                issuer_name: "pve-1".into(),
                invite: secret.key().invite_id(),
                seeds: vec![Seed { node: key(1).node_id(), addresses: Vec::new() }],
                issued_ms: WALL_MS,
                expires_ms: WALL_MS + 1000,
                uses: Some(1),
                node_name: Some("pve-*".into()),
                strict: false,
            };
            let mut scene = Self { replica, terms, secret };
            scene.admit(1, "pve-1", None);
            scene
        }

        fn write(&mut self, path: crate::replica::Path, edit: crate::replica::Edit) {
            let actor = Actor { who: "root".into(), via: "test".into() };
            let _ = self.replica.write(&path, edit, actor, 1, now()).unwrap();
        }

        fn admit(&mut self, n: u8, name: &str, invite: Option<InviteId>) {
            let id = key(n).node_id();
            let roster = Roster::of(&self.replica);
            let by = self.replica.node_id();
            let edit = roster.admission(&id, &name.parse().unwrap(), &[], by, invite, WALL_MS);
            self.write(member_path(&id), edit);
        }

        fn judged(&self, joiner: u8, name: &str) -> Result<Judged, Refusal> {
            self.judged_with(joiner, name, |_| ())
        }

        fn judged_with(
            &self,
            joiner: u8,
            name: &str,
            alter: impl FnOnce(&mut JoinRequest),
        ) -> Result<Judged, Refusal> {
            self.judged_by(joiner, name, None, alter)
        }

        fn judged_by(
            &self,
            joiner: u8,
            name: &str,
            clock_off: Option<ClockOff>,
            alter: impl FnOnce(&mut JoinRequest),
        ) -> Result<Judged, Refusal> {
            self.judged_of((self.replica.node_id(), key(1)), joiner, name, clock_off, alter)
        }

        fn judged_of(
            &self,
            (me, issuer): (NodeId, Keypair),
            joiner: u8,
            name: &str,
            clock_off: Option<ClockOff>,
            alter: impl FnOnce(&mut JoinRequest),
        ) -> Result<Judged, Refusal> {
            let joiner = key(joiner).node_id();
            let invitation = Invitation::issue(self.terms.clone(), &issuer);
            let proof = prove(&self.terms, &self.secret.key(), joiner, name, &BINDING);
            let mut request = JoinRequest {
                terms: invitation.body().to_vec(),
                terms_signature: invitation.signature().to_vec(),
                proof: proof.to_vec(),
                name: name.into(),
                addresses: vec!["192.0.2.2:4747".parse().unwrap()],
                version: "0.1.0".into(),
                wire_version: 1,
                wall_ms: WALL_MS,
                replace: false,
            };
            alter(&mut request);
            let roster = Roster::of(&self.replica);
            let (datacenter, wire_version) = (self.replica.datacenter(), 1);
            let member = Judge {
                me,
                name: "pve-1",
                datacenter,
                roster: &roster,
                wire_version,
                wall_ms: WALL_MS,
                clock_off,
            };
            judge(&member, &request, joiner, &BINDING)
        }
    }

    #[test]
    fn who_holds_the_secret_and_takes_a_free_name_is_let_in() {
        let judged = Scene::new().judged(2, "pve-2").unwrap();
        assert_eq!((judged.name.as_str(), judged.already), ("pve-2", false));
    }

    #[test]
    fn a_taken_name_is_taken_over_only_where_that_was_asked_for() {
        let scene = Scene::new();
        let code = scene.judged(2, "pve-1").unwrap_err().code();
        assert_eq!(code, "name_taken");
        let judged = scene.judged_with(2, "pve-1", |request| request.replace = true).unwrap();
        let holder = Roster::of(&scene.replica).holder_of("pve-1").map(|m| m.id);
        assert!(holder.is_some());
        assert_eq!(judged.replaces, holder);
        let free = scene.judged_with(2, "pve-2", |request| request.replace = true).unwrap();
        assert_eq!(free.replaces, None);
    }

    #[test]
    fn every_refusal_names_its_cause() {
        let code = |outcome: Result<Judged, Refusal>| outcome.unwrap_err().code();
        let scene = Scene::new();
        assert_eq!(code(scene.judged(2, "pve-1")), "name_taken");
        assert_eq!(code(scene.judged(2, "web-1")), "name_pattern");
        assert_eq!(code(scene.judged(2, "pve-ü")), "bad_name");
        let mut scene = Scene::new();
        scene.terms.expires_ms = WALL_MS - 7_500_000;
        let expired = scene.judged(2, "pve-2").unwrap_err();
        assert_eq!(expired.to_string(), "the Join Information expired 2 h 5 min ago");
        let mut scene = Scene::new();
        scene.terms.datacenter = crate::id::DataCenterId([9; 16]);
        assert_eq!(code(scene.judged(2, "pve-2")), "wrong_datacenter");
        let mut scene = Scene::new();
        scene.admit(3, "pve-3", Some(scene.terms.invite));
        assert_eq!(code(scene.judged(2, "pve-2")), "used_up");
        assert!(scene.judged(3, "pve-3").unwrap().already);
        let mut scene = Scene::new();
        scene.secret = Secret::new([8; 16]);
        assert_eq!(code(scene.judged(2, "pve-2")), "not_proven");
        let scene = Scene::new();
        let late = scene.judged_with(2, "pve-2", |request| request.wall_ms -= 61_000);
        assert_eq!(code(late), "clock_off");
        let old = scene.judged_with(2, "pve-2", |request| request.wire_version = 0);
        assert_eq!(code(old), "version");
        let other_name = scene.judged_with(2, "pve-2", |request| request.name = "pve-7".into());
        assert_eq!(code(other_name), "not_proven");
    }

    /// A member's clock was two hours ahead. It took the joiner's clock for wrong and the string
    /// for expired, and told the joiner so.
    #[test]
    fn a_member_whose_own_clock_is_wrong_blames_neither_the_joiner_nor_the_string() {
        let mut scene = Scene::new();
        scene.terms.expires_ms = WALL_MS - 1;
        let clock_off = Some(ClockOff { estimate: Estimate { ahead_ms: 7_200_000, peers: 2 } });
        for joiners_ms in [WALL_MS, WALL_MS - 7_200_000] {
            let judged = scene.judged_by(2, "pve-2", clock_off, |r| r.wall_ms = joiners_ms);
            let refusal = judged.unwrap_err();
            assert_eq!(refusal.code(), "seed_clock_off");
            assert!(refusal.is_of_this_member() && refusal.may_pass());
            let told = refusal.to_string();
            let says = ["pve-1", "2 h ahead of", "2 other nodes"];
            assert!(says.iter().all(|part| told.contains(part)), "{told}");
        }
    }

    #[test]
    fn what_was_judged_by_a_clock_leaves_the_word_to_other_members_and_outweighs_their_excuses() {
        let clock_off = Refusal::ClockOff { ahead_ms: 90_000, member: "pve-1".into() };
        let expired = Refusal::Expired { ago: "1m".into() };
        assert!(clock_off.is_of_this_member() && expired.is_of_this_member());
        assert!(!Refusal::Revoked.is_of_this_member());
        let weights = [Refusal::Busy(String::new()), clock_off, expired, Refusal::Revoked];
        assert!(weights.iter().map(Refusal::weight).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn the_removed_and_what_the_removed_issued_stay_out() {
        let mut scene = Scene::new();
        scene.admit(2, "pve-2", None);
        let removal =
            |n: u8| (member_path(&key(n).node_id()), Roster::removal(key(1).node_id(), "root", 1));
        let (path, edit) = removal(2);
        scene.write(path, edit);
        assert_eq!(scene.judged(2, "pve-2").unwrap_err().code(), "removed");
        let (path, edit) = removal(1);
        scene.write(path, edit);
        assert_eq!(scene.judged(3, "pve-3").unwrap_err().code(), "issuer");
    }

    /// A node that left signed a new invitation for itself and joined again without the consent of
    /// any member.
    #[test]
    fn of_an_issuer_that_left_only_what_is_on_record_holds() {
        let mut scene = Scene::new();
        let (issuer, terms) = (key(1).node_id(), scene.terms.clone());
        scene.write(member_path(&issuer), Roster::leaving(issuer, "root", 1));
        assert_eq!(scene.judged(1, "pve-1").unwrap_err().code(), "issuer");
        let invitation = Invitation::issue(terms.clone(), &key(1));
        scene.write(invite_path(&terms.invite), Roster::inviting(&invitation));
        assert!(scene.judged(2, "pve-2").is_ok());
        scene.terms.uses = None;
        assert_eq!(scene.judged(2, "pve-2").unwrap_err().code(), "issuer");
    }

    /// Two nodes came in by an invitation for one use. The later one issues an invitation of its
    /// own, and is asked to admit a joiner.
    #[test]
    fn who_came_beyond_the_uses_lets_nobody_in_until_it_is_accepted() {
        let mut scene = Scene::new();
        let (first, beyond) = (key(2).node_id(), key(3).node_id());
        let invitation = Invitation::issue(scene.terms.clone(), &key(1));
        scene.write(invite_path(&scene.terms.invite), Roster::inviting(&invitation));
        let invite = Some(scene.terms.invite);
        scene.admit(2, "pve-2", invite);
        scene.admit(3, "pve-3", invite);
        let used_up = invitation.terms().clone();
        scene.secret = Secret::new([5; 16]);
        let of = |issuer: u8, secret: &Secret| Terms {
            issuer: key(issuer).node_id(),
            issuer_name: format!("pve-{issuer}"),
            invite: secret.key().invite_id(),
            ..used_up.clone()
        };
        let judged_by = |scene: &mut Scene, issuer: u8, judge: NodeId| {
            scene.terms = of(issuer, &scene.secret);
            let judged = scene.judged_of((judge, key(issuer)), 4, "pve-4", None, |_| ());
            judged.map(|_| ()).map_err(|refusal| refusal.code())
        };
        assert_eq!(judged_by(&mut scene, 2, first), Ok(()));
        assert_eq!(judged_by(&mut scene, 3, first), Err("issuer_unaccepted"));
        assert_eq!(judged_by(&mut scene, 2, beyond), Err("seed_unaccepted"));

        let roster = Roster::of(&scene.replica);
        let member = roster.member(&beyond).unwrap();
        let accepting = Roster::accepting(member, first, "root", WALL_MS);
        scene.write(member_path(&beyond), accepting);

        assert_eq!(judged_by(&mut scene, 3, first), Ok(()));
        assert_eq!(judged_by(&mut scene, 2, beyond), Ok(()));
    }

    #[test]
    fn a_revoked_invitation_admits_nobody() {
        let mut scene = Scene::new();
        let (path, issuer) = (invite_path(&scene.terms.invite), scene.terms.issuer);
        let invitation = Invitation::issue(scene.terms.clone(), &key(1));
        scene.write(path.clone(), Roster::inviting(&invitation));
        assert!(scene.judged(2, "pve-2").is_ok());
        scene.write(path, Roster::revoking(issuer, "root", 1));
        assert_eq!(scene.judged(2, "pve-2").unwrap_err().code(), "revoked");
    }

    #[test]
    fn a_pattern_admits_names_whatever_their_case() {
        for (pattern, name) in
            [("pve-*", "pve-7"), ("pve-*", "PVE-7"), ("Web?", "web1"), ("*", "A")]
        {
            assert!(admits_name(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("pve-*", "web1"), ("web?", "web10"), ("web", "web1")] {
            assert!(!admits_name(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_that_differs_from_a_members_in_case_only_is_taken() {
        let scene = Scene::new();
        let refusal = scene.judged(2, "PVE-1").unwrap_err();
        assert_eq!(refusal.code(), "name_taken");
    }

    proptest! {
        #[test]
        fn requests_and_refusals_read_back(name in ".*", wall_ms: u64, bytes: Vec<u8>) {
            let request = JoinRequest {
                terms: bytes.clone(), terms_signature: bytes.clone(), proof: bytes, name: name.clone(),
                addresses: vec!["[::1]:1".parse().unwrap()], version: "1".into(), wire_version: 1, wall_ms,
                replace: wall_ms.is_multiple_of(2),
            };
            let encoded = codec::encode(&request);
            prop_assert_eq!(codec::decode::<JoinRequest>(&encoded, encoded.len()).unwrap(), request);
            let refusal = Refusal::NameTaken { name, holder: "x".into() };
            let encoded = codec::encode(&refusal);
            prop_assert_eq!(codec::decode::<Refusal>(&encoded, encoded.len()).unwrap(), refusal);
        }

        #[test]
        fn arbitrary_requests_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = codec::decode::<JoinRequest>(&bytes, REQUEST_BYTES_MAX);
        }
    }
    #[test]
    fn json_of_a_refusal_keeps_its_cause() {
        let refusal = Refusal::UsedUp { uses: 3 };
        assert_eq!(json!(refusal), json!({"UsedUp": {"uses": 3}}));
    }
}
