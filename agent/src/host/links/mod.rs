//! This node's own links: the addresses at which the others find it.
//!
//! Three sources can name the links, and the first that does so wins: the operator, who sets them
//! while the agent runs (`peerage links set`), which is kept on disk; the configuration; and the
//! host itself, whose addresses are followed as they come and go. A change is told to the others at
//! once, but a host whose addresses change all the time is told of ever more rarely
//! ([`Steadiness`]).

mod guests;
mod interfaces;
mod names;
mod netlink;

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::isolation::Network;
use peerage_proto::links::{Link, Priority, Steadiness, canonical};
use peerage_proto::time::HowLong;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::host::clock::Clock;
use crate::store::{Store, StoreError, Write};

pub use interfaces::{HostAddress, default_route_addresses, host_addresses, host_network};
pub use names::warn_of_names;

use netlink::AddressChanges;

/// The name under which the store keeps the links that were set.
pub const META_LINKS: &str = "links";

/// How long the host's addresses are left alone after the kernel told of a change, since one change
/// often comes with others.
const SETTLE: Duration = Duration::from_millis(200);

/// How often the host's addresses are read when the kernel does not tell of changes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How many may wait for the links to be changed.
const ORDERS_MAX: usize = 8;

/// Looks at this host's network. A simulation says what there is to see.
pub type NetworkLook = fn() -> Network;

/// The source that says where this node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The operator, while the agent ran.
    Set,
    /// This layer of the configuration.
    Configured(String),
    /// The host's interfaces.
    Interfaces,
    /// The address that the agent listens on.
    Listen,
}

/// Where this node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnLinks {
    /// The source of these links.
    pub origin: Origin,
    /// The best first; never empty.
    pub links: Vec<OwnLink>,
    /// The layer of the configuration that says something else, and is overruled.
    pub overruled: Option<String>,
}

/// One of the addresses at which this node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnLink {
    /// Where.
    pub address: Address,
    /// How much it is preferred.
    pub priority: Priority,
    /// What its operator calls it.
    pub name: Option<String>,
    /// The interface that has the address; none behind NAT, and none for a name.
    pub interface: Option<String>,
}

impl OwnLinks {
    /// The addresses, the best first.
    pub fn addresses(&self) -> Vec<Address> {
        self.links.iter().map(|link| link.address.clone()).collect()
    }
}

/// What the configuration says, and what was set before.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The links of the configuration, in order, with their layer.
    pub configured: Option<(Vec<Link>, String)>,
    /// What the store holds under [`META_LINKS`].
    pub kept: Option<Vec<u8>>,
    /// Where the agent listens.
    pub bound: SocketAddr,
}

/// The wishes, read.
#[derive(Debug)]
struct Sources {
    set: Option<Vec<Link>>,
    configured: Option<(Vec<Link>, String)>,
    bound: SocketAddr,
}

impl Sources {
    fn of(wishes: Wishes) -> Self {
        let Wishes { configured, kept, bound } = wishes;
        let set = kept.and_then(|kept| match serde_json::from_slice::<Vec<Link>>(&kept) {
            Ok(links) => Some(links).filter(|links| !links.is_empty()),
            Err(error) => {
                warn!(%error, "the links that were set do not read: `peerage links set` them again");
                None
            }
        });
        if let (Some(_), Some((_, source))) = (&set, &configured) {
            warn!(
                "this node's links are those that were set with `peerage links set`, not those of \
                 {source}; `peerage links auto` goes back to these"
            );
        }
        Self { set, configured, bound: canonical(bound) }
    }

    /// Whether the links follow the host's own addresses.
    fn follow_host(&self) -> bool {
        self.set.is_none() && self.configured.is_none() && self.bound.ip().is_unspecified()
    }

    /// Where this node is reached, on a host that has these addresses now.
    fn resolved(&self, host: &[HostAddress]) -> OwnLinks {
        let port = self.bound.port();
        let interface = |address: &Address| {
            let ip = address.ip()?.ip();
            host.iter().find(|found| found.ip == ip).map(|found| found.interface.clone())
        };
        let link = |(address, priority, name): (Address, Priority, Option<String>)| OwnLink {
            interface: interface(&address),
            address,
            priority,
            name,
        };
        let given = |links: &[Link]| {
            let each =
                links.iter().map(|l| (l.address.with_port(port), l.priority, l.name.clone()));
            // An address without a port gets ours, and may then equal another one, which is
            // dropped.
            let mut links: Vec<OwnLink> = Vec::new();
            for next in each.map(link) {
                if links.iter().all(|earlier| earlier.address != next.address) {
                    links.push(next);
                }
            }
            links
        };
        let overruled = self.configured.as_ref().map(|(_, source)| source.clone());
        match (&self.set, &self.configured) {
            (Some(links), _) => OwnLinks { origin: Origin::Set, links: given(links), overruled },
            (None, Some((links, source))) => {
                let origin = Origin::Configured(source.clone());
                OwnLinks { origin, links: given(links), overruled: None }
            }
            (None, None) if self.bound.ip().is_unspecified() => {
                let ips = host.iter().map(|found| found.ip);
                let mut ips: Vec<_> =
                    ips.filter(|ip| self.bound.is_ipv6() || ip.is_ipv4()).collect();
                if ips.is_empty() {
                    // No other host can find this node, but the agents on this host can.
                    ips.push(Ipv4Addr::LOCALHOST.into());
                }
                let each = ips.into_iter().enumerate();
                let each = each
                    .map(|(i, ip)| (Address::Ip((ip, port).into()), Priority::of_place(i), None));
                let links = each.map(link).collect();
                OwnLinks { origin: Origin::Interfaces, links, overruled: None }
            }
            (None, None) => {
                let links = vec![link((self.bound.into(), Priority::default(), None))];
                OwnLinks { origin: Origin::Listen, links, overruled: None }
            }
        }
    }
}

