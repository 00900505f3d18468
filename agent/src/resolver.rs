//! Looks up the names among the addresses of nodes.
//!
//! Names are looked up when they are used, by the host's own resolver, which knows `/etc/hosts` and
//! DNS. An answer is used for [`FRESH_FOR`], and longer where nothing newer is known: an old answer
//! is used at once while a newer one is fetched, so a name server that is out of reach makes no
//! known node unreachable. A caller waits at most [`WAIT_MAX`], and a caller that cannot wait uses
//! what is known.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_proto::address::{Address, HostName};
use peerage_proto::links::{NAMES_MAX, leads_to_a_host};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

/// How long an answer is used before it is fetched anew.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// How long after a failed lookup the next may begin.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// How long after a lookup the next may begin, if nobody was reached at its answer.
const DOUBTED_FOR: Duration = Duration::from_secs(2);

/// How long the user of a name waits where no answer is known.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// How many addresses of one name are used.
const ANSWERS_MAX: usize = 4;

/// How many names are kept. Where there are more, the name that was not used for longest is
/// forgotten.
const KEPT_MAX: usize = 1024;

/// How many lookups are under way at once; each holds a thread until the host's resolver answers.
const LOOKUPS_MAX: usize = 4;

/// What a lookup finds.
pub type Found = io::Result<Vec<IpAddr>>;

/// A lookup under way.
pub type Looking = Pin<Box<dyn Future<Output = Found> + Send>>;

/// A function that looks up a name: the host's resolver, or that of a simulation.
pub type Lookup = dyn Fn(&HostName) -> Looking + Send + Sync;

/// Why a name leads nowhere here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} does not resolve: {cause}")]
pub struct Unresolved {
    /// The name.
    pub name: HostName,
    /// What the resolver says.
    pub cause: Arc<str>,
}

/// Where names lead; clones share what is known.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Box<Lookup>,
    names: Mutex<BTreeMap<HostName, Entry>>,
    turns: Arc<Semaphore>,
}

/// What is known of a name.
#[derive(Debug)]
struct Entry {
    /// The last answer, at most [`ANSWERS_MAX`]; empty where there was none yet.
    answer: Vec<IpAddr>,
    /// Why the last lookup failed, where it did.
    failure: Option<Arc<str>>,
    /// When the last lookup ended.
    asked: Option<Instant>,
    /// When the name was last used.
    used: Instant,
    /// Closes when the lookup under way ends; none where none is under way.
    under_way: Option<watch::Receiver<()>>,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self { answer: Vec::new(), failure: None, asked: None, used: now, under_way: None }
    }

    /// Whether the next lookup may begin. A good answer holds for `good_for`.
    fn is_due(&self, good_for: Duration, now: Instant) -> bool {
        let holds = if self.failure.is_some() { FAILED_FOR } else { good_for };
        self.under_way.is_none() && self.asked.is_none_or(|asked| now >= asked + holds)
    }

    /// Takes in what a lookup found. Addresses that were known before keep their order: servers
    /// rotate their answers, and a path that works must not look worse for that.
    fn take(&mut self, found: Found) {
        let failure = match found {
            Ok(ips) => {
                let ips: Vec<IpAddr> = ips.into_iter().map(|ip| ip.to_canonical()).collect();
                let usable = |ip: &&IpAddr| leads_to_a_host(**ip);
                let mut answer = Vec::new();
                let known = self.answer.iter().filter(|ip| ips.contains(ip));
                for ip in known.chain(ips.iter().filter(usable)) {
                    if answer.len() < ANSWERS_MAX && !answer.contains(ip) {
                        answer.push(*ip);
                    }
                }
                match (answer.is_empty(), ips.first()) {
                    (false, _) => {
                        self.answer = answer;
                        None
                    }
                    (true, Some(ip)) => Some(format!("{ip} is no address of a host")),
                    (true, None) => Some("it has no address".to_owned()),
                }
            }
            Err(error) => Some(cause(&error)),
        };
        self.failure = failure.map(Arc::from);
    }
}

/// What the resolver says, without the words that the standard library puts before it.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

impl Resolver {
    /// The host's resolver.
    pub fn system() -> Self {
        Self::of(|name| {
            let name = name.as_str().to_owned();
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        })
    }

    /// A resolver for which no name leads anywhere.
    pub fn none() -> Self {
        Self::of(|_| {
            let error = io::Error::new(io::ErrorKind::NotFound, "no names are known here");
            Box::pin(std::future::ready(Err(error)))
        })
    }

