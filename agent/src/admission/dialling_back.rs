//! Whether a joiner can be reached, and where: it is dialled at the addresses that it told, and at the
//! one from which its packets came.
//!
//! A host behind NAT may not know at which address others find it. The member that it asks sees one
//! such address. If the joiner answers there, too, the address goes into its record beside those
//! that it told.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::links::{NAMES_MAX, canonical, leads_to_a_host};
use peerage_proto::roster::{ADDRESSES_MAX, SEEN_MAX};
use peerage_proto::time::HowLong;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::mesh::too_narrow;
use crate::resolver::Resolver;

/// How long a dial-back to all of the joiner's addresses may take, once its names are looked up.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long this node still waits for an answer from where the joiner was seen, once the joiner has
/// answered somewhere.
const SEEN_WITHIN: Duration = Duration::from_millis(500);

/// An address that is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Candidate {
    /// An address that the joiner told.
    Told,
    /// An address at which the joiner was seen.
    Seen(SocketAddr),
}

/// Why a joiner was not reached at the addresses that it told.
#[derive(Debug, Default)]
struct Causes {
    /// The causes for names that lead nowhere from here.
    unresolved: Vec<String>,
    /// The last cause for an address.
    silent: Option<String>,
}

/// Dials a joiner back at the addresses that it told, and at those from which its packets came.
/// Returns once it has answered somewhere, with the addresses beside the told ones at which it
/// answered.
///
/// # Errors
/// Why the joiner was reached nowhere.
pub(super) async fn reach<F>(
    told: &[Address],
    remote: SocketAddr,
    names: &Resolver,
    dial: impl Fn(SocketAddr) -> F + Clone + Send + Sync + 'static,
) -> Result<Vec<SocketAddr>, String>
where
    F: Future<Output = Result<(), String>> + Send,
{
    let sources = sources(told, remote);
    let mut dialling = JoinSet::new();
    let mut names_left = NAMES_MAX;
    for address in told.iter().take(ADDRESSES_MAX).cloned() {
        let may_resolve = address.name().is_none() || names_left > 0;
        names_left -= usize::from(address.name().is_some() && may_resolve);
        if may_resolve {
            let (names, dial) = (names.clone(), dial.clone());
            dialling.spawn(async move { (Candidate::Told, dial_told(address, names, dial).await) });
        }
    }
    for source in sources.iter().copied() {
        let dial = dial.clone();
        dialling.spawn(async move {
            let dialled = in_time(source, &dial).await;
            (Candidate::Seen(source), dialled.map_err(Failure::Silent))
        });
    }
    let (mut is_reached, mut seen, mut open) = (false, Vec::new(), sources.len());
    let mut causes = Causes::default();
    let mut until = None;
    while !(is_reached && open == 0) {
        let next = match until {
            Some(until) => timeout_at(until, dialling.join_next()).await.unwrap_or(None),
            None => dialling.join_next().await,
        };
        let Some(Ok((candidate, outcome))) = next else { break };
        open -= usize::from(candidate != Candidate::Told);
        match (candidate, outcome) {
            (Candidate::Told, Ok(())) => is_reached = true,
            (Candidate::Seen(source), Ok(())) => {
                is_reached = true;
                seen.push(source);
            }
            (Candidate::Told, Err(Failure::Silent(cause))) => causes.silent = Some(cause),
            (Candidate::Told, Err(Failure::Unresolved(cause))) => causes.unresolved.push(cause),
            (Candidate::Seen(_), Err(_)) => {}
        }
        if is_reached && until.is_none() {
            until = Some(Instant::now() + SEEN_WITHIN);
        }
    }
    if !is_reached {
        return Err(in_words(causes, &sources));
    }
    // An address to which one of its names leads is left out: in the record it would outlive the
    // name.
    let led = names.known(told);
    seen.retain(|source| !led.iter().any(|at| canonical(*at) == *source));
    Ok(seen)
}

/// Why the joiner was not reached at an address that it told.
enum Failure {
    Silent(String),
    Unresolved(String),
}