enum Order {
    /// Sets these links, or with `None` goes back to the configuration or the host.
    Take(Option<Vec<Link>>, oneshot::Sender<Result<(), StoreError>>),
}

/// Why the links were not changed.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The links could not be kept on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
}

/// A handle of the task that owns the links; clones share it.
#[derive(Debug, Clone)]
pub struct LinksHandle {
    orders: mpsc::Sender<Order>,
    own: watch::Receiver<OwnLinks>,
    addresses: watch::Receiver<Vec<Address>>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Take(links, _) = self;
        f.debug_tuple("Take").field(links).finish()
    }
}

impl LinksHandle {
    /// Starts the task. Needs tokio's runtime.
    pub fn spawn(wishes: Wishes, store: Store, clock: Clock) -> Self {
        let sources = Sources::of(wishes);
        let links = sources.resolved(&host_addresses());
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (own, own_seen) = watch::channel(links.clone());
        let (addresses, addresses_seen) = watch::channel(links.addresses());
        let task =
            Task { sources, store, clock, own, addresses, steadiness: Steadiness::default() };
        tokio::spawn(task.run(inbox));
        Self { orders, own: own_seen, addresses: addresses_seen }
    }

    /// Where this node is reached now.
    pub fn own(&self) -> OwnLinks {
        self.own.borrow().clone()
    }

    /// This node's addresses, the best first, to read and to watch.
    pub fn addresses(&self) -> watch::Receiver<Vec<Address>> {
        self.addresses.clone()
    }

    /// Makes these the links, over restarts too; without any, goes back to the configuration or
    /// the host. `links` are checked and in order ([`peerage_proto::links::in_order`]).
    ///
    /// # Errors
    /// [`LinksError`]; the links are what they were.
    pub async fn take(&self, links: Option<Vec<Link>>) -> Result<(), LinksError> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Take(links, answer);
        self.orders.send(order).await.map_err(|_| LinksError::Stopping)?;
        Ok(answered.await.map_err(|_| LinksError::Stopping)??)
    }
}

struct Task {
    sources: Sources,
    store: Store,
    clock: Clock,
    own: watch::Sender<OwnLinks>,
    addresses: watch::Sender<Vec<Address>>,
    steadiness: Steadiness,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut host = HostChanges::Unasked;
        // When the host's addresses are read next; `None` without a reason to read them.
        let mut due: Option<Instant> = None;
        loop {
            let follow = self.sources.follow_host();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Take(links, answer)) => {
                        let _ = answer.send(self.take(links).await);
                        // The host's addresses may have changed while the task did not follow them.
                        due = Some(Instant::now());
                    }
                    None => return,
                },
                () = host.changed(), if follow => due = due.or(Some(Instant::now() + SETTLE)),
                () = until(due), if follow => due = self.look(),
            }
        }
    }

    async fn take(&mut self, links: Option<Vec<Link>>) -> Result<(), StoreError> {
        let write = match &links {
            Some(links) => {
                let value = serde_json::to_vec(links).expect("links are plain text and numbers");
                Write::Meta { name: META_LINKS, value }
            }
            None => Write::MetaDelete { name: META_LINKS },
        };
        self.store.commit(vec![write]).await?;
        self.sources.set = links;
        let links = self.sources.resolved(&host_addresses());
        info!(links = spelt(&links), "this node's links were set");
        self.publish(links);
        Ok(())
    }

    /// Takes over the host's changed addresses, if it is time for it; else returns when it will be.
    fn look(&mut self) -> Option<Instant> {
        let host = host_addresses();
        let links = self.sources.resolved(&host);
        let cut_off = links.links.iter().all(|link| link.address.is_loopback());
        if cut_off || links == *self.own.borrow() {
            // A host without any address can tell nobody, and may come back as it was.
            return None;
        }
        let now = self.clock.now().mono;
        let wait = self.steadiness.wait(now);
        if !wait.is_zero() {
            return Some(Instant::now() + wait);
        }
        self.steadiness.told(now);
        info!(links = spelt(&links), "this host's addresses changed");
        self.publish(links);
        None
    }

    fn publish(&self, links: OwnLinks) {
        let addresses = links.addresses();
        self.own.send_replace(links);
        self.addresses.send_if_modified(|told| {
            let news = *told != addresses;
            *told = addresses;
            news
        });
    }
}