    /// A resolver that looks names up by this function.
    pub fn of(lookup: impl Fn(&HostName) -> Looking + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            lookup: Box::new(lookup),
            names: Mutex::default(),
            turns: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }))
    }

    /// Where a name leads: what is known at once, else what is found within [`WAIT_MAX`]. Needs
    /// tokio's runtime.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub async fn resolve(&self, name: &HostName) -> Result<Vec<IpAddr>, Unresolved> {
        let (answer, under_way) = self.look(name, FRESH_FOR);
        if !answer.is_empty() {
            return Ok(answer);
        }
        if let Some(mut under_way) = under_way {
            // An error means that the lookup is over, as a change would.
            let _ = timeout(WAIT_MAX, under_way.changed()).await;
        }
        let names = self.names();
        let unresolved = |cause| Unresolved { name: name.clone(), cause };
        match names.get(name) {
            Some(entry) if !entry.answer.is_empty() => Ok(entry.answer.clone()),
            Some(Entry { failure: Some(failure), under_way: None, .. }) => {
                Err(unresolved(failure.clone()))
            }
            _ => Err(unresolved(format!("no answer within {}s", WAIT_MAX.as_secs()).into())),
        }
    }

    /// The IP addresses for which these addresses stand, as far as they are known now, in their
    /// order; at most [`NAMES_MAX`] names count. Names that are not known, or whose answer is old,
    /// are looked up meanwhile. Needs tokio's runtime where there are names.
    pub fn known(&self, addresses: &[Address]) -> Vec<SocketAddr> {
        let mut known = Vec::with_capacity(addresses.len());
        let mut names = 0;
        for address in addresses {
            match address {
                Address::Ip(address) => known.push(*address),
                Address::Name { host, port } => {
                    names += 1;
                    if names <= NAMES_MAX {
                        let answer = self.look(host, FRESH_FOR).0.into_iter();
                        known.extend(answer.map(|ip| SocketAddr::from((ip, *port))));
                    }
                }
            }
        }
        known
    }

    /// To be called where nobody was reached at the addresses of a name: it may lead elsewhere by
    /// now, and is looked up anew.
    pub fn doubt(&self, name: &HostName) {
        self.look(name, DOUBTED_FOR);
    }

    /// The known answer, and the lookup that is under way. A lookup begins here where it is due.
    fn look(
        &self,
        name: &HostName,
        good_for: Duration,
    ) -> (Vec<IpAddr>, Option<watch::Receiver<()>>) {
        let now = Instant::now();
        let mut names = self.names();
        if !names.contains_key(name) && names.len() >= KEPT_MAX {
            // A task waits for each name that is being looked up, so those names stay and are
            // counted.
            let idle = names.iter().filter(|(_, entry)| entry.under_way.is_none());
            let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return (Vec::new(), None) };
            names.remove(&oldest);
        }
        let entry = names.entry(name.clone()).or_insert_with(|| Entry::new(now));
        entry.used = now;
        if entry.is_due(good_for, now) {
            let (under_way, ends) = watch::channel(());
            entry.under_way = Some(ends);
            tokio::spawn(self.clone().fetch(name.clone(), under_way));
        }
        (entry.answer.clone(), entry.under_way.clone())
    }

    async fn fetch(self, name: HostName, _under_way: watch::Sender<()>) {
        let turn = self.0.turns.clone().acquire_owned().await;
        let found = (self.0.lookup)(&name).await;
        drop(turn);
        let mut names = self.names();
        let Some(entry) = names.get_mut(&name) else { return };
        let before = (entry.answer.clone(), entry.failure.clone());
        entry.take(found);
        entry.asked = Some(Instant::now());
        entry.under_way = None;
        match &entry.failure {
            Some(cause) if before.1.as_ref() != Some(cause) => {
                tracing::debug!(%name, %cause, "a name does not resolve");
            }
            None if before.0 != entry.answer => {
                tracing::debug!(%name, leads_to = ?entry.answer, "a name was looked up");
            }
            _ => {}
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<HostName, Entry>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A host's resolver, in memory.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Zone {
        hosts: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
        /// How long each lookup takes.
        takes: Arc<Mutex<Duration>>,
        asked: Arc<AtomicUsize>,
    }

    impl Zone {
        pub(crate) fn set(&self, name: &str, ips: &[&str]) {
            let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            self.hosts.lock().unwrap().insert(name.to_owned(), ips);
        }

        pub(crate) fn forget(&self, name: &str) {
            self.hosts.lock().unwrap().remove(name);
        }

        pub(crate) fn take(&self, takes: Duration) {
            *self.takes.lock().unwrap() = takes;
        }

        pub(crate) fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }

        pub(crate) fn resolver(&self) -> Resolver {
            let zone = self.clone();
            Resolver::of(move |name| {
                let (zone, name) = (zone.clone(), name.as_str().to_owned());
                Box::pin(async move {
                    zone.asked.fetch_add(1, Ordering::Relaxed);
                    let takes = *zone.takes.lock().unwrap();
                    if !takes.is_zero() {
                        tokio::time::sleep(takes).await;
                    }
                    let found = zone.hosts.lock().unwrap().get(&name).cloned();
                    found.ok_or_else(|| io::Error::other("Name or service not known"))
                })
            })
        }
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_used_while_it_is_fresh_and_an_old_one_until_there_is_another() {
        let zone = Zone::default();
        zone.set("pve-1.lan", &["192.0.2.1"]);
        let (resolver, host) = (zone.resolver(), name("pve-1.lan"));
        assert_eq!(resolver.resolve(&host).await, Ok(ips(&["192.0.2.1"])));
        zone.set("pve-1.lan", &["192.0.2.2"]);
        zone.take(Duration::from_secs(20));
        assert_eq!(resolver.resolve(&host).await, Ok(ips(&["192.0.2.1"])));
        assert_eq!(zone.asked(), 1);

        tokio::time::sleep(FRESH_FOR).await;

        let before = Instant::now();
        assert_eq!(resolver.resolve(&host).await, Ok(ips(&["192.0.2.1"])));
        assert_eq!(before.elapsed(), Duration::ZERO, "the old answer is used at once");
        tokio::time::sleep(Duration::from_secs(21)).await;
        assert_eq!(resolver.resolve(&host).await, Ok(ips(&["192.0.2.2"])));
        assert_eq!(zone.asked(), 2);
        // The new answer stays while no name server answers any more.
        zone.forget("pve-1.lan");
        for _ in 0..10 {
            tokio::time::sleep(FRESH_FOR).await;
            assert_eq!(resolver.resolve(&host).await, Ok(ips(&["192.0.2.2"])));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_a_name_and_the_cause_is_told() {
        let zone = Zone::default();
        let (resolver, host) = (zone.resolver(), name("nowhere.lan"));
        let error = resolver.resolve(&host).await.unwrap_err();
        assert_eq!(error.to_string(), "nowhere.lan does not resolve: Name or service not known");
        // The name is not looked up again at once, but after a while.
        assert!(resolver.resolve(&host).await.is_err());
        assert_eq!(zone.asked(), 1);
        tokio::time::sleep(FAILED_FOR).await;
        zone.take(Duration::from_secs(60));
        let before = Instant::now();
        let error = resolver.resolve(&host).await.unwrap_err();
        assert_eq!(before.elapsed(), WAIT_MAX);
        assert!(error.to_string().ends_with("no answer within 2s"), "{error}");
        assert_eq!(zone.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_leads_to_no_host_is_left_out_and_few_addresses_are_used() {
        let zone = Zone::default();
        let resolver = zone.resolver();
        let mut all = vec!["0.0.0.0", "224.0.0.1", "240.0.0.1", "169.254.1.1", "fe80::1"];
        zone.set("odd.lan", &all);
        let error = resolver.resolve(&name("odd.lan")).await.unwrap_err();
        assert!(error.to_string().ends_with("0.0.0.0 is no address of a host"), "{error}");
        let usable = ["2001:db8::1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"];
        all.extend(usable);
        all.push("192.0.2.4");
        zone.set("many.lan", &all);
        let used = ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(resolver.resolve(&name("many.lan")).await, Ok(used.clone()));
        // The server rotates its answer, and the order of the known addresses stays.
        zone.set("many.lan", &["192.0.2.4", "192.0.2.3", "192.0.2.2", "192.0.2.1", "2001:db8::1"]);
        resolver.doubt(&name("many.lan"));
        tokio::time::sleep(DOUBTED_FOR).await;
        resolver.doubt(&name("many.lan"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(zone.asked(), 3);
        assert_eq!(resolver.resolve(&name("many.lan")).await, Ok(used));
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_uses_what_is_known_of_a_few_names() {
        let zone = Zone::default();
        for n in 1..=5 {
            zone.set(&format!("pve-{n}.lan"), &[&format!("192.0.2.{n}")]);
        }
        let resolver = zone.resolver();
        let mut addresses: Vec<Address> =
            (1..=5).map(|n| format!("pve-{n}.lan:{n}").parse().unwrap()).collect();
        addresses.insert(1, "198.51.100.1:9".parse().unwrap());
        assert_eq!(resolver.known(&addresses), ["198.51.100.1:9".parse().unwrap()]);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let known: Vec<String> =
            resolver.known(&addresses).iter().map(ToString::to_string).collect();
        let all = ["192.0.2.1:1", "198.51.100.1:9", "192.0.2.2:2", "192.0.2.3:3", "192.0.2.4:4"];
        assert_eq!(known, all);
        assert_eq!(zone.asked(), NAMES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn few_lookups_run_at_once_and_few_names_are_kept() {
        let zone = Zone::default();
        zone.take(Duration::from_secs(600));
        let resolver = zone.resolver();
        for n in 0..KEPT_MAX + 10 {
            resolver.doubt(&name(&format!("host-{n}")));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(zone.asked(), LOOKUPS_MAX);
        assert_eq!(resolver.names().len(), KEPT_MAX);
        assert!(!resolver.names().contains_key(&name(&format!("host-{KEPT_MAX}"))));
    }
}