async fn dial_told<F>(
    address: Address,
    names: Resolver,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), String>> + Send,
{
    let led = match &address {
        Address::Ip(address) => vec![*address],
        Address::Name { host, port } => {
            let found = names.resolve(host).await;
            let found = found.map_err(|error| Failure::Unresolved(error.to_string()))?;
            found.into_iter().map(|ip| (ip, *port).into()).collect()
        }
    };
    let dial = |at| {
        let dialled = in_time(at, &dial);
        async move { (at, dialled.await) }
    };
    let mut dialling: futures_util::stream::FuturesUnordered<_> =
        led.into_iter().map(dial).collect();
    let mut silent = String::new();
    while let Some((at, outcome)) = futures_util::StreamExt::next(&mut dialling).await {
        silent = match (outcome, address.name()) {
            (Ok(()), _) => return Ok(()),
            (Err(cause), None) => cause,
            (Err(cause), Some(name)) => format!("{name} leads there to {}: {cause}", at.ip()),
        };
    }
    Err(Failure::Silent(silent))
}

async fn in_time<F>(at: SocketAddr, dial: &impl Fn(SocketAddr) -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + Send,
{
    let silent = || format!("no answer within {}", HowLong(DIAL_BACK_TIMEOUT));
    let dialled = timeout(DIAL_BACK_TIMEOUT, dial(at)).await;
    dialled.unwrap_or_else(|_| Err(too_narrow(at).unwrap_or_else(silent)))
}

/// The addresses at which a joiner may be found beside those that it told: `remote`, from which its
/// packets came, and the same host with the port that the joiner told, which a router may pass on.
/// None if `remote` means another host to other nodes.
fn sources(told: &[Address], remote: SocketAddr) -> Vec<SocketAddr> {
    let remote = canonical(remote);
    if !leads_to_a_host(remote.ip()) || remote.ip().is_loopback() {
        return Vec::new();
    }
    let is_told =
        |at: &SocketAddr| told.iter().filter_map(Address::ip).any(|told| canonical(told) == *at);
    let mut sources = vec![remote];
    let at_told_port = told.first().map(|first| SocketAddr::from((remote.ip(), first.port())));
    sources.extend(at_told_port.filter(|at| *at != remote && at.port() != 0));
    sources.retain(|at| !is_told(at));
    sources.truncate(SEEN_MAX);
    sources
}

fn in_words(causes: Causes, sources: &[SocketAddr]) -> String {
    let Causes { unresolved, silent } = causes;
    let mut causes: Vec<String> = silent.into_iter().chain(unresolved).collect();
    if causes.is_empty() {
        causes.push("it gave no address".to_owned());
    }
    if let Some(source) = sources.first() {
        causes.push(format!("nor does it answer where its packets come from, at {source}"));
    }
    causes.join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::resolver::tests::Zone;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn told(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What [`reach`] returns for a joiner that answers at these addresses, each after so many
    /// milliseconds, and which addresses were tried.
    async fn reached(
        told: &[Address],
        remote: &str,
        zone: &Zone,
        answers: &[(&str, u64)],
    ) -> (Result<Vec<SocketAddr>, String>, BTreeSet<SocketAddr>) {
        let tried = Arc::new(Mutex::new(BTreeSet::new()));
        let answers: Vec<(SocketAddr, u64)> = answers.iter().map(|(a, ms)| (at(a), *ms)).collect();
        let seen = tried.clone();
        let dial = move |to: SocketAddr| {
            seen.lock().unwrap().insert(to);
            let answer = answers.iter().find(|(at, _)| *at == to).map(|(_, ms)| *ms);
            async move {
                match answer {
                    Some(ms) => {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                        Ok(())
                    }
                    None => Err(format!("{to} is silent")),
                }
            }
        };
        let reached = reach(told, at(remote), &zone.resolver(), dial).await;
        let tried = tried.lock().unwrap().clone();
        (reached, tried)
    }

    const TOLD: &str = "10.0.0.5:4747";
    const SOURCE: &str = "203.0.113.9:31000";

    #[tokio::test(start_paused = true)]
    async fn a_joiner_is_found_where_its_packets_come_from() {
        let zone = Zone::default();
        let (found, tried) = reached(&told(&[TOLD]), SOURCE, &zone, &[(SOURCE, 50)]).await;
        assert_eq!(found, Ok(vec![at(SOURCE)]));
        let all = [TOLD, SOURCE, "203.0.113.9:4747"].map(at);
        assert_eq!(tried, all.into());
        // The joiner may also answer at the port that it told, which a router may pass on.
        let forwarded = "203.0.113.9:4747";
        let (found, _) = reached(&told(&[TOLD]), SOURCE, &zone, &[(forwarded, 50)]).await;
        assert_eq!(found, Ok(vec![at(forwarded)]));
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_joiner_is_seen_is_kept_beside_what_it_told_if_it_answers_soon() {
        let zone = Zone::default();
        for (after_ms, kept) in [(400, vec![at(SOURCE)]), (900, vec![])] {
            let answers = [(TOLD, 10), (SOURCE, after_ms)];
            let before = Instant::now();
            let (found, _) = reached(&told(&[TOLD]), SOURCE, &zone, &answers).await;
            assert_eq!(found, Ok(kept), "{after_ms}");
            assert!(before.elapsed() <= Duration::from_millis(510));
        }
        // An address that the joiner told is not kept a second time, and then nobody waits.
        let before = Instant::now();
        let (found, tried) = reached(&told(&[TOLD]), TOLD, &zone, &[(TOLD, 10)]).await;
        assert_eq!((found, tried), (Ok(vec![]), [at(TOLD)].into()));
        assert_eq!(before.elapsed(), Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_joiner_is_dialled_where_its_name_leads() {
        let zone = Zone::default();
        zone.set("pve-9.lan", &["10.0.0.8", "10.0.0.9"]);
        let named = told(&["pve-9.lan:4747"]);
        let (found, _) = reached(&named, "10.0.0.9:4747", &zone, &[("10.0.0.9:4747", 10)]).await;
        assert_eq!(found, Ok(vec![]), "its name leads to where it was seen");
        zone.set("pve-8.lan", &["10.0.0.8"]);
        let named = told(&["pve-8.lan:4747"]);
        let (found, _) = reached(&named, "127.0.0.1:4747", &zone, &[]).await;
        assert_eq!(
            found.unwrap_err(),
            "pve-8.lan leads there to 10.0.0.8: 10.0.0.8:4747 is silent"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_wrong_with_each_address_and_name_is_told() {
        let named = told(&[TOLD, "pve-9.lan:4747"]);
        let (found, _) = reached(&named, SOURCE, &Zone::default(), &[]).await;
        assert_eq!(
            found.unwrap_err(),
            "10.0.0.5:4747 is silent; pve-9.lan does not resolve: Name or service not known; nor \
             does it answer where its packets come from, at 203.0.113.9:31000"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_names_are_looked_up_and_no_more() {
        let (zone, names) = (Zone::default(), (1..=16).map(|n| format!("host-{n}.lan:4747")));
        let names: Vec<Address> = names.map(|name| name.parse().unwrap()).collect();
        let (found, _) = reached(&names, "127.0.0.1:4747", &zone, &[]).await;
        assert!(found.is_err());
        assert_eq!(zone.asked(), NAMES_MAX);
    }

    #[test]
    fn what_means_another_host_to_others_is_no_candidate() {
        let told = told(&[TOLD]);
        for remote in
            ["127.0.0.1:4747", "[::1]:4747", "[fe80::1]:4747", "240.0.0.7:1", "169.254.0.1:7"]
        {
            assert_eq!(sources(&told, at(remote)), [], "{remote}");
        }
        assert_eq!(sources(&told, at("[::ffff:10.0.0.5]:4747")), []);
        assert_eq!(sources(&told, at("[::ffff:10.0.0.5]:9")), [at("10.0.0.5:9")]);
    }
}