fn spelt(links: &OwnLinks) -> String {
    links.addresses().iter().map(Address::to_string).collect::<Vec<_>>().join(" ")
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// The news of changed addresses: from the kernel, or by the clock where the kernel does not tell.
enum HostChanges {
    /// The task has not followed the host's addresses yet.
    Unasked,
    Told(AddressChanges),
    Untold,
}

impl HostChanges {
    fn listen() -> Self {
        AddressChanges::listen().map_or_else(Self::untold, Self::Told)
    }

    fn untold(error: io::Error) -> Self {
        let every = HowLong(LOOK_EVERY);
        warn!(%error, "the kernel does not tell of changed addresses: they are read every {every}");
        Self::Untold
    }

    async fn changed(&mut self) {
        if let Self::Unasked = self {
            *self = Self::listen();
        }
        if let Self::Told(changes) = self {
            match changes.changed().await {
                Ok(()) => return,
                Err(error) => *self = Self::untold(error),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(configured: &[&str], set: &[&str], bound: &str) -> Sources {
        let links = |texts: &[&str]| {
            let link = |text: &&str| Link {
                address: text.parse().unwrap(),
                priority: Priority::default(),
                name: None,
            };
            (!texts.is_empty()).then(|| texts.iter().map(link).collect::<Vec<_>>())
        };
        Sources {
            set: links(set),
            configured: links(configured).map(|links| (links, "a file".into())),
            bound: canonical(bound.parse().unwrap()),
        }
    }

    fn resolved(sources: &Sources) -> (Origin, Vec<String>) {
        let links = sources.resolved(&[]);
        (links.origin.clone(), links.addresses().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_was_set_goes_before_the_configuration_and_that_before_the_socket() {
        let both = sources(&["192.0.2.1"], &["192.0.2.2", "[2001:db8::2]:7"], "127.0.0.1:5000");
        let set = vec!["192.0.2.2:5000".to_owned(), "[2001:db8::2]:7".to_owned()];
        assert_eq!(resolved(&both), (Origin::Set, set));
        assert_eq!(both.resolved(&[]).overruled.as_deref(), Some("a file"));
        let configured = sources(&["192.0.2.1"], &[], "0.0.0.0:5000");
        let from_file = Origin::Configured("a file".into());
        assert_eq!(resolved(&configured), (from_file, vec!["192.0.2.1:5000".to_owned()]));
        assert!(!configured.follow_host());
        let bound = sources(&[], &[], "127.0.0.1:5000");
        assert_eq!(resolved(&bound), (Origin::Listen, vec!["127.0.0.1:5000".to_owned()]));
    }

    #[test]
    fn a_socket_on_all_addresses_is_reached_at_those_of_the_host() {
        for (bound, v6) in [("0.0.0.0:5000", false), ("[::]:5000", true)] {
            let sources = sources(&[], &[], bound);
            assert!(sources.follow_host());
            let addresses = sources.resolved(&host_addresses()).addresses();
            assert!(!addresses.is_empty());
            assert!(
                addresses
                    .iter()
                    .all(|a| { a.ip().is_some_and(|ip| v6 || ip.is_ipv4()) && a.port() == 5000 })
            );
        }
        let alone = resolved(&sources(&[], &[], "[::]:5000")).1;
        assert_eq!(alone, ["127.0.0.1:5000"], "a host without a network");
    }

    #[test]
    fn a_socket_on_ipv4_in_ipv6_clothes_is_told_of_as_ipv4() {
        let bound = sources(&[], &[], "[::ffff:127.0.0.1]:5000");
        assert_eq!(resolved(&bound).1, ["127.0.0.1:5000"]);
    }

    #[test]
    fn one_place_written_in_two_ways_is_one_link() {
        let twice = sources(&["192.0.2.1:5000", "192.0.2.1", "192.0.2.1:6"], &[], "0.0.0.0:5000");
        assert_eq!(resolved(&twice).1, ["192.0.2.1:5000", "192.0.2.1:6"]);
    }

    #[test]
    fn what_was_set_and_does_not_read_counts_as_not_set() {
        let kept = Some(br#"[{"address":"fe80::1"}]"#.to_vec());
        let bound = "127.0.0.1:5000".parse().unwrap();
        let sources = Sources::of(Wishes { configured: None, kept, bound });
        assert_eq!(resolved(&sources).0, Origin::Listen);
    }
}
